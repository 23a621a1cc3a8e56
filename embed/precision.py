"""Precision and memory layout chosen by measuring, once per encoder and device, on real rows.

The fingerprint holds the policy; what was chosen here is provenance.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from store.errors import ConfigError, CorruptFileError
from store.vectors.spec import EncoderSpec, slug
from store.workspace import Workspace

MIN_COSINE = 0.999  # of every measured row to its fp32 vector
MIN_GAIN = 1.05  # below that, the plainer choice stays
ENOUGH_SECONDS = 0.6  # of timed forward passes per candidate
MAX_PASSES = 4


@dataclass(frozen=True)
class Mode:
    """How a forward pass is run."""

    dtype: str = "fp32"  # "fp32", or the autocast type: "bf16", "fp16"
    channels_last: bool = False

    def __str__(self) -> str:
        return self.dtype + (" channels_last" if self.channels_last else "")


@dataclass(frozen=True)
class Choice:
    """What was chosen on one device and what was measured there."""

    mode: Mode
    units: int  # most padded tokens, or pictures, per forward pass
    cosine: float | None = None  # of the worst measured row to fp32; None where the mode is fp32
    rows_per_second: dict[str, float] = field(default_factory=dict)  # mode -> rows/s

    def __str__(self) -> str:
        rates = ", ".join(f"{mode} {rate:.1f} rows/s" for mode, rate in self.rows_per_second.items())
        cosine = f", cosine {self.cosine:.5f}" if self.cosine is not None else ""
        return f"{self.mode}{cosine}" + (f" (measured: {rates})" if rates else "")


def candidates(policy: str, device_type: str, is_convnet: bool) -> list[Mode]:
    """Modes that a policy allows, the plainest first; the first is always fp32, the reference."""
    dtypes = {
        "auto": ["fp32", "fp16", "bf16"] if device_type == "cuda" else ["fp32", "bf16"],
        "fp32": ["fp32"],
        "bf16": ["fp32", "bf16"],
        "fp16": ["fp32", "fp16"],
    }[policy]
    if policy == "auto" and device_type == "mps":
        dtypes = ["fp32", "fp16"]
    if device_type == "cpu" and policy == "fp16":
        raise ConfigError("precision fp16 is for GPUs: pass --precision auto, fp32 or bf16 on a CPU")
    layouts = (False, True) if is_convnet else (False,)
    return [Mode(dtype, channels_last) for dtype in dtypes for channels_last in layouts]


def choose(forward: Callable[[Mode], np.ndarray], modes: Sequence[Mode], policy: str, units: int) -> Choice:
    """Time each mode on the same rows and take the fastest that stays close to fp32.

    Args:
        forward: vectors of the measured rows in a mode, shape (n_rows, dim); waits for the device.
        modes: from `candidates`.
        policy: "auto" keeps to `MIN_COSINE`; an explicit type is taken whatever its cosine.
        units: most units per forward pass, passed on.
    """
    rates: dict[str, float] = {}
    cosines: dict[Mode, float] = {}
    best = modes[0]
    reference = None
    for mode in modes:
        if reference is not None and policy != "auto" and mode.dtype == "fp32":
            continue  # only a reference here: its other layouts don't matter
        vectors, seconds = _time(forward, mode)
        if reference is None:
            reference = vectors
        rates[str(mode)] = len(vectors) / seconds
        cosines[mode] = worst_cosine(vectors, reference)
        close = cosines[mode] >= MIN_COSINE or policy not in ("auto", "fp32")
        forced = policy in ("bf16", "fp16") and best.dtype == "fp32"
        if close and (forced or rates[str(mode)] > MIN_GAIN * rates[str(best)]):
            best = mode
    return Choice(best, units, None if best.dtype == "fp32" else cosines[best], rates)


def worst_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Smallest cosine between rows of two arrays, shape (n_rows, dim); -1 where a value is not finite."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if not np.isfinite(a).all():
        return -1.0
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(norms, 1e-30)).min())


def _time(forward: Callable[[Mode], np.ndarray], mode: Mode) -> tuple[np.ndarray, float]:
    vectors = forward(mode)  # warm-up: kernels are chosen, weights are cast
    best = np.inf
    spent = 0.0
    for _ in range(MAX_PASSES):
        start = time.perf_counter()
        forward(mode)
        seconds = time.perf_counter() - start
        best, spent = min(best, seconds), spent + seconds
        if spent >= ENOUGH_SECONDS:
            break
    return vectors, best


# ---- remembered in the workspace -----------------------------------------------------------------


def recall(workspace: Workspace, spec: EncoderSpec, device: str, torch_version: str) -> Choice | None:
    """What was chosen on such a device before; None where nothing was, or torch is another."""
    record = _record(spec, device)
    if not workspace.exists(record):
        return None
    try:
        memory = workspace.read_json(record)
        if memory["device"] != device or memory["torch"] != torch_version:
            return None
        return Choice(
            Mode(**memory["mode"]), memory["units"], memory["cosine"], dict(memory["rows_per_second"])
        )
    except (CorruptFileError, KeyError, TypeError):
        return None


def remember(
    workspace: Workspace, spec: EncoderSpec, device: str, torch_version: str, choice: Choice
) -> None:
    """Keep a choice for later runs on such a device."""
    memory: dict[str, Any] = {"device": device, "torch": torch_version, **asdict(choice)}
    workspace.publish_json(_record(spec, device), memory)


def _record(spec: EncoderSpec, device: str) -> str:
    return f"{spec.folder}/measured-{slug(device)}.json"
