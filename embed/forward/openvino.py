"""OpenVINO, which runs converted encoders on CPUs: in the job, or alone from their folder, without torch."""

import contextlib
import importlib
import itertools
import os
import sys
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from embed.forward import dynamic_int8
from embed.forward.converted import MODEL, ConvertedModel, installed_version
from embed.forward.devices import default_threads
from embed.forward.memory import is_out_of_memory, within_memory
from embed.forward.precision import MIN_COSINE, Mode
from embed.inputs import InputFailure
from embed.inputs.batch import Batch, BatchLimit, Preparer, RowWindow
from embed.inputs.images import decode_image
from store.catalog.images.open import quiet_pillow
from store.errors import WorkspaceError

HINTS = {"fp32": "f32", "bf16": "bf16"}  # our names of types: OpenVINO's
BATCH_TOKENS, BATCH_IMAGES = 4096, 8
DECODING_THREADS = 2  # that decode images ahead of one pass at a time
MOST_STREAMS = 8  # passes at once, each by its share of the threads
WAITING_PER_STREAM = 2  # one runs, one waits


def openvino() -> Any:
    """The library, imported without its telemetry, which would report each import and conversion to a server."""
    if "openvino" not in sys.modules:
        with without_telemetry():
            importlib.import_module("openvino")
    return sys.modules["openvino"]


@contextlib.contextmanager
def without_telemetry() -> Iterator[None]:
    """What is imported meanwhile finds no `openvino_telemetry` and falls back on its own empty stand-in."""
    name = "openvino_telemetry"
    known = name in sys.modules
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        if known:
            sys.modules[name] = before  # type: ignore[assignment]


def native_types() -> list[str]:
    """What this CPU computes in by itself, the fastest first."""
    capabilities = openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ["bf16", "fp32"] if "BF16" in capabilities else ["fp32"]


def best_type(model: ConvertedModel) -> str:
    """The type that was chosen where this was measured, or the fastest one that this CPU computes in."""
    if model.spec.precision == "int8":
        return "int8"
    types = [dynamic_int8.DTYPE, *native_types()]
    close = [dtype for dtype in types if model.cosines.get(dtype, 0.0) >= MIN_COSINE]
    return close[0] if close else "fp32"


