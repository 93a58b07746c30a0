"""Tests: at the edges that users touch, and of what lies between."""
