"""Headers of safetensors files: what is read, what is refused, and the family that they show."""

import io
import json
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.graph.family_tables import FAMILIES
from generator.graph.safetensors import Header, Tensor, family_of_keys, read_header
from generator.preview.folders import demo_lora

Shapes = Mapping[str, tuple[int, ...]]


def packed(header: object, tail: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tail


def entry(*shape: int, start: int = 0, end: int = 0) -> dict[str, object]:
    return {"dtype": "F16", "shape": list(shape), "data_offsets": [start, end]}


def test_a_header(tmp_path: Path) -> None:
    """It is read from a file and from a stream, which may end where the header does."""
    header = {
        "__metadata__": {"a": "b"},
        "x.weight": entry(2, 3, end=12),
        "y": entry(start=12, end=14),
    }
    expected = Header(
        {"x.weight": Tensor("F16", (2, 3)), "y": Tensor("F16", ())},
        {"a": "b"},
    )
    path = tmp_path / "a.safetensors"
    path.write_bytes(packed(header, bytes(14)))
    assert read_header(path) == expected
    assert read_header(io.BytesIO(packed(header))) == expected
    assert read_header(io.BytesIO(packed(b"{}   "))) == Header({}, {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is cut off in its header: 0 of 8 bytes"),
        (b"\x08\x00", "the file is cut off in its header: 2 of 8 bytes"),
        (packed({"x": entry(2)})[:-1], "the file is cut off in its header"),
        (struct.pack("<Q", 99_999_999) + b"{}", "the file is cut off in its header: 2 of"),
        (struct.pack("<Q", 100_000_001), "no safetensors file: a header has at most 100000000"),
        (b"PK\x03\x04 a zip file", "no safetensors file"),
        (packed(b"[]"), "the header is no JSON object"),
        (packed(b" {}"), "the header is no JSON object"),
        (packed(b'{"a"'), "the header is no JSON: "),
        (packed(b'{"\xff": 1}'), "the header is not UTF-8"),
        (packed("{}".encode("utf-16-le")), "the header is no JSON"),
        (packed(b'{"a": ' + b"[" * 100_000), "the header is nested too deeply"),
        (packed(b'{"a": {}, "a": {}}'), "the header has a name twice"),
        (packed(b'{"__metadata__": {"a": "1", "a": "2"}}'), "the header has a name twice"),
        (packed({"__metadata__": {"a": 1}}), "metadata are not texts"),
        (packed({"__metadata__": []}), "metadata are not texts"),
        (packed(b'{"x": NaN}'), "the header has NaN for a number"),
        (packed(b'{"x": ' + b"9" * 5000 + b"}"), "the header has a number of 5000 digits"),
        (packed({"x": 5}), "a tensor without a dtype, shape and data_offsets"),
        (packed({"x": {"dtype": "F16", "shape": [1]}}), "a tensor without"),
        (packed({"x": entry(-1)}), "a tensor without"),
        (packed({"x": entry(1) | {"shape": [1.5]}}), "a tensor without"),
        (packed({"x": entry(1) | {"shape": [True]}}), "a tensor without"),
        (packed({"x": entry(1) | {"shape": "1"}}), "a tensor without"),
        (packed({"x": entry(1, start=2, end=1)}), "a tensor without"),
    ],
)
def test_what_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_header(io.BytesIO(content))


def test_a_file_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(packed({"x": entry(4, end=8)}, bytes(5)))
    with pytest.raises(ValueError, match="cut off: its last 3 bytes are missing"):
        read_header(path)
    with pytest.raises(ValueError, match="at most 10 bytes"):
        read_header(path, longest=10)
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "b.safetensors")


@given(st.binary(max_size=80) | st.binary(max_size=40).map(packed))
def test_no_bytes_raise_anything_else(content: bytes) -> None:
    with suppress(ValueError):
        header = read_header(io.BytesIO(content))
        assert (family_of_keys(header, "loras") or FAMILIES) <= FAMILIES


def shapes(tensors: Shapes, **metadata: str) -> Header:
    return Header({name: Tensor("F16", shape) for name, shape in tensors.items()}, metadata)


