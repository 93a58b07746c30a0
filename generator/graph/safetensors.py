"""The header of a safetensors file, and the model family that its tensors show.

A header says each tensor's name and shape, which is enough to tell a LoRA for SDXL from one for
FLUX.1; the tensors themselves are never read. Files come from strangers, so the header is taken
for hostile.

Sources: the format, https://github.com/huggingface/safetensors#format; names and shapes of
tensors in ComfyUI's comfy/model_detection.py, comfy/sd.py, comfy/lora.py and comfy/controlnet.py;
names of LoRA files' metadata in kohya-ss/sd-scripts.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from .families import Families, families_named, family_of_name

__all__ = ["Header", "Tensor", "family_of_keys", "read_header"]

# The format's own limit.
LONGEST_HEADER: Final = 100_000_000
_LENGTH_BYTES: Final = 8
_CHUNK: Final = 1 << 20
_LONGEST_NUMBER: Final = 20
_METADATA: Final = "__metadata__"
# The largest models have some thousand tensors; names beyond these tell nothing new.
_MOST_TENSORS: Final = 20_000
_LONGEST_KEY: Final = 200


class Tensor(NamedTuple):
    """What a header says of a tensor."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """The tensors of a file by name, and the texts that its writer added."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def read_header(
    source: Path | BinaryIO, longest: int = LONGEST_HEADER, size: int | None = None
) -> Header:
    """Return the header of a file, or of a stream that begins as the file does.

    Only the header is read. It is checked too that the file is as long as its header says; of a
    stream, where `size` says how long the file is.

    Raises:
        ValueError: when it is no safetensors file, or a part of one; the text says why.
        OSError: when the file cannot be read.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            header, length = _header(file, longest)
        size = source.stat().st_size
    else:
        header, length = _header(source, longest)
    missing = 0 if size is None else length - size
    if missing > 0:
        raise ValueError(f"the file is cut off: its last {missing} bytes are missing")
    return header


def _header(file: BinaryIO, longest: int) -> tuple[Header, int]:
    """Return a header, and how long the file is by it."""
    length = int.from_bytes(_read(file, _LENGTH_BYTES), "little")
    if length > longest:
        raise ValueError(f"no safetensors file: a header has at most {longest} bytes, not {length}")
    text = _read(file, length)
    if not text.startswith(b"{"):
        raise ValueError("no safetensors file: the header is no JSON object")
    try:
        entries = json.loads(
            text.decode(), object_pairs_hook=_unique, parse_int=_size, parse_constant=_no_number
        )
    except RecursionError:
        raise ValueError("the header is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("the header is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"the header is no JSON: {error.msg}") from None
    metadata = entries.pop(_METADATA, {})
    if not _is_texts(metadata):
        raise ValueError("the header's metadata are not texts")
    read = {name: _tensor(entry) for name, entry in entries.items()}
    end = max((end for _, end in read.values()), default=0)
    tensors = {name: tensor for name, (tensor, _) in read.items()}
    return Header(tensors, metadata), _LENGTH_BYTES + length + end


def _read(file: BinaryIO, length: int) -> bytes:
    """Return so many bytes, in pieces: a length that lies costs no memory."""
    pieces = bytearray()
    while len(pieces) < length:
        piece = file.read(min(_CHUNK, length - len(pieces)))
        if not piece:
            raise ValueError(f"the file is cut off in its header: {len(pieces)} of {length} bytes")
        pieces += piece
    return bytes(pieces)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("the header has a name twice")
    return found


def _size(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"the header has a number of {len(text)} digits")
    return int(text)


def _no_number(text: str) -> None:
    raise ValueError(f"the header has {text} for a number")


def _is_texts(metadata: object) -> bool:
    return isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())


def _tensor(entry: object) -> tuple[Tensor, int]:
    """Return a tensor's entry as a record, and where among the data it ends."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [start, end]} if (
            _are_sizes((*shape, start, end)) and start <= end
        ):
            return Tensor(dtype, tuple(shape)), end
    raise ValueError("the header has a tensor without a dtype, shape and data_offsets")


