"""From a catalogue to a submission: demo data, vectors, heads, blend.

Usage: python examples/01_first_price.py [FOLDER]; needs shelfprice[starter].
"""

import csv
import sys
from pathlib import Path

import embed
import ensemble
import heads
import store


def main(folder: Path) -> None:
    demo, run = folder / "demo", folder / "run"
    store.make_demo(demo, n_train=200, n_test=40)
    ingested = store.ingest(run, demo / "train.csv", demo / "test.csv", images=demo / "images")
    for name, split in ingested.splits.items():
        print(f"{name}: {split.n_rows} rows, {split.n_with_image} with an image")

    embed.embed_catalogue(run)
    for head in heads.train_heads(run):
        print(f"{head.head}: SMAPE {head.smape:.1f} out of fold")
    print(ensemble.make_blend(run))
    written = ensemble.write_submission(run)

    # The demo knows what its test rows cost, so that the estimate can be held against it.
    price = dict(rows_of(Path(written["file"])))
    truth = dict(rows_of(demo / "truth.csv"))
    score = store.smape([truth[id] for id in price], [price[id] for id in price])
    low, high = written["test_interval"]
    print(f"SMAPE of the test rows: {score:.1f}, expected {low:.1f} to {high:.1f}")


def rows_of(file: Path) -> list[tuple[str, float]]:
    """Id and price of each row of a CSV file."""
    with file.open() as lines:
        return [(row["sample_id"], float(row["price"])) for row in csv.DictReader(lines)]


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "first-price"))