def lora(modules: Mapping[str, tuple[int, int]], form: str = "{}.lora_{}.weight") -> Shapes:
    """Return a LoRA for modules by their inward and outward sizes, as a trainer names its parts."""
    found: dict[str, tuple[int, ...]] = {}
    for name, (inward, outward) in modules.items():
        found[form.format(name, "down")] = (4, inward)
        found[form.format(name, "up")] = (outward, 4)
    return found


def peft(modules: Mapping[str, tuple[int, int]]) -> Shapes:
    """Return a LoRA with PEFT's names for its parts."""
    return {
        key.replace("lora_down", "lora_A").replace("lora_up", "lora_B"): shape
        for key, shape in lora(modules).items()
    }


def blocks(form: str, count: int, size: tuple[int, int]) -> dict[str, tuple[int, int]]:
    return {form.format(i): size for i in range(count)}


_SD = "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
LORAS: dict[str, tuple[Shapes, str]] = {
    "SD 1.5, kohya": (lora({f"lora_unet_{_SD}": (768, 640)}), "sd15"),
    "SD 2.1, kohya": (lora({f"lora_unet_{_SD}": (1024, 640)}), "sd2"),
    "SDXL, kohya": (
        lora(
            {
                "lora_te1_text_model_encoder_layers_0_mlp_fc1": (768, 3072),
                "lora_te2_text_model_encoder_layers_0_mlp_fc1": (1280, 5120),
                "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_k": (640, 640),
                "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k": (2048, 640),
            }
        ),
        "sdxl",
    ),
    "SDXL, diffusers": (
        peft(
            {f"unet.{_SD.replace('_attn', '.attn').replace('attn2_to', 'attn2.to')}": (2048, 640)}
        ),
        "sdxl",
    ),
    "SDXL, diffusers before PEFT": (
        lora(
            {
                "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.processor.to_v": (
                    2048,
                    640,
                )
            },
            "{}_lora.{}.weight",
        ),
        "sdxl",
    ),
    "SDXL, LoHa": (
        {
            f"lora_unet_{_SD}.hada_w1_a": (640, 4),
            f"lora_unet_{_SD}.hada_w1_b": (4, 2048),
            f"lora_unet_{_SD}.alpha": (),
        },
        "sdxl",
    ),
    "SDXL, text encoders alone": (
        lora({"lora_te2_text_model_encoder_layers_0_mlp_fc1": (1280, 5120)}),
        "sdxl sd3",
    ),
    "FLUX.1, kohya": (
        lora(
            blocks("lora_unet_double_blocks_{}_img_attn_qkv", 19, (3072, 9216))
            | blocks("lora_unet_double_blocks_{}_img_mod_lin", 19, (3072, 18432))
            | blocks("lora_unet_single_blocks_{}_linear1", 38, (3072, 21504))
        ),
        "flux",
    ),
    "FLUX.1 or Chroma, kohya, without modulation": (
        lora(
            blocks("lora_unet_double_blocks_{}_img_mlp_0", 19, (3072, 12288))
            | blocks("lora_unet_single_blocks_{}_linear1", 38, (3072, 21504))
        ),
        "flux chroma",
    ),
    "FLUX.1, diffusers": (
        peft(
            blocks("transformer.single_transformer_blocks.{}.attn.to_q", 38, (3072, 3072))
            | blocks("transformer.single_transformer_blocks.{}.norm.linear", 38, (3072, 9216))
            | blocks("transformer.transformer_blocks.{}.attn.add_q_proj", 19, (3072, 3072))
        ),
        "flux",
    ),
    "FLUX.1 or Chroma, diffusers": (
        peft(blocks("transformer.single_transformer_blocks.{}.attn.to_q", 38, (3072, 3072))),
        "flux chroma",
    ),
    "FLUX.1, OneTrainer": (
        lora(blocks("lora_transformer_single_transformer_blocks_{}_norm_linear", 38, (3072, 9216))),
        "flux",
    ),
    "FLUX.1, XLabs": (
        lora(
            {"double_blocks.0.processor.proj_lora1": (3072, 3072)},
            "{}.{}.weight",
        ),
        "flux",
    ),
    "FLUX.2 [dev]": (
        peft(blocks("diffusion_model.double_blocks.{}.img_attn.qkv", 8, (6144, 18432))),
        "flux2",
    ),
    "FLUX.2 [klein] 4B": (
        peft(blocks("diffusion_model.single_blocks.{}.linear1", 20, (3072, 27648))),
        "flux2",
    ),
    "Chroma": (
        lora(
            blocks("lora_unet_double_blocks_{}_img_attn_qkv", 19, (3072, 9216))
            | {"lora_unet_distilled_guidance_layer_layers_0_in_layer": (5120, 5120)}
        ),
        "chroma",
    ),
    "HunyuanVideo, musubi": (
        lora(blocks("lora_unet_double_blocks_{}_img_attn_qkv", 20, (3072, 9216))),
        "hunyuan-video",
    ),
    "HunyuanVideo, its own names": (
        peft(blocks("transformer.double_blocks.{}.img_mlp.fc1", 2, (3072, 12288))),
        "hunyuan-video",
    ),
    "HunyuanVideo 1.5": (
        lora(blocks("lora_unet_double_blocks_{}_img_attn_qkv", 54, (2048, 6144))),
        "hunyuan-video-1.5",
    ),
    "HunyuanImage 2.1": (
        lora(blocks("lora_unet_double_blocks_{}_img_attn_qkv", 20, (3584, 10752))),
        "hunyuan-image",
    ),
    "one of three by a few blocks": (
        lora({"lora_unet_double_blocks_0_img_attn_proj": (3072, 3072)}),
        "flux chroma hunyuan-video",
    ),
    "SD3 medium, diffusers": (
        peft(blocks("transformer.transformer_blocks.{}.attn.add_k_proj", 24, (1536, 1536))),
        "sd3",
    ),
    "SD3, its own names": (
        lora(blocks("lora_unet_joint_blocks_{}_context_block_attn_qkv", 24, (1536, 4608))),
        "sd3",
    ),
    "Qwen-Image": (
        peft(
            blocks("transformer_blocks.{}.attn.add_k_proj", 60, (3072, 3072))
            | blocks("transformer_blocks.{}.img_mlp.net.2", 60, (12288, 3072))
        ),
        "qwen",
    ),
    "Qwen-Image, attention alone": (
        peft(blocks("transformer.transformer_blocks.{}.attn.add_k_proj", 60, (3072, 3072))),
        "qwen",
    ),
    "Wan 14B": (
        peft(blocks("diffusion_model.blocks.{}.self_attn.q", 40, (5120, 5120))),
        "wan",
    ),
    "Wan 1.3B, musubi": (
        lora(blocks("lora_unet_blocks_{}_cross_attn_k", 30, (1536, 1536))),
        "wan",
    ),
    "Wan, two underscores": (
        lora({"lora_unet__blocks_0_cross_attn_k": (5120, 5120)}),
        "wan",
    ),
    "Wan 2.2 5B": (
        peft(blocks("diffusion_model.blocks.{}.self_attn.q", 30, (3072, 3072))),
        "wan2.2-5b",
    ),
    "Wan, LoKr": (
        {
            "lycoris_blocks_0_self_attn_q.lokr_w1": (4, 4),
            "lycoris_blocks_0_self_attn_q.lokr_w2": (1280, 1280),
        },
        "wan wan2.2-5b",
    ),
    "Cosmos Predict2": (
        peft(blocks("diffusion_model.blocks.{}.self_attn.q_proj", 28, (2048, 2048))),
        "cosmos-predict2",
    ),
    "Lumina 2": (peft({"diffusion_model.layers.0.attention.qkv": (2304, 3840)}), "lumina"),
    "Z-Image": (peft({"diffusion_model.layers.0.attention.to_q": (3840, 3840)}), "z-image"),
    "HiDream": (
        peft({"diffusion_model.double_stream_blocks.0.block.attn1.to_q": (2560, 2560)}),
        "hidream",
    ),
    "LTX-Video": (
        peft({"diffusion_model.transformer_blocks.0.attn2.to_k": (2048, 2048)}),
        "ltxv",
    ),
    "LTX-2": (
        peft(
            {
                "diffusion_model.transformer_blocks.0.attn2.to_k": (4096, 4096),
                "diffusion_model.transformer_blocks.0.audio_attn1.to_k": (2048, 2048),
            }
        ),
        "",
    ),
    "Mochi": (peft({"blocks.0.attn.qkv_x": (3072, 9216)}), "mochi"),
    "OmniGen2": (peft({"layers.0.attn.to_q": (2520, 2520)}), "omnigen2"),
    "Stable Cascade": (lora({"lora_prior_unet_clip_txt_mapper": (1280, 2048)}), "stable-cascade"),
    "another model": (peft({"layers.0.attention.qkv": (64, 64)}), ""),
    "nothing": ({}, ""),
}


