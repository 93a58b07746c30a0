"""Tests against a real ComfyUI on the CPU, which `python -m tests.engine.install` installs."""