def _are_sizes(values: Iterable[object]) -> bool:
    return all(type(value) is int and value >= 0 for value in values)


def family_of_keys(header: Header, folder: str) -> Families | None:
    """Return the families that a file belongs to by its header, None when it shows none.

    `folder` is the model folder that the file lies in: it says what the file should be.
    """
    shown = _EXACT.get(folder)
    by_keys = _by_key(header, shown) if shown else _by_module(header)
    by_metadata = _by_metadata(header.metadata)
    if by_keys and by_metadata:
        return by_keys & by_metadata or by_keys
    return by_keys or by_metadata


def _by_metadata(metadata: Mapping[str, str]) -> Families | None:
    texts = (metadata.get(key, "") for key in ("ss_base_model_version", "modelspec.architecture"))
    named = (families_named(text.split("/")[0]) for text in texts if text)
    return next((families for families in named if families), None)


class _Key(NamedTuple):
    """A tensor that shows a family: its name, and the size of one axis if that tells it."""

    name: str
    families: Families
    axis: int = 0
    size: int | None = None


def _by_key(header: Header, keys: Iterable[_Key]) -> Families | None:
    for key in keys:
        for prefix in _HOLDERS:
            tensor = header.tensors.get(prefix + key.name)
            if tensor and (
                key.size is None or tensor.shape[key.axis : key.axis + 1] == (key.size,)
            ):
                return key.families
    return None


class _Module(NamedTuple):
    """Modules of one name but for their numbers: their sizes, and the highest first number."""

    name: str
    inward: int | None
    outward: int | None
    highest: int


class _Sign(NamedTuple):
    """A module that shows a family: the pattern of its name, and sizes if they tell it.

    `beyond`: the first number in the name is higher than this in one of the blocks.
    """

    pattern: re.Pattern[str]
    families: Families
    inward: tuple[int, ...] = ()
    outward: int | None = None
    beyond: int = -1


def _by_module(header: Header) -> Families | None:
    modules = _modules(header)
    for sign in _SIGNS:
        for module in modules:
            if (
                (not sign.inward or module.inward in sign.inward)
                and (sign.outward is None or module.outward == sign.outward)
                and module.highest > sign.beyond
                and sign.pattern.search(module.name)
            ):
                return sign.families or None
    return None


def _modules(header: Header) -> list[_Module]:
    """Return the modules that a file has weights or changes for.

    Trainers join names by dots or by underscores and put their own words before and after them;
    all that is taken off, so that a LoRA and a model name a module in the same way.
    """
    found: dict[str, _Module] = {}
    for key, tensor in list(header.tensors.items())[:_MOST_TENSORS]:
        if len(key) > _LONGEST_KEY:
            continue
        name, part = _split(_BEFORE.sub("", key))
        numbers = _NUMBER.findall(name)
        highest = int(numbers[0][:_DIGITS]) if numbers else 0
        name = _NUMBER.sub("#", name)
        inward, outward = _sizes(part, tensor.shape)
        known = found.get(name, _Module(name, None, None, 0))
        found[name] = _Module(
            name,
            known.inward if inward is None else inward,
            known.outward if outward is None else outward,
            max(known.highest, highest),
        )
    return list(found.values())


def _split(key: str) -> tuple[str, str]:
    """Return the name of a module and of its part that a tensor is."""
    after = _AFTER.search(key)
    name, part = (key[: after.start()], after[1]) if after else (key, "")
    return name.replace(".", "_"), part


def _sizes(part: str, shape: tuple[int, ...]) -> tuple[int | None, int | None]:
    """Return the inward and outward size of a module, as far as one of its parts shows them."""
    if len(shape) < 2:
        return None, None
    inward = shape[1] if part in _INWARD else None
    return inward, shape[0] if part in _OUTWARD else None


