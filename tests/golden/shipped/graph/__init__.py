"""Graphs in ComfyUI's API format: records, node schemas and what can be said about them.

This package imports nothing but the standard library and itself: the renderer copies it into
build/graph, so that the generator and the deployed app run the same code.
"""
