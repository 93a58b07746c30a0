"""Params: slots, types, bounds and options against the inputs that they feed."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from generator.check import Checked
from generator.check.bounds import MAX_SEED
from generator.check.values import misfit
from generator.diagnostics import Severity
from generator.slots import Slot, Template, has_slot, parse
from generator.spec import Param
from templates.params import Bounds

from .conftest import ROOT, CheckProject, MakeProject, load_and_check
from .test_load import Place, loaded, marked

# What each class needs to be valid; a test gives the values that matter to it.
CLASSES: dict[str, dict[str, str]] = {
    "EmptyImage": {"width": "64", "height": "64", "batch_size": "1", "color": "0"},
    "EmptyLatentImage": {"width": "64", "height": "64", "batch_size": "1"},
    "LoadImage": {"image": "x.png"},
    "LoadVideo": {"file": "x.mp4"},
    "LoadAudio": {"audio": "x.mp3"},
    "ControlNetLoader": {"control_net_name": "x.safetensors"},
    "LoraLoaderModelOnly": {
        "model": "[UNET, 0]",
        "lora_name": "x.safetensors",
        "strength_model": "1.0",
    },
    "PrimitiveInt": {"value": "1"},
    "PrimitiveFloat": {"value": "1.0"},
    "PrimitiveBoolean": {"value": "true"},
    "PrimitiveString": {"value": "x"},
    "ImageScaleBy": {"image": "[IMAGE, 0]", "upscale_method": "area", "scale_by": "1.0"},
    "ImageScale": {
        "image": "[IMAGE, 0]",
        "upscale_method": "area",
        "width": "64",
        "height": "64",
        "crop": "disabled",
    },
    "LatentUpscale": {
        "samples": "[LATENT, 0]",
        "upscale_method": "area",
        "width": "64",
        "height": "64",
        "crop": "disabled",
    },
    "ImageFromBatch": {"image": "[IMAGE, 0]", "batch_index": "0", "length": "1"},
    "CreateVideo": {"images": "[IMAGE, 0]", "fps": "16.0"},
    "Power Lora Loader (rgthree)": {"model": "[UNET, 0]"},
}
SOURCES = {
    "UNET": "{class_type: UNETLoader, inputs: {unet_name: u.safetensors, weight_dtype: default}}",
    "IMAGE": ("{class_type: EmptyImage, inputs: {width: 64, height: 64, batch_size: 1, color: 0}}"),
    "LATENT": "{class_type: EmptyLatentImage, inputs: {width: 64, height: 64, batch_size: 1}}",
}
MODELS = """\
models:
  u: {source: {volume: v}, folder: diffusion_models, filename: u.safetensors}
packs:
  rgthree-comfy:
    git: https://github.com/rgthree/rgthree-comfy
    commit: 42e73c3c48e8268129a6a1ea6d9766913bfc5435
