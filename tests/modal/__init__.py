"""Tests of the rendered app on a control plane of Modal on this machine."""
