"""Models, packs and classes: what a graph needs, and what is declared."""

from pathlib import Path

import pytest

from generator.diagnostics import Diagnostic

from .conftest import GPU_YAML, ROOT, CheckProject, MakeProject, without_licenses

LOADER = """\
{params}
graph:
  1: {{class_type: CheckpointLoaderSimple, inputs: {{ckpt_name: {file}}}}}
  2: {{class_type: EmptyLatentImage, inputs: {{width: 64, height: 64, batch_size: 1}}}}
  3: {{class_type: VAEDecode, inputs: {{samples: [2, 0], vae: [1, 2]}}}}
  4: {{class_type: SaveImage, inputs: {{images: [3, 0], filename_prefix: x}}}}
"""
MODEL = "{{source: {{volume: v}}, folder: {folder}, filename: {file}}}"
PREVIEW = "graph: {1: {class_type: PreviewAny, inputs: {source: {__value__: x}}}}\n"
GPU = (ROOT / "gpu.yaml").read_text().replace("ryla-models:", "v:")


def loader(file: str, params: str = "") -> str:
    return LOADER.format(file=file, params=params or "params: {}")


def models(*declared: tuple[str, str], packs: str = "{}") -> str:
    """models.yaml with files by (folder, name)."""
    entries = "".join(
        f"  m{i}: {MODEL.format(folder=folder, file=file)}\n"
        for i, (folder, file) in enumerate(declared)
    )
    return f"models:\n{entries}packs: {packs}\n" if entries else f"models: {{}}\npacks: {packs}\n"


def faults(found: list[Diagnostic]) -> list[tuple[str, int, int, str]]:
    return [(Path(d.file).name, d.line, d.column, d.code) for d in found]


@pytest.mark.parametrize(
    ("file", "declared", "code"),
    [
        ("a.safetensors", [("checkpoints", "a.safetensors")], None),
        ("sub/a.safetensors", [("checkpoints", "sub/a.safetensors")], None),
        ("sub/a.safetensors", [("checkpoints/sub", "a.safetensors")], None),
        ("a.safetensors", [("Checkpoints", "a.safetensors")], "wrong-folder"),
        ("a.safetensors", [("loras", "a.safetensors")], "wrong-folder"),
        ("a.safetensors", [("checkpoints", "A.safetensors")], "undeclared-model"),
        ("a.safetensors", [], "undeclared-model"),
        ("b.safetensors", [("checkpoints", "a.safetensors")], "undeclared-model"),
    ],
)
def test_a_loaders_file_is_declared(
    make_project: MakeProject,
    check_project: CheckProject,
    file: str,
    declared: list[tuple[str, str]],
    code: str | None,
) -> None:
    root = make_project({"it": loader(file)}, models=models(*declared), gpu=GPU)
    checked, found = check_project(root)
    assert checked is not None
    assert faults(found) == ([] if code is None else [("it.yaml", 3, 63, code)])
    assert checked.workflows[0].uses.models == (() if code else ("m0",))


@pytest.mark.parametrize(
    ("param", "column", "used"),
    [
        ("{type: model, default: a.safetensors}", None, ("m0",)),
        ("{type: model, default: b.safetensors}", 36, ("m0",)),
        ("{type: string, enum: [a.safetensors, b.safetensors]}", 50, ("m0",)),
        ("{type: model}", None, ("m0",)),
        ("{type: string, prefix: x, suffix: .ckpt}", None, ()),
    ],
)
def test_files_that_params_are_known_to_give(
    make_project: MakeProject,
    check_project: CheckProject,
    param: str,
    column: int | None,
    used: tuple[str, ...],
) -> None:
    """A default and every option is such a name, and so is what lies in the param's folder."""
    text = loader("'${m}'", f"params: {{m: {param}}}")
    root = make_project({"it": text}, models=models(("checkpoints", "a.safetensors")), gpu=GPU)
    checked, found = check_project(root)
    assert checked is not None
    assert faults(found) == ([("it.yaml", 1, column, "undeclared-model")] if column else [])
    assert checked.workflows[0].uses.models == used