@pytest.mark.parametrize("name", LORAS)
def test_loras(name: str) -> None:
    tensors, families = LORAS[name]
    assert family_of_keys(shapes(tensors), "loras") == (frozenset(families.split()) or None)


@pytest.mark.parametrize(
    ("metadata", "families"),
    [
        ({"ss_base_model_version": "flux1"}, "flux"),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        ({"ss_base_model_version": "sd_v1"}, "sd15"),
        ({"ss_base_model_version": "chroma"}, "chroma"),
        ({"ss_base_model_version": "lumina2"}, "lumina"),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "sdxl"),
        ({"modelspec.architecture": "stable-diffusion-v1/lora"}, "sd15"),
        ({"modelspec.architecture": "stable-diffusion-3-m/lora"}, "sd3"),
        ({"modelspec.architecture": "flux-1-dev/lora"}, "flux"),
        ({"modelspec.architecture": "hunyuan-image-2.1/lora"}, "hunyuan-image"),
        ({"ss_base_model_version": "?", "modelspec.architecture": "chroma"}, "chroma"),
        ({"ss_base_model_version": ""}, ""),
        ({"name": "sdxl"}, ""),
    ],
)
def test_metadata(metadata: dict[str, str], families: str) -> None:
    """They count where the tensors show nothing, and choose where those leave a choice."""
    named = frozenset(families.split())
    assert family_of_keys(shapes({"x": (1,)}, **metadata), "loras") == (named or None)
    ambiguous = shapes(LORAS["one of three by a few blocks"][0], **metadata)
    allowed = frozenset(("flux", "chroma", "hunyuan-video"))
    assert family_of_keys(ambiguous, "loras") == (named & allowed or allowed)
    certain = shapes(LORAS["Wan 14B"][0], **metadata)
    assert family_of_keys(certain, "loras") == frozenset(("wan",))


