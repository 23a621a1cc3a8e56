"""Rows without vectors in, vectors in the cache out."""
