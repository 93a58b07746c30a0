"""Nodes that make a real ComfyUI do what its own do only with models: work slowly, raise, expand.

Loaded by ComfyUI as a custom node; nothing here imports it.
"""

import time
from typing import Any

import comfy.utils  # type: ignore[import-not-found]
import torch  # type: ignore[import-not-found]
from comfy_execution.graph_utils import (  # type: ignore[import-not-found]
    ExecutionBlocker,
    GraphBuilder,
)
from PIL import Image
from server import PromptServer  # type: ignore[import-not-found]

Inputs = dict[str, dict[str, Any]]


class ProbeSleep:
    """Waits in steps, with progress, previews and a line of text, and can be interrupted."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802
        return {
            "required": {
                "image": ("IMAGE",),
                "steps": ("INT", {"default": 1}),
                "seconds": ("FLOAT", {"default": 0.1}),
                "preview": ("BOOLEAN", {"default": False}),
            },
            "hidden": {"node": "UNIQUE_ID"},
        }

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:  # noqa: N802
        return float("nan")

    def run(self, image: Any, steps: int, seconds: float, preview: bool, node: str) -> tuple[Any]:
        bar = comfy.utils.ProgressBar(steps)
        if preview:
            server = PromptServer.instance
            server.send_progress_text("at work", node, server.client_id)
        for step in range(steps):
            time.sleep(seconds)
            picture = ("JPEG", Image.new("RGB", (8, 8), "red"), None) if preview else None
            bar.update_absolute(step + 1, steps, picture)
        return (image,)


class ProbeBlock:
    """Blocks what depends on it."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image: Any) -> tuple[Any]:  # noqa: ARG002
        return (ExecutionBlocker("no face found"),)


class ProbeRaise:
    """Raises."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802
        return {"required": {"image": ("IMAGE",), "message": ("STRING", {})}}

    def run(self, image: Any, message: str) -> tuple[Any]:  # noqa: ARG002
        raise ValueError(message)


class ProbeFail:
    """Fails as nodes do when the GPU's memory, or the room on a disk, is used up."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802
        return {"required": {"image": ("IMAGE",), "kind": ("STRING", {})}}

    def run(self, image: Any, kind: str) -> tuple[Any]:
        if kind == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        if kind == "disk":
            with open("/dev/full", "wb") as file:  # noqa: PTH123 - as nodes write
                file.write(bytes(100_000))
        return (image,)


class ProbeExpand:
    """Expands to a preview."""

    RETURN_TYPES = ()
    FUNCTION = "run"
    CATEGORY = "probe"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image: Any) -> dict[str, Any]:
        graph = GraphBuilder()
        graph.node("PreviewImage", images=image)
        return {"result": (), "expand": graph.finalize()}


class ProbeNames:
    """Names a file as its output that it did not write."""

    RETURN_TYPES = ()
    FUNCTION = "run"
    CATEGORY = "probe"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802
        return {"required": {"filename": ("STRING", {}), "subfolder": ("STRING", {})}}

    def run(self, filename: str, subfolder: str) -> dict[str, Any]:
        return {
            "ui": {"images": [{"filename": filename, "subfolder": subfolder, "type": "output"}]}
        }


NODE_CLASS_MAPPINGS = {
    "ProbeSleep": ProbeSleep,
    "ProbeBlock": ProbeBlock,
    "ProbeRaise": ProbeRaise,
    "ProbeFail": ProbeFail,
    "ProbeExpand": ProbeExpand,
    "ProbeNames": ProbeNames,
}
