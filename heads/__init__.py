"""Matrices of cached vectors in, out-of-fold and test log prices out."""