def test_options_that_are_no_files_need_no_model(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    text = loader("a.safetensors").replace("[1, 2]", "[5, 0]") + (
        "  5: {class_type: VAELoader, inputs: {vae_name: pixel_space}}\n"
    )
    root = make_project({"it": text}, models=models(("checkpoints", "a.safetensors")), gpu=GPU)
    assert {d.code for d in check_project(root)[1]} == {"unreachable"}


def test_the_folder_that_is_suggested_is_the_one_in_use(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    """Not `clip`, under which ComfyUI still finds text encoders."""
    text = (
        "graph:\n"
        "  1: {class_type: CLIPLoader, inputs: {clip_name: a.safetensors, type: wan}}\n"
        "  2: {class_type: PreviewAny, inputs: {source: [1, 0]}}\n"
    )
    [found] = check_project(make_project({"it": text}))[1]
    assert found.hint is not None
    assert found.hint.endswith("file: a.safetensors}, folder: text_encoders}")


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("{url: 'https://e.com/a.safetensors', sha256: %s}" % ("e" * 64), None),
        ("{url: 'https://e.com/download/123', sha256: %s}" % ("e" * 64), "bad-filename"),
        ("{url: 'https://e.com/a.safetensors?x=1', sha256: %s}" % ("e" * 64), "bad-filename"),
        ("{url: 'https://e.com/', sha256: %s}" % ("e" * 64), "bad-filename"),
        ("{volume: v}", "bad-filename"),
        ("{volume: v, file: x/a.ckpt}", None),
        ("{hf: a/b, file: x/..}", "schema"),
        ('{hf: a/b, file: "a\\nb"}', "schema"),
    ],
)
def test_file_names_that_come_from_the_source(
    make_project: MakeProject, check_project: CheckProject, source: str, code: str | None
) -> None:
    text = f"models: {{m: {{source: {source}, folder: checkpoints}}}}\npacks: {{}}\n"
    root = make_project({"it": loader("a.safetensors")}, models=text, gpu=GPU)
    found = without_licenses(check_project(root)[1])
    codes = {fault[3] for fault in faults(found) if fault[0] == "models.yaml"}
    assert codes - {"unused-model"} == ({code} if code else set())


@pytest.mark.parametrize(
    ("declared", "codes"),
    [
        ("filename: ae.zip", ["bad-filename"]),
        ("filename: ae", ["bad-filename"]),
        ("filename: ae.safetensors", []),
        ("filename: sub/ae.SFT", []),
    ],
)
def test_file_names_that_are_written(
    make_project: MakeProject, check_project: CheckProject, declared: str, codes: list[str]
) -> None:
    """The engine lists files by their extensions, so that no loader finds another."""
    text = f"models:\n  m: {{source: {{volume: v}}, folder: vae, {declared}}}\n"
    root = make_project({"it": PREVIEW}, models=text, gpu=GPU)
    found = [d for d in check_project(root)[1] if d.code != "unused-model"]
    assert [d.code for d in found] == codes
    assert all((d.line, d.column) == (2, 51) for d in found)


@pytest.mark.parametrize("by", ["pack", "workflow"])
def test_what_is_read_by_its_name_needs_none_that_comfyui_lists(
    make_project: MakeProject, check_project: CheckProject, by: str
) -> None:
    text = "models:\n  m: {source: {volume: v}, folder: llm/it, filename: config.json}\n"
    text += f"packs: {{Mine: {{git: 'https://x/Mine', commit: {'e' * 40}, models: [m]}}}}\n"
    if by == "workflow":
        text = text.partition("packs:")[0]
    root = make_project({"it": PREVIEW + "models: [m]\n"}, models=text, gpu=GPU)
    assert {d.code for d in check_project(root)[1]} <= {"no-schemas"}


