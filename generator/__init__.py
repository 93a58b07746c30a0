"""From YAML specs to a ComfyUI service on Modal: load, spec, check, render."""

__version__ = "0.1.0"