"""
MODELS_UNUSED = frozenset(("unused-model", "unused-pack", "unknown-volume", "undeclared-model"))

Use = tuple[str, dict[str, str]]


def use(class_type: str, **inputs: str) -> Use:
    return class_type, inputs


def workflow(params: str, *uses: Use, rest: str = "") -> str:
    """Return a workflow in which each node feeds a preview, so that all of them run.

    `params` is a mapping in flow style, without its braces.
    """
    text = f"params: {{{params}}}\n{rest}graph:\n"
    for number, (class_type, inputs) in enumerate(uses, start=1):
        text += f"  {number}:\n    class_type: {class_type}\n    inputs:\n"
        for name, value in {**CLASSES[class_type], **inputs}.items():
            text += f"      {name}: {value}\n"
        text += f"  {number}p: {{class_type: PreviewAny, inputs: {{source: [{number}, 0]}}}}\n"
    needed = [name for name in SOURCES if f"[{name}, 0]" in text]
    return text + "".join(f"  {name}: {SOURCES[name]}\n" for name in needed)


def check_one(
    make_project: MakeProject, check_project: CheckProject, text: str
) -> tuple[dict[str, Param], list[Place]]:
    """Return the params of a workflow as the checks leave them, and where its faults are."""
    checked, faults = check_project(make_project({"a": text}, models=MODELS))
    assert checked is not None
    found = [d for d in faults if d.file == "workflows/a.yaml"]
    assert {d.code for d in faults if d not in found} <= MODELS_UNUSED
    params = checked.workflows[0].workflow.params if checked.workflows else {}
    return params, [(d.line, d.column, d.code) for d in found]


SLOTS: dict[str, str | Template | None] = {
    "": "",
    "text": "text",
    "$5 {a} $ {": "$5 {a} $ {",
    "${a}": Template((Slot(("a",)),)),
    "${a_1}": Template((Slot(("a_1",)),)),
    "${a|b}": Template((Slot(("a", "b")),)),
    "${a|b|c}": Template((Slot(("a", "b", "c")),)),
    "x${a}": Template(("x", Slot(("a",)))),
    "${a}${b}": Template((Slot(("a",)), Slot(("b",)))),
    "x ${a}, ${b}\n": Template(("x ", Slot(("a",)), ", ", Slot(("b",)), "\n")),
    "$${a}": "${a}",
    "$${": "${",
    "$$${a}": "$${a}",
    "$${a} ${b} $${": Template(("${a} ", Slot(("b",)), " ${")),
    "${a}}": Template((Slot(("a",)), "}")),
    "{${a}}": Template(("{", Slot(("a",)), "}")),
    "${": None,
    "${}": None,
    "${a": None,
    "${ a }": None,
    "${A}": None,
    "${1a}": None,
    "${_a}": None,
    "${a-b}": None,
    "${a.b}": None,
    "${a|}": None,
    "${|a}": None,
    "${a||b}": None,
    "${a | b}": None,
    "${é}": None,
    "${a\n}": None,
    "${a{b}}": None,
    "${a} ${": None,
    "${${a}}": None,
}


@pytest.mark.parametrize(("text", "parsed"), SLOTS.items(), ids=[repr(text) for text in SLOTS])
def test_slots(text: str, parsed: str | Template | None) -> None:
    assert has_slot(text) == ("${" in text)
    if parsed is None:
        with pytest.raises(ValueError, match=r"is no slot$"):
            parse(text)
    else:
        assert parse(text) == parsed


def test_a_slot_that_is_the_whole_value() -> None:
    whole, inside = parse("${a|b}"), parse("${a} ")
    assert isinstance(whole, Template)
    assert isinstance(inside, Template)
    assert whole.whole == Slot(("a", "b"))
    assert inside.whole is None
    assert inside.slots == (Slot(("a",)),)


_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,4}", fullmatch=True)
_SLOTS = st.lists(_NAMES, min_size=1, max_size=3).map(lambda names: Slot(tuple(names)))
_LITERALS = st.text("ab${}| \n", min_size=1, max_size=6)


@given(st.lists(st.tuples(_LITERALS, _SLOTS), max_size=3), st.one_of(st.just(""), _LITERALS))
@settings(deadline=None)
def test_what_is_written_is_read(pairs: list[tuple[str, Slot]], end: str) -> None:
    """`$` before a slot cannot be written: `$${` is the literal."""
    parts = [part for pair in pairs for part in pair] + ([end] if end else [])
    literals = [part for part in parts if isinstance(part, str)]
    assume(not any(part.endswith("$") for part in literals))
    text = "".join(p.replace("${", "$${") if isinstance(p, str) else str(p) for p in parts)
    assert parse(text) == (Template(tuple(parts)) if pairs else end)


@given(st.text("ab${}|", max_size=12))
@settings(deadline=None)
def test_any_text_is_a_text_a_template_or_no_slot(text: str) -> None:
    try:
        parsed = parse(text)
    except ValueError:
        assert has_slot(text)
    else:
        assert isinstance(parsed, str) or parsed.slots


IMAGE = use("EmptyImage")
INT = use("PrimitiveInt", value="${p}")
STRING = use("PrimitiveString", value="${p}")
LORA = use("LoraLoaderModelOnly", lora_name="${p}")

# Slots and names. Each text holds its faults as «code», where they are to be reported.
FAULTS: dict[str, str] = {
    "all is well": workflow("p: {type: string}", STRING),
    "no such param": workflow(
        "p: {type: string}", use("PrimitiveString", value="«unknown-param»x ${p} ${q}")
    ),
    "no such param of several": workflow(
        "a: {type: string}, b: {type: string}",
        use("PrimitiveString", value="«unknown-param»${a|c}"),
        use("PrimitiveString", value="${a|b}"),
        rest="one_of: [[a, b]]\n",
    ),
    "unused": workflow("p: {type: string}, «unused-param»q: {type: integer}", STRING),
    "a slot that is none": workflow("", use("PrimitiveString", value="«bad-slot»${P}")),
    "a slot that does not end": workflow("", use("PrimitiveString", value="«bad-slot»é ${")),
    "a slot in a list": workflow(
        "p: {type: string}",
        use("Power Lora Loader (rgthree)", lora_1='{on: true, lora: "${p}", x: [«bad-slot»"${"]}'),
    ),
    "a literal": workflow("", use("PrimitiveString", value="$${p}")),
    "a slot as a class": workflow("", IMAGE).replace(
        "class_type: EmptyImage", "class_type: «misplaced-slot»${p}"
    ),
    "a slot as a node": workflow("", IMAGE).replace("  1:", '  «misplaced-slot»"${p}":'),
    "a slot as an input": workflow("", use("EmptyImage")).replace(
        "color:", '«misplaced-slot»"${p}":'
    ),
    "a slot in a link": workflow("", use("ImageFromBatch", image='[«misplaced-slot»"${p}", 0]')),
    "a slot as a key within a value": workflow(
        "p: {type: string}",
        use("Power Lora Loader (rgthree)", lora_1='{«misplaced-slot»"${p}": 1, x: "${p}"}'),
    ),
    "optional within a list": workflow(
        "p: {type: string, optional: true}",
        use("Power Lora Loader (rgthree)", lora_1='«optional-inside»{lora: "${p}"}'),
    ),
    "optional within a text": workflow(
        "p: {type: string, optional: true}", use("PrimitiveString", value="a ${p}")
    ),
    "one of several within a list": workflow(
        "p: {type: string}, q: {type: string}",
        use("Power Lora Loader (rgthree)", lora_1='«optional-inside»{lora: "${p}"}'),
        use("PrimitiveString", value="${p|q}"),
        rest="one_of: [[p, q]]\n",
    ),
    "several within a list": workflow(
        "p: {type: string}, q: {type: string}",
        use("Power Lora Loader (rgthree)", lora_1='{lora: "${q|p}"}'),
        rest="one_of: [[p, q]]\n",
    ),
    "several that are no group": workflow(
        "p: {type: string}, q: {type: string}, r: {type: string}",
        use("PrimitiveString", value="«not-one-of»${p|q}"),
        use("PrimitiveString", value="${r|q|p}"),
        use("PrimitiveString", value="«not-one-of»${p|p}"),
        rest="one_of: [[p, q, r]]\n",
    ),
    # Groups.
    "an unknown param in a group": workflow(
        "p: {type: string}",
        use("PrimitiveString", value="a ${p}"),
        rest="one_of: [[p, «unknown-param»q]]\n",
    ),
    "two groups": workflow(
        "p: {type: string}, q: {type: string}, r: {type: string}",
        use("PrimitiveString", value="${p|q}"),
        use("PrimitiveString", value="${r}"),
        rest="one_of: [[p, q], [r, «bad-param»p]]\n",
    ),
    "a group of params that may be absent": workflow(
        '«bad-param»p: {type: string, default: ""}, «bad-param»q: {type: string, optional: true}, '
        "r: {type: string}",
        use("PrimitiveString", value="${p|q|r}"),
        rest="one_of: [[p, q, r]]\n",
    ),
    "a seed in a group": workflow(
        "«bad-param»p: {type: seed}, q: {type: integer}",
        use("PrimitiveInt", value="${p|q}"),
        rest="one_of: [[p, q]]\n",
    ),
    "unused in a group": workflow(
        "«no-output»p: {type: string}, «unused-param»q: {type: string}",
        STRING,
        rest="one_of: [[p, q]]\n",
    ),
    # Types.
    "a text for a whole number": workflow(
        "p: {type: string}", use("PrimitiveInt", value="«param-type»${p}")
    ),
    "a number for a whole number": workflow(
        "p: {type: number}", use("PrimitiveInt", value="«param-type»${p}")
    ),
    "a whole number for a number": workflow(
        "p: {type: integer}", use("PrimitiveFloat", value="${p}")
    ),
    "a seed for a number": workflow("p: {type: seed}", use("PrimitiveFloat", value="${p}")),
    "a whole number for true or false": workflow(
        "p: {type: integer}", use("PrimitiveBoolean", value="«param-type»${p}")
    ),
    "true or false for a whole number": workflow(
        "p: {type: boolean}", use("PrimitiveInt", value="«param-type»${p}")
    ),
    "true or false for itself": workflow(
        "p: {type: boolean}", use("PrimitiveBoolean", value="${p}")
    ),
    "a whole number for a text": workflow(
        "p: {type: integer}", use("PrimitiveString", value="«param-type»${p}")
    ),
    "a whole number inside a text": workflow(
        "p: {type: integer}", use("PrimitiveString", value="${p} px")
    ),
    "a text around a number": workflow(
        "p: {type: integer}", use("PrimitiveInt", value='«param-type»"${p} "')
    ),
    "a text for a link": workflow(
        "p: {type: string}", use("ImageFromBatch", image="«param-type»${p}")
    ),
    "an image for a link": workflow(
        "p: {type: image}", use("ImageFromBatch", image="«param-type»${p}")
    ),
    "media where they belong": workflow(
        "i: {type: image}, v: {type: video}, a: {type: audio}",
        use("LoadImage", image="${i}"),
        use("LoadVideo", file="${v}"),
        use("LoadAudio", audio="${a}"),
        use("LoadAudio", audio="${v}"),
    ),
    "media elsewhere": workflow(
        "i: {type: image}, v: {type: video}, a: {type: audio}",
        use("LoadImage", image="«param-type»${v}"),
        use("LoadVideo", file="«param-type»${a}"),
        use("LoadAudio", audio="«param-type»${i}"),
    ),
    "an image for a model": workflow(
        "p: {type: image}", use("LoraLoaderModelOnly", lora_name="«param-type»${p}")
    ),
    "a model for an image": workflow(
        "p: {type: model, folder: loras}", use("LoadImage", image="«param-type»${p}")
    ),
    "a number for options": workflow(
        "p: {type: number}", use("ImageScale", crop="«param-type»${p}")
    ),
    "text around options": workflow(
        "p: {type: string}, q: {type: string, prefix: x}",
        use("ImageScale", crop="«param-type»a${p}", upscale_method="«param-type»${q}"),
    ),
    "each input has its own fault": workflow(
        "p: {type: string}",
        use("EmptyImage", width="«param-type»${p}", height="«param-type»${p}"),
        STRING,
    ),
    # Bounds.
    "bounds within": workflow(
        "p: {type: integer, minimum: 1, maximum: 16384}", use("EmptyImage", width="${p}")
    ),
    "bounds outside": workflow(
        "p: {type: integer, minimum: «param-bounds»0, maximum: «param-bounds»16385}",
        use("EmptyImage", width="${p}"),
    ),
    "bounds outside of a number": workflow(
        "p: {type: number, minimum: «param-bounds»0.001, maximum: «param-bounds»8.5}",
        use("ImageScaleBy", scale_by="${p}"),
    ),
    "bounds outside one of several": workflow(
        "p: {type: integer, minimum: «param-bounds»0}",
        use("ImageFromBatch", batch_index="${p}"),
        use("EmptyImage", width="${p}"),
    ),
    "bounds count where the slot is all": workflow(
        "p: {type: integer, minimum: -5}", use("PrimitiveString", value="${p} px")
    ),
    "nothing between": workflow(
        "«param-bounds»p: {type: integer}",
        use("EmptyLatentImage", width="${p}"),
        use("ImageScaleBy", scale_by="${p}"),
    ),
    "nothing between its own": workflow(
        "«param-bounds»p: {type: integer, minimum: 3, maximum: 2}", INT
    ),
    "no whole number between": workflow(
        "«param-bounds»p: {type: integer, minimum: 1.2, maximum: 1.8}", INT
    ),
    "a minimum above the inputs'": workflow(
        "«param-bounds»p: {type: integer, minimum: 20000}", use("EmptyImage", width="${p}")
    ),
    "defaults outside": workflow(
        "a: {type: integer, default: «param-default»0}, b: {type: integer, default: «param-default»16385},"
        " c: {type: integer, maximum: 9, default: «param-default»10}",
        use("EmptyImage", width="${a}"),
        use("EmptyImage", width="${b}"),
        use("EmptyImage", width="${c}"),
    ),
    "a default outside one of several": workflow(
        "p: {type: integer, default: «param-default»4096}",
        use("EmptyImage", width="${p}"),
        use("ImageFromBatch", batch_index="${p}"),
    ),
    "defaults of other types": workflow(
        "a: {type: integer, default: «param-default»1.0}, b: {type: integer, default: «param-default»true},"
        ' c: {type: integer, default: «param-default»"1"}, d: {type: number, default: «param-default»true},'
        ' e: {type: string, default: «param-default»1}, f: {type: boolean, default: «param-default»"true"},'
        " g: {type: boolean, default: «param-default»1}, h: {type: number, default: 1}",
        use("EmptyImage", width="${a}", height="${b}", color="${c}"),
        use("PrimitiveFloat", value="${d}"),
        use("PrimitiveString", value="${e}"),
        use("PrimitiveBoolean", value="${f}"),
        use("PrimitiveBoolean", value="${g}"),
        use("PrimitiveFloat", value="${h}"),
    ),
    "examples outside": workflow(
        "p: {type: integer, examples: [1, «param-example»0, «param-example»a]}",
        use("EmptyImage", width="${p}"),
    ),
    # Steps.
    "steps": workflow(
        "a: {type: integer, minimum: 1, step: 4, default: 33}, "
        "b: {type: integer, minimum: 1, step: 4, default: «param-default»32}, "
        "c: {type: integer, step: 8, default: 24}, "
        "d: {type: integer, step: 8, default: «param-default»20}",
        use("PrimitiveInt", value="${a}"),
        use("PrimitiveInt", value="${b}"),
        use("EmptyLatentImage", width="${c}"),
        use("EmptyLatentImage", width="${d}"),
    ),
    "a step from nowhere": workflow(
        "p: {type: integer, step: «param-bounds»4}", use("PrimitiveString", value="${p} px")
    ),
    "multiples": workflow(
        "a: {type: integer, multipleOf: 8, default: 24}, "
        "b: {type: integer, multipleOf: 8, default: «param-default»20}, "
        "c: {type: integer, minimum: 1, multipleOf: 3, examples: [3, «param-example»4]}",
        use("PrimitiveInt", value="${a}"),
        use("PrimitiveInt", value="${b}"),
        use("PrimitiveInt", value="${c}"),
    ),
    "steps of numbers that are not whole": workflow(
        "p: {type: number, «bad-param»step: 1, «bad-param»multipleOf: 2}",
        use("PrimitiveFloat", value="${p}"),
    ),
    "steps of seeds": workflow(
        "p: {type: seed, «bad-param»step: 2, «bad-param»multipleOf: 2}", INT
    ),
    # Options.
    "options": workflow(
        "p: {type: string, enum: [area, bicubic], default: area}",
        use("ImageScale", upscale_method="${p}"),
    ),
    "options that the input lacks": workflow(
        "p: {type: string, enum: [area, «param-options»bicubik]}",
        use("ImageScale", upscale_method="${p}"),
    ),
    "options that one of the inputs lacks": workflow(
        "p: {type: string, enum: [area, «param-options»bislerp, «param-options»lanczos]}",
        use("ImageScale", upscale_method="${p}"),
        use("LatentUpscale", upscale_method="${p}"),
    ),
    "no option in common": workflow(
        "«param-options»p: {type: string}", use("ImageScale", upscale_method="${p}", crop="${p}")
    ),
    "a default that is no option": workflow(
        "a: {type: string, enum: [x, y], default: «param-default»z}, "
        "b: {type: string, default: «param-default»z}, "
        "c: {type: integer, enum: [1, 2], default: «param-default»3}",
        use("PrimitiveString", value="${a}"),
        use("ImageScale", crop="${b}"),
        use("PrimitiveInt", value="${c}"),
    ),
    "options against the rest": workflow(
        "a: {type: integer, enum: [1, «param-options»0, «param-options»2.5, «param-options»x]}, "
        "b: {type: string, enum: [abc, «param-options»ab, «param-options»5], minLength: 3}",
        use("EmptyImage", width="${a}"),
        use("PrimitiveString", value="${b}"),
    ),
    # Models.
    "the folder of a model": workflow(
        "p: {type: model, folder: loras, examples: [a.safetensors]}", LORA
    ),
    "a folder that the input does not read": workflow(
        "p: {type: model, folder: «param-folder»vae}", LORA
    ),
    "one of two folders": workflow(
        "«param-folder»p: {type: model}", use("ControlNetLoader", control_net_name="${p}")
    ),
    "one of two folders, said": workflow(
        "p: {type: model, folder: t2i_adapter}", use("ControlNetLoader", control_net_name="${p}")
    ),
    "no folder in common": workflow(
        "«param-folder»p: {type: model}",
        LORA,
        use("ControlNetLoader", control_net_name="${p}"),
    ),
    "no folder known": workflow("«param-folder»p: {type: model}", STRING),
    "defaults that are no model files": workflow(
        "a: {type: model, default: «param-default»../a.safetensors}, "
        "b: {type: model, default: «param-default»a.txt}, "
        "c: {type: model, default: «undeclared-model»a.safetensors}",
        use("LoraLoaderModelOnly", lora_name="${a}"),
        use("LoraLoaderModelOnly", lora_name="${b}"),
        use("LoraLoaderModelOnly", lora_name="${c}"),
    ),
    # Texts.
    "lengths": workflow(
        "a: {type: string, minLength: 2, default: «param-default»x}, "
        "b: {type: string, maxLength: 2, default: «param-default»xyz}, "
        'c: {type: string, strip: true, maxLength: 1, default: " x "}, '
        'd: {type: string, strip: true, minLength: 1, default: «param-default»"  "}',
        *(use("PrimitiveString", value=f"${{{name}}}") for name in "abcd"),
    ),
    "patterns": workflow(
        "a: {type: string, pattern: ^x+$, default: xx, examples: [x, «param-example»y]}, "
        "b: {type: string, pattern: ^x$, default: «param-default»xx}, "
        'c: {type: string, pattern: ^x$, default: «param-default»"x\\n"}, '
        r'd: {type: string, pattern: "^\\d$", default: "٣"}',
        *(use("PrimitiveString", value=f"${{{name}}}") for name in "abcd"),
    ),
    "patterns that do not compile": workflow(
        'a: {type: string, pattern: «bad-param»"("}, b: {type: string, pattern: «bad-param»"(?=x)"}, '
        r'c: {type: string, pattern: «bad-param»"(a)\\1"}, d: {type: string, pattern: «bad-param»"x{1001}{1001}"}, '
        'e: {type: string, pattern: «bad-param»"[b-a]"}',
        *(use("PrimitiveString", value=f"${{{name}}}") for name in "abcde"),
    ),
    "affixes": workflow("p: {type: string, prefix: a, suffix: b, strip: true}", STRING),
    "affixes of what is no text": workflow(
        "a: {type: integer, «bad-param»prefix: x}, b: {type: image, «bad-param»suffix: x}, "
        "c: {type: boolean, «bad-param»strip: true}, d: {type: model, «bad-param»prefix: x},"
        "e: {type: seed, «bad-param»strip: false}",
        use("PrimitiveInt", value="${a}"),
        use("LoadImage", image="${b}"),
        use("PrimitiveBoolean", value="${c}"),
        use("LoraLoaderModelOnly", lora_name="${d}"),
        use("PrimitiveInt", value="${e}"),
    ),
    "keys of other types": workflow(
        "a: {type: string, «bad-param»minimum: 1, «bad-param»maximum: 2, «bad-param»folder: loras}, "
        "b: {type: integer, «bad-param»minLength: 1, «bad-param»maxLength: 2, «bad-param»pattern: x}, "
        "c: {type: boolean, «bad-param»enum: [x], default: true}, "
        "d: {type: image, «bad-param»default: x, examples: [x]}, "
        "e: {type: seed, «bad-param»enum: [1], «bad-param»default: 1}, "
        "f: {type: model, «bad-param»enum: [x]}",
        use("PrimitiveString", value="${a}"),
        use("PrimitiveInt", value="${b}"),
        use("PrimitiveBoolean", value="${c}"),
        use("LoadImage", image="${d}"),
        use("PrimitiveInt", value="${e}"),
        use("LoraLoaderModelOnly", lora_name="${f}"),
    ),
    "optional": workflow(
        "a: {type: string, optional: true, «bad-param»default: x}, "
        "b: {type: seed, «bad-param»optional: true}, c: {type: string, optional: false, default: x}",
        use("PrimitiveString", value="${a}"),
        use("PrimitiveInt", value="${b}"),
        use("PrimitiveString", value="${c}"),
        IMAGE,
    ),
    # Graphs.
    "a graph in an input": workflow(
        "«bad-param»p: {type: graph}", use("PrimitiveString", value="«misplaced-slot»${p}")
    ),
    "a graph that is no param": "graph: «unknown-param»${workflow}\n",
    "a graph of another type": "params: {w: {type: string}}\ngraph: «bad-param»${w}\n",
    "a graph that is optional": (
        "params: {w: {type: graph, «bad-param»optional: true}}\ngraph: «bad-param»${w}\n"
    ),
    "a graph with a prompt": (
        "params: {w: {type: graph}, prompt: {type: string, optional: true}}\ngraph: ${w}\n"
    ),
    "a graph with a default": (
        "params: {w: {type: graph, «bad-param»default: x, «bad-param»examples: [x]}}\n"
        "graph: «bad-param»${w}\n"
    ),
    "a graph with other params": (
        "params: {w: {type: graph}, «bad-param»prompt: {type: string},"
        " «unused-param»negative: {type: string, optional: true}}\ngraph: ${w}\n"
    ),
    "a graph in a group": """\
