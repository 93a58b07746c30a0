"""From what people save in ComfyUI to a workflow's YAML file, and its changes too."""
