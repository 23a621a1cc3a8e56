"""Bytes and texts -> inputs of a model; a failure is a value, not an exception."""

from dataclasses import dataclass


@dataclass(frozen=True)
class InputFailure:
    """Why one input gave no vector; recorded, never raised."""

    stage: str  # "read", "decode", "encode"
    reason: str  # one line, for people
