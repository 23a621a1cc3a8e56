"""The blend's prices of the test rows, checked and written: `submission.csv`, and intervals beside it."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.blend import PRICE_FLOOR, apply_blend, as_prices, read_blend
from ensemble.inputs import read_test_log_prices, selection_of
from store.catalog.read import present_splits, read_split
from store.config import ColumnConfig
from store.errors import CatalogError, ConfigError, RowMismatchError
from store.local import publish_file
from store.standing import read_standing
from store.workspace import Workspace

SUBMISSION_FILE = "submission.csv"
INTERVALS_FILE = "intervals.csv"
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def submit(
    workspace: Workspace,
    columns: ColumnConfig,
    out: Path | None = None,
    price_floor: float = PRICE_FLOOR,
    *,
    folder: str | None = None,
    spreadsheet: Path | None = None,
) -> dict[str, Any]:
    """Price every test row with the standing blend and write the submission.

    Args:
        columns: names of the submission's two columns.
        out: a further local file that gets the same content.
        price_floor: lowest price, > 0.
        folder: of another blend, whose prices go into that folder, `out` and `spreadsheet` alone.
        spreadsheet: a further local file, for people: prices with their intervals, and no id that a spreadsheet would
            run as a formula.

    Raises:
        CatalogError: there is no test catalogue.
        WorkspaceError: nothing was blended yet, or `out` or `spreadsheet` can't be written.
        FoldMismatchError, RowMismatchError: the blend is older than the folds or the catalogue; or ids or
            prices are not fit for a submission.
    """
    if "test" not in present_splits(workspace):
        raise CatalogError(
            f"a submission needs test rows and {workspace.root} has no test catalogue: "
            "run 'shelfprice catalog ingest --train FILE --test FILE', then heads and blend again"
        )
    record = read_blend(workspace, folder)
    check_current(workspace, record["inputs"], price_floor)
    sample_id = read_split(workspace, "test", ["sample_id"])["sample_id"].combine_chunks()
    priced = price_test_rows(workspace, record, sample_id)
    log_price = priced.log_price
    price = as_prices(log_price, price_floor)
    check_submission(sample_id, price, sample_id, price_floor)
    id_column = columns.test_id or columns.sample_id
    content = _csv([id_column, columns.price], [sample_id.to_pylist(), price.tolist()])
    bounds = [as_prices(end, price_floor).tolist() for end in (priced.low, priced.high)]
    header, rest = [id_column, columns.price, "low", "high"], [price.tolist(), *bounds]
    ranges = _csv(header, [sample_id.to_pylist(), *rest])
    if out is not None:
        publish_file(out, content)
    if spreadsheet is not None:
        safe = [str(no_formula(header[0])), *header[1:]]
        publish_file(spreadsheet, _csv(safe, [[no_formula(one) for one in sample_id.to_pylist()], *rest]))
    own = f"{record['folder']}/"
    places = (own, "") if folder is None else (own,)
    workspace.sweep(*places)
    for place in places:
        workspace.publish_bytes(f"{place}{INTERVALS_FILE}", ranges)
        workspace.publish_bytes(f"{place}{SUBMISSION_FILE}", content)
    return {
        "file": str(out) if out is not None else workspace.path(places[-1] + SUBMISSION_FILE),
        "intervals_file": workspace.path(places[-1] + INTERVALS_FILE),
        "folder": record["folder"],
        "n_rows": len(sample_id),
        "n_at_floor": int((price <= price_floor).sum()),
        "price_floor": price_floor,
        "median_price": float(np.median(price)),
        "rejected": rejected_counts(workspace),
        "nested_smape": record["scores"]["nested"],
        "expected_smape": expected_smape(record),
        "test_interval": record["scores"]["test_interval"],
        "coverage": record["intervals"]["coverage"],
        "measured_coverage": record["intervals"]["measured_coverage"],
        "notes": [*newer_predictions(workspace, record["inputs"]["heads"]), *_of_other_rows(record)],
    }


def check_submission(
    sample_id: pa.Array, price: np.ndarray, expected: pa.Array, price_floor: float = PRICE_FLOOR
) -> None:
    """Check a submission against the test catalogue.

    Raises:
        RowMismatchError: ids are not exactly the expected ones in their order, or a price is not finite
            or below the floor.
    """
    if not sample_id.equals(expected):
        n_common = len(set(sample_id.to_pylist()) & set(expected.to_pylist()))
        raise RowMismatchError(
            f"the predictions have {len(sample_id)} rows ({n_common} of them in the catalogue) instead of the "
            f"{len(expected)} test rows in their order: run 'shelfprice heads run' again"
        )
    bad = np.flatnonzero(~(np.isfinite(price) & (price >= price_floor)))
    if len(bad):
        raise RowMismatchError(
            f"prices must be finite and at least {price_floor:g}, {len(bad)} of {len(price)} are not "
            f"(first: {sample_id[int(bad[0])]} at {price[bad[0]]}): look at the heads' test predictions"
        )


def rejected_counts(workspace: Workspace) -> dict[str, int]:
    """File -> rows of it that ingest refused; they have no prediction."""
    if not workspace.exists("catalog/rejected.parquet"):
        return {}
    files = workspace.read_table("catalog/rejected.parquet", ["file"])["file"]
    return {str(entry["values"]): int(entry["counts"]) for entry in files.value_counts().to_pylist()}


def newer_predictions(workspace: Workspace, folders: dict[str, str]) -> list[str]:
    """A note for each blended head whose predictions are not those that stand now."""
    standing = read_standing(workspace).folders
    return [
        f"{head} has newer predictions than the blend: run 'shelfprice ensemble blend' to use them"
        for head, folder in folders.items()
        if standing.get(head, folder) != folder
    ]


def _of_other_rows(record: dict[str, Any]) -> list[str]:
    """Why the expected score is not that of the test rows, in words."""
    known = record["scores"].get("expected", {}).get("known_groups")
    if known is None:
        return []
    return [
        f"the expected score is that of new groups, and train has the groups (--group-column) of {known:.0%} of the test rows"
    ]


def expected_smape(record: dict[str, Any]) -> float:
    """What a blend is expected to score on the test rows; the honest score for blends of before 0.2."""
    scores = record["scores"]
    return float(scores["expected"]["test"]["smape"] if "expected" in scores else scores["nested"])


@dataclass(frozen=True)
class PricedRows:
    """The blend's log prices of test rows and their intervals, each of shape (n_test,)."""

    log_price: np.ndarray
    half_width: np.ndarray
    low: np.ndarray  # where the interval runs from, within its limits
    high: np.ndarray