def test_a_loader_finds_no_file_that_its_folder_does_not_list(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    """Whether the graph names it, or a param."""
    text = models(("checkpoints", "a.zip"))
    for file, params in (
        ("a.zip", ""),
        ("'${file}'", "params: {file: {type: string, enum: [a.zip]}}"),
    ):
        root = make_project({"it": loader(file, params)}, models=text, gpu=GPU)
        found = [d for d in check_project(root)[1] if d.file != "models.yaml"]
        assert [(d.code, d.node, d.input) for d in found] == [("unlisted-file", "1", "ckpt_name")]
        (root / "workflows" / "it.yaml").unlink()
        (root / "workflows").rmdir()


def test_two_models_with_one_destination(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    twice = models(("checkpoints", "a.safetensors"), ("checkpoints", "a.safetensors"))
    root = make_project({"it": loader("a.safetensors")}, models=twice, gpu=GPU)
    assert ("models.yaml", 3, 3, "same-destination") in faults(check_project(root)[1])


def test_unused_models_and_packs(make_project: MakeProject, check_project: CheckProject) -> None:
    text = models(packs="{ComfyUI-GGUF: {git: 'https://x', commit: %s}}" % ("e" * 40)).replace(
        "models: {}",
        "models: {m: {source: {url: 'https://e/a.ckpt', sha256: %s}, folder: vae}}" % ("e" * 64),
    )
    clean = "graph: {1: {class_type: PreviewAny, inputs: {source: {__value__: x}}}}\n"
    root = make_project({"it": clean}, models=text)
    assert {d.code for d in check_project(root)[1]} == {
        "unused-model", "unused-pack", "other-commit",
    }  # fmt: skip


@pytest.mark.parametrize(
    "broken",
    ["graph: [", "graph: {1: {class_type: PreviewAni, inputs: {source: {__value__: x}}}}\n"],
)
def test_nothing_is_called_unused_while_a_workflow_is_unclear(
    make_project: MakeProject, check_project: CheckProject, broken: str
) -> None:
    root = make_project({"it": loader("a.safetensors")}, models=models(("vae", "b.ckpt")), gpu=GPU)
    (root / "workflows" / "broken.yaml").write_text(broken)
    assert "unused-model" not in {d.code for d in check_project(root)[1]}


PULID = "graph: {1: {class_type: PulidFluxEvaClipLoader, inputs: {}}}\n"
ONE, TWO = "ComfyUI-PuLID-Flux", "ComfyUI_PuLID_Flux_ll"


@pytest.mark.parametrize(
    ("declared", "chosen", "code"),
    [
        ([ONE], "", None),
        ([ONE, TWO], "", "ambiguous-class"),
        ([ONE, TWO], f"packs: [{TWO}]\n", None),
        ([ONE, TWO], f"packs: [{ONE}, {TWO}]\n", "ambiguous-class"),
        ([], "", "undeclared-pack"),
    ],
)
def test_which_pack_a_class_is_of(
    make_project: MakeProject,
    check_project: CheckProject,
    declared: list[str],
    chosen: str,
    code: str | None,
) -> None:
    packs = "".join(f"{name}: {{git: 'https://x', commit: {'e' * 40}}}, " for name in declared)
    workflow = PULID + "output: 2\n" + chosen
    workflow = workflow.replace(
        "}}\n", "}, 2: {class_type: PreviewAny, inputs: {source: [1, 0]}}}\n", 1
    )
    root = make_project({"it": workflow}, models=models(packs=f"{{{packs}}}"))
    checked, found = check_project(root)
    codes = {d.code for d in found} - {"unused-pack", "other-commit"}
    assert codes == ({code} if code else set())
    if code is None and checked:
        assert checked.workflows[0].classes["1"].pack == (declared[-1] if chosen else ONE)


def test_the_lines_to_add_for_a_pack_are_right(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    """What the hint says, added, makes the class known."""
    workflow = (
        "graph:\n  1: {class_type: InstantIDFaceAnalysis, inputs: {provider: CPU}}\n"
        "  2: {class_type: PreviewAny, inputs: {source: [1, 0]}}\n"
    )
    root = make_project({"it": workflow})
    [found] = check_project(root)[1]
    assert found.code == "undeclared-pack"
    assert found.hint is not None
    lines = found.hint.removeprefix("add to packs: in models.yaml: ")
    (root / "models.yaml").write_text(f"packs:\n  {lines}\n")
    [found] = check_project(root)[1]
    assert (found.code, found.node, found.line, found.column) == ("implicit-model", "1", 2, 19)
    assert "insightface/models/antelopev2/1k3d68.onnx and 4 more" in found.message
    assert found.hint is not None
    line, and_so = found.hint.removeprefix("add to models: in models.yaml: ").split(", and ")
    assert and_so == "so for each"
    names = ("1k3d68", "2d106det", "genderage", "glintr100", "scrfd_10g_bnkps")
    entries = [f"  {line}\n".replace("NAME", n).replace("1k3d68.onnx", f"{n}.onnx") for n in names]
    (root / "models.yaml").write_text(f"models:\n{''.join(entries)}packs:\n  {lines}\n")
    checked, rest = check_project(root)
    assert {d.code for d in rest} == {"no-license", "unlocked"}
    assert checked is not None
    assert checked.workflows[0].uses.models == names


@pytest.mark.parametrize(
    ("model_name", "folders"),
    [
        ("antelopev2", ["antelopev2"]),
        ("buffalo_l", ["buffalo_l"]),
        ("${name}", ["antelopev2", "buffalo_l"]),
    ],
)
def test_what_a_node_loads_by_the_value_of_an_input(
    make_project: MakeProject, check_project: CheckProject, model_name: str, folders: list[str]
) -> None:
    """A value that is not known may be any."""
    workflow = f"""\
params: {{name: {{type: string, default: buffalo_l}}}}
graph:
  1: {{class_type: IPAdapterInsightFaceLoader, inputs: {{provider: CPU, model_name: "{model_name}"}}}}
  2: {{class_type: PreviewAny, inputs: {{source: [1, 0]}}}}
"""
    commit = "9d076a3df0d2763cef5510ec5ab807f6632c39f5"
    packs = f"{{ComfyUI_IPAdapter_plus: {{git: 'https://x', commit: {commit}}}}}"
    root = make_project({"it": workflow}, models=models(packs=packs))
    found = [d.message for d in check_project(root)[1] if d.code == "implicit-model"]
    assert len(found) == len(folders)
    for message, folder in zip(sorted(found), folders, strict=True):
        assert f"insightface/models/{folder}/1k3d68.onnx and 4 more" in message


def test_models_that_a_node_finds_by_itself(
    make_project: MakeProject, check_project: CheckProject
) -> None:
    """Whichever lie in a folder: they are needed, so they are used."""
    workflow = """\
graph:
  1: {class_type: CheckpointLoaderSimple, inputs: {ckpt_name: a.safetensors}}
  2: {class_type: IPAdapterUnifiedLoader, inputs: {model: [1, 0], preset: PLUS (high strength)}}
  3: {class_type: PreviewAny, inputs: {source: [2, 0]}}
"""
    commit = "9d076a3df0d2763cef5510ec5ab807f6632c39f5"
    packs = f"{{ComfyUI_IPAdapter_plus: {{git: 'https://x', commit: {commit}}}}}"
    one = [("checkpoints", "a.safetensors"), ("clip_vision", "h.safetensors")]
    for declared, codes in ((one, ["implicit-model"]), ([*one, ("ipadapter", "p.bin")], [])):
        root = make_project({"it": workflow}, models=models(*declared, packs=packs), gpu=GPU)
        assert [d.code for d in check_project(root)[1]] == codes
        (root / "workflows" / "it.yaml").unlink()
        (root / "workflows").rmdir()


UNSEEN = "{Mine: {git: 'https://x/Mine', commit: %s}}" % ("e" * 40)


@pytest.mark.parametrize(
    ("rest", "codes"),
    [
        ("", []),
        ("  3: {class_type: MyOther, inputs: {y: [9, 0]}}\n", ["dangling-link"]),
        ("  3: {class_type: PreviewAny, inputs: {source: x}}\n", ["literal-for-link"]),
        ("  3: {class_type: PreviewAn, inputs: {source: [1, 0]}}\n", ["unknown-class"]),
        ("  3: {class_type: previewany, inputs: {source: [1, 0]}}\n", ["unknown-class"]),
        ("  3: {class_type: PreviewAyn, inputs: {source: [1, 0]}}\n", ["unknown-class"]),
        ("  3: {class_type: PreviewAnyy, inputs: {source: [1, 0]}}\n", ["unknown-class"]),
        ("  3: {class_type: PreviewAnyMine, inputs: {source: [1, 0]}}\n", []),
        ("  3: {class_type: PreviewAny2, inputs: {source: [1, 0]}}\n", []),
        (
            "  3: {class_type: InstantIDFaceAnalysis, inputs: {provider: CPU}}\n",
            ["undeclared-pack"],
        ),
    ],
)
def test_a_pack_without_schemas(
    make_project: MakeProject, check_project: CheckProject, rest: str, codes: list[str]
) -> None:
    """One warning says how to make them; its nodes pass unchecked, and nothing else does."""
    workflow = (
        "graph:\n  1: {class_type: MyNode, inputs: {x: 1, file: mine.bin}}\n"
        "  2: {class_type: PreviewAny, inputs: {source: [1, 0]}}\n"
    )
    text = models(("mine", "mine.bin"), ("vae", "v.safetensors"), packs=UNSEEN)
    text = text.replace("m1: {source: {volume: v}", "m1: {source: {hf: a/b, file: v}")
    root = make_project({"it": workflow + rest}, models=text, gpu=GPU)
    checked, found = check_project(root)
    [warning] = [d for d in found if d.code == "no-schemas"]
    assert (warning.severity, warning.file, warning.line) == ("warning", "models.yaml", 4)
    assert '"MyNode"' in warning.message
    assert warning.hint is not None
    assert "python -m generator catalog --url URL" in warning.hint
    errors = [d for d in found if d.severity == "error"]
    assert [d.code for d in errors] == codes
    if codes == ["unknown-class"]:
        assert errors[0].hint is not None
        assert 'did you mean "PreviewAny"? if Mine has it' in errors[0].hint
    assert checked is not None
    assert checked.workflows[0].uses.packs == ("Mine",)
    assert checked.workflows[0].uses.models == ("m0",)
    unused = [d.message for d in found if d.code.startswith("unused")]
    is_clear = not {"unknown-class", "undeclared-pack", "dangling-link"} & set(codes)
    assert unused == (['no workflow uses model "m1"'] if is_clear else [])


@pytest.mark.parametrize(
    ("gpus", "codes"),
    [
        ("{default: b, a: {modal: L4, vram_gb: 24, price_per_second: 1}}", {"unknown-gpu"}),
        ("{default: a, a: {modal: L4, vram_gb: 24, price_per_second: 1, fallback: [a]}}",
         {"unknown-gpu"}),
        ("{default: a, a: {modal: L4, vram_gb: 24, price_per_second: 1}, "
         "b: {modal: l4, vram_gb: 24, price_per_second: 1}}", {"gpu-price"}),
        ("{default: a, a: {modal: L4, vram_gb: 24, price_per_second: 1}, "
         "b: {modal: L4, vram_gb: 24, price_per_second: 2}}", {"gpu-price"}),
        ("{default: a, a: {modal: L4, vram_gb: 24, price_per_second: 1}, "
         "b: {modal: L4, vram_gb: 24, price_per_second: 1, fallback: [a]}}", set()),
    ],
)  # fmt: skip
def test_gpu_profiles(
    make_project: MakeProject, check_project: CheckProject, gpus: str, codes: set[str]
) -> None:
    text = 'app: a\npython: "3.11"\ncomfyui: {version: 0.3.71, commit: %s}\ngpus: %s\n'
    workflow = "graph: {1: {class_type: PreviewAny, inputs: {source: {__value__: x}}}}\n"
    root = make_project({"it": workflow}, gpu=text % ("e" * 40, gpus))
    assert {d.code for d in check_project(root)[1]} == codes


GATED = """\
models:
  secret:
    source: {hf: some/repo, file: secret.safetensors, revision: abcdefabcdefabcdefabcdefabcdefabcdefabcd}
    folder: checkpoints
    gated: true
    size: 50 GB
packs: {}
"""
LOADS = """\
graph:
  1: {class_type: CheckpointLoaderSimple, inputs: {ckpt_name: secret.safetensors}}
  2: {class_type: EmptyLatentImage, inputs: {width: 64, height: 64, batch_size: 1}}
  3: {class_type: VAEDecode, inputs: {samples: [2, 0], vae: [1, 2]}}
  4: {class_type: SaveImage, inputs: {images: [3, 0], filename_prefix: x}}
"""


def test_gated_models_need_a_secret(make_project: MakeProject, check_project: CheckProject) -> None:
    root = make_project({"it": LOADS}, models=GATED)
    [found] = without_licenses(check_project(root)[1])
    assert (found.code, found.file, found.line) == ("gated-without-secret", "models.yaml", 5)
    assert found.hint == "add to secrets: in gpu.yaml: huggingface: [HF_TOKEN]"
    gpu = root / "gpu.yaml"
    gpu.write_text(gpu.read_text() + "secrets: {hf: [HF_TOKEN], keys: [API_KEYS]}\n")
    assert without_licenses(check_project(root)[1]) == []


@pytest.mark.parametrize(
    ("vram", "codes"), [(46, ["model-memory"]), (47, []), (48, [])], ids=["20", "47", "48"]
)
def test_a_model_fits_the_memory_of_its_gpu(
    make_project: MakeProject, check_project: CheckProject, vram: int, codes: list[str]
) -> None:
    """50 GB are 46.6 GiB."""
    root = make_project({"it": LOADS}, models=GATED.replace("    gated: true\n", ""))
    gpu = root / "gpu.yaml"
    gpu.write_text(gpu.read_text().replace("vram_gb: 48", f"vram_gb: {vram}"))
    assert [d.code for d in without_licenses(check_project(root)[1])] == codes


def test_models_that_fit_one_by_one(make_project: MakeProject, check_project: CheckProject) -> None:
    second = GATED.replace("secret", "other").partition("models:\n")[2].replace("packs: {}\n", "")
    both = GATED.replace("packs: {}\n", second + "packs: {}\n").replace("    gated: true\n", "")
    loads = LOADS.replace(
        "  4:",
        "  5: {class_type: CheckpointLoaderSimple, inputs: "
        "{ckpt_name: other.safetensors}}\n  6: {class_type: VAEDecode, inputs: "
        "{samples: [2, 0], vae: [5, 2]}}\n  7: {class_type: PreviewImage, inputs: "
        "{images: [6, 0]}}\n  4:",
    )
    [found] = without_licenses(check_project(make_project({"it": loads}, models=both))[1])
    assert (found.code, found.severity, found.file) == (
        "models-memory",
        "info",
        "workflows/it.yaml",
    )
    assert "100.0 GB" in found.message


def test_licenses_are_shown(make_project: MakeProject, check_project: CheckProject) -> None:
    """Each once, with the models and workflows in question; unused models are not."""
    model = (
        "  {0}: {{source: {{hf: a/b, file: {0}.ckpt, revision: {1}}}, folder: checkpoints{2}}}\n"
    )
    text = "models:\n" + "".join(
        model.format(name, "e" * 40, terms)
        for name, terms in (
            ("free", ", license: Apache-2.0"),
            ("bound", ", license: non-commercial"),
            ("bound2", ", license: non-commercial"),
            ("silent", ""),
            ("unused", ", license: MIT"),
        )
    )
    text += "  mine: {source: {volume: v}, folder: vae, filename: mine.ckpt}\n"
    flows = {
        "a": PREVIEW + "models: [free, bound, silent]\n",
        "b": PREVIEW + "models: [bound, bound2, mine]\n",
    }
    found = check_project(make_project(flows, models=text, gpu=GPU))[1]
    assert [(d.line, d.code, d.message) for d in found if d.severity == "info"] == [
        (2, "license", 'free, for a: "Apache-2.0"'),
        (3, "license", 'bound, bound2, for a, b: "non-commercial"'),
        (5, "no-license", "no licence is declared of silent, which a need"),
    ]


AUTH = {
    "by default": ("", []),
    "a secret beside": ("secrets: {hf: [HF_TOKEN]}\n", [(7, 1)]),
    "no secret": ("auth: api-key\nsecrets: {}\n", [(7, 1)]),
    "keys": ("auth: api-key\nsecrets: {mine: [API_KEYS]}\n", []),
    "at Modal's edge": ("auth: proxy\nsecrets: {}\n", []),
    "open": ("auth: none\nsecrets: {}\n", []),
}


@pytest.mark.parametrize("name", AUTH)
def test_keys_come_from_a_secret(
    make_project: MakeProject, check_project: CheckProject, name: str
) -> None:
    """Without one the gateway would not start."""
    text, places = AUTH[name]
    found = check_project(make_project({"it": PREVIEW}, gpu=GPU_YAML + text))[1]
    assert [d.code for d in found] == ["auth-without-secret"] * len(places)
    assert [(d.line, d.column) for d in found] == places


TIMEOUTS = {
    "by default": ("", "", []),
    "in order": ("scaling: {timeout: 600}\ngateway: {deadline: 60}\n", "timeout: 300\n", []),
    "longer than by default": ("", "timeout: 3600\n", []),
    "as long as Modal lets a worker run, and a minute less": ("", "timeout: 86340\n", []),
    "a request that outlasts its job": (
        "gateway: {deadline: 90}\n", "timeout: 90\n", [("workflows/it.yaml", 2, 10)],
    ),
    "a request that outlasts every job": ("scaling: {timeout: 120}\n", "", [("gpu.yaml", 7, 20)]),
    "a request that outlasts every job, as it says": (
        "gateway: {deadline: 60}\nscaling: {timeout: 60}\n", "", [("gpu.yaml", 8, 20)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TIMEOUTS)
def test_timeouts_are_in_order(
    make_project: MakeProject, check_project: CheckProject, name: str
) -> None:
    """A request waits for less than a job may take; a worker runs for a minute more."""
    gpu, workflow, places = TIMEOUTS[name]
    found = check_project(make_project({"it": PREVIEW + workflow}, gpu=GPU_YAML + gpu))[1]
    assert [(d.code, d.severity) for d in found] == [("timeout-order", "error")] * len(places)
    assert [(d.file, d.line, d.column) for d in found] == places


RGTHREE = "{rgthree-comfy: {git: 'https://x', commit: 42e73c3c48e8268129a6a1ea6d9766913bfc5435}}"
STACK = """\
graph:
  1: {class_type: CheckpointLoaderSimple, inputs: {ckpt_name: flux1-dev.safetensors}}
  2:
    class_type: Power Lora Loader (rgthree)
    inputs:
      model: [1, 0]
      clip: [1, 1]
      lora_1: {on: true, lora: a.safetensors, strength: 1}
      lora_2: {on: false, lora: b.safetensors, strength: 1}
  3: {class_type: PreviewAny, inputs: {source: [2, 0]}}
"""


@pytest.mark.parametrize(
    ("lora", "codes"),
    [
        ("{source: {volume: v}, folder: loras, filename: a.safetensors}", []),
        ("{source: {volume: v}, folder: loras, filename: c.safetensors}", ["undeclared-model"]),
        ("{source: {volume: v}, folder: vae, filename: a.safetensors}", ["wrong-folder"]),
        (
            "{source: {volume: v}, folder: loras, filename: a.safetensors, family: sdxl}",
            ["family-mismatch"],
        ),
    ],
)
def test_loras_in_one_node(
    make_project: MakeProject, check_project: CheckProject, lora: str, codes: list[str]
) -> None:
    """Those that are switched on are models like others."""
    text = models(("checkpoints", "flux1-dev.safetensors"), packs=RGTHREE)
    text = text.replace("packs:", f"  lora: {lora}\npacks:")
    checked, found = check_project(make_project({"it": STACK}, models=text, gpu=GPU))
    assert [(d.code, d.node, d.input, d.line) for d in found] == [
        (code, "2", "lora_1", 8) for code in codes
    ]
    if checked and not codes:
        assert checked.workflows[0].uses.models == ("lora", "m0")


@pytest.mark.parametrize(
    ("loader", "file", "codes"),
    [
        ("UnetLoaderGGUF, inputs: {unet_name: FILE}", "a.gguf", []),
        ("UnetLoaderGGUF, inputs: {unet_name: FILE}", "a.safetensors", ["unlisted-file"]),
        (
            "UNETLoader, inputs: {weight_dtype: default, unet_name: FILE}",
            "a.gguf",
            ["unlisted-file"],
        ),
        ("UNETLoader, inputs: {weight_dtype: default, unet_name: FILE}", "a.safetensors", []),
    ],
)
def test_quantized_models_have_loaders_of_their_own(
    make_project: MakeProject, check_project: CheckProject, loader: str, file: str, codes: list[str]
) -> None:
    pack = "{ComfyUI-GGUF: {git: 'https://x', commit: 6ea2651e7df66d7585f6ffee804b20e92fb38b8a}}"
    text = models(("diffusion_models", file), packs=pack)
    graph = f"graph:\n  1: {{class_type: {loader.replace('FILE', file)}}}\n"
    graph += "  2: {class_type: PreviewAny, inputs: {source: [1, 0]}}\n"
    found = check_project(make_project({"it": graph}, models=text, gpu=GPU))[1]
    assert [d.code for d in found if d.severity == "error"] == codes
