"""Pretrained encoders, one library per file."""
