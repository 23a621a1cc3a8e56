"""`shelfprice catalog ingest` of 75,000 challenge-like rows: seconds, rows per second, peak memory.

Rows are made up on the spot (about 700 characters, quoted newlines, sizes and packs in every spelling). The command
runs as a process of its own, start of the interpreter included: once into an empty workspace, once more with nothing
to do. Beside it, in the same run, the time that Python's csv module alone takes over the file.
"""

import csv
import random
import resource
import time
from pathlib import Path

from benchmarks.report import Result, main, process_seconds, scratch

ROWS = 75_000
TARGET_SECONDS = 15.0  # for 75,000 rows on one thread
_WORDS = (
    "organic gluten free roasted dark natural gourmet snack blend rich smooth premium classic family fresh taste made "
    "with real whole grain low sugar perfect for breakfast lunch dinner kids adults baking cooking gift pantry kosher "
    "vegan protein 12g fiber 100% recyclable since 1908 ready in 3 minutes contains milk soy wheat no preservatives"
).split()
_SIZES = ("{s} Ounce", "{s} oz", "{s} Fl Oz", "{s}oz Jar", "{s}-Ounce Bags", "{s} lb", "{s}g", "{s} ml")
_PACKS = ("(Pack of {n})", "- {n} Pack", "{n} Count", "- {n} per case.", "Case of {n}", "Set of {n}", "")


def synthesise(path: Path, n_rows: int, seed: int = 0) -> None:
    """Write a challenge-like CSV."""
    draw = random.Random(seed)

    def words(count: int) -> str:
        return " ".join(draw.choices(_WORDS, k=count))

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["sample_id", "catalog_content", "image_link", "price"])
        for sample_id in draw.sample(range(4 * n_rows), n_rows):
            size, packs = draw.choice((1.5, 4, 8.45, 12, 16, 32)), draw.choice((1, 2, 6, 12, 24))
            name = f"{words(6).title()}, {draw.choice(_SIZES).format(s=size)} {draw.choice(_PACKS).format(n=packs)}"
            lines = [f"Item Name: {name}"]
            lines += [
                f"Bullet Point {i}: {words(draw.randint(10, 24))}" for i in range(1, draw.randint(2, 6))
            ]
            if draw.random() < 0.6:
                lines.append(f'Product Description: {words(draw.randint(20, 70))}, 5" wide')
            lines += [f"Value: {size * packs}", f"Unit: {draw.choice(('Ounce', 'Fl Oz', 'Count'))}", ""]
            link = f"https://images.example/I/{sample_id:x}.jpg"
            writer.writerow([sample_id, "\n".join(lines), link, f"{draw.lognormvariate(2.64, 0.9):.2f}"])


def measure(data: Path, rows: int | None) -> list[Result]:
    """Time the ingest of `rows` made-up rows; `data` is not read."""
    n_rows = rows or ROWS
    with scratch() as folder:
        train = folder / "train.csv"
        synthesise(train, n_rows)
        files = "--train", str(train), "-w", str(folder / "workspace")
        command = "-m", "store.cli", "catalog", "ingest", *files
        first, again = (process_seconds(*command) for _ in range(2))
        start = time.perf_counter()
        with train.open(newline="", encoding="utf-8") as file:
            characters = sum(len(row[1]) for row in csv.reader(file))
        alone = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    figures = {
        "rows": n_rows,
        "characters_per_row": round(characters / n_rows),
        "rows_per_second": round(n_rows / first),
        "seconds_again_with_nothing_to_do": again,
        "seconds_csv_module_alone": alone,
        "peak_mb": round(peak),
    }
    return [
        Result.at_most("ingest, seconds", first, TARGET_SECONDS, **figures),
    ]


if __name__ == "__main__":
    main(measure)
