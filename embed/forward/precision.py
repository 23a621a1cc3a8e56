"""Precision and memory layout chosen by measuring, once per encoder and device, on real rows.

The fingerprint holds the policy; what was chosen here is provenance.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from store.errors import ConfigError, CorruptFileError
from store.vectors.spec import EncoderSpec, slug
from store.workspace import Workspace

MIN_COSINE = 0.999  # of every measured row to its fp32 vector
MIN_GAIN = 1.05  # below that, the plainer choice stays
ROUNDS = 4
FAR_BEHIND = 2.0  # times the fastest: not timed again


@dataclass(frozen=True)
class Mode:
    """How a forward pass is run."""

    dtype: str = "fp32"  # "fp32", or the autocast type: "bf16", "fp16"
    channels_last: bool = False
    fp32_stages: int = 0  # that many first stages of a convolutional network stay in fp32
    compiled: bool = False  # by `torch.compile`

    def __str__(self) -> str:
        layout = " channels_last" if self.channels_last else ""
        stages = f" after {self.fp32_stages} fp32 stages" if self.fp32_stages else ""
        return self.dtype + layout + stages + (" compiled" if self.compiled else "")


@dataclass(frozen=True)
class Compiled:
    """What `torch.compile` makes of the chosen mode on one device."""

    rows_per_second: float  # 0 where it can't be compiled, or strays from fp32
    seconds: float  # that compiling takes, in every process anew


@dataclass(frozen=True)
class ModeChoice:
    """What was chosen on one device and what was measured there."""

    mode: Mode
    units: int | None = None  # fastest batch in padded tokens, or images; None where it was not sought
    cosine: float | None = None  # of the worst measured row to fp32; None where the mode is fp32
    rows_per_second: dict[str, float] = field(default_factory=dict)  # mode -> rows/s
    compiled: Compiled | None = None  # None where it was not tried

    def mode_for(self, n_rows: int) -> Mode:
        """The mode for so many rows: compiled where that repays its own time."""
        plain = self.rows_per_second.get(str(self.mode), 0.0)
        if self.compiled is None or not plain or self.compiled.rows_per_second < MIN_GAIN * plain:
            return self.mode
        repaid = n_rows / plain > self.compiled.seconds + n_rows / self.compiled.rows_per_second
        return replace(self.mode, compiled=True) if repaid else self.mode

    def __str__(self) -> str:
        measured = dict(self.rows_per_second)
        if self.compiled is not None:
            measured[str(replace(self.mode, compiled=True))] = self.compiled.rows_per_second
        rates = ", ".join(f"{mode} {rate:.1f} rows/s" for mode, rate in measured.items())
        cosine = f", cosine {self.cosine:.5f}" if self.cosine is not None else ""
        return f"{self.mode}{cosine}" + (f" (measured: {rates})" if rates else "")


def candidates(policy: str, device_type: str, is_convnet: bool, stored_as: str | None = None) -> list[Mode]:
    """Modes that a policy allows, the plainest first; the first is always fp32, the reference.

    Args:
        stored_as: the type of weights that were left in half precision, which is then the only one.
    """
    if stored_as is not None:
        return [Mode(stored_as)]
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


def choose(
    apply: Callable[[Mode], None],
    forward: Callable[[], np.ndarray],
    modes: Sequence[Mode],
    policy: str,
    most_fp32_stages: int = 0,
) -> ModeChoice:
    """Time each mode on the same rows and take the fastest that stays close to fp32.

    The modes take turns, so that whatever else the machine does meanwhile falls on all of them.

    Args:
        apply: puts the model into a mode; not timed.
        forward: vectors of the measured rows in the mode last applied, shape (n_rows, dim); waits for the device.
        modes: from `candidates`, fp32 first.
        policy: "auto" keeps to `MIN_COSINE` and to what the device can do; an explicit type is taken whatever
            its cosine.
        most_fp32_stages: under "auto", a type that is too coarse gets that many first stages in fp32 at the most.

    Raises:
        ConfigError: the type that was asked for is not for this device.
    """
    cosines: dict[Mode, float] = {}
    reference = None
    for mode in modes:  # warm-up as well: kernels are chosen, memory is laid out
        try:
            apply(mode)
            vectors = forward()
        except (RuntimeError, TypeError) as error:
            if reference is None:  # fp32 itself: not for want of a type
                raise
            if policy == "auto":
                continue
            raise ConfigError(
                f"this device can't compute in {mode.dtype}: {str(error).splitlines()[0]}: pass --precision auto"
            ) from error
        reference = vectors if reference is None else reference
        cosines[mode] = worst_cosine(vectors, reference)
    assert reference is not None
    if policy == "auto":
        for mode in [m for m in cosines if cosines[m] < MIN_COSINE]:
            for n_stages in range(1, most_fp32_stages + 1):
                finer = replace(mode, fp32_stages=n_stages)
                apply(finer)
                cosines[finer] = worst_cosine(forward(), reference)
                if cosines[finer] >= MIN_COSINE:
                    break
    allowed = [
        m for m in cosines if policy in ("auto", m.dtype) and (policy != "auto" or cosines[m] >= MIN_COSINE)
    ]
    seconds = _take_turns(apply, forward, allowed)
    best = allowed[0]
    for mode in allowed[1:]:
        if MIN_GAIN * seconds[mode] < seconds[best]:
            best = mode
    rates = {str(mode): round(len(reference) / taken, 1) for mode, taken in seconds.items()}
    return ModeChoice(best, None, None if best.dtype == "fp32" or len(modes) == 1 else cosines[best], rates)


def _take_turns(
    apply: Callable[[Mode], None], forward: Callable[[], np.ndarray], modes: Sequence[Mode]
) -> dict[Mode, float]:
    """Seconds of each mode's fastest pass; modes far behind leave early."""
    seconds = dict.fromkeys(modes, np.inf)
    running = list(modes)
    for _ in range(ROUNDS):
        for mode in running:
            apply(mode)
            start = time.perf_counter()
            forward()
            seconds[mode] = min(seconds[mode], time.perf_counter() - start)
        running = [mode for mode in running if seconds[mode] < FAR_BEHIND * min(seconds.values())]
    return seconds


