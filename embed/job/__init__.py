"""Rows without vectors -> shards of vectors: request, keys, plan, windows, run, writer, report, verify."""
