"""Helpers that know nothing of the endpoints."""
