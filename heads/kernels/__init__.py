"""Kernel and nearest-neighbour heads."""
