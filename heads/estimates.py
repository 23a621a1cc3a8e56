"""Estimates of the time and memory to train heads and to blend them, from earlier runs on this machine."""

from collections.abc import Mapping
from dataclasses import dataclass

from store.timings import Estimate, Timings

POWER = {"kernel-ridge": 2.0, "svr": 2.0}  # of the number of rows, where only one size was recorded
OTHERS = 1.1
BLEND = "blend"  # its size is rows times heads


@dataclass(frozen=True)
class HeadEstimates:
    """Estimates by step, None where this machine never ran it."""

    heads: dict[str, Estimate | None]
    blend: Estimate | None


def estimate_heads(widths: Mapping[str, int], n_rows: int, timings: Timings, n_blended: int) -> HeadEstimates:
    """Estimates of heads on so many training rows, and of the blend.

    Args:
        widths: of the heads to train, columns of the vectors that each reads.
        n_blended: heads of the blend.
    """
    heads = {
        name: timings.estimate(step_of(name), n_rows, POWER.get(name, OTHERS), width)
        for name, width in widths.items()
    }
    return HeadEstimates(heads, timings.estimate(BLEND, n_rows * max(n_blended, 1)))


def step_of(head: str) -> str:
    """What training a head is called among a user's timings."""
    return f"head {head}"


def estimate_text(estimate: Estimate | None) -> str:
    """`about 12 s, 1.2 GB`."""
    if estimate is None:
        return "time unknown on this machine"
    memory = "" if estimate.peak_bytes is None else f", {estimate.peak_bytes / 1e9:.1f} GB"
    return f"about {max(estimate.seconds, 1):.0f} s{memory}"
