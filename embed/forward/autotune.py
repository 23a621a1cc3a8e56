"""One encoder tried out on its first rows on one device: precision, layout, engine, batch size, compiling."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version

import numpy as np

from embed.encoders.base import PREPARED_BY
from embed.forward.base import Passes
from embed.forward.precision import MIN_COSINE, MIN_GAIN, Compiled, Mode, ModeChoice, choose, worst_cosine
from embed.inputs.batch import Batch, BatchLimit, Preparer, RowWindow
from store.vectors.spec import EncoderSpec

MAX_UNITS = {"text": 262_144, "image": 1024}
MEASURED_ROWS = {"cpu": (4, 64), "gpu": (4, 256)}  # fewest and most; a GPU is not busy with fewer
MEASURED_SECONDS = (
    0.5  # one fp32 pass over the measured rows takes about that long: a few passes of each mode
)
WORTH_MEASURING = 16  # a run of fewer than so many times the measured rows is not measured
FLAT_COLOURS = (0, 127, 255, (200, 30, 40))  # images that show nothing, where rounding errors weigh most
GROWTH_GAIN = 1.05  # a doubled batch must be that much faster …
NO_LOSS = 0.98  # … or no slower than that, while passes are short
# A pass on a GPU should take so long: while it computes, Python prepares the next one, beside threads that decode.
BUSY_SECONDS = 0.1
COMPILE_SECONDS = 240.0  # of work ahead, or compiling is not even tried
RECORDING_PASSES = 2  # a graph is warmed up by one pass and recorded by the next
TIMED_ROUNDS = 3  # of whole batches, compiled or not
GRAPHS_FROM = (2, 14)  # version of torch that records them in any thread: the first one looked at


def units_counted(spec: EncoderSpec) -> str:
    """What a batch's size is counted in: "text" for padded tokens or patches, "image" for images."""
    return "image" if spec.modality == "image" and PREPARED_BY not in spec.preprocessing else "text"


