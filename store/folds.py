"""The fold of each training row: grouped, stratified, decided once, hashed."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.config import Config
from store.errors import FoldMismatchError
from store.workspace import Workspace

FOLDS_FILE = "folds.parquet"


@dataclass(frozen=True)
class Folds:
    """Folds of the training rows, in the order of `sample_id`."""

    sample_id: pa.Array  # (n_rows,)
    fold: np.ndarray  # (n_rows,) int16, 0..k-1
    group: np.ndarray  # (n_rows,) int64
    hash: str  # over (sample_id, fold, group) sorted by id: the same whatever the row order

    @property
    def k(self) -> int:
        return int(self.fold.max()) + 1

    def aligned(self, sample_id: pa.Array) -> "Folds":
        """The same folds in the order of other ids.

        Raises:
            FoldMismatchError: the ids are not exactly the ones that folds were decided for.
        """
        position = pc.index_in(sample_id, value_set=self.sample_id)
        if len(sample_id) != len(self.sample_id) or position.null_count:
            raise FoldMismatchError(
                f"{FOLDS_FILE} was decided for {len(self.sample_id)} rows and the catalogue has {len(sample_id)} "
                f"({position.null_count} of them without a fold): run 'shelfprice catalog folds' to decide again"
            )
        order = position.to_numpy()
        return Folds(sample_id, self.fold[order], self.group[order], self.hash)


def folds_hash(sample_id: pa.Array, fold: np.ndarray, group: np.ndarray) -> str:
    """16 hex characters over rows sorted by id."""
    order = pc.array_sort_indices(sample_id).to_numpy()
    ids = "\n".join(str(value) for value in sample_id.take(pa.array(order)).to_pylist())
    content = hashlib.sha256(ids.encode())
    content.update(np.ascontiguousarray(fold[order], dtype="<i2").tobytes())
    content.update(np.ascontiguousarray(group[order], dtype="<i8").tobytes())
    return content.hexdigest()[:16]


def read_folds(workspace: Workspace) -> Folds:
    """The folds on disk.

    Raises:
        WorkspaceError: none were decided yet.
    """
    table = workspace.read_table(FOLDS_FILE).combine_chunks()
    sample_id = table["sample_id"].combine_chunks()
    fold, group = table["fold"].to_numpy(), table["group"].to_numpy()
    return Folds(sample_id, fold, group, folds_hash(sample_id, fold, group))


def ensure_folds(workspace: Workspace, config: Config) -> Folds:
    """The folds on disk, decided now where there are none: rows with one text stay together."""
    if workspace.exists(FOLDS_FILE):
        return read_folds(workspace)
    rows = workspace.read_table("catalog/train.parquet", ["sample_id", "text"]).sort_by("sample_id")
    group = rows["text"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    order = np.random.default_rng(config.seed).permutation(int(group.max()) + 1)
    fold = (order[group] % config.folds.k).astype(np.int16)
    table = pa.table({"sample_id": rows["sample_id"], "fold": fold, "group": group})
    workspace.publish_table(FOLDS_FILE, table)
    return read_folds(workspace)
