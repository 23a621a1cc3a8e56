"""The rows that findings are made of, in one order: train, then test, each sorted by id."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from store.catalog.images.links import known_links, row_images
from store.catalog.read import present_splits, read_split
from store.folds.assign import Folds
from store.workspace import Workspace

_COLUMNS = ["sample_id", "text", "image", "name", "value", "unit"]


@dataclass(frozen=True)
class Catalogue:
    """Every row of train and test; the order of the files decides nothing."""

    sample_id: pa.Array  # (n_rows,)
    n_train: int  # those come first
    text: pa.Array  # (n_rows,) as given
    name: pa.Array  # (n_rows,) item name, null where missing
    image: pa.Array  # (n_rows,) hex SHA-256 of the image, null where there is none
    value: pa.Array  # (n_rows,) of the `Value:` line
    unit: pa.Array  # (n_rows,) of the `Unit:` line
    price: np.ndarray  # (n_train,)
    fold: np.ndarray  # (n_train,)

    def __len__(self) -> int:
        return len(self.sample_id)

    def id_of(self, position: int) -> str:
        return str(self.sample_id[int(position)])


@dataclass(frozen=True)
class Finding:
    """Rows about which there is something to decide."""

    name: str
    rows: np.ndarray  # (n_found,) positions in the catalogue, ascending
    group: np.ndarray | None  # (n_found,) int64; None: each row is found for itself
    reasons: list[str]  # (n_found,)


def read_catalogue(workspace: Workspace, folds: Folds) -> Catalogue:
    """Raises CatalogError where there is no train catalogue."""
    train = read_split(workspace, "train", [*_COLUMNS, "price"]).sort_by("sample_id")
    tables = [train.select(_COLUMNS)]
    if "test" in present_splits(workspace):
        tables.append(read_split(workspace, "test", _COLUMNS).sort_by("sample_id"))
    rows = pa.concat_tables(tables).combine_chunks()
    columns = {name: rows[name].combine_chunks() for name in _COLUMNS}
    return Catalogue(
        sample_id=columns["sample_id"],
        n_train=len(train),
        text=columns["text"].fill_null(""),
        name=columns["name"],
        image=row_images(rows["image"], known_links(workspace)),
        value=columns["value"],
        unit=columns["unit"],
        price=train["price"].to_numpy(),
        fold=folds.aligned(train["sample_id"].combine_chunks()).fold,
    )
