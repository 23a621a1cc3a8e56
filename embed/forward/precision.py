"""Precision, memory layout and engine chosen by measuring, once per encoder and device, on real rows.

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
NO_LENGTH = 0.01  # of the median length: a vector that short, of an image of one grey say, has no direction to compare
MIN_GAIN = 1.05  # below that, the plainer choice stays
ROUNDS = 3
FAR_BEHIND = 1.5  # times the fastest: not timed again
FAR_BEHIND_COLD = 2.0  # the same of first passes, in which kernels are chosen: not timed at all


@dataclass(frozen=True)
class Mode:
    """How a forward pass is run."""

    dtype: str = (
        "fp32"  # or what is computed in where that is close enough: "bf16", "fp16", "int8", "int8-dynamic"
    )
    channels_last: bool = False
    compiled: bool = False  # by `torch.compile`
    engine: str = "torch"  # or "openvino"
    unpadded: bool = False  # texts: tokens alone, no padding
    graphs: bool = False  # where compiled: recorded as CUDA graphs, one for each shape of a batch

    def __str__(self) -> str:
        engine = "" if self.engine == "torch" else f"{self.engine} "
        layout = " channels_last" if self.channels_last else ""
        unpadded = " unpadded" if self.unpadded else ""
        compiled = " compiled" if self.compiled else ""
        return engine + self.dtype + layout + unpadded + compiled + (" graphs" if self.graphs else "")


@dataclass(frozen=True)
class Compiled:
    """What `torch.compile` makes of the chosen mode on one device."""

    rows_per_second: float  # 0 where it can't be compiled, or strays from fp32
    seconds: float  # that compiling takes, in every process anew
    graphs: bool = False  # with CUDA graphs, which were faster than without


@dataclass(frozen=True)
class ModeChoice:
    """What was chosen on one device and what was measured there."""

    mode: Mode
    units: int | None = None  # fastest batch in padded tokens, or images; None where it was not sought
    cosine: float | None = None  # of the worst measured row to fp32; None where the mode is fp32
    rows_per_second: dict[str, float] = field(default_factory=dict)  # mode -> rows/s
    compiled: Compiled | None = None  # None where it was not tried
    note: str = ""  # why OpenVINO was not among the modes, if so

    def mode_for(self, n_rows: int) -> Mode:
        """The mode for so many rows: compiled where that repays its own time."""
        plain = self.rows_per_second.get(str(self.mode), 0.0)
        if self.compiled is None or not plain or self.compiled.rows_per_second < MIN_GAIN * plain:
            return self.mode
        repaid = n_rows / plain > self.compiled.seconds + n_rows / self.compiled.rows_per_second
        return self._compiled_mode(self.compiled) if repaid else self.mode

    def __str__(self) -> str:
        measured = dict(self.rows_per_second)
        if self.compiled is not None:
            measured[str(self._compiled_mode(self.compiled))] = self.compiled.rows_per_second
        rates = ", ".join(f"{mode} {rate:.1f} rows/s" for mode, rate in measured.items())
        cosine = f", cosine {self.cosine:.5f}" if self.cosine is not None else ""
        note = f"; {self.note}" if self.note else ""
        return f"{self.mode}{cosine}" + (f" (measured: {rates})" if rates else "") + note

    def _compiled_mode(self, compiled: Compiled) -> Mode:
        return replace(self.mode, compiled=True, graphs=compiled.graphs)


def candidates(
    policy: str,
    device_type: str,
    is_convnet: bool,
    stored_as: str | None = None,
    openvino_types: Sequence[str] = (),
    unpadded: bool = False,
) -> list[Mode]:
    """Modes that a policy allows, the plainest first; the first is always the reference, fp32 where weights are.

    Args:
        stored_as: the type of weights that were left in half precision, which is then the only one.
        openvino_types: what OpenVINO may compute in here, the fastest first of floats; empty: it is no choice.
        unpadded: the encoder can leave out the padding of texts, which a GPU does in half types.

    Raises:
        ConfigError: the type that was asked for is not for this kind of device.
    """
    unpadded = unpadded and device_type == "cuda"
    if stored_as is not None:
        plain = [Mode(stored_as)]
        return [*plain, Mode(stored_as, unpadded=True)] if unpadded and stored_as != "fp32" else plain
    dtypes = {
        "auto": ["fp32", "fp16", "bf16"] if device_type == "cuda" else ["fp32", "bf16"],
        "fp32": ["fp32"],
        "bf16": ["fp32", "bf16"],
        "fp16": ["fp32", "fp16"],
        "int8": ["fp32"],
    }[policy]
    if policy == "auto" and device_type == "mps":
        dtypes = ["fp32", "fp16"]
    if device_type == "cpu" and policy == "fp16":
        raise ConfigError("precision fp16 is for GPUs: pass --precision auto, fp32 or bf16 on a CPU")
    if device_type != "cpu" and policy == "int8":
        raise ConfigError("precision int8 is for CPUs: pass --devices cpu, or --precision auto on a GPU")
    layouts = (False, True) if is_convnet and policy != "int8" else (False,)
    modes = [Mode(dtype, channels_last) for dtype in dtypes for channels_last in layouts]
    if device_type == "cuda" and is_convnet:  # half types were never faster otherwise, and each takes seconds
        modes = [mode for mode in modes if mode.dtype == "fp32" or mode.channels_last]
    modes += [Mode(dtype, unpadded=True) for dtype in dtypes if unpadded and dtype != "fp32"]
    allowed = [dtype for dtype in openvino_types if policy in ("auto", dtype)]
    return modes + [Mode(dtype, engine="openvino") for dtype in allowed]


def choose(
    apply: Callable[[Mode], None],
    forward: Callable[[], np.ndarray],
    modes: Sequence[Mode],
    policy: str,
    unlike: Callable[[], np.ndarray] | None = None,
) -> ModeChoice:
    """Time each mode on the same rows and take the fastest that stays close to fp32.

    The modes take turns, so that whatever else the machine does meanwhile falls on all of them.

    Args:
        apply: puts the model into a mode; not timed.
        forward: vectors of the measured rows in the mode last applied, shape (n_rows, dim); waits for the device.
        modes: from `candidates`, fp32 first.
        policy: "auto" keeps to `MIN_COSINE` and to what the device can do; an explicit type is taken whatever
            its cosine, but in torch's plain pass: what was converted, or computes without padding, and strays, is
            wrong.
        unlike: vectors of further inputs that cosines are taken of and that are not timed.

    Raises:
        ConfigError: the type that was asked for is not for this device.
    """
    cosines: dict[Mode, float] = {}
    first: dict[Mode, float] = {}  # seconds of first passes
    reference, n_rows, note = None, 0, ""
    for mode in modes:  # warm-up as well: kernels are chosen, memory is laid out
        if (
            mode.engine == "openvino"
            and mode.dtype == "fp32"
            and any(m.engine == "openvino" and cosines[m] >= MIN_COSINE for m in cosines)
        ):
            continue  # its faster type will do
        try:
            apply(mode)
            start = time.perf_counter()
            vectors = forward()
            first[mode], n_rows = time.perf_counter() - start, len(vectors)
            vectors = vectors if unlike is None else np.concatenate([vectors, unlike()])
        except (RuntimeError, TypeError) as error:
            if reference is None:  # fp32 itself: not for want of a type
                raise
            reason = str(error).splitlines()[0]
            if mode.engine == "openvino" and policy != "int8":
                note = f"OpenVINO can't run it: {reason}"
                continue
            if policy == "auto" or mode.unpadded:
                continue
            raise ConfigError(
                f"this device can't compute in {mode.dtype}: {reason}: pass --precision auto"
            ) from error
        reference = vectors if reference is None else reference
        cosines[mode] = worst_cosine(vectors, reference)
        if mode.engine == "openvino" and mode.dtype in ("fp32", "bf16") and cosines[mode] < MIN_COSINE:
            note = f"{mode} strays from fp32, cosine {cosines[mode]:.5f}"
    assert reference is not None
    allowed = [mode for mode in cosines if _is_allowed(mode, cosines[mode], policy)]
    timed = allowed if policy != "int8" else list(cosines)
    seconds = _take_turns(apply, forward, {mode: first[mode] for mode in timed})
    best = allowed[0]
    for mode in allowed[1:]:
        if MIN_GAIN * seconds[mode] < seconds[best]:
            best = mode
    rates = {str(mode): round(n_rows / taken, 1) for mode, taken in seconds.items()}
    is_exact = best.engine == "torch" and best.dtype == modes[0].dtype and not best.unpadded
    cosine = None if is_exact or len(modes) == 1 else cosines[best]
    return ModeChoice(best, None, cosine, rates, note="" if best.engine == "openvino" else note)


def _is_allowed(mode: Mode, cosine: float, policy: str) -> bool:
    if policy == "int8":
        return mode.dtype == "int8"
    is_close = cosine >= MIN_COSINE
    is_plain = mode.engine == "torch" and not mode.unpadded
    return is_close if policy == "auto" else mode.dtype == policy and (is_close or is_plain)


def _take_turns(
    apply: Callable[[Mode], None], forward: Callable[[], np.ndarray], first: dict[Mode, float]
) -> dict[Mode, float]:
    """Seconds of each mode's fastest pass, given those of first passes; modes far behind leave early.

    Only OpenVINO's first pass is worth comparing: it is compiled before, where torch may still choose kernels.
    """
    converted = [taken for mode, taken in first.items() if mode.engine == "openvino"]
    seconds, fastest = dict(first), min(converted, default=np.inf)
    running = [mode for mode in first if first[mode] < FAR_BEHIND_COLD * fastest]
    for mode in running:
        seconds[mode] = np.inf  # first passes do not count where a second one follows
    for _ in range(ROUNDS):
        for mode in running:
            apply(mode)
            start = time.perf_counter()
            forward()
            seconds[mode] = min(seconds[mode], time.perf_counter() - start)
        running = [mode for mode in running if seconds[mode] < FAR_BEHIND * min(seconds.values())]
        if len(running) == 1:
            break
    return seconds


def worst_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Smallest cosine between rows of two arrays, shape (n_rows, dim); -1 where shapes differ or a value is not finite.

    Two rows of next to no length, against the median row of `b`, are the same: some encoders have no other vector for a
    text of unknown words, or a rest of rounding errors for an image of one grey.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    if a.shape != b.shape or not np.isfinite(a).all():
        return -1.0
    of_a, of_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(axis=1) / np.maximum(of_a * of_b, 1e-30)
    is_nothing = np.maximum(of_a, of_b) <= NO_LENGTH * np.median(of_b)
    return float(np.where(is_nothing, 1.0, cosine).min())


# ---- remembered in the workspace -----------------------------------------------------------------


def recall(workspace: Workspace, spec: EncoderSpec, device: str, versions: str) -> ModeChoice | None:
    """What was chosen on such a device before; None where nothing was, or the engines are others."""
    record = _record(spec, device)
    if not workspace.exists(record):
        return None
    try:
        memory = workspace.read_json(record)
        if memory["device"] != device or memory["versions"] != versions:
            return None
        compiled = memory.get("compiled")
        return ModeChoice(
            Mode(**memory["mode"]),
            memory["units"],
            memory["cosine"],
            dict(memory["rows_per_second"]),
            Compiled(**compiled) if compiled else None,
            memory["note"],
        )
    except (CorruptFileError, KeyError, TypeError):
        return None


def remember(workspace: Workspace, spec: EncoderSpec, device: str, versions: str, choice: ModeChoice) -> None:
    """Keep a choice for later runs on such a device."""
    memory: dict[str, Any] = {"device": device, "versions": versions, **asdict(choice)}
    workspace.publish_json(_record(spec, device), memory)


def _record(spec: EncoderSpec, device: str) -> str:
    return f"{spec.folder}/measured-{slug(device)}.json"
