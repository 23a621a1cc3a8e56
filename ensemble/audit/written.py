"""Finds prices that are written in the text, in a column of words or in the name of the image's file."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import numpy as np

from ensemble.audit.check import Check
from ensemble.audit.order import MATERIAL, id_features
from ensemble.audit.shuffled import SURE, out_of_fold, without_features
from ensemble.groups import gain_and_error
from store.catalog.parse.written import CORE, GROUP_MARKS, Convention, number_of, plain_characters
from store.catalog.read import extra_columns, read_split, split_path
from store.folds.assign import read_folds
from store.metric import smape_rows
from store.schema import CATEGORICAL_PREFIX
from store.workspace import Workspace

_CORE, _BLANK, _DIGITS = re.compile(CORE), re.compile(f"[{GROUP_MARKS}]"), re.compile("[0-9]+")
_CONVENTIONS = (Convention("."), Convention(","))
MOST_PARTS = 4  # of one number, separated by blanks: 1 234 567,00
LEAST_SHARE = 0.02  # of rows, above what chance writes


def check_written_prices(workspace: Workspace, seed: int, max_rows: int) -> Check:
    """Rows that have their own price among the numbers of their text, of a column, or of their image's name."""
    with workspace.parquet(split_path("train")) as file:
        _, categorical = extra_columns(file.schema_arrow)
    wanted = ["text", "image_link", "image", "price", *categorical]
    rows = read_split(workspace, "train", wanted).combine_chunks()
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.choice(len(rows), min(max_rows, len(rows)), replace=False))
    rows = rows.take(chosen)
    price = np.round(rows["price"].to_numpy(), 2)
    cells = {
        f"column {name.removeprefix(CATEGORICAL_PREFIX)!r}": rows[name].to_pylist() for name in categorical
    }
    names = image_names(rows["image_link"].to_pylist(), rows["image"].to_pylist())
    figures: dict[str, float] = {"n_rows": len(chosen)}
    said = []
    for where, written in {"text": rows["text"].to_pylist(), "image's name": names, **cells}.items():
        known = {one: written_numbers(one) for one in set(written) if one}
        own, chance = _shares([known.get(one, frozenset()) for one in written], price, generator)
        figures |= {f"{where}_share": own, f"{where}_share_by_chance": chance}
        if own - chance > LEAST_SHARE + SURE * np.sqrt(max(own, chance) / len(chosen)):
            said.append(
                f"{own:.0%} of the rows have their own price in their {where} ({chance:.0%} by chance)"
            )
    if said:
        words = (
            f"{'; '.join(said)}: rows to be priced won't have it. Strip it from the file that is ingested."
        )
        return Check("written prices", "fail", words, figures)
    return Check(
        "written prices", "ok", "No text, column or image's name holds the price of its row.", figures
    )


def check_image_names(workspace: Workspace, seed: int, max_rows: int) -> Check:
    """Random trees on what the names of image files look like, against the median."""
    from sklearn.ensemble import ExtraTreesRegressor

    rows = read_split(workspace, "train", ["sample_id", "image_link", "image", "price"]).combine_chunks()
    folds = read_folds(workspace).aligned(rows["sample_id"].combine_chunks())
    names = image_names(rows["image_link"].to_pylist(), rows["image"].to_pylist())
    here = np.flatnonzero([bool(name) for name in names])
    here = np.sort(np.random.default_rng(seed).permutation(here)[:max_rows])
    fold, group = folds.fold[here], folds.group[here]
    if len(here) < 2 * 20 or len(np.unique(fold)) < 2:
        return Check("image names", "skipped", "There are no names of images to look at.")
    import pyarrow as pa

    X = id_features(pa.array([names[i] for i in here]), np.zeros(len(here)))
    log_actual = np.log(rows["price"].to_numpy()[here])

    def make() -> ExtraTreesRegressor:
        return ExtraTreesRegressor(100, min_samples_leaf=10, random_state=seed)

    guess, of = without_features(log_actual, fold)
    median_loss = smape_rows(log_actual, guess)
    loss = smape_rows(log_actual, out_of_fold(make, lambda inside: X, log_actual, fold))
    gain, error = gain_and_error(median_loss - loss, group)
    figures = {"median_smape": float(median_loss.mean()), "names_smape": float(loss.mean()), "gain": gain,
               "gain_error": error, "n_rows": len(here)}  # fmt: skip
    scores = f"SMAPE {figures['names_smape']:.2f} against the {of}'s {figures['median_smape']:.2f}"
    if gain > SURE * error and gain > MATERIAL * figures["median_smape"]:
        words = (
            f"Names of image files tell prices ({scores}): they were given by price or in batches. Heads don't read them; "
            "rows to be priced must come from the same batches for the score to hold."
        )
        return Check("image names", "caution", words, figures)
    return Check("image names", "ok", f"Names of image files tell nothing of the price ({scores}).", figures)


def image_names(links: Sequence[str | None], images: Sequence[str | None]) -> list[str]:
    """The name of each row's image file without its folder and extension, "" where it has none."""
    found = []
    for link, image in zip(links, images, strict=True):
        path = urlsplit(link).path if link else (image or "").removeprefix("file:")
        found.append(PurePosixPath(path).stem)
    return found


def written_numbers(text: str) -> frozenset[float]:
    """The numbers of a text in each way of writing that prices are read in at ingest, to two decimals.

    >>> sorted(written_numbers("in black, 1 299,00 EUR"))
    [1.0, 299.0, 1299.0]
    """
    found: set[float] = set()
    for core in _CORE.findall(plain_characters(text)):
        parts = _BLANK.split(core)
        for start in range(len(parts)):
            for end in range(start + 1, min(start + MOST_PARTS, len(parts)) + 1):
                one = " ".join(parts[start:end])
                values = {number_of(one, convention) for convention in _CONVENTIONS} - {None}
                if not values and end == start + 1:  # numbers side by side, such as 38,40,42
                    values = {float(digits) for digits in _DIGITS.findall(one)}
                found |= {round(value, 2) for value in values if value is not None}
    return frozenset(found)


def _shares(
    written: Sequence[frozenset[float]], price: np.ndarray, generator: np.random.Generator
) -> tuple[float, float]:
    """Shares of rows with their own price among the numbers written there, and with another row's.

    That is the price of any row, or the nearest other price, whichever is found more often: numbers that only go with
    the price hold both alike.
    """

    def share(of: np.ndarray) -> float:
        return float(np.mean([p in numbers for p, numbers in zip(of, written, strict=True)]))

    levels, at = np.unique(price, return_inverse=True)
    nearest = levels[np.where(at + 1 < len(levels), at + 1, at - 1)] if len(levels) > 1 else price
    other = np.roll(generator.permutation(len(price)), 1)
    return share(price), max(share(price[other]), share(nearest))
