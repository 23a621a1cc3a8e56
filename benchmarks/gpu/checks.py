"""Vectors of a device against fp32 on the CPU, in each of its modes; copies, streams, memory that runs out, several devices."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.models import BERT, ONE_KEY_HEAD, SMALL_CLIP, Scale, save_model, save_photos, texts
from benchmarks.report import Result
from embed.encoders.base import Resolved, Sources
from embed.encoders.registry import library_of
from embed.encoders.resolve import resolve
from embed.forward.devices import DeviceSettings
from embed.forward.engine import Engine
from embed.forward.fleet import load_engines
from embed.forward.precision import MIN_COSINE, Mode, candidates, worst_cosine
from embed.inputs.batch import Batch, BatchLimit, RowWindow
from embed.job.items import ITEMS, image_items, text_items
from store.workspace import Workspace

ROUNDING = 1e-4  # largest difference of two passes in fp32 whose batches are cut otherwise
SPARE_BYTES = 300_000_000  # that the device may use beside the weights where memory is to run out
OOM_ROWS = 512  # in a batch that then does not fit
LENGTHS = 100  # of texts that each length up to is checked
PACKED_COSINE = {"8bit": 0.99, "4bit": 0.9}  # of random weights, which packing hurts more than trained ones


def resolved_of(folder: Path, address: str, precision: str = "auto") -> Resolved:
    (one,) = resolve(Workspace(folder / "memory"), address, Sources(offline=True), precision)
    return one


def window_of(one: Resolved, folder: Path, n_rows: int, edge: int) -> RowWindow:
    """Rows that an encoder takes."""
    if one.spec.modality == "image":
        source = image_items(save_photos(folder / f"photos-{n_rows}", n_rows, edge))
    else:
        source = text_items(texts(n_rows))
    return next(source.windows(source.wanted().sets[ITEMS][ITEMS].keys))


def check_modes(
    folder: Path, address: str, name: str, device: str, scale: Scale, compiles: bool = False
) -> Iterator[Result]:
    """Each mode that the autotuner may choose on a GPU, against fp32 on the CPU.

    Args:
        compiles: compiled ones as well, which take a minute for a large model; see `check_chosen`.
    """
    import torch

    from embed.forward.passes import TorchPasses

    one = resolved_of(folder, address, "fp32")
    (encoder,) = library_of(one.address).load([one])
    limit = BatchLimit(10**9)
    on_cpu = Engine(Workspace(folder / "memory"), one.spec, lambda: copy.deepcopy(encoder), "cpu", _on("cpu"))
    batches = _batches(on_cpu, [window_of(one, folder, scale.check_rows, scale.photo_edge)])
    reference = _by_key(on_cpu.encode(iter(batches)))
    passes = TorchPasses(encoder, torch.device(device), limit)
    for mode in _modes(passes, compiles, one.spec.modality == "image" and device.startswith("cuda")):
        found = {}
        passes.apply(mode)
        with passes.running():
            for _ in range(
                3 if mode.graphs else 1
            ):  # a graph is recorded by the second pass, replayed by the third
                found = {
                    k: v for batch in batches for k, v in zip(batch.keys, passes.vectors(batch), strict=True)
                }
        yield _compared(f"{name}, {mode}", found, reference)


def check_chosen(folder: Path, engine: Engine, address: str, name: str, scale: Scale) -> Result:
    """The mode that a run has chosen, compiled where it is, against fp32 on the CPU."""
    one = resolved_of(folder, address, "fp32")
    on_cpu = _engine(folder, one, "cpu")
    batches = _batches(on_cpu, [window_of(one, folder, scale.check_rows, scale.photo_edge)])
    reference = _by_key(on_cpu.encode(iter(batches)))
    found = _by_key(engine.encode(iter(batches)))
    return _compared(f"{name}, {engine.provenance()['precision']}, as it was chosen", found, reference)


def check_lengths(folder: Path, device: str, scale: Scale, compiles: bool) -> Iterator[Result]:
    """Texts of every length beside a shorter one: a kernel that gets some length wrong gives no error."""
    import torch

    from embed.forward.passes import TorchPasses

    address = save_model(folder / ONE_KEY_HEAD, ONE_KEY_HEAD, scale)
    one = resolved_of(folder, address, "fp32")
    (encoder,) = library_of(one.address).load([one])
    contents = [" ".join(f"w{(7 * at) % n}" for at in range(n)) for n in range(1, LENGTHS + 1)]
    keys = [at.to_bytes(16, "big") for at in range(LENGTHS)]
    each = [RowWindow("lengths", [keys[at]], [contents[at]]) for at in range(LENGTHS)]
    paired = [
        RowWindow("lengths", [keys[at], keys[at // 2]], [contents[at], contents[at // 2]])
        for at in range(1, LENGTHS)
    ]
    on_cpu = Engine(Workspace(folder / "memory"), one.spec, lambda: copy.deepcopy(encoder), "cpu", _on("cpu"))
    alone = _by_key(on_cpu.encode(iter(_batches(on_cpu, each))))
    pairs = _batches(on_cpu, paired)
    passes = TorchPasses(encoder, torch.device(device), BatchLimit(10**9))
    for mode in _modes(passes, compiles):
        passes.apply(mode)
        worst = 1.0
        with passes.running():
            for batch in pairs:
                reference = np.stack([alone[key] for key in batch.keys])
                worst = min(worst, worst_cosine(passes.vectors(batch), reference))
        yield Result.at_least(
            f"texts of {LENGTHS} lengths, {mode}", worst, MIN_COSINE, "cosine to fp32 alone on the CPU"
        )


def _compared(name: str, found: dict[bytes, np.ndarray], reference: dict[bytes, np.ndarray]) -> Result:
    ours, theirs = (np.stack([vectors[key] for key in reference]) for vectors in (found, reference))
    return Result.at_least(name, worst_cosine(ours, theirs), MIN_COSINE, "cosine to fp32 on the CPU")


def _modes(passes: Any, compiles: bool, graphs: bool = False) -> list[Mode]:
    """What a GPU may run, on whichever device this is."""
    modes = candidates("auto", "cuda", passes.is_convnet, passes.stored_as, (), passes.can_be_unpadded)
    if compiles:
        modes.append(replace(modes[-1], compiled=True))
        modes += [replace(modes[-1], graphs=True)] if graphs else []
    return modes


def check_streams(folder: Path, address: str, device: str, scale: Scale) -> Result:
    """Batches uploaded beside the computing of others give exactly what each gives by itself."""
    one = resolved_of(folder, address, "fp32")
    engine = _engine(folder, one, device)
    rows = window_of(one, folder, 16 * scale.check_rows, scale.photo_edge)
    batches = _batches(engine, [rows], units=2 * scale.check_rows if one.spec.modality == "image" else 512)
    alone = {}
    for batch in batches:
        alone |= _by_key(engine.encode(iter([batch])))
    together = _by_key(engine.encode(iter(batches)))
    distinct = len(np.unique(np.stack(list(alone.values())), axis=0))
    return Result.at_most(
        "pinned copies on a stream of their own",
        max(float(np.abs(together[key] - alone[key]).max()) for key in alone),
        ROUNDING,
        "largest difference to one batch at a time",
        batches=len(batches),
        distinct_vectors=distinct,
    )


def check_halving(folder: Path, address: str, device: str, scale: Scale) -> Result:
    """A batch that does not fit is halved until it does, and its vectors stay what they were."""
    one = resolved_of(folder, address, "fp32")
    engine = _engine(folder, one, device)
    n_rows = OOM_ROWS if device.startswith("cuda") else 16
    few = _batches(engine, [window_of(one, folder, scale.check_rows, scale.photo_edge)])
    expected = _by_key(engine.encode(iter(few)))
    repeats = -(-n_rows // len(few[0].keys))
    large = replace(
        few[0], keys=few[0].keys * repeats, arrays=tuple(np.concatenate([a] * repeats) for a in few[0].arrays)
    )
    engine._limit.units = large.units
    with _little_memory(engine, device):
        found = _by_key(engine.encode(iter([large])))
    return Result.at_most(
        "memory that runs out",
        max(float(np.abs(found[key] - expected[key]).max()) for key in found),
        ROUNDING if engine.units < large.units else -1.0,
        "largest difference to batches that fit" if engine.units < large.units else "nothing was halved",
        units_before=large.units,
        units_after=engine.units,
    )


@contextmanager
def _little_memory(engine: Engine, device: str) -> Iterator[None]:
    """A device that is too small for a large batch; on the CPU an encoder that says so."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(device).total_memory
        share = (torch.cuda.memory_reserved(device) + SPARE_BYTES) / total
        torch.cuda.set_per_process_memory_fraction(share, device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
        return
    encoder: Any = engine._encoder
    forward = encoder.forward

    def small(*inputs: Any) -> Any:
        if len(inputs[0]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*inputs)

    encoder.forward = small
    try:
        yield
    finally:
        del encoder.forward


def check_devices(folder: Path, address: str, devices: Sequence[str], scale: Scale) -> Result:
    """Several devices share the batches of one encoder."""
    name = "several devices"
    if len(devices) < 2:
        return Result.skipped(name, "there is one device")
    one = resolved_of(folder, address, "fp32")
    window = window_of(one, folder, 16 * scale.check_rows, scale.photo_edge)
    found = []
    for chosen in (devices[:1], devices):
        settings = DeviceSettings(
            tuple(chosen), batch_tokens=1024, batch_images=scale.check_rows, openvino=False
        )
        (runner,) = load_engines(Workspace(folder / "memory"), [one], settings)
        runner.begin(window, len(window.keys))
        found.append(_by_key(runner.encode(runner.batches(iter([window])))))
    return Result.at_most(
        name,
        max(float(np.abs(found[1][key] - found[0][key]).max()) for key in found[0]),
        ROUNDING,
        "largest difference to one of them",
        devices=len(devices),
    )


def check_packed(folder: Path, address: str, device: str, bits: str, scale: Scale) -> Result:
    """Weights that bitsandbytes packs into 8 or 4 bits: close to fp32 on the CPU, and as small as planned."""
    import torch

    name = f"weights of {bits}"
    if not device.startswith("cuda") or find_spec("bitsandbytes") is None:
        return Result.skipped(
            name, "needs a CUDA device and bitsandbytes: pip install 'shelfprice[quantize]'"
        )
    reference = resolved_of(folder, address, "fp32")
    on_cpu = _engine(folder, reference, "cpu")
    batches = _batches(on_cpu, [window_of(reference, folder, scale.check_rows, scale.photo_edge)])
    exact = _by_key(on_cpu.encode(iter(batches)))
    one = resolved_of(folder, f"{address}&quantize={bits}")
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    engine = _engine(folder, one, device)
    engine._ready()
    loaded = torch.cuda.memory_allocated(device) - before
    found = _by_key(engine.encode(iter(batches)))
    # The keys differ, as another recipe's do; rows are in one order.
    ours, theirs = (np.stack(list(vectors.values())) for vectors in (found, exact))
    return Result.at_least(
        name,
        worst_cosine(ours, theirs),
        PACKED_COSINE[bits],
        "cosine to fp32 on the CPU",
        loaded_mb=loaded / 1e6,
        planned_mb=(one.memory_bytes or 0) / 1e6,
    )


Check = Callable[[], Iterable[Result]]


def all_checks(
    folder: Path, addresses: dict[str, str], devices: Sequence[str], scale: Scale, compiles: bool
) -> Iterator[tuple[str, Check]]:
    """Every check under its name, to be run one by one.

    Args:
        addresses: name -> encoder, BERT's among them.
    """
    device = devices[0]
    for name, address in addresses.items():
        yield name, partial(check_modes, folder, address, name, device, scale)
    small = f"{save_model(folder / SMALL_CLIP, SMALL_CLIP, scale)}.image"
    yield "compiled", partial(check_modes, folder, small, SMALL_CLIP, device, scale, compiles)
    yield "lengths", partial(check_lengths, folder, device, scale, compiles)
    bert = addresses[BERT]
    yield "streams", lambda: [check_streams(folder, bert, device, scale)]
    yield "memory", lambda: [check_halving(folder, bert, device, scale)]
    yield "devices", lambda: [check_devices(folder, bert, devices, scale)]
    for bits in PACKED_COSINE:
        yield bits, partial(_packed, folder, bert, device, bits, scale)


def _packed(folder: Path, address: str, device: str, bits: str, scale: Scale) -> list[Result]:
    return [check_packed(folder, address, device, bits, scale)]


def _on(device: str) -> DeviceSettings:
    return DeviceSettings((device,), openvino=False)


def _engine(folder: Path, one: Resolved, device: str) -> Engine:
    (encoder,) = library_of(one.address).load([one])
    return Engine(Workspace(folder / "memory"), one.spec, lambda: encoder, device, _on(device))


def _batches(engine: Engine, windows: Sequence[RowWindow], units: int = 10**9) -> list[Batch]:
    engine._ready()
    engine._limit.units = units
    return list(engine.batches(iter(windows)))


def _by_key(encoded: Iterator[tuple[Batch, np.ndarray]]) -> dict[bytes, np.ndarray]:
    return {
        key: vector for batch, vectors in encoded for key, vector in zip(batch.keys, vectors, strict=True)
    }