def price_test_rows(workspace: Workspace, record: dict[str, Any], sample_id: pa.Array) -> PricedRows:
    """Prices by the blend of `record`, the content of its blend.json, before they are raised to the floor."""
    from ensemble.conformal import Intervals, RowKinds
    from ensemble.outlook import head_spread, spread_heads
    from store.catalog.images.links import have_image, known_links
    from store.catalog.read import columns_of_images
    from store.folds.relatives import read_relatives

    folders = record["inputs"]["heads"]
    log_prices = read_test_log_prices(workspace, folders, sample_id)
    log_price = apply_blend(record, list(folders), log_prices)
    intervals = Intervals.from_json(record["intervals"])
    kinds = None
    if intervals.knots:
        rows = read_split(workspace, "test", columns_of_images(workspace, "test"))
        has_image = np.array(have_image(rows, known_links(workspace)), bool)
        heads = list(folders)
        spread = head_spread(log_prices[:, [heads.index(one) for one in spread_heads(record, heads)]])
        kinds = RowKinds(spread, read_relatives(workspace).of_test(), has_image)
    low, high = intervals.bounds(log_price, kinds)
    return PricedRows(log_price, intervals.half_width(log_price, kinds), low, high)


def check_current(workspace: Workspace, inputs: dict[str, Any], price_floor: float) -> None:
    """Raises ConfigError, FoldMismatchError or RowMismatchError where a blend is older than what it is to price."""
    blended = inputs.get("price_floor", PRICE_FLOOR)
    if blended != price_floor:
        raise ConfigError(
            f"the blend was scored with prices of at least {blended:g} and submission.price_floor is {price_floor:g}: "
            "run 'shelfprice ensemble blend' again"
        )
    selection_of(workspace, inputs)


def _csv(header: list[str], columns: list[list[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue().encode()


def no_formula(value: str | int) -> str | int:
    """A cell that a spreadsheet takes as text: one that would start a formula has an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value