def worst_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Smallest cosine between rows of two arrays, shape (n_rows, dim); -1 where a value is not finite.

    Two rows of zeros are the same: some encoders have no other vector for a text of unknown words.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    if not np.isfinite(a).all():
        return -1.0
    of_a, of_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(axis=1) / np.maximum(of_a * of_b, 1e-30)
    return float(np.where((of_a == 0) & (of_b == 0), 1.0, cosine).min())


# ---- remembered in the workspace -----------------------------------------------------------------


def recall(workspace: Workspace, spec: EncoderSpec, device: str, torch_version: str) -> ModeChoice | None:
    """What was chosen on such a device before; None where nothing was, or torch is another."""
    record = _record(spec, device)
    if not workspace.exists(record):
        return None
    try:
        memory = workspace.read_json(record)
        if memory["device"] != device or memory["torch"] != torch_version:
            return None
        compiled = memory.get("compiled")
        return ModeChoice(
            Mode(**memory["mode"]),
            memory["units"],
            memory["cosine"],
            dict(memory["rows_per_second"]),
            Compiled(**compiled) if compiled else None,
        )
    except (CorruptFileError, KeyError, TypeError):
        return None


def remember(
    workspace: Workspace, spec: EncoderSpec, device: str, torch_version: str, choice: ModeChoice
) -> None:
    """Keep a choice for later runs on such a device."""
    memory: dict[str, Any] = {"device": device, "torch": torch_version, **asdict(choice)}
    workspace.publish_json(_record(spec, device), memory)


def _record(spec: EncoderSpec, device: str) -> str:
    return f"{spec.folder}/measured-{slug(device)}.json"
