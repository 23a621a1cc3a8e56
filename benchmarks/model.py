"""A packed model of the Myntra catalogue: its size, a cold start, one product, a thousand beside embedding alone.

SHELFPRICE_BENCH_EMBEDDED may name a folder whose `myntra` is a workspace to go on from; `--rows` makes it short.
"""

import os
import time
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from benchmarks.report import Result, main, process_seconds, scratch
from benchmarks.stages import Stages
from benchmarks.workspaces import first_rows

EMBEDDED = "SHELFPRICE_BENCH_EMBEDDED"
MOST_MEGABYTES = 250.0
START_SECONDS, PRODUCT_SECONDS = 3.0, 0.06
SHARE = 0.9  # of the speed of embedding alone
PRODUCTS, STARTS, SINGLE = 1000, 5, 60
PROGRAM = """
import sys
from ensemble import PriceModel
price = PriceModel.load(sys.argv[1]).price([{"catalog_content": "green tea, 20 bags", "image_link": sys.argv[2]}])
assert price[0].price > 0 and "torch" not in sys.modules
"""


def measure(data: Path, rows: int | None) -> list[Result]:
    """Everything of one model."""
    source = data / "myntra"
    if not (source / "train.csv").is_file():
        return [Result.skipped("model", f"{source} is absent")]
    with scratch() as work:
        ready = Path(os.environ.get(EMBEDDED, "")) / "myntra"
        stages = Stages(ready if (ready / "shelfprice.toml").is_file() else work / "workspace")
        if stages.workspace != ready:
            train = (
                first_rows(source / "train.csv", rows, work / "train.csv") if rows else source / "train.csv"
            )
            files = [
                "--train",
                str(train),
                "--test",
                str(source / "test.csv"),
                "--images",
                str(source / "images"),
            ]
            stages.run("ingest", "catalog", "ingest", *files)
        stages.run("embed", "embed", "run")
        stages.run("heads", "heads", "run")
        stages.run("blend", "ensemble", "blend")
        packed = stages.run("pack", "ensemble", "pack", "--to", str(work / "model"))
        return _measured(work / "model", packed, source, stages.seconds["pack"])


def _measured(folder: Path, packed: dict[str, Any], source: Path, pack_seconds: float) -> list[Result]:
    from ensemble import PriceModel

    products = _products(source)
    image = str(next((source / "images").iterdir()))
    starts = [process_seconds("-c", PROGRAM, str(folder), image) for _ in range(STARTS)]
    model = PriceModel.load(folder)
    model.price(products[:4])
    single = []
    for row in products[4 : 4 + SINGLE]:
        started = time.perf_counter()
        model.price([row])
        single.append(time.perf_counter() - started)
    some = products[-PRODUCTS:]
    embedding = _embedding_alone(folder, model, some)
    started = time.perf_counter()
    model.price(some)
    pricing = time.perf_counter() - started
    return [
        Result.at_most(
            "packed model, megabytes",
            packed["n_bytes"] / 1e6,
            MOST_MEGABYTES,
            ", ".join(packed["heads"]),
            pack_seconds=pack_seconds,
        ),
        Result.at_most(
            "load and first price in a fresh process, seconds",
            median(starts),
            START_SECONDS,
            f"median of {STARTS} processes",
            fastest_seconds=min(starts),
        ),
        Result.at_most(
            "one product with text and image, seconds",
            median(single),
            PRODUCT_SECONDS,
            f"median of {SINGLE}, warm",
            fastest_seconds=min(single),
        ),
        Result.at_least(
            "products priced, in the speed of embedding alone",
            embedding / pricing,
            SHARE,
            f"{len(some)} products",
            embedding_seconds=embedding,
            pricing_seconds=pricing,
        ),
    ]


def _products(source: Path) -> list[dict[str, Any]]:
    """New products: rows of the test file, whose vectors the model holds, with other bytes in each text and image."""
    table = pd.read_csv(source / "test.csv")
    images = {path.stem: path for path in (source / "images").iterdir()}
    names = ["catalog_content", "sample_id"]
    return [
        {
            "catalog_content": f"{text} {at}",
            "image_link": images[str(one)].read_bytes() + at.to_bytes(4) if str(one) in images else None,
        }
        for at, (text, one) in enumerate(table[names].itertuples(index=False))
    ]


def _embedding_alone(folder: Path, model: Any, products: list[dict[str, Any]]) -> float:
    """Seconds that the converted encoders take for the same composed texts and images, in their own batches."""
    from embed.forward.openvino import load_converted
    from ensemble.model.rows import compose_rows
    from store.catalog.ingest.readings import read_new_rows, source_of_mappings

    pricer = model._fitted
    source, _ = source_of_mappings(products, pricer.shape.readings)
    table = read_new_rows(source, pricer.shape.readings).table
    entries = {entry["encoder"]: entry for entry in pricer.manifest["encoders"]}
    seconds = 0.0
    for one in pricer.shape.sets:
        encoder = load_converted(folder / entries[one.encoder]["folder"])
        if one.text is not None:
            contents: list[Any] = sorted(
                {text for text in compose_rows(table, one.text) if text is not None}, key=len
            )
        else:
            contents = [row["image_link"] for row in products if row["image_link"] is not None]
        encoder.embed(contents[:8])
        started = time.perf_counter()
        encoder.embed(contents)
        seconds += time.perf_counter() - started
    return seconds


if __name__ == "__main__":
    main(measure, embeds=True)
