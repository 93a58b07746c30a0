"""What kinds of files an endpoint can reply with."""

from collections.abc import Mapping
from typing import Final

from .check.reach import sent_nodes
from .graph.catalog import ClassType
from .spec import Workflow

# By the output nodes of ComfyUI; what others write is not known before they do.
_MEDIA_TYPES: Final = {
    "MaskPreview": "image/png",
    "PreviewAny": "text/plain",
    "PreviewAudio": "audio/flac",
    "PreviewImage": "image/png",
    "SaveAnimatedPNG": "image/png",
    "SaveAnimatedWEBP": "image/webp",
    "SaveAudio": "audio/flac",
    "SaveAudioMP3": "audio/mpeg",
    "SaveAudioOpus": "audio/ogg",
    "SaveGLB": "model/gltf-binary",
    "SaveImage": "image/png",
    "SaveSVGNode": "image/svg+xml",
    "SaveVideo": "video/mp4",
    "SaveWEBM": "video/webm",
}
_ANY: Final = "*/*"


def media_types(workflow: Workflow, classes: Mapping[str, ClassType]) -> list[str]:
    """Return the media types of the replies, in the order of the output nodes."""
    if workflow.graph_param:
        return [_ANY]
    if workflow.output:
        nodes = list(workflow.output.nodes.values())
    else:
        sent = sent_nodes(workflow)
        nodes = [node for node, found in classes.items() if found.output_node and node in sent]
    found = [_MEDIA_TYPES.get(workflow.graph[node].class_type, _ANY) for node in nodes]
    return list(dict.fromkeys(found)) or [_ANY]


def reply_type(workflow: Workflow, classes: Mapping[str, ClassType]) -> str:
    """Return the media type of the reply to a request that chooses no other output."""
    output = workflow.output
    if output is None or output.param is None:
        return media_types(workflow, classes)[0]
    chosen = output.nodes.get(str(workflow.params[output.param].default))
    node = workflow.graph[chosen] if chosen else None
    return _MEDIA_TYPES.get(node.class_type, _ANY) if node else media_types(workflow, classes)[0]