params: {«bad-param»w: {type: graph}, «unused-param»p: {type: string}}
one_of: [[p, w]]
graph: «bad-param»${w}
""",
    "a graph with an output": ("params: {w: {type: graph}}\ngraph: ${w}\noutput: «bad-output»9\n"),
}


@pytest.mark.parametrize("text", FAULTS.values(), ids=FAULTS)
def test_faults(make_project: MakeProject, check_project: CheckProject, text: str) -> None:
    clean, expected = marked(text)
    _, found = check_one(make_project, check_project, clean)
    assert found == expected


def test_a_fault_says_node_input_and_hint(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    text = workflow("prompt: {type: string}", use("PrimitiveString", value="${promt}"))
    _, faults = check_project(make_project({"a": text}))
    [unknown] = faults
    assert (unknown.node, unknown.input) == ("1", "value")
    assert (unknown.message, unknown.hint) == ('no param "promt"', 'did you mean "prompt"?')


def test_bounds_outside_name_the_input(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    text = workflow(
        "p: {type: integer, minimum: 0, maximum: 5000}",
        use("ImageFromBatch", batch_index="${p}"),
        use("EmptyImage", width="${p}"),
    )
    _, faults = check_project(make_project({"a": text}))
    assert [d.message for d in faults] == [
        'minimum 0 is below 1, the least that node "2" EmptyImage input "width" takes',
        'maximum 5000 is above 4095, the most that node "1" ImageFromBatch input "batch_index" takes',
    ]


AREA = ("nearest-exact", "bilinear", "area", "bicubic")

# What the checks fill in: params, uses, and the fields of param p that count.
RESOLVED: dict[str, tuple[str, list[Use], dict[str, Any]]] = {
    "one input": (
        "type: integer",
        [use("EmptyImage", width="${p}")],
        {"minimum": 1, "maximum": 16384, "step": None},
    ),
    "its own bounds": (
        "type: integer, minimum: 8, maximum: 9",
        [use("EmptyImage", width="${p}")],
        {"minimum": 8, "maximum": 9},
    ),
    "one bound of its own": (
        "type: integer, maximum: 2048",
        [use("EmptyImage", width="${p}")],
        {"minimum": 1, "maximum": 2048},
    ),
    "several inputs": (
        "type: integer",
        [use("EmptyImage", width="${p}"), use("ImageFromBatch", batch_index="${p}")],
        {"minimum": 1, "maximum": 4095},
    ),
    "two inputs of a node": (
        "type: integer",
        [use("EmptyImage", width="${p}", color="${p}", batch_size="${p}")],
        {"minimum": 1, "maximum": 4096},
    ),
    "inputs that leave one value": (
        "type: integer, maximum: 16",
        [use("EmptyLatentImage", width="${p}")],
        {"minimum": 16, "maximum": 16},
    ),
    "a number": (
        "type: number",
        [use("ImageScaleBy", scale_by="${p}")],
        {"minimum": 0.01, "maximum": 8.0},
    ),
    "a whole number for a number": (
        "type: integer",
        [use("ImageScaleBy", scale_by="${p}")],
        {"minimum": 1, "maximum": 8},
    ),
    "bounds between whole numbers": (
        "type: integer, minimum: 1.5, maximum: 8.5",
        [use("PrimitiveInt", value="${p}")],
        {"minimum": 2, "maximum": 8},
    ),
    "the step is the input's own affair": (
        "type: integer",
        [use("EmptyLatentImage", width="${p}")],
        {"minimum": 16, "maximum": 16384, "step": None, "multiple_of": None},
    ),
    "inside a text": (
        "type: integer",
        [use("PrimitiveString", value="${p} px")],
        {"minimum": None, "maximum": None},
    ),
    "a seed": (
        "type: seed",
        [use("PrimitiveInt", value="${p}")],
        {"minimum": 0, "maximum": MAX_SEED},
    ),
    "a seed of a small input": (
        "type: seed",
        [use("EmptyImage", color="${p}")],
        {"minimum": 0, "maximum": 16777215},
    ),
    "a seed of two inputs": (
        "type: seed",
        [use("EmptyImage", color="${p}", width="${p}"), use("PrimitiveInt", value="${p}")],
        {"minimum": 1, "maximum": 16384},
    ),
    "a seed inside a text": (
        "type: seed",
        [use("PrimitiveString", value="${p}.")],
        {"minimum": 0, "maximum": MAX_SEED},
    ),
    "a seed with bounds": (
        "type: seed, minimum: 5, maximum: 9",
        [use("PrimitiveInt", value="${p}")],
        {"minimum": 5, "maximum": 9},
    ),
    "options": (
        "type: string",
        [use("ImageScale", crop="${p}")],
        {"enum": ("disabled", "center")},
    ),
    "options in common": (
        "type: string",
        [use("LatentUpscale", upscale_method="${p}"), use("ImageScaleBy", upscale_method="${p}")],
        {"enum": AREA},
    ),
    "options of its own": (
        "type: string, enum: [bicubic, area]",
        [use("ImageScale", upscale_method="${p}")],
        {"enum": ("bicubic", "area")},
    ),
    "no options of files": (
        "type: string, suffix: .safetensors",
        [use("LoraLoaderModelOnly", lora_name="${p}")],
        {"enum": (), "suffix": ".safetensors"},
    ),
    "a folder": (
        "type: model",
        [use("LoraLoaderModelOnly", lora_name="${p}")],
        {"folder": "loras"},
    ),
    "a folder of a text": (
        "type: model, folder: loras",
        [use("PrimitiveString", value="${p}")],
        {"folder": "loras"},
    ),
}


@pytest.mark.parametrize(("param", "uses", "fields"), RESOLVED.values(), ids=RESOLVED)
def test_what_is_left_out_comes_from_the_inputs(
    make_project: MakeProject,
    check_project: CheckProject,
    param: str,
    uses: list[Use],
    fields: dict[str, Any],
) -> None:
    params, found = check_one(make_project, check_project, workflow(f"p: {{{param}}}", *uses))
    assert found == []
    resolved = {name: getattr(params["p"], name) for name in fields}
    assert resolved == fields
    if params["p"].type in ("integer", "seed"):
        bounds = (resolved.get("minimum"), resolved.get("maximum"))
        assert all(bound is None or type(bound) is int for bound in bounds)


@pytest.mark.parametrize(
    ("key", "read"),
    [
        ("minLength: 2.0", lambda p: p.min_length),
        ("maxLength: 2.0", lambda p: p.max_length),
    ],
)
def test_lengths_with_a_point(
    make_project: MakeProject, check_project: CheckProject, key: str, read: Callable[[Any], Any]
) -> None:
    """JSON Schema takes 2.0 for an integer; a request model with such a length does not load."""
    text = workflow(f"p: {{type: string, {key}}}", STRING)
    params, found = check_one(make_project, check_project, text)
    if not found:
        assert repr(read(params["p"])) == "2"
    assert {code for _, _, code in found} <= {"schema"}


@pytest.mark.parametrize(
    ("param", "longest"),
    [
        ("{type: string}", 10_000),
        ("{type: string, maxLength: 20000}", 20_000),
        ("{type: string, enum: [x, y]}", None),
    ],
)
def test_texts_have_a_longest_length(
    make_project: MakeProject, check_project: CheckProject, param: str, longest: int | None
) -> None:
    """That of `limits` in gpu.yaml, where the param says none."""
    params, found = check_one(make_project, check_project, workflow(f"p: {param}", STRING))
    assert found == []
    assert params["p"].max_length == longest


def test_options_come_from_the_output(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    text = workflow("f: {type: string, default: y}", IMAGE, IMAGE)
    text = text.replace("graph:", "output: {param: f, nodes: {x: 1p, y: 2p}}\ngraph:")
    params, found = check_one(make_project, check_project, text)
    assert found == []
    assert params["f"].enum == ("x", "y")


def test_groups_and_what_is_required(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    text = workflow(
        "a: {type: string}, b: {type: model, folder: loras}, c: {type: string, optional: true},"
        " d: {type: seed}, e: {type: string, default: x}, f: {type: string}",
        use("PrimitiveString", value="${a|b}"),
        use("PrimitiveString", value="${c}"),
        use("PrimitiveInt", value="${d}"),
        use("PrimitiveString", value="${e}${f}"),
        rest="one_of: [[a, b]]\n",
    )
    params, found = check_one(make_project, check_project, text)
    assert found == []
    assert [name for name, param in params.items() if param.required] == ["f"]
    assert [name for name, param in params.items() if param.may_be_absent] == ["a", "b", "c"]
    assert {name: param.group for name, param in params.items() if param.group} == {
        "a": ("a", "b"),
        "b": ("a", "b"),
    }


def without_output(make_project: MakeProject, check_project: CheckProject, text: str) -> list[str]:
    """Return the messages of no-output faults, which must be all the faults."""
    clean, expected = marked(text)
    _, faults = check_project(make_project({"a": clean}))
    assert [(d.line, d.column, d.code) for d in faults] == expected
    return [d.message for d in faults]


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            workflow("«no-output»p: {type: string, optional: true}", STRING),
            ['without "p", no output node is left'],
        ),
        (
            workflow(
                "«no-output»p: {type: string, optional: true}, q: {type: string, optional: true}",
                STRING,
                use("PrimitiveString", value="${q}"),
            ),
            ['without "p" and "q", no output node is left'],
        ),
        (workflow("p: {type: string, optional: true}", STRING, IMAGE), []),
        (
            "«no-output»graph: {1: {class_type: PrimitiveInt, inputs: {value: 1}}}\n",
            ["no output node: nothing would run"],
        ),
    ],
    ids=["one", "two", "another output", "none at all"],
)
def test_absent_params_leave_an_output(
    make_project: MakeProject, check_project: CheckProject, text: str, messages: list[str]
) -> None:
    assert without_output(make_project, check_project, text) == messages


def param(**fields: Any) -> Param:
    return Param("p", fields.pop("type"), loaded("{}"), **fields)


MISFITS: list[tuple[dict[str, Any], Any, str | None]] = [
    ({"type": "integer"}, 1, None),
    ({"type": "integer"}, True, "type integer is a whole number"),
    ({"type": "seed"}, 1.0, "type seed is a whole number"),
    ({"type": "number"}, 1, None),
    ({"type": "number"}, "1", "type number is a number"),
    ({"type": "boolean"}, 0, "type boolean is true or false"),
    ({"type": "image"}, 0, "type image is a text, so quote it"),
    ({"type": "string"}, None, "type string is a text, so quote it"),
    ({"type": "integer", "minimum": 2}, 1, "the minimum is 2"),
    ({"type": "integer", "maximum": 2}, 3, "the maximum is 2"),
    ({"type": "integer", "multiple_of": 4}, -8, None),
    ({"type": "integer", "multiple_of": 4}, 6, "it is no multiple of 4"),
    ({"type": "integer", "minimum": 1, "step": 4}, 9, None),
    ({"type": "integer", "minimum": 1, "step": 4}, 8, "it is not 1 plus a multiple of 4"),
    ({"type": "integer", "enum": (1, 2)}, 3, "it is none of 1, 2"),
    ({"type": "string", "enum": ("area", "x")}, "aera", 'did you mean "area"?'),
    ({"type": "string", "min_length": 2}, "🦊", "it has under 2 characters"),
    ({"type": "string", "max_length": 1}, "🦊", None),
    ({"type": "string", "max_length": 1}, "xy", "it has over 1 characters"),
    ({"type": "string", "max_length": 1, "strip": True}, " x\n", None),
    ({"type": "string", "pattern": "b"}, "abc", None),
    ({"type": "string", "pattern": "^b$"}, "b\n", 'it does not match "^b$"'),
    ({"type": "model"}, "x.safetensors", None),
]


@pytest.mark.parametrize(("fields", "value", "problem"), MISFITS)
def test_misfits(fields: dict[str, Any], value: Any, problem: str | None) -> None:
    assert misfit(value, param(**fields)) == problem


@pytest.fixture(scope="module")
def shipped() -> Mapping[str, Mapping[str, Param]]:
    """The params of the shipped workflows, by workflow."""
    checked, faults = load_and_check(ROOT)
    assert [d for d in faults if d.severity is Severity.ERROR] == []
    assert isinstance(checked, Checked)
    return {c.workflow.name: c.workflow.params for c in checked.workflows}


@pytest.mark.parametrize(
    ("workflow", "name", "minimum", "maximum"),
    [
        ("flux", "seed", 0, 2**53 - 1),
        ("seedvr2", "seed", 0, 4_294_967_295),
        ("flux", "width", 16, 2048),
        ("flux", "steps", 1, 100),
        ("flux", "cfg", 0.0, 100.0),
        ("flux-lora", "lora_strength", -100.0, 100.0),
        ("flux-instantid", "identity_denoise", 0.0, 1.0),
        ("wan2", "length", 1, 161),
        ("wan2", "fps", 1, 60),
        ("wan2", "quality", 0, 100),
        ("seedvr2", "resolution", 16, 16384),
        ("seedvr2", "max_resolution", 0, 16384),
    ],
)
def test_shipped_bounds(
    shipped: Mapping[str, Mapping[str, Param]],
    workflow: str,
    name: str,
    minimum: float,
    maximum: float,
) -> None:
    param = shipped[workflow][name]
    assert (param.minimum, param.maximum) == (minimum, maximum)


@pytest.mark.parametrize(
    ("bounds", "value", "said"),
    [
        (Bounds(1, 100), 0, "between 1 and 100; it is 0"),
        (Bounds(0.0, 1.0), 1.5, "between 0 and 1; it is 1.5"),
        (Bounds(minimum=1), -3, "at least 1; it is -3"),
        (Bounds(maximum=1.5), 2.0, "at most 1.5; it is 2"),
        (Bounds(8, 64, "a multiple of 8"), 65, "between 8 and 64, a multiple of 8; it is 65"),
        (Bounds(8, 64, "a multiple of 8"), 63, ""),
    ],
)
def test_a_number_is_told_all_of_its_bounds(bounds: Bounds, value: float, said: str) -> None:
    assert bounds.fault(value) == (f"Input should be {said}" if said else "")
