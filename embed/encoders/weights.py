"""Weights on disk: how many, in which type, without reading them; and what a library reports when it loads them."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from store.local import open_regular

TYPES = {"F32": "fp32", "BF16": "bf16", "F16": "fp16"}
TORCH_TYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def stored_weights(files: Sequence[Path]) -> tuple[int, str]:
    """Parameters in safetensors files, and the type that most of them have; (0, "fp32") where it can't be told."""
    counts: Counter[str] = Counter()
    for file in files:
        if file.suffix != ".safetensors" or not file.is_file():
            return 0, "fp32"
        try:
            with open_regular(file) as opened:
                header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
            for name, tensor in header.items():
                if name != "__metadata__":
                    counts[tensor["dtype"]] += prod(tensor["shape"])
        except (
            ValueError,
            KeyError,
            TypeError,
            MemoryError,
            OverflowError,
        ):  # damaged: told when it is loaded
            return 0, "fp32"
    most = counts.most_common(1)
    return counts.total(), TYPES.get(most[0][0], "fp32") if most else "fp32"


def read_state(path: Path) -> dict[str, Any]:
    """Tensors by name of a checkpoint, wherever training scripts put them; nothing in it is run."""
    import torch

    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    found = torch.load(path, map_location="cpu", weights_only=True)
    state: dict[str, Any] = found.get("state_dict", found)
    if next(iter(state)).startswith("module."):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


@contextmanager
def loading_reports() -> Iterator[list[dict[str, Any]]]:
    """Gather what transformers reports of every model that is loaded inside, whoever loads it."""
    from transformers import PreTrainedModel

    reports: list[dict[str, Any]] = []
    own = PreTrainedModel.__dict__["from_pretrained"]

    def from_pretrained(cls: Any, *args: Any, **options: Any) -> Any:
        wants_report = options.pop("output_loading_info", False)
        model, report = own.__func__(cls, *args, output_loading_info=True, **options)
        reports.append(report)
        return (model, report) if wants_report else model

    PreTrainedModel.from_pretrained = classmethod(from_pretrained)  # type: ignore[assignment, method-assign]
    try:
        yield reports
    finally:
        PreTrainedModel.from_pretrained = own  # type: ignore[method-assign]


def lacking_tensors(reports: Sequence[dict[str, Any]]) -> list[str]:
    """Tensors that no file held and that the library filled at random, but for a pooler, which is not used."""
    return sorted(key for report in reports for key in report["missing_keys"] if "pooler" not in key)
