"""Full-size CLIP ViT-L/14 with random weights: the embed job on both towers against plain fp32 open_clip in a loop."""

import json
import time
from functools import reduce
from io import BytesIO
from operator import add
from pathlib import Path
from typing import Any

from benchmarks.report import Result, main, scratch
from benchmarks.workspaces import (
    EmbedRun,
    bf16_gain,
    chosen_mode,
    embed,
    growing,
    ingested,
    least_over_fp32,
    myntra_rows,
)

ARCHITECTURE = "ViT-L-14"
ROWS = 96
PEER_BATCH = 16
ROUNDS = 3
PREPROCESS = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def measure(data: Path, rows: int | None) -> list[Result]:
    """Random weights: the time does not depend on them."""
    images = data / "myntra/images"
    found = myntra_rows(data, rows or ROWS)
    if not found or not images.is_dir():
        return [Result.skipped("clip", f"no photos in {images}")]
    with scratch() as folder:
        model = save_clip(folder / "clip", ARCHITECTURE)
        runs: dict[str, list[EmbedRun]] = {"image": [], "text": []}
        seconds = {"image": 0.0, "text": 0.0}
        for part in growing(found, ROUNDS):
            workspace = ingested(folder, part, images)
            runs["image"].append(embed(workspace, f"{model}.image"))
            runs["text"].append(embed(workspace, f"{model}.text@full"))
            rows_now = part[-PEER_BATCH:]
            photos = [(images / f"{row['sample_id']}.jpg").read_bytes() for row in rows_now]
            taken = _peer(model, photos, [row["catalog_content"] for row in rows_now])
            seconds = {tower: seconds[tower] + taken[tower] for tower in seconds}
    n_peer = ROUNDS * PEER_BATCH
    image_run, text_run = reduce(add, runs["image"]), reduce(add, runs["text"])
    peer_images, peer_texts = n_peer / seconds["image"], n_peer / seconds["text"]
    return [
        *_results("clip, images", image_run, peer_images),
        *_results("clip, texts", text_run, peer_texts),
    ]


def _results(name: str, run: EmbedRun, peer_rate: float) -> list[Result]:
    rate, gain = run.n_rows / run.steady_seconds, bf16_gain()
    return [
        Result.at_least(
            name,
            rate / peer_rate,
            least_over_fp32(gain),
            "from the first batch to the last shard",
            rows=run.n_rows,
            precision=run.precision,
            job_rows_per_second=rate,
            peer_rows_per_second=peer_rate,
            start_seconds=run.seconds - run.steady_seconds,
            bf16_over_fp32_in_bare_products=gain,
        ),
        chosen_mode(name, run),
    ]


def save_clip(
    folder: Path, model: str | dict[str, Any], quick_gelu: bool = True, device: str = "cpu"
) -> Path:
    """A model of full size with random weights in half precision, as hubs keep them.

    Args:
        model: an architecture of open_clip, or the configuration of one.
        quick_gelu: the activation that OpenAI's weights were trained with; LAION's were not.
        device: where the weights are drawn.
    """
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    config = open_clip.get_model_config(model) if isinstance(model, str) else model
    described = {"model_cfg": {**config, "quick_gelu": quick_gelu}, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    torch.manual_seed(0)
    with torch.device(device):
        made = open_clip.create_model(
            f"local-dir:{folder}", load_weights=False, pretrained_text=False, device=device
        )
    weights = {key: value.half().cpu().contiguous() for key, value in made.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


def _peer(folder: Path, photos: list[bytes], texts: list[str]) -> dict[str, float]:
    """Seconds of each tower of the library alone, on one batch."""
    import open_clip
    import torch
    from PIL import Image

    made: Any = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model, _, transform = made
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()

    def encode_images(part: list[bytes]) -> None:
        model.encode_image(torch.stack([transform(Image.open(BytesIO(one))) for one in part])).numpy()

    def sentences(part: list[str]) -> None:
        model.encode_text(tokenizer(part)).numpy()

    seconds = {}
    with torch.inference_mode():
        for tower, run, inputs in (("image", encode_images, photos), ("text", sentences, texts)):
            run(inputs[:1])  # type: ignore[operator]
            start = time.perf_counter()
            run(inputs)  # type: ignore[operator]
            seconds[tower] = time.perf_counter() - start
    return seconds


if __name__ == "__main__":
    main(measure, embeds=True)