_DIGITS: Final = 6
_NUMBER: Final = re.compile(r"(?<=_)\d+(?=_|$)", re.ASCII)
_BEFORE: Final = re.compile(
    r"^(?:model\.diffusion_model\.|diffusion_model\.|model\.model\.|base_model\.model\.|"
    r"control_model\.|transformer\.|unet\.|net\.|model\.|"
    r"lora_unet_+|lora_transformer_|lora_prior_unet_|lycoris_)+"
)
_AFTER: Final = re.compile(
    r"[._](?:lora[._])?(lora_down|lora_up|lora_A|lora_B|down|up|alpha|dora_scale|diff|diff_b|"
    r"hada_w[12]_[ab]|lokr_w[12](?:_[ab])?|weight|bias|scale)(?:\.default)?(?:\.weight|\.bias)?$"
)
_INWARD: Final = frozenset(("lora_down", "lora_A", "down", "hada_w1_b", "weight"))
_OUTWARD: Final = frozenset(("lora_up", "lora_B", "up", "hada_w1_a", "weight"))

# What holds a VAE inside of a checkpoint.
_HOLDERS: Final = ("", "first_stage_model.", "vae.")


def _families(names: str) -> Families:
    return frozenset(names.split())


def _encoder(name: str) -> Families:
    return family_of_name(name, "text_encoders") or Families()


_ATTENTION: Final = "encoder.block.{}.layer.0.SelfAttention"
_FEED_FORWARD: Final = "encoder.block.23.layer.1.DenseReluDense"
_LAYER: Final = "model.layers.0"
_TEXT_ENCODERS: Final = (
    # Only umT5 has a bias of its own in each layer; its width is the number of heads.
    _Key(f"{_ATTENTION.format(1)}.relative_attention_bias.weight", _encoder("umt5xxl"), 1, 64),
    _Key(f"{_ATTENTION.format(1)}.relative_attention_bias.weight", _encoder("umt5-base"), 1, 12),
    _Key(f"{_FEED_FORWARD}.wi_1.weight", _encoder("t5xxl"), 1, 4096),
    _Key(f"{_FEED_FORWARD}.wi_1.weight", _families("auraflow"), 1, 2048),
    _Key(f"{_FEED_FORWARD}.wi.weight", _encoder("oldt5xxl")),
    _Key(f"{_ATTENTION.format(0)}.k.weight", _encoder("byt5-small"), 0, 384),
    _Key(f"{_ATTENTION.format(0)}.k.weight", _encoder("t5-base"), 0, 768),
    _Key("text_model.encoder.layers.30.mlp.fc1.weight", _encoder("clip-g")),
    _Key("text_model.encoder.layers.22.mlp.fc1.weight", _encoder("clip-h")),
    _Key("text_model.encoder.layers.0.mlp.fc1.weight", _encoder("clip-l")),
    _Key(f"{_LAYER}.post_feedforward_layernorm.weight", _encoder("gemma-2-2b"), 0, 2304),
    _Key(f"{_LAYER}.post_feedforward_layernorm.weight", Families()),
    _Key(f"{_LAYER}.self_attn.k_proj.bias", _encoder("qwen2.5-vl-7b"), 0, 512),
    _Key(f"{_LAYER}.self_attn.k_proj.bias", _families("omnigen2"), 0, 256),
    _Key(f"{_LAYER}.post_attention_layernorm.weight", _encoder("qwen3-4b"), 0, 2560),
    _Key(f"{_LAYER}.self_attn.q_norm.weight", Families()),
    _Key(f"{_LAYER}.post_attention_layernorm.weight", _encoder("llama-3.1-8b"), 0, 4096),
    _Key(f"{_LAYER}.post_attention_layernorm.weight", _families("flux2"), 0, 5120),
)
_FIRST_BLOCK: Final = "decoder.up_blocks.0.res_blocks.0.conv1.conv.weight"
_VAES: Final = (
    _Key("decoder.mid.block_1.mix_factor", _families("svd")),
    _Key("vquantizer.codebook.weight", _families("stable-cascade")),
    _Key("encoder.backbone.1.0.block.0.1.num_batches_tracked", _families("stable-cascade")),
    _Key("bn.running_mean", _families("flux2")),
    # One architecture with one number of channels, trained twice: the shapes are the same.
    _Key("decoder.conv_in.weight", _families("sd15 sdxl"), 1, 4),
    _Key("decoder.conv_in.weight", _families("flux sd3"), 1, 16),
    _Key("decoder.conv_in.weight", _families("hunyuan-image"), 1, 64),
    _Key("decoder.layers.1.layers.0.beta", _families("stable-audio")),
    _Key("decoder.blocks.2.blocks.3.stack.5.weight", _families("mochi")),
    _Key("blocks.2.blocks.3.stack.5.weight", _families("mochi")),
    _Key(_FIRST_BLOCK, _families("ltxv")),
    _Key("decoder.conv_in.conv.weight", _families("hunyuan-video"), 1, 16),
    _Key("decoder.conv_in.conv.weight", _families("hunyuan-video-1.5"), 1, 32),
    _Key("decoder.unpatcher3d.wavelets", _families("cosmos")),
    _Key("decoder.upsamples.0.upsamples.0.residual.2.weight", _families("wan2.2-5b")),
    _Key("decoder.middle.0.residual.0.gamma", _families("wan qwen")),
    _Key("geo_decoder.cross_attn_decoder.ln_1.bias", _families("hunyuan3d")),
    _Key("vocoder.backbone.channel_layers.0.0.bias", _families("ace-step")),
)
_EXACT: Final[Mapping[str, tuple[_Key, ...]]] = {
    "vae": _VAES,
    "text_encoders": _TEXT_ENCODERS,
    "clip": _TEXT_ENCODERS,
    "style_models": (
        _Key("redux_down.weight", _families("flux")),
        _Key("style_embedding", _families("sd15")),
    ),
    "ipadapter": (
        _Key("ip_adapter.1.to_k_ip.weight", _families("sd15"), 1, 768),
        _Key("ip_adapter.1.to_k_ip.weight", _families("sd2"), 1, 1024),
        _Key("ip_adapter.1.to_k_ip.weight", _families("sdxl"), 1, 2048),
    ),
}


