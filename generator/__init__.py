"""From YAML specs to a ComfyUI service on Modal: load, spec, check, render."""
