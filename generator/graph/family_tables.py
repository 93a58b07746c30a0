"""What is known of model families: which fit together, how their files and nodes are called.

A family is a kind of model: flux, sdxl, wan. What a link carries works with some families and not
with others, so each value has a set of them: a model's is its own family, a VAE's all families
that share its latent space. Two values fit when their sets overlap. What no table knows fits
everything.

Sources: latent formats, text encoders and the choice among them in ComfyUI's
comfy/latent_formats.py, comfy/supported_models.py and comfy/sd.py; file names and the parts that
they are used with in the official templates (comfyui-workflow-templates).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

Families = frozenset[str]


def _set(names: str) -> Families:
    return frozenset(names.split())


# The families of a row share a latent space: each decodes what another's VAE encoded.
LATENT_SPACES: Final = tuple(
    map(
        _set,
        (
            "sd15 sd2 svd pixart-alpha",
            "sdxl sdxl-refiner pixart-sigma auraflow hunyuan-dit kolors",
            "sd3",
            "flux chroma lumina z-image hidream omnigen2",
            "flux2",
            "wan qwen cosmos-predict2",
            "wan2.2-5b",
            "hunyuan-video",
            "hunyuan-video-1.5",
            "hunyuan-image",
            "hunyuan3d",
            "mochi",
            "ltxv",
            "cosmos",
            "stable-cascade",
            "stable-audio",
            "ace-step",
        ),
    )
)
FAMILIES: Final = frozenset[str]().union(*LATENT_SPACES)

# Encoders of one kind, by their usual file names and the families that read them.
_T5_FAMILIES: Final = "flux chroma sd3 ltxv mochi pixart-alpha pixart-sigma"
TEXT_ENCODERS: Final = tuple(
    (re.compile(pattern), _set(families))
    for pattern, families in (
        (r"(^|-)umt5-?xxl", "wan wan2.2-5b"),
        (r"(^|-)umt5-?base", "ace-step"),
        (r"^(google-)?t5-?xxl|^t5-v1-1-xxl", f"{_T5_FAMILIES} hidream"),
        (r"^old-?t5-?xxl", "cosmos cosmos-predict2"),
        (r"^t5-?base", "stable-audio"),
        (r"^(long-)?clip-l(?![a-z])", "sd15 sdxl sd3 flux hidream hunyuan-video"),
        (r"^clip-g(?![a-z])", "sdxl sdxl-refiner sd3 hidream stable-cascade"),
        (r"^clip-h(?![a-z])", "sd2"),
        (r"^llama-3-1-8b|^llava-llama-?3", "hidream hunyuan-video"),
        (r"^gemma-2-2b(?!.*elm)", "lumina"),
        (r"^qwen-?2-5-vl-7b", "qwen hunyuan-image hunyuan-video-1.5"),
        (r"^qwen-?3-4b(?!.*ace)", "z-image flux2"),
        (r"^qwen-?3-8b", "flux2"),
        (r"^mistral-3-small-flux-?2", "flux2"),
        (r"^byt5-small", "hunyuan-image hunyuan-video-1.5"),
    )
)

# Whose conditioning which other models take: T5 alone serves every model that reads T5.
_CONDITIONING: Final = {
    "flux": _set("flux chroma"),
    **dict.fromkeys(
        ("chroma", "ltxv", "mochi", "pixart-alpha", "pixart-sigma"), _set(_T5_FAMILIES)
    ),
    **dict.fromkeys(("wan", "wan2.2-5b"), _set("wan wan2.2-5b")),
    **dict.fromkeys(("cosmos", "cosmos-predict2"), _set("cosmos cosmos-predict2")),
    **dict.fromkeys(
        ("qwen", "hunyuan-image", "hunyuan-video-1.5"),
        _set("qwen hunyuan-image hunyuan-video-1.5"),
    ),
}
# Chroma was cut from FLUX.1 [schnell] and has its blocks.
_ADAPTERS: Final = {
    **dict.fromkeys(("flux", "chroma"), _set("flux chroma")),
    **dict.fromkeys(("wan", "wan2.2-5b"), _set("wan wan2.2-5b")),
}


def _shared(groups: Iterable[Families]) -> dict[str, Families]:
    shared: dict[str, Families] = {}
    for group in groups:
        shared |= {family: shared.get(family, group) | group for family in group}
    return shared


_SHARED_LATENTS: Final = _shared(LATENT_SPACES)
_SHARED_ENCODERS: Final = _shared(families for _, families in TEXT_ENCODERS)

# What a part of a family works with besides its own, by the type of its links.
FITS: Final[Mapping[str, Mapping[str, Families]]] = {
    "LATENT": _SHARED_LATENTS,
    "VAE": _SHARED_LATENTS,
    "CLIP": _CONDITIONING,
    "CONTROL_NET": _ADAPTERS,
    "MODEL_PATCH": _ADAPTERS,
    "STYLE_MODEL": _ADAPTERS,
    "IPADAPTER": _ADAPTERS,
    "PULIDFLUX": _ADAPTERS,
    "loras": _ADAPTERS,
}
# A file that several families read may be declared for one of them.
DECLARED_FITS: Final[Mapping[str, Mapping[str, Families]]] = {
    "text_encoders": _SHARED_ENCODERS,
    "clip": _SHARED_ENCODERS,
}


class LinkType(NamedTuple):
    """What links of a type carry.

    `noun` and `remedy` are a message's words. `made_of`: an output takes its families from the
    inputs of the first of these types that the node has.
    """

    noun: str
    remedy: str
    made_of: tuple[str, ...]


# In the order in which a node's inputs are compared: who comes first says what the rest must be.
LINK_TYPES: Final[Mapping[str, LinkType]] = {
    "MODEL": LinkType("model", "use a model of {}", ("MODEL",)),
    "GUIDER": LinkType("guider's model", "use a model of {}", ("MODEL", "GUIDER")),
    "CLIP": LinkType("text encoder", "use the text encoders of {}", ("CLIP",)),
    "CONDITIONING": LinkType(
        "conditioning", "encode the text with the text encoders of {}", ("CONDITIONING", "CLIP")
    ),
    "LATENT": LinkType(
        "latent",
        "decode it with its own VAE, and encode the picture with the VAE of {}",
        ("MODEL", "GUIDER", "LATENT"),
    ),
    "VAE": LinkType("VAE", "use the VAE of {}", ("VAE",)),
    "CONTROL_NET": LinkType("ControlNet", "use a ControlNet made for {}", ("CONTROL_NET",)),
    "STYLE_MODEL": LinkType("style model", "use a style model made for {}", ("STYLE_MODEL",)),
    "MODEL_PATCH": LinkType("model patch", "use a model patch made for {}", ("MODEL_PATCH",)),
    "GLIGEN": LinkType("GLIGEN model", "use a GLIGEN model made for {}", ("GLIGEN",)),
    "PHOTOMAKER": LinkType("PhotoMaker model", "use a model of {}", ("PHOTOMAKER",)),
    "INSTANTID": LinkType("InstantID model", "InstantID needs a model of sdxl", ("INSTANTID",)),
    "IPADAPTER": LinkType("IP-Adapter", "use an IP-Adapter made for {}", ("IPADAPTER",)),
    "PULIDFLUX": LinkType("PuLID model", "use a model of flux", ("PULIDFLUX",)),
}


class Kind(NamedTuple):
    """Files of a folder.

    `gives` are the types of the links that carry what they hold; `is_applied`: they change what
    is linked to the node that names them.
    """

    noun: str
    gives: tuple[str, ...] = ()
    remedy: str = ""
    is_applied: bool = False


_CONTROL_NETS: Final = Kind("ControlNet", ("CONTROL_NET",))
_DIFFUSION_MODELS: Final = Kind("model", ("MODEL",))
_TEXT_ENCODERS: Final = Kind("text encoder", (), "use the text encoders of {}, or another type")
FOLDERS: Final[Mapping[str, Kind]] = {
    "checkpoints": Kind("checkpoint", ("MODEL", "CLIP", "VAE")),
    "diffusion_models": _DIFFUSION_MODELS,
    "unet": _DIFFUSION_MODELS,
    "vae": Kind("VAE", ("VAE",)),
    "text_encoders": _TEXT_ENCODERS,
    "clip": _TEXT_ENCODERS,
    "controlnet": _CONTROL_NETS,
    "t2i_adapter": _CONTROL_NETS,
    "loras": Kind("LoRA", (), "use a LoRA made for {}", is_applied=True),
    "style_models": Kind("style model", ("STYLE_MODEL",)),
    "model_patches": Kind("model patch", ("MODEL_PATCH",)),
    "gligen": Kind("GLIGEN model", ("GLIGEN",)),
    "photomaker": Kind("PhotoMaker model", ("PHOTOMAKER",)),
    "instantid": Kind("InstantID model", ("INSTANTID",)),
    "ipadapter": Kind("IP-Adapter", ("IPADAPTER",)),
    "pulid": Kind("PuLID model", ("PULIDFLUX",)),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """What is known of a class beyond the types of its inputs and outputs.

    `needs`: the families that it works with. `agree`: whether what is linked to it must fit
    together; by default it must where the class uses something up, handing on no output of its
    type, or applies a file to it. `made_of`: types of outputs that take their families from inputs of another type.
    `folders`: file inputs that the catalog does not know as such. `families` of its output CLIP
    by the value of the input `type`, None for those by which the engine sets nothing; a class
    without that input has one row, "". `is_strict`: the engine does not look at the files, so
    each must belong to those families.
    """

    needs: Families | None = None
    agree: bool | None = None
    made_of: Mapping[str, str] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    families: Mapping[str, Families | None] = field(default_factory=dict)
    is_strict: bool = False


# A single file is known by its contents, and the type chooses only where that leaves a choice.
_SINGLE: Final = Rule(
    families={
        "stable_diffusion": None,
        "stable_cascade": _set("stable-cascade"),
        # With T5 for a file, the type's tokens serve the others that read nothing else.
        "sd3": _set("sd3 chroma ltxv mochi pixart-alpha pixart-sigma"),
        "stable_audio": _set("stable-audio"),
        "mochi": _set("mochi"),
        "ltxv": _set("ltxv"),
        "pixart": _set("pixart-alpha pixart-sigma"),
        "cosmos": _set("cosmos cosmos-predict2"),
        "lumina2": _set("lumina z-image"),
        "wan": _set("wan wan2.2-5b"),
        "hidream": _set("hidream"),
        "chroma": _set("chroma"),
        "ace": _set("ace-step"),
        "omnigen2": _set("omnigen2"),
        "qwen_image": _set("qwen"),
        "hunyuan_image": _set("hunyuan-image"),
        "flux2": _set("flux2"),
    }
)
_DUAL: Final = Rule(
    families={
        "sdxl": _set("sdxl"),
        "sd3": _set("sd3"),
        "flux": _set("flux"),
        "hunyuan_video": _set("hunyuan-video"),
        "hidream": _set("hidream"),
        "hunyuan_image": _set("hunyuan-image"),
        "hunyuan_video_15": _set("hunyuan-video-1.5"),
    },
    is_strict=True,
)
_TRIPLE: Final = Rule(families={"": _set("sd3")}, is_strict=True)
_QUADRUPLE: Final = Rule(families={"": _set("hidream")}, is_strict=True)

_SDXL: Final = Rule(needs=_set("sdxl"))
_FLUX: Final = Rule(needs=_set("flux chroma"))
_UNET: Final = Rule(needs=_set("sd15 sd2 sdxl kolors"))
_ENCODES: Final = Rule(made_of={"LATENT": "VAE"})
_AGREE: Final = Rule(agree=True)


def _rows(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


# Class names tell nothing of the pack; where packs share one, the row holds for both.
CLASSES: Final[Mapping[str, Rule]] = {
    **_rows(_SINGLE, "CLIPLoader CLIPLoaderGGUF"),
    **_rows(_DUAL, "DualCLIPLoader DualCLIPLoaderGGUF"),
    **_rows(_TRIPLE, "TripleCLIPLoader TripleCLIPLoaderGGUF"),
    **_rows(_QUADRUPLE, "QuadrupleCLIPLoader QuadrupleCLIPLoaderGGUF"),
    # These read tokens by the names of encoders, which the text encoder must have.
    "CLIPTextEncodeSDXL": Rule(needs=_set("sdxl sd3 hidream kolors")),
    "CLIPTextEncodeSD3": Rule(needs=_set("sd3 sdxl hidream")),
    "CLIPTextEncodeFlux": Rule(needs=_set(f"{_T5_FAMILIES} hidream")),
    "CLIPTextEncodeFluxUnguided": Rule(needs=_set(f"{_T5_FAMILIES} hidream")),
    "CLIPTextEncodeHiDream": Rule(needs=_set("hidream")),
    "CLIPTextEncodeHunyuanDiT": Rule(needs=_set("hunyuan-dit")),
    "TextEncodeAceStepAudio": Rule(needs=_set("ace-step")),
    "TextEncodeHunyuanVideo_ImageToVideo": Rule(needs=_set("hunyuan-video")),
    # These make or read what one family alone has.
    **_rows(
        Rule(needs=_set("wan wan2.2-5b")),
        "Wan22FunControlToVideo WanAnimateToVideo WanCameraImageToVideo WanFirstLastFrameToVideo "
        "WanFunControlToVideo WanFunInpaintToVideo WanHuMoImageToVideo WanImageToVideo "
        "WanPhantomSubjectToVideo WanSoundImageToVideo WanSoundImageToVideoExtend "
        "WanTrackToVideo WanVaceToVideo",
    ),
    "Wan22ImageToVideoLatent": Rule(needs=_set("wan2.2-5b")),
    "HunyuanImageToVideo": Rule(needs=_set("hunyuan-video")),
    **_rows(
        Rule(needs=_set("hunyuan-video-1.5")),
        "HunyuanVideo15ImageToVideo HunyuanVideo15SuperResolution",
    ),
    "LTXVAddGuide": Rule(needs=_set("ltxv")),
    "LTXVImgToVideo": Rule(needs=_set("ltxv"), made_of={"LATENT": "VAE"}),
    "CosmosImageToVideoLatent": Rule(needs=_set("cosmos")),
    "CosmosPredict2ImageToVideoLatent": Rule(needs=_set("cosmos-predict2")),
    "SVD_img2vid_Conditioning": Rule(needs=_set("svd")),
    "StableCascade_StageC_VAEEncode": Rule(needs=_set("stable-cascade"), made_of={"LATENT": "VAE"}),
    "StableCascade_SuperResolutionControlnet": Rule(needs=_set("stable-cascade")),
    "VAEDecodeHunyuan3D": Rule(needs=_set("hunyuan3d")),
    "VAEDecodeAudio": Rule(needs=_set("stable-audio ace-step")),
    "VAEEncodeAudio": Rule(needs=_set("stable-audio ace-step"), made_of={"LATENT": "VAE"}),
    # Adapters that exist for some families only.
    **_rows(
        _SDXL,
        "ApplyInstantID ApplyInstantIDAdvanced ApplyInstantIDControlNet InstantIDAttentionPatch "
        "PhotoMakerEncode",
    ),
    **_rows(
        _FLUX,
        "ApplyPulidFlux ApplyIPAdapterFlux ApplyIPAdapterFluxAdvanced ApplyFluxIPAdapter "
        "ApplyAdvancedFluxIPAdapter XlabsSampler USOStyleReference",
    ),
    "FluxLoraLoader": Rule(needs=_set("flux chroma"), folders={"lora_name": "loras"}),
    **_rows(
        _UNET,
        "IPAdapter IPAdapterAdvanced IPAdapterBatch IPAdapterClipVisionEnhancer "
        "IPAdapterClipVisionEnhancerBatch IPAdapterEmbeds IPAdapterEmbedsBatch IPAdapterFaceID "
        "IPAdapterFaceIDKolors IPAAdapterFaceIDBatch IPAdapterFromParams IPAdapterMS "
        "IPAdapterPreciseComposition IPAdapterPreciseCompositionBatch "
        "IPAdapterPreciseStyleTransfer IPAdapterPreciseStyleTransferBatch "
        "IPAdapterStyleComposition IPAdapterStyleCompositionBatch IPAdapterTiled "
        "IPAdapterTiledBatch IPAdapterUnifiedLoader IPAdapterUnifiedLoaderCommunity "
        "IPAdapterUnifiedLoaderFaceID",
    ),
    # Other latents come without a picture, and an empty one is of no family: the engine gives it
    # the channels that the model needs.
    **_rows(
        _ENCODES,
        "VAEEncode VAEEncodeTiled VAEEncodeForInpaint InpaintModelConditioning "
        "VHS_VAEEncodeBatched",
    ),
    # These hand on what they take, and mix it all the same.
    **_rows(
        _AGREE,
        "ModelMergeSimple ModelMergeBlocks ModelMergeAdd ModelMergeSubtract ModelMergeAuraflow "
        "ModelMergeCosmos14B ModelMergeCosmos7B ModelMergeCosmosPredict2_14B "
        "ModelMergeCosmosPredict2_2B ModelMergeFlux1 ModelMergeLTXV ModelMergeMochiPreview "
        "ModelMergeQwenImage ModelMergeSD1 ModelMergeSD2 ModelMergeSD35_Large ModelMergeSD3_2B "
        "ModelMergeSDXL ModelMergeWAN2_1 CLIPMergeSimple CLIPMergeAdd CLIPMergeSubtract "
        "LatentAdd LatentSubtract LatentInterpolate LatentBlend LatentBatch LatentConcat "
        "LatentComposite LatentCompositeMasked "
        "ConditioningCombine ConditioningAverage ConditioningConcat",
    ),
    # A pipe only bundles; what comes out of it may have been replaced on the way.
    "easy pipeIn": Rule(agree=False),
}


# Words in the names of files, in lower case with - between them, that name a family and nothing
# else. Where a name has words of several families, it says nothing.
NAMES: Final = tuple(
    (re.compile(rf"(?<![a-z0-9])(?:{pattern})"), _set(families))
    for pattern, families in (
        (r"flux-?1(?!\d)|flux-(?:dev|schnell|kontext|krea|fill)(?![a-z])", "flux"),
        (r"flux-?2(?!\d)", "flux2"),
        (r"sd-?xl(?!-refiner)|stable-diffusion-xl", "sdxl"),
        (r"sd-?xl-refiner", "sdxl-refiner"),
        (r"sd-?v?1-?[45](?!\d)|v1-5-(?:pruned|inpainting)|stable-diffusion-v?1(?!\d)", "sd15"),
        (r"sd-?v?2-?1(?!\d)|v2-1-768|512-(?:base|inpainting)-ema|768-v-ema|lotus-(?:depth|normal)",
         "sd2"),
        (r"sd-?3(?:-?5)?(?![a-z0-9])|stable-diffusion-3(?!\d)", "sd3"),
        (r"wan-?2-?1(?!\d)", "wan"),
        (r"wan-?2-?2(?!\d)(?=.*-5b(?![a-z0-9]))", "wan2.2-5b"),
        (r"wan-?2-?2(?!\d)(?=.*-(?:a?14b|(?:high|low)-?noise)(?![a-z0-9]))", "wan"),
        (r"wan-?2-?2(?!\d)(?!.*-(?:a?14b|5b|(?:high|low)-?noise)(?![a-z0-9]))", "wan wan2.2-5b"),
        (r"qwen-?image|qwen-?edit", "qwen"),
        (r"hidream-?[ie]1(?!\d)", "hidream"),
        (r"hunyuan-?video-?1-?5", "hunyuan-video-1.5"),
        (r"hunyuan-?video(?!-?1-?5)|framepack", "hunyuan-video"),
        (r"hunyuan-?image-?(?:v?2-?1|refiner)", "hunyuan-image"),
        (r"hunyuan-?3d", "hunyuan3d"),
        (r"hunyuan-?dit", "hunyuan-dit"),
        (r"ltx-?video|ltxv(?!-?2)", "ltxv"),
        (r"z-?image", "z-image"),
        (r"lumina-?(?:image-?)?2(?!\d)", "lumina"),
        (r"omnigen-?2(?!\d)", "omnigen2"),
        (r"mochi-?(?:1-)?(?:preview|vae)", "mochi"),
        (r"cosmos-?predict-?2(?!-?5)", "cosmos-predict2"),
        (r"cosmos-?(?:1-0|cv8x8x8)", "cosmos"),
        (r"pixart-?alpha", "pixart-alpha"),
        (r"pixart-?sigma", "pixart-sigma"),
        (r"aura-?flow", "auraflow"),
        (r"stable-?cascade", "stable-cascade"),
        (r"stable-audio-open", "stable-audio"),
        (r"ace-step-v1-3", "ace-step"),
    )
)  # fmt: skip

# Names that say a family in one folder only; elsewhere they may be words for something else.
_MODEL_NAMES: Final = tuple(
    (re.compile(pattern), _set(families))
    for pattern, families in (
        (r"^chroma-?(?:1|unlocked|radiance|v\d|hd)", "chroma"),
        (r"^chrono-edit", "wan"),
        (r"^svd(?:-xt|-image|$)", "svd"),
        (r"^(?:dreamshaper-8|realisticvision-?v[1-6])(?!\d)", "sd15"),
        (r"^(?:juggernaut|realvis|dreamshaper)-?xl|^ponydiffusionv6xl|^animagine-xl", "sdxl"),
        (r"^(?:illustrious|noobai)-?xl", "sdxl"),
    )
)
_VAE_NAMES: Final = tuple(
    (re.compile(pattern), _set(families))
    for pattern, families in (
        (r"^ae$|^flux-?(?:1-)?vae|^taef1$", "flux"),
        (r"^vae-ft-(?:mse|ema)|^kl-f8-anime|^taesd$", "sd15"),
        (r"^taesdxl$", "sdxl"),
        (r"^taesd3$", "sd3"),
        (r"^wan-?2-?2-vae", "wan2.2-5b"),
    )
)
_CONTROL_NET_NAMES: Final = tuple(
    (re.compile(pattern), _set(families))
    for pattern, families in (
        (r"(?<![a-z])instant-?id(?![a-z])", "sdxl"),
        (r"^control-lora-(?:canny|depth|recolor|sketch)-rank\d", "sdxl"),
    )
)
NAMES_IN: Final[Mapping[str, tuple[tuple[re.Pattern[str], Families], ...]]] = {
    "checkpoints": _MODEL_NAMES,
    "diffusion_models": _MODEL_NAMES,
    "unet": _MODEL_NAMES,
    "vae": _VAE_NAMES,
    "text_encoders": TEXT_ENCODERS,
    "clip": TEXT_ENCODERS,
    "controlnet": _CONTROL_NET_NAMES,
    "t2i_adapter": _CONTROL_NET_NAMES,
    "instantid": ((re.compile(""), _set("sdxl")),),
    "photomaker": ((re.compile(r"^photomaker-?v[12]"), _set("sdxl")),),
    "pulid": ((re.compile(r"(?<![a-z])flux"), _set("flux")),),
}
# A model's name begins with its family; further on it says what else it was made with.
NAMED_FROM_START: Final = frozenset(("checkpoints", "diffusion_models", "unet"))
# What holds parts of all kinds says nothing about one of them.
NAMED_BY_FOLDER: Final = frozenset(("text_encoders", "clip"))

# Names that people give families in models.yaml and trainers in files, besides the above.
_HUNYUAN: Final = _set("hunyuan-video hunyuan-video-1.5 hunyuan-image hunyuan3d hunyuan-dit")
ALIASES: Final[Mapping[str, Families]] = {
    "flux": _set("flux"),
    "sd": _set("sd15 sd2"),
    "sd1": _set("sd15"),
    "sd2": _set("sd2"),
    "xl": _set("sdxl"),
    "pony": _set("sdxl"),
    "illustrious": _set("sdxl"),
    "noobai": _set("sdxl"),
    "wan": _set("wan wan2.2-5b"),
    "hunyuan": _HUNYUAN,
    "pixart": _set("pixart-alpha pixart-sigma"),
    "ltx": _set("ltxv"),
    "cosmos": _set("cosmos cosmos-predict2"),
    "sdv1": _set("sd15"),
    "sdv2": _set("sd2"),
    "stablediffusionv2512": _set("sd2"),
    "stablediffusionv2768v": _set("sd2"),
}