class ModeTrial:
    """Passes over a sample of rows, timed.

    Args:
        passes: of the encoder with torch, on its device.
        preparer: of its inputs.
        limit: units per pass.
        modes: that may be chosen, fp32 with torch first; from `candidates`.
        converted: of the encoder with OpenVINO, where it is converted.
        kind: of the device, "cpu" or "gpu".
    """

    def __init__(
        self,
        spec: EncoderSpec,
        passes: Passes,
        preparer: Preparer,
        limit: BatchLimit,
        modes: Sequence[Mode],
        converted: Passes | None = None,
        kind: str = "cpu",
    ) -> None:
        self._rows = MEASURED_ROWS[kind]
        self._spec = spec
        self._passes = self._torch = passes
        self._preparer = preparer
        self._limit = limit
        self._modes = modes
        self._converted = converted

    def is_worth_measuring(self, window: RowWindow, n_rows: int) -> bool:
        """Whether so many rows take longer than measuring does."""
        if n_rows < self._rows[0] * WORTH_MEASURING:
            return False
        return n_rows >= WORTH_MEASURING * sum(len(batch.keys) for batch in self._sample(window))

    def choose(self, window: RowWindow) -> ModeChoice:
        """Precision, layout and engine; the plainest where every input fails."""
        sample = self._sample(window)
        if not sample:
            return plain_choice(self._modes, self._spec.precision)
        unlike = self._unlike(window, sample)
        with contextlib.ExitStack() as stack:
            return choose(
                lambda mode: self._apply(mode, sample, stack),
                lambda: self._run(sample),
                self._modes,
                self._spec.precision,
                (lambda: self._run(unlike)) if unlike else None,
            )

    def grow(self, window: RowWindow, choice: ModeChoice) -> ModeChoice:
        """The choice with the batch size that is fastest: doubled for as long as that gains, and fits."""
        sample = self._sample(window)
        if not sample:
            return choice
        self._passes.apply(choice.mode)
        units, rate = self._grown(sample)
        if (
            not self._is_of_one_shape or not rate
        ):  # texts are timed as they come; not even the first batch fitted
            return replace(choice, units=units)
        return replace(choice, units=units, rows_per_second=choice.rows_per_second | {str(choice.mode): rate})

    def compile(self, window: RowWindow, choice: ModeChoice) -> ModeChoice:
        """The choice with what `torch.compile` makes of it; some machines can't compile, which is no error.

        Images come in batches of one shape, whole ones of which are timed, and CUDA graphs are tried as well; texts
        come in many shapes, so that all batches of the window are run and timed, compiled or not.
        """
        sample = self._sample(window)
        if self._is_of_one_shape:
            timed = [_of_units(sample, self._limit.units)]
        else:
            timed = self._prepared(window, len(window.keys))
        with contextlib.ExitStack() as stack:
            self._apply(self._modes[0], sample, stack)
            reference = self._run(sample)
            if not self._is_of_one_shape:
                self._apply(choice.mode, sample, stack)
                self._run(timed)
                rates = choice.rows_per_second | {str(choice.mode): round(self._rate(timed), 1)}
                choice = replace(choice, rows_per_second=rates)
            compiled = self._compiled(choice, timed, sample, reference, stack, graphs=False)
            if compiled.rows_per_second and self._is_of_one_shape and records_graphs():
                graphs = self._compiled(choice, timed, sample, reference, stack, graphs=True)
                if graphs.rows_per_second > MIN_GAIN * compiled.rows_per_second:
                    compiled = graphs
        return replace(choice, compiled=compiled)

    @property
    def _is_of_one_shape(self) -> bool:
        return units_counted(self._spec) == "image"

    def _compiled(
        self,
        choice: ModeChoice,
        timed: Sequence[Batch],
        sample: Sequence[Batch],
        reference: np.ndarray,
        stack: contextlib.ExitStack,
        graphs: bool,
    ) -> Compiled:
        start = time.perf_counter()
        try:
            self._apply(replace(choice.mode, compiled=True, graphs=graphs), sample, stack)
            for _ in range(1 + (RECORDING_PASSES if graphs else 0)):
                self._run(timed)
            vectors = self._run(sample)
            first = time.perf_counter() - start
            rate = self._rate(timed)
        except Exception:  # noqa: BLE001 - a compiler that is missing or stumbles raises whatever it likes
            return Compiled(0.0, time.perf_counter() - start, graphs)
        cosine = min(worst_cosine(vectors, reference), worst_cosine(self._run(sample), reference))
        close = cosine >= MIN_COSINE or (self._spec.precision != "auto" and not graphs)
        return Compiled(round(rate, 1) if close else 0.0, round(first, 1), graphs)

    def _rate(self, timed: Sequence[Batch]) -> float:
        """Rows a second, of the fastest of a few rounds."""
        seconds = np.inf
        for _ in range(TIMED_ROUNDS):
            start = time.perf_counter()
            self._run(timed)
            seconds = min(seconds, time.perf_counter() - start)
        return float(sum(len(batch.keys) for batch in timed) / seconds)

    def _apply(self, mode: Mode, sample: Sequence[Batch], stack: contextlib.ExitStack) -> None:
        stack.close()
        self._passes = self._converted if mode.engine == "openvino" and self._converted else self._torch
        self._passes.apply(mode)
        stack.enter_context(self._passes.running())
        if not mode.compiled:  # which would be compiled for one row alone
            self._passes.vectors(
                _plain_batch([a[:1] for a in sample[0].arrays])
            )  # weights are cast once per run

    def _run(self, sample: Sequence[Batch]) -> np.ndarray:
        return np.concatenate([self._passes.vectors(batch) for batch in sample])

    def _unlike(self, window: RowWindow, sample: Sequence[Batch]) -> list[Batch]:
        """Inputs that the sample may lack: images of one colour; a text alone, and one that is padded most."""
        if PREPARED_BY in self._spec.preprocessing:
            return []
        if self._spec.modality == "image":
            pixels = sample[0].arrays[0]
            flat = np.empty((len(FLAT_COLOURS), *pixels.shape[1:]), pixels.dtype)
            for at, colour in enumerate(FLAT_COLOURS):
                flat[at] = colour
            return [_plain_batch([flat])]
        by_length = sorted(window.contents, key=len)
        texts = [[by_length[0]], [by_length[-1]], [by_length[0], by_length[-1]]]
        windows = [RowWindow(window.vector_set, [b""] * len(part), part) for part in texts]
        return [batch for batch in self._preparer.batches(iter(windows)) if batch.keys]

    def _sample(self, window: RowWindow) -> list[Batch]:
        """As many of the window's rows as one fp32 pass takes about `MEASURED_SECONDS` over."""
        fewest, most = self._rows
        few = self._prepared(window, fewest)
        if not few:
            return []
        seconds = 0.0
        with self._passes.running():
            for _ in ("warm-up", "timed"):
                start = time.perf_counter()
                self._run(few)
                seconds = time.perf_counter() - start
        n_rows = int(min(most, fewest * MEASURED_SECONDS / max(seconds, 1e-6)))
        return few if n_rows <= fewest else self._prepared(window, n_rows)

    def _prepared(self, window: RowWindow, n_rows: int) -> list[Batch]:
        """Batches of `n_rows` spread over the window, fewer where inputs fail."""
        return [batch for batch in self._preparer.batches(iter([window.sample(n_rows)])) if batch.keys]

    def _grown(self, sample: list[Batch]) -> tuple[int, float]:
        """The fastest batch size, and its rows a second; among sizes alike one whose pass is not short."""
        units, best_units, best, gain = self._limit.units, self._limit.units, 0.0, 0.0
        while units <= MAX_UNITS[units_counted(self._spec)]:
            batch = _of_units(sample, units)
            self._limit.units = batch.units
            with self._passes.running():
                self._passes.vectors(batch)  # warm-up, and wait for it
                start = time.perf_counter()
                self._passes.vectors(batch)
                seconds = time.perf_counter() - start
            if self._limit.units < batch.units:  # it did not fit
                return self._limit.units, round(best, 1)
            rate = len(batch.keys) / seconds
            if rate < gain * best:
                break
            gain = GROWTH_GAIN if seconds >= BUSY_SECONDS else NO_LOSS
            best, best_units, units = rate, units, 2 * units
        return best_units, round(best, 1)


def records_graphs() -> bool:
    """Whether this torch records CUDA graphs in whichever thread a run encodes."""
    numbers = version("torch").split(".")[:2]
    return tuple(int(n) for n in numbers) >= GRAPHS_FROM


def plain_choice(modes: Sequence[Mode], policy: str) -> ModeChoice:
    """The plainest mode that a policy allows, unmeasured."""
    return ModeChoice(next(mode for mode in modes if policy in ("auto", mode.dtype)))


def _plain_batch(arrays: Sequence[np.ndarray]) -> Batch:
    return Batch("", [b""] * len(arrays[0]), tuple(arrays))


def _of_units(sample: Sequence[Batch], units: int) -> Batch:
    """The sample's largest batch, its inputs repeated until there are so many units, or nearly so many."""
    largest = max(sample, key=lambda batch: batch.units)
    n = max(1, units * len(largest.arrays[0]) // max(1, largest.units))
    return _plain_batch([np.resize(a, (n, *a.shape[1:])) for a in largest.arrays])
