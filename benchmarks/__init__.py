"""Figures, each one command against a peer in the same run: `python -m benchmarks.NAME`, all: `python -m benchmarks`."""
