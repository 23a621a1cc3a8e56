"""Bytes and texts -> what enters a model. A failure is data."""

from dataclasses import dataclass


@dataclass(frozen=True)
class InputFailure:
    """Why one input gave no vector; recorded, never raised."""

    stage: str  # "read", "decode", "encode"
    reason: str  # one line, for people
