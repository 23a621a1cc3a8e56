"""Doubtful rows of a catalogue: found here, decided by policy, listed in cleaning.parquet; nothing is deleted."""