class ConvertedPasses:
    """Forward passes with OpenVINO. Implements `embed.forward.base.Passes`.

    Args:
        model: read from its folder.
        n_threads: that compute.
        limit: most units per pass; lowered when memory runs out.
    """

    most_waiting = 1

    def __init__(self, model: ConvertedModel, n_threads: int, limit: BatchLimit) -> None:
        self.model = model
        self.mode = Mode(engine="openvino")
        # Read now, so that later passes don't depend on the folder: another model may have taken its place.
        self._network = openvino().Core().read_model(str(model.folder / MODEL))
        self._n_threads = n_threads
        self.n_streams = min(n_threads, MOST_STREAMS)
        self._limit = limit
        # By type: the network compiled for passes side by side, its requests that run nothing, one with all threads.
        self._streams: dict[str, Any] = {}
        self._free: dict[str, list[Any]] = defaultdict(list)
        self._alone: dict[str, Any] = {}
        self._busy: list[Any] = []

    def types(self) -> list[str]:
        """What may be computed in: types of this CPU, the fastest first, and where it makes a difference eight bits."""
        if self.model.spec.precision == "int8":
            return ["int8"]
        return native_types() + ([dynamic_int8.DTYPE] if dynamic_int8.has_products(self._network) else [])

    def apply(self, mode: Mode) -> None:
        """Passes from now on are of this type; its network is compiled, once, by the first of them."""
        self.mode = mode

    def keep(self, mode: Mode) -> None:
        """Get ready for passes side by side in a mode, and release all other memory."""
        self.mode = mode
        for of_types in (self._streams, self._free, self._alone):
            for dtype in set(of_types) - {mode.dtype}:
                del of_types[dtype]
        self._side_by_side()

    def record_cosine(self, mode: Mode, cosine: float | None) -> None:
        """Keep with the model how close to fp32 a type was: for machines that measure nothing."""
        if cosine is not None:
            self.model = self.model.with_cosine(mode.dtype, cosine)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._wait_for(list(self._busy))  # where the caller gave up

    def uploaded(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, tuple[np.ndarray, ...]]]:
        for batch in batches:
            yield batch, batch.arrays

    def start(self, batch: Batch, inputs: tuple[np.ndarray, ...]) -> list[Any]:
        """Begin the pass of a batch, in parts that run side by side, each by one stream of threads."""
        return self._begin(batch, inputs, min(self.n_streams, len(batch.arrays[0])))

    def finish(self, batch: Batch, inputs: tuple[np.ndarray, ...], pending: list[Any]) -> np.ndarray:
        error = self._wait_for(pending)
        if error is not None and not is_out_of_memory(error):
            raise error
        if error is not None or not pending:
            halved = within_memory(self._run_on_a_stream, inputs, self._limit, np.concatenate)
            return self._pooled(batch, halved)
        parts = [request.get_output_tensor(0).data for request in pending]
        return self._pooled(batch, np.concatenate(parts, dtype=np.float32))

    def vectors(self, batch: Batch) -> np.ndarray:
        """One vector per key, shape (n_keys, dim) float32."""
        return self.finish(batch, batch.arrays, self.start(batch, batch.arrays))

    def alone(self, batch: Batch) -> np.ndarray:
        """The same in one pass by all threads together: soonest where a batch is of one text or image."""
        return self._pooled(batch, within_memory(self._run_alone, batch.arrays, self._limit, np.concatenate))

    def begin(self, batch: Batch) -> list[Any]:
        """Begin the pass of a batch on one stream; where all streams run, it waits."""
        return self._begin(batch, batch.arrays, 1)

    def _begin(self, batch: Batch, inputs: tuple[np.ndarray, ...], n_parts: int) -> list[Any]:
        """Requests that run now, or wait for a stream; none for a batch that `finish` has to do bit by bit."""
        if batch.units > self._limit.units:
            return []
        network, free = self._side_by_side(), self._free[self.mode.dtype]
        pending = []
        for part in zip(*(np.array_split(array, n_parts) for array in inputs), strict=True):
            request = free.pop() if free else network.create_infer_request()
            request.start_async(list(part), share_inputs=True)
            self._busy.append(request)
            pending.append(request)
        return pending

    def _wait_for(self, pending: list[Any]) -> RuntimeError | None:
        """Wait until these requests run no more; the last one's error, if any failed."""
        failed = None
        for request in pending:
            try:
                request.wait()
            except RuntimeError as error:
                failed = error
            self._busy.remove(request)
            self._free[self.mode.dtype].append(request)
        return failed

    def _run_on_a_stream(self, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
        request = self._side_by_side().create_infer_request()
        return np.array(request.infer(list(arrays), share_inputs=True)[0], np.float32)

    def _run_alone(self, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
        dtype = self.mode.dtype
        if dtype not in self._alone:
            self._alone[dtype] = self._compiled(dtype).create_infer_request()
        return np.asarray(self._alone[dtype].infer(list(arrays), share_inputs=True)[0], np.float32)

    def _side_by_side(self) -> Any:
        """The network whose requests run on streams of their own."""
        dtype = self.mode.dtype
        if dtype not in self._streams:
            self._streams[dtype] = self._compiled(dtype, self.n_streams)
        return self._streams[dtype]

    def _pooled(self, batch: Batch, vectors: np.ndarray) -> np.ndarray:
        """One vector per key, where a key has several inputs."""
        if batch.owner is None or batch.weights is None:
            return vectors
        weights = batch.weights.astype(np.float32)
        pooled = np.zeros((len(batch.keys), vectors.shape[1]), np.float32)
        np.add.at(pooled, batch.owner, vectors * weights[:, None])
        pooled /= np.bincount(batch.owner, weights, len(batch.keys)).astype(np.float32)[:, None]
        if self.model.spec.normalize:
            pooled /= np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)
        return pooled

    def _compiled(self, dtype: str, n_streams: int = 1) -> Any:
        hint = HINTS[dtype if dtype in HINTS else native_types()[0]]
        settings = {
            "PERFORMANCE_HINT": "LATENCY" if n_streams == 1 else "THROUGHPUT",
            "NUM_STREAMS": n_streams,
            "INFERENCE_NUM_THREADS": self._n_threads,
            "INFERENCE_PRECISION_HINT": hint,
            "ENABLE_CPU_PINNING": False,  # threads that decode, and other processes, share the processors
        }
        core = openvino().Core()
        if dtype != dynamic_int8.DTYPE:
            return core.compile_model(self._network, "CPU", settings)
        network = self._network.clone()
        dynamic_int8.quantize_products(network)
        return core.compile_model(network, "CPU", settings | dynamic_int8.settings())


class ConvertedEncoder:
    """An encoder that needs nothing but a folder and OpenVINO: for models that are served."""

    def __init__(self, model: ConvertedModel, n_threads: int | None = None) -> None:
        self.spec = model.spec
        self.passes = ConvertedPasses(model, n_threads or default_threads(), BatchLimit(2**62))
        self.passes.apply(Mode(best_type(model), engine="openvino"))
        is_text = model.spec.modality == "text"
        self._preparer = model.preparer(BatchLimit(BATCH_TOKENS)) if is_text else None
        self._one_text = model.preparer(BatchLimit(1)) if is_text else None  # a batch of each text

    def embed(self, contents: Sequence[Any]) -> np.ndarray:
        """Vectors of texts, or of images by the bytes of their files, in order.

        Returns:
            Shape (n_contents, dim), float32; NaN in the row of an image that can't be decoded.
        """
        X = np.full((len(contents), self.spec.dim), np.nan, np.float32)
        prepared = self._preparer
        for batch in self._text_batches(contents, prepared) if prepared else self._image_batches(contents):
            X[[int.from_bytes(key, "big") for key in batch.keys]] = self.passes.vectors(batch)
        return X

    def embed_each(self, contents: Sequence[Any]) -> np.ndarray:
        """As `embed`, each content in a pass of its own: no vector depends on what else is asked for."""
        return embed_each([(self, contents)])[0]

    def one_by_one(self, contents: Sequence[Any]) -> Iterator[tuple[int, Batch]]:
        """A batch of each content, with its place; none of an image that can't be decoded."""
        if self._one_text is not None:
            for batch in self._text_batches(contents, self._one_text):
                yield int.from_bytes(batch.keys[0], "big"), batch
            return
        for at, pixels in enumerate(self._decoded_ahead(contents)):
            if not isinstance(pixels, InputFailure):
                yield at, Batch("", [b""], (pixels[None],))

    def _decoded_ahead(self, contents: Sequence[bytes]) -> Iterator[np.ndarray | InputFailure]:
        """Each image's pixels or failure; while one is embedded, other threads decode the next."""
        waiting: deque[Future[np.ndarray | InputFailure]] = deque()
        with quiet_pillow(), ThreadPoolExecutor(DECODING_THREADS, thread_name_prefix="decode") as pool:
            for content in contents:
                waiting.append(pool.submit(decode_image, content, self.spec.preprocessing))
                if len(waiting) > 2 * DECODING_THREADS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _text_batches(self, texts: Sequence[str], preparer: Preparer) -> Iterator[Batch]:
        keys = [at.to_bytes(8, "big") for at in range(len(texts))]
        return preparer.batches(iter([RowWindow("", keys, list(texts))] if keys else []))

    def _image_batches(self, contents: Sequence[bytes]) -> Iterator[Batch]:
        with quiet_pillow():
            for start in range(0, len(contents), BATCH_IMAGES):
                decoded = {
                    at: decode_image(content, self.spec.preprocessing)
                    for at, content in enumerate(contents[start : start + BATCH_IMAGES], start)
                }
                pixels = {at: one for at, one in decoded.items() if not isinstance(one, InputFailure)}
                if pixels:
                    keys = [at.to_bytes(8, "big") for at in pixels]
                    yield Batch("", keys, (np.stack(list(pixels.values())),))


def embed_each(asked: Sequence[tuple[ConvertedEncoder, Sequence[Any]]]) -> list[np.ndarray]:
    """Vectors of the contents of each encoder, as its `embed_each` has them; no encoder waits for the last of another.

    A few contents of one encoder are passed through it one after the other, each by all threads.

    Args:
        asked: encoders, each once, with what they are to embed.
    """
    found = [np.full((len(contents), encoder.spec.dim), np.nan, np.float32) for encoder, contents in asked]
    places: list[tuple[np.ndarray, int]] = []

    def batches() -> Iterator[tuple[ConvertedPasses, Batch]]:
        for X, (encoder, contents) in zip(found, asked, strict=True):
            coming = encoder.one_by_one(contents)
            first = list(itertools.islice(coming, encoder.passes.n_streams + 1))
            if len(first) <= encoder.passes.n_streams:
                for at, batch in first:
                    X[at] = encoder.passes.alone(batch)[0]
                continue
            for at, batch in itertools.chain(first, coming):
                places.append((X, at))
                yield encoder.passes, batch

    for i, vectors in enumerate(side_by_side(batches())):
        X, at = places[i]
        X[at] = vectors[0]
    return found


def side_by_side(batches: Iterable[tuple[ConvertedPasses, Batch]]) -> Iterator[np.ndarray]:
    """The vectors of each batch, in order; passes run on streams, each by one.

    Where batches are of one text or image, threads of one pass would mostly wait for each other; each batch has the vectors
    that `ConvertedPasses.alone` gives, to the bit.
    """
    waiting: deque[tuple[ConvertedPasses, Batch, list[Any]]] = deque()
    running: set[ConvertedPasses] = set()

    def finish_oldest() -> np.ndarray:
        passes, batch, pending = waiting.popleft()
        return passes.finish(batch, batch.arrays, pending)

    with contextlib.ExitStack() as stack:
        for passes, batch in batches:
            if passes not in running:
                running.add(passes)
                stack.enter_context(passes.running())
            waiting.append((passes, batch, passes.begin(batch)))
            if len(waiting) >= WAITING_PER_STREAM * passes.n_streams:
                yield finish_oldest()
        while waiting:
            yield finish_oldest()


def load_converted(folder: str | os.PathLike[str], n_threads: int | None = None) -> ConvertedEncoder:
    """An encoder from the folder of its converted model; imports no torch.

    Args:
        folder: `vectors/<encoder>-<fingerprint>/openvino` of a workspace, or a copy of it.
        n_threads: that compute; None: one per processor core.

    Raises:
        CorruptFileError: the folder holds no whole converted model.
        WorkspaceError: OpenVINO is not installed.
    """
    if installed_version() is None:
        raise WorkspaceError(f"{folder} needs OpenVINO: pip install 'shelfprice[starter]', or openvino")
    return ConvertedEncoder(ConvertedModel.read(Path(folder)), n_threads)
