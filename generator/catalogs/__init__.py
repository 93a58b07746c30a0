"""Node schemas: comfyui-VERSION.jsonl and one file a pack; see generator/graph/catalog.py."""
