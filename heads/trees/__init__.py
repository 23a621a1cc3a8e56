"""Gradient-boosted tree heads."""
