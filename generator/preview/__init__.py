"""The preview engine: ComfyUI's protocol without its models.

A process of its own (`python -m generator.preview`). It refuses the graphs that ComfyUI refuses,
sends the events that ComfyUI sends, and draws labelled placeholders instead of running models.
"""
