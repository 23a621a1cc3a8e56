"""Which rows are copies or relatives of one another, and which grouping of folds treats them as the test set does."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.clean.duplicates import column_codes, group_rows
from store.catalog.images.links import further_row_images, known_links, row_images
from store.catalog.read import (
    catalog_digest,
    columns_of_images,
    extra_columns,
    present_splits,
    read_split,
    split_path,
)
from store.workspace import Workspace

RELATIVES_FILE = "catalog/relatives.parquet"
CODE_VERSION = 1  # raised when the same rows have other relatives
GROUPINGS = ("near", "exact", "none")  # from the strictest on


@dataclass(frozen=True)
class Relatives:
    """Rows of train, then of test, by what they have in common."""

    product: np.ndarray  # (n_rows,): the same text or image, and the same further columns
    family: (
        np.ndarray
    )  # (n_rows,): nearly the same text, or the same image, whatever stands in further columns
    n_train: int

    def of_test(self) -> np.ndarray:
        """Each test row's closest relative in train, shape (n_test,): 2 the product, 1 its family, 0 none."""
        levels = [np.isin(label[self.n_train :], label[: self.n_train]) for label in self.labels]
        return np.where(levels[0], 2, levels[1].astype(np.int64))

    def of_train(
        self, fold: np.ndarray, seen: np.ndarray | None = None, *, looks_back: bool = False
    ) -> np.ndarray:
        """Each training row's closest relative in another fold, as `of_test`, shape (n_train,).

        Args:
            fold: shape (n_train,).
            seen: rows that models learn from, shape (n_train,) bool; None: all.
            looks_back: models learn from earlier folds alone, so that relatives in later ones don't count.
        """
        labels = [label[: self.n_train] for label in self.labels]
        if looks_back:
            product, family = (has_relative_before(label, fold) for label in labels)
        else:
            product, family = (has_relative_elsewhere(label, fold, seen) for label in labels)
        return np.where(product, 2, family.astype(np.int64))

    @property
    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        return self.product, self.family


def read_relatives(workspace: Workspace, *, keep: bool = False) -> Relatives:
    """Relatives among the rows of a catalogue, in its order: those on disk where they are of these rows, else found now.

    Args:
        keep: write what was found to `RELATIVES_FILE`, for whoever asks next.
    """
    splits, key = (
        present_splits(workspace),
        {"catalog_digest": catalog_digest(workspace), "version": CODE_VERSION},
    )
    ids = [read_split(workspace, split, ["sample_id"])["sample_id"].combine_chunks() for split in splits]
    if workspace.is_sound(RELATIVES_FILE) and workspace.read_metadata(RELATIVES_FILE) == key:
        kept = workspace.read_table(RELATIVES_FILE).combine_chunks()
        positions = []
        for split, sample_id in zip(splits, ids, strict=True):
            at = np.flatnonzero(pc.equal(kept["split"], split).to_numpy(zero_copy_only=False))
            there = kept["sample_id"].combine_chunks().take(pa.array(at))
            positions.append(at[pc.index_in(sample_id, value_set=there).to_numpy()])
        order = np.concatenate(positions)
        product, family = (kept[name].to_numpy()[order] for name in ("product", "family"))
        return Relatives(product, family, len(ids[0]))
    found = _find(workspace, splits)
    if keep:
        columns = {
            "split": pa.array(np.repeat(splits, [len(one) for one in ids])),
            "sample_id": pa.concat_arrays(ids),
            "product": found.product,
            "family": found.family,
        }
        workspace.publish_table(RELATIVES_FILE, pa.table(columns), metadata=key)
    return found


def _find(workspace: Workspace, splits: list[str]) -> Relatives:
    tables = []
    for split in splits:
        with workspace.parquet(split_path(split)) as file:
            numeric, categorical = extra_columns(file.schema_arrow)
        columns = ["text", *columns_of_images(workspace, split), *numeric, *categorical]
        tables.append(read_split(workspace, split, columns))
    rows = pa.concat_tables(tables, promote_options="default").combine_chunks()
    product, family = (group_labels(workspace, rows, grouping) for grouping in ("exact", "near"))
    return Relatives(product, family, len(tables[0]))


def group_labels(workspace: Workspace, rows: pa.Table, grouping: str) -> np.ndarray:
    """The product (`exact`) or family (`near`) of each catalogue row, shape (n_rows,).

    Args:
        rows: with text, images (see `columns_of_images`) and the further columns.
    """
    known, is_near = known_links(workspace), grouping == "near"
    image, further = row_images(rows["image"], known), further_row_images(rows, known)
    alike = None if is_near else column_codes(rows)
    return group_rows(rows["text"], image, near=is_near, further=further, alike=alike)


def fitting_grouping(workspace: Workspace, k: int) -> str:
    """The grouping of `k` folds under which training rows have relatives elsewhere as test rows have them in train.

    `exact` where there are no test rows: the score is then of products that are new.
    """
    if "test" not in present_splits(workspace):
        return "exact"
    relatives = read_relatives(workspace, keep=True)
    test = relatives.of_test()
    wanted = (test == 2).mean(), (test >= 1).mean()
    expected = expected_shares(relatives, k)
    return min(
        GROUPINGS, key=lambda name: sum(abs(a - b) for a, b in zip(expected[name], wanted, strict=True))
    )


def expected_shares(relatives: Relatives, k: int) -> dict[str, tuple[float, float]]:
    """Grouping -> share of training rows with their product, and with a row of their family, in another fold."""
    product, family = (label[: relatives.n_train] for label in relatives.labels)
    row = np.arange(relatives.n_train)
    return {
        "near": (0.0, 0.0),
        "exact": (0.0, expected_share(family, product, k)),
        "none": (expected_share(product, row, k), expected_share(family, row, k)),
    }


def has_relative_elsewhere(
    label: np.ndarray, place: np.ndarray, seen: np.ndarray | None = None
) -> np.ndarray:
    """Which rows share their label with a row in another place, shape (n_rows,) bool, as the arguments.

    Args:
        seen: rows that count as relatives, bool; None: all.
    """
    seen = np.ones(len(label), bool) if seen is None else seen
    _, label = np.unique(label, return_inverse=True)
    _, here = np.unique(np.stack([label, place]), axis=1, return_inverse=True)
    here = here.reshape(-1)
    everywhere = np.bincount(label, seen, minlength=label.max(initial=-1) + 1)[label]
    return np.asarray(everywhere - np.bincount(here, seen)[here] > 0)


def has_relative_before(label: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Which rows share their label with a row of an earlier fold, shape (n_rows,) bool, as the arguments."""
    _, label = np.unique(label, return_inverse=True)
    first = np.full(label.max(initial=-1) + 1, fold.max(initial=0))
    np.minimum.at(first, label, fold)
    return np.asarray(first[label] < fold)


def expected_share(family: np.ndarray, group: np.ndarray, n_folds: int) -> float:
    """Share of rows with a relative in another fold if groups were dealt to folds at random."""
    pairs = np.unique(np.stack([family, group]), axis=1)
    groups_of_family = np.bincount(pairs[0], minlength=int(family.max()) + 1)[family]
    return float((1.0 - (1.0 / n_folds) ** (groups_of_family - 1)).mean())