def test_the_demo_lora_is_of_flux() -> None:
    header = read_header(io.BytesIO(demo_lora()))
    assert family_of_keys(header, "loras") == frozenset(("flux",))


def model(
    prefix: str, names: Iterable[str] = (), **weights: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """Return a model's tensors; `a__b` are the weights of a module `a.b`."""
    found: dict[str, tuple[int, ...]] = {f"{prefix}{name}": (1,) for name in names}
    return found | {f"{prefix}{n.replace('__', '.')}.weight": s for n, s in weights.items()}


MODELS: dict[str, tuple[str, Shapes, str]] = {
    "an SD 1.5 checkpoint": (
        "checkpoints",
        model(
            "model.diffusion_model.",
            input_blocks__1__1__transformer_blocks__0__attn2__to_k=(320, 768),
        ),
        "sd15",
    ),
    "an SDXL checkpoint": (
        "checkpoints",
        model(
            "model.diffusion_model.",
            input_blocks__4__1__transformer_blocks__0__attn2__to_k=(640, 2048),
        )
        | {"conditioner.embedders.0.transformer.text_model.x.weight": (1, 1)},
        "sdxl",
    ),
    "the SDXL refiner": (
        "checkpoints",
        model(
            "model.diffusion_model.",
            input_blocks__4__1__transformer_blocks__0__attn2__to_k=(768, 1280),
        ),
        "sdxl-refiner",
    ),
    "a video model on SD 2": (
        "checkpoints",
        model(
            "model.diffusion_model.",
            input_blocks__1__1__transformer_blocks__0__attn2__to_k=(320, 1024),
            input_blocks__1__1__time_stack__0__attn1__to_q=(320, 320),
        ),
        "svd",
    ),
    "FLUX.1 in a checkpoint": (
        "checkpoints",
        model(
            "model.diffusion_model.",
            ("double_blocks.0.img_attn.norm.key_norm.scale",),
            double_blocks__0__img_mod__lin=(18432, 3072),
            double_blocks__18__img_attn__qkv=(9216, 3072),
        ),
        "flux",
    ),
    "FLUX.1": (
        "diffusion_models",
        model("", img_in=(3072, 64), double_blocks__0__img_mod__lin=(18432, 3072)),
        "flux",
    ),
    "Chroma": (
        "diffusion_models",
        model(
            "",
            ("distilled_guidance_layer.norms.0.scale",),
            double_blocks__0__img_attn__qkv=(9216, 3072),
        ),
        "chroma",
    ),
    "HunyuanVideo": (
        "diffusion_models",
        model(
            "",
            txt_in__individual_token_refiner__blocks__0__norm1=(3072,),
            double_blocks__0__img_attn__qkv=(9216, 3072),
        ),
        "hunyuan-video",
    ),
    "Hunyuan3D": ("checkpoints", model("model.", latent_in=(1024, 64)), "hunyuan3d"),
    "SD3": (
        "checkpoints",
        model(
            "model.diffusion_model.",
            joint_blocks__0__context_block__attn__qkv=(4608, 1536),
        ),
        "sd3",
    ),
    "Wan": (
        "diffusion_models",
        model("", blocks__0__self_attn__q=(1536, 1536), head__head=(64, 1536)),
        "wan",
    ),
    "Qwen-Image": (
        "diffusion_models",
        model("", txt_norm=(3584,), transformer_blocks__0__img_mod__1=(18432, 3072)),
        "qwen",
    ),
    "an SDXL ControlNet of diffusers": (
        "controlnet",
        model(
            "",
            ("controlnet_cond_embedding.conv_in.weight",),
            down_blocks__1__attentions__0__transformer_blocks__0__attn2__to_k=(640, 2048),
        ),
        "sdxl",
    ),
    "an SD 1.5 ControlNet": (
        "controlnet",
        model(
            "control_model.",
            input_blocks__1__1__transformer_blocks__0__attn2__to_k=(320, 768),
        ),
        "sd15",
    ),
    "a Control-LoRA for SDXL": (
        "controlnet",
        {
            "lora_controlnet": (1,),
            "input_blocks.4.1.transformer_blocks.0.attn2.to_k.down": (256, 2048),
            "input_blocks.4.1.transformer_blocks.0.attn2.to_k.up": (640, 256),
        },
        "sdxl",
    ),
    "a T2I adapter for SDXL": ("t2i_adapter", {"adapter.conv_in.weight": (320, 768, 3, 3)}, "sdxl"),
    "a T2I adapter for SD 1.5": ("controlnet", {"conv_in.weight": (320, 192, 3, 3)}, "sd15"),
    "a ControlNet for FLUX.1": (
        "controlnet",
        model(
            "",
            controlnet_x_embedder=(3072, 64),
            transformer_blocks__0__attn__add_q_proj=(3072, 3072),
        ),
        "flux",
    ),
    "a ControlNet for Qwen-Image": (
        "controlnet",
        model(
            "",
            controlnet_x_embedder=(3072, 64),
            transformer_blocks__0__img_mlp__net__0__proj=(12288, 3072),
        ),
        "qwen",
    ),
    "a ControlNet for SD3": (
        "controlnet",
        model("", transformer_blocks__0__attn__add_q_proj=(1536, 1536)),
        "sd3",
    ),
    "a VAE of four channels": ("vae", {"decoder.conv_in.weight": (512, 4, 3, 3)}, "sd15 sdxl"),
    "a VAE of sixteen channels": ("vae", {"decoder.conv_in.weight": (512, 16, 3, 3)}, "flux sd3"),
    "a VAE out of a checkpoint": (
        "vae",
        {"first_stage_model.decoder.conv_in.weight": (512, 16, 3, 3)},
        "flux sd3",
    ),
    "FLUX.2's VAE": (
        "vae",
        {"bn.running_mean": (128,), "decoder.conv_in.weight": (512, 32, 3, 3)},
        "flux2",
    ),
    "Wan 2.1's VAE": ("vae", {"decoder.middle.0.residual.0.gamma": (384, 1, 1, 1)}, "wan qwen"),
    "Wan 2.2's VAE": (
        "vae",
        {
            "decoder.middle.0.residual.0.gamma": (1024, 1, 1, 1),
            "decoder.upsamples.0.upsamples.0.residual.2.weight": (1024, 1024, 3, 3, 3),
        },
        "wan2.2-5b",
    ),
    "HunyuanVideo's VAE": (
        "vae",
        {"decoder.conv_in.conv.weight": (512, 16, 3, 3, 3)},
        "hunyuan-video",
    ),
    "a VAE of another kind": ("vae", {"decoder.conv_in.weight": (512, 99, 3, 3)}, ""),
    "a tensor without axes": ("vae", {"decoder.conv_in.weight": ()}, ""),
    "CLIP-L": (
        "text_encoders",
        {"text_model.encoder.layers.0.mlp.fc1.weight": (3072, 768)},
        "sd15 sdxl sd3 flux hidream hunyuan-video",
    ),
    "CLIP-G": (
        "clip",
        {
            "text_model.encoder.layers.0.mlp.fc1.weight": (5120, 1280),
            "text_model.encoder.layers.30.mlp.fc1.weight": (5120, 1280),
        },
        "sdxl sdxl-refiner sd3 hidream stable-cascade",
    ),
    "T5-XXL": (
        "text_encoders",
        {"encoder.block.23.layer.1.DenseReluDense.wi_1.weight": (10240, 4096)},
        "flux chroma sd3 ltxv mochi pixart-alpha pixart-sigma hidream",
    ),
    "umT5-XXL": (
        "text_encoders",
        {
            "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight": (32, 64),
            "encoder.block.23.layer.1.DenseReluDense.wi_1.weight": (10240, 4096),
        },
        "wan wan2.2-5b",
    ),
    "Qwen2.5-VL 7B": (
        "text_encoders",
        {
            "model.layers.0.self_attn.k_proj.bias": (512,),
            "model.layers.0.post_attention_layernorm.weight": (3584,),
        },
        "qwen hunyuan-image hunyuan-video-1.5",
    ),
    "Gemma 2 2B": (
        "text_encoders",
        {
            "model.layers.0.post_feedforward_layernorm.weight": (2304,),
            "model.layers.0.post_attention_layernorm.weight": (2304,),
        },
        "lumina",
    ),
    "Gemma 3 4B": (
        "text_encoders",
        {
            "model.layers.0.post_feedforward_layernorm.weight": (2560,),
            "model.layers.0.post_attention_layernorm.weight": (2560,),
        },
        "",
    ),
    "Redux": ("style_models", {"redux_down.weight": (4096, 12288)}, "flux"),
    "an IP-Adapter": ("ipadapter", {"ip_adapter.1.to_k_ip.weight": (640, 2048)}, "sdxl"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_models(name: str) -> None:
    folder, tensors, families = MODELS[name]
    assert family_of_keys(shapes(tensors), folder) == (frozenset(families.split()) or None)


@given(
    st.dictionaries(st.text(max_size=20), st.lists(st.integers(0, 5000), max_size=3).map(tuple)),
    st.dictionaries(st.text(max_size=20), st.text(max_size=20)),
    st.sampled_from(["loras", "vae", "text_encoders", "checkpoints", "no such folder"]),
)
def test_no_keys_raise(tensors: Shapes, metadata: dict[str, str], folder: str) -> None:
    header = Header(shapes(tensors).tensors, metadata)
    assert (family_of_keys(header, folder) or FAMILIES) <= FAMILIES


def test_hostile_headers_take_little_time() -> None:
    many = {f"lora_unet_{'x_' * 30}{i}_y{i}.weight": (1, 1) for i in range(100_000)}
    start = process_time()
    assert family_of_keys(shapes(many), "loras") is None
    assert family_of_keys(shapes({f"a_{'9' * 190}_{'model.' * 10_000}": (1,)}), "loras") is None
    # Seconds where it is linear, hours where it is not.
    assert process_time() - start < 30
