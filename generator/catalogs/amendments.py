"""What ComfyUI does not report of classes, from the packs' own code; by class, or class and input."""

from typing import Any, Final

# Classes that read inputs beyond their schema: by kwargs, by a format's own widgets, by count.
OPEN: Final = frozenset(
    (
        "Any Switch (rgthree)",
        "ClownOptions_Combine",
        "ClownSamplerAdvanced_Beta",
        "ClownSampler_Beta",
        "ClownsharKSampler_Beta",
        "ClownsharkChainsampler_Beta",
        "Power Lora Loader (rgthree)",
        "Power Primitive (rgthree)",
        "Power Puter (rgthree)",
        "SharkSampler_Beta",
        "VHS_VideoCombine",
    )
)

# Inputs beyond the schema that name files, as graph.catalog.More has them.
MORE: Final[dict[str, list[dict[str, Any]]]] = {
    "Power Lora Loader (rgthree)": [
        {"name": "lora_*", "key": "lora", "switch": "on", "folders": ["loras"]}
    ],
}

# Files that classes load though no input names them, as graph.catalog.Loads has them. insightface
# downloads what is missing, and unpacks antelopev2 into a folder in which it then finds nothing.
_ANTELOPE: Final[dict[str, Any]] = {
    "files": [
        f"insightface/models/antelopev2/{name}.onnx"
        for name in ("1k3d68", "2d106det", "genderage", "glintr100", "scrfd_10g_bnkps")
    ],
    "hf": "DIAMONIK7777/antelopev2",
}
_BUFFALO: Final[dict[str, Any]] = {
    "files": [
        f"insightface/models/buffalo_l/{name}.onnx"
        for name in ("1k3d68", "2d106det", "det_10g", "genderage", "w600k_r50")
    ],
}
_BY_PRESET: Final[dict[str, Any]] = {"files": ["clip_vision/*", "ipadapter/*"]}
LOADS: Final[dict[str, list[dict[str, Any]]]] = {
    "InstantIDFaceAnalysis": [_ANTELOPE],
    "PulidFluxInsightFaceLoader": [_ANTELOPE],
    "IPAdapterInsightFaceLoader": [
        {**_ANTELOPE, "when": {"model_name": "antelopev2"}},
        {**_BUFFALO, "when": {"model_name": "buffalo_l"}},
    ],
    "IPAdapterUnifiedLoader": [_BY_PRESET],
    "IPAdapterUnifiedLoaderCommunity": [_BY_PRESET],
    "IPAdapterUnifiedLoaderFaceID": [_BY_PRESET, _BUFFALO],
}

# Folders that inputs list: of a pack's own, and where the schema has fixed names.
FOLDERS: Final = {
    ("FluxLoraLoader", "lora_name"): ["xlabs/loras"],
    ("IPAdapterFluxLoader", "ipadapter"): ["ipadapter-flux"],
    ("IPAdapterFluxLoaderAdvanced", "ipadapter"): ["ipadapter-flux"],
    ("IPAdapterModelLoader", "ipadapter_file"): ["ipadapter"],
    ("LoadFluxControlNet", "controlnet_path"): ["xlabs/controlnets"],
    ("LoadFluxIPAdapter", "ipadatper"): ["xlabs/ipadapters"],
    ("SeedVR2LoadVAEModel", "model"): ["SEEDVR2"],
}

# Extensions of the files that inputs list, where they are not ComfyUI's own alone, for which
# .safetensors stands.
_GGUF: Final = [".gguf"]
_GGUF_TOO: Final = [".gguf", ".safetensors"]
EXTENSIONS: Final = {
    ("UnetLoaderGGUF", "unet_name"): _GGUF,
    ("UnetLoaderGGUFAdvanced", "unet_name"): _GGUF,
    ("GGUFLoaderKJ", "model_name"): _GGUF,
    ("GGUFLoaderKJ", "extra_model_name"): _GGUF,
    ("CLIPLoaderGGUF", "clip_name"): _GGUF_TOO,
    **{("DualCLIPLoaderGGUF", f"clip_name{i}"): _GGUF_TOO for i in (1, 2)},
    **{("TripleCLIPLoaderGGUF", f"clip_name{i}"): _GGUF_TOO for i in (1, 2, 3)},
    **{("QuadrupleCLIPLoaderGGUF", f"clip_name{i}"): _GGUF_TOO for i in (1, 2, 3, 4)},
    ("SeedVR2LoadDiTModel", "model"): _GGUF_TOO,
    ("SeedVR2LoadVAEModel", "model"): _GGUF_TOO,
}

# Texts that are the name of a file of some kind.
MEDIA: Final = {
    ("Preview3D", "model_file"): ["glb"],
    ("Preview3DAnimation", "model_file"): ["glb"],
}
