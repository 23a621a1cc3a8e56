"""A fine-tuning step of each system that won: as the command takes it against a bare loop on prepared rows."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.finetune import compare, fold_run
from benchmarks.gpu.models import B4, BERT, CLIP_H, CLIP_L, Scale, save_photos, texts
from benchmarks.report import Result
from benchmarks.workspaces import ingested

SYSTEMS = {(B4, BERT): ("bert-base", B4), (CLIP_L,): ("clip-vit-l14",), (CLIP_H,): ("clip-vit-h14",)}
STEPS, TURNS = 10, 2


def measure(
    folder: Path, models: tuple[str, ...], addresses: dict[str, str], device: str, scale: Scale
) -> Result:
    """One system.

    Args:
        models: a key of `SYSTEMS`.
        addresses: of the saved models.
    """
    from embed.finetune.recipe import recipe_for

    name = " + ".join(models)
    found = texts(scale.train_rows)
    prices = np.exp(np.random.default_rng(2).normal(3, 1, len(found)))
    rows = [
        {"sample_id": str(at), "catalog_content": f"Item Name: {text}", "price": f"{price:.2f}"}
        for at, (text, price) in enumerate(zip(found, prices, strict=True))
    ]
    photos = save_photos(folder / "photos-trained", len(rows), scale.photo_edge)
    workspace = ingested(folder / name.replace(" + ", "-"), rows, photos[0].parent)
    recipe = replace(
        recipe_for(SYSTEMS[models], {}), batch_rows=scale.batch_rows, warmup_epochs=1, augment=False
    )
    run = fold_run(workspace, [_with_text(addresses[model]) for model in models], recipe, device)
    return compare(run, f"{name}: fine-tuning step against a bare one", STEPS, TURNS)


def _with_text(address: str) -> str:
    """The address of the sets that a system is tuned on."""
    return address if address.startswith("timm:") else f"{address}@full"
