"""What `shelfprice catalog clean` found, with a few groups of each kind to look at."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.clean.run import FINDINGS, FindingReport, report_of
from store.cleaning import CLEANING_FILE, why_stale
from store.folds.assign import FOLDS_FILE, read_folds
from store.workspace import Workspace

GROUPS_SHOWN = 6  # of each finding
ROWS_SHOWN = 4  # of each group

_Key = tuple[str, int | str]  # (split, id): an id is of its split


@dataclass(frozen=True)
class DoubtfulRow:
    """One row of a group."""

    sample_id: str
    split: str
    name: str
    price: float | None
    images: tuple[str, ...]  # hex SHA-256


@dataclass(frozen=True)
class Example:
    """One group, or one row that was found for itself."""

    reason: str
    size: int
    rows: list[DoubtfulRow]


@dataclass(frozen=True)
class Doubts:
    """Findings and examples; `note` says why there are none, or that they are old."""

    findings: list[FindingReport]
    examples: dict[str, list[Example]]  # finding -> groups
    note: str | None


def read_doubts(
    workspace: Workspace, tables: dict[str, pa.Table], images: dict[str, list[list[str]]]
) -> Doubts:
    """Findings on disk.

    Args:
        tables: split -> rows.
        images: split -> digests of each row's images.
    """
    if not workspace.exists(CLEANING_FILE):
        return Doubts([], {}, "not looked for yet: run 'shelfprice catalog clean'")
    folds_hash = read_folds(workspace).hash if workspace.exists(FOLDS_FILE) else ""
    reason = why_stale(workspace, folds_hash)
    if reason == "the catalogue has changed":
        return Doubts([], {}, f"{reason} since they were found: run 'shelfprice catalog clean'")
    note = f"{reason} since: run 'shelfprice catalog clean'" if reason else None
    table = workspace.read_table(CLEANING_FILE)
    findings, examples = [], {}
    shown: dict[str, list[tuple[str, int, list[_Key]]]] = {}
    for name in FINDINGS:
        here = table.filter(pc.equal(table["finding"], name)).combine_chunks()
        policy = here["policy"][0].as_py() if len(here) else "keep"
        findings.append(report_of(table, name, policy))
        shown[name] = _chosen(here)
    wanted = [one for groups in shown.values() for _, _, keys in groups for one in keys]
    by_key = _rows(tables, images, wanted)
    for name, groups in shown.items():
        if groups:
            examples[name] = [Example(why, n, [by_key[key] for key in keys]) for why, n, keys in groups]
    return Doubts(findings, examples, note)


def _chosen(found: pa.Table) -> list[tuple[str, int, list[_Key]]]:
    """(reason, size, rows) of groups spread evenly over a finding."""
    n_alone = found["group"].null_count
    if n_alone:
        step = max(1, len(found) // GROUPS_SHOWN)
        chosen = found.take(pa.array(range(0, len(found), step)[:GROUPS_SHOWN], pa.int64()))
        return [(why, 1, [key]) for why, key in zip(chosen["reason"].to_pylist(), _keys(chosen), strict=True)]
    groups = pc.unique(found["group"])
    step = max(1, len(groups) // GROUPS_SHOWN)
    picked = []
    for group in groups[::step][:GROUPS_SHOWN]:
        rows = found.filter(pc.equal(found["group"], group))
        picked.append((rows["reason"][0].as_py(), len(rows), _keys(rows.slice(0, ROWS_SHOWN))))
    return picked


def _keys(rows: pa.Table) -> list[_Key]:
    return list(zip(rows["split"].to_pylist(), rows["sample_id"].to_pylist(), strict=True))


def _rows(
    tables: dict[str, pa.Table], images: dict[str, list[list[str]]], wanted: list[_Key]
) -> dict[_Key, DoubtfulRow]:
    rows: dict[_Key, DoubtfulRow] = {}
    for split, table in tables.items():
        values = pa.array([one for where, one in wanted if where == split], table["sample_id"].type)
        position = pc.drop_null(pc.index_in(values, value_set=table["sample_id"].combine_chunks()))
        chosen = table.take(position).to_pylist()
        for row, at in zip(chosen, position.to_pylist(), strict=True):
            name = row["name"] or row["text"][:120]
            key = split, row["sample_id"]
            rows[key] = DoubtfulRow(
                str(row["sample_id"]), split, name, row.get("price"), tuple(images[split][at])
            )
    return rows
