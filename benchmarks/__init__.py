"""Benchmarks, each compared with another library in the same run: `python -m benchmarks.NAME`, all: `python -m benchmarks`."""