def _sign(
    pattern: str,
    families: str,
    *inward: int,
    outward: int | None = None,
    beyond: int = -1,
) -> _Sign:
    return _Sign(re.compile(pattern), _families(families), inward, outward, beyond)


# The U-Nets differ in the width of the text that their blocks attend to.
_TEXT: Final = r"^(?:down|up|mid|input|output|middle)_blocks?_.*attn2_(?:processor_)?to_[kv]"
_DOUBLE: Final = r"^double_blocks_#_(?:img|txt)"
# Transformers of one naming differ in their width, and where that is one too in the modules that
# only one of them has, or in how many blocks they have. The first sign that is found counts.
_SIGNS: Final = (
    _sign(r"_time_(?:stack|mix_blocks)_", "svd"),
    _sign(r"^encoder_hid_proj", "kolors"),
    _sign(_TEXT, "sd15", 768),
    _sign(_TEXT, "sd2", 1024),
    _sign(_TEXT, "sdxl", 2048),
    _sign(_TEXT, "sdxl-refiner", 1280),
    _sign(r"^(?:adapter_)?conv_in$", "sd15", 64, 192),
    _sign(r"^(?:adapter_)?conv_in$", "sdxl", 256, 768),
    _sign(r"^joint_blocks_#_(?:context|x)_block", "sd3"),
    _sign(r"^(?:double|single)_stream_blocks_#_block", "hidream"),
    _sign(r"^joint_transformer_blocks|^double_layers_#_attn_w1q", "auraflow"),
    _sign(r"^clf_#|^clip_txt_mapper", "stable-cascade"),
    _sign(r"^mlp_t5_#|^after_proj_list", "hunyuan-dit"),
    _sign(r"^(?:genre_embedder|lyric_encoder|speaker_embedder)", "ace-step"),
    _sign(r"^rotary_pos_emb_inv_freq", "stable-audio"),
    _sign(r"^latent_in$", "hunyuan3d"),
    _sign(rf"{_DOUBLE}_attn_(?:qkv|proj)", "hunyuan3d", 1024),
    _sign(rf"{_DOUBLE}_attn_(?:qkv|proj)", "hunyuan-video-1.5", 2048),
    _sign(rf"{_DOUBLE}_attn_(?:qkv|proj)", "hunyuan-image", 3584),
    _sign(rf"{_DOUBLE}_attn_(?:qkv|proj)|^single_blocks_#_linear\d", "flux2", 4096, 6144),
    _sign(r"^distilled_guidance_layer", "chroma"),
    _sign(r"^double_stream_modulation", "flux2"),
    _sign(r"^single_blocks_#_linear1$", "flux2", outward=27648),
    _sign(rf"{_DOUBLE}_mlp_#$", "flux2", outward=18432),
    _sign(r"^txt_in_individual_token_refiner", "hunyuan-video"),
    _sign(rf"{_DOUBLE}_(?:mlp_fc\d|mod_linear)|^single_blocks_#_modulation_linear", "hunyuan-video"),
    _sign(r"^double_blocks_#_", "hunyuan-video", beyond=18),
    _sign(r"^single_blocks_#_", "hunyuan-video", beyond=37),
    _sign(rf"{_DOUBLE}_mod_lin$|^single_blocks_#_modulation_lin$", "flux"),
    _sign(r"^(?:double|single)_blocks_#_processor|^(?:vector|guidance)_in_", "flux"),
    _sign(rf"{_DOUBLE}_mlp_#$", "flux chroma"),
    _sign(r"^double_blocks_#_(?:img|txt)_attn|^single_blocks_#_linear\d", "flux chroma hunyuan-video",
          3072),
    _sign(r"^single_transformer_blocks_#_attn_to_qkv_mlp_proj", "flux2"),
    _sign(r"^single_transformer_blocks_#_", "hunyuan-video", beyond=37),
    _sign(r"^single_transformer_blocks_#_norm_linear$", "flux", 3072),
    _sign(r"^single_transformer_blocks_#_(?:attn_to_[qkv]|proj_mlp)$", "flux chroma", 3072),
    _sign(r"^transformer_blocks_#_(?:img|txt)_(?:mlp|mod)_", "qwen"),
    _sign(r"^transformer_blocks_#_attn_(?:add_[qkv]_proj|to_[qkv])$", "sd3", 1536, 2432),
    _sign(r"^transformer_blocks_#_attn_add_[qkv]_proj$", "qwen", 3072, beyond=18),
    _sign(r"^controlnet_x_embedder$", "flux", 64),
    _sign(r"^transformer_blocks_#_adaLN_modulation", "sd3"),
    _sign(r"^transformer_blocks_#_attn_add_[qkv]_proj$", "flux chroma qwen hunyuan-video", 3072),
    _sign(r"^transformer_blocks_#_.*audio|^audio_", ""),
    _sign(r"^transformer_blocks_#_attn[12]_to_[qkv]$", "ltxv", 2048, 4096),
    _sign(r"^transformer_blocks_#_attn[12]_to_[qkv]$|^t_block_#", "pixart-alpha pixart-sigma", 1152),
    _sign(r"^blocks_block\d+_blocks", "cosmos"),
    _sign(r"^blocks_#_(?:(?:self|cross)_attn_(?:q|k|v|output)_proj|mlp_layer\d)", "cosmos-predict2"),
    _sign(r"^blocks_#_(?:(?:self|cross)_attn_[qkvo]|attn[12]_to_[qkv])$", "wan2.2-5b", 3072),
    _sign(r"^blocks_#_(?:(?:self|cross)_attn_[qkvo]|attn[12]_to_[qkv])$", "wan", 1536, 5120),
    _sign(r"^blocks_#_(?:self|cross)_attn_[qkvo]$", "wan wan2.2-5b"),
    _sign(r"^blocks_#_attn_qkv_[xy]$", "mochi"),
    _sign(r"^layers_#_attention_(?:qkv|to_[qkv])$", "lumina", 2304),
    _sign(r"^layers_#_attention_(?:qkv|to_[qkv])$", "z-image", 3840),
    _sign(r"^layers_#_attn_to_[qkv]$", "omnigen2", 2520),
    _sign(r"^lora_te2_text_model", "sdxl sd3"),
    _sign(r"^lora_te_text_model", "sd15 sd2"),
)  # fmt: skip
