"""The training rows with their honest prices: what every part of the report looks at."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ensemble.blend import PRICE_FLOOR, read_blend, read_honest
from ensemble.inputs import TrainingRows, read_training_rows, selection_of
from store.catalog.images.links import further_row_images, known_links, row_images
from store.catalog.read import read_split
from store.metric import smape_rows
from store.workspace import Workspace


@dataclass(frozen=True)
class ReportRows:
    """Training rows in catalogue order, each with the price of a blend that never saw its fold."""

    record: dict[str, Any]  # blend.json
    training: TrainingRows
    position: (
        np.ndarray
    )  # (n_rows,) place in the catalogue: where folds look back, those of the first are not scored
    table: pa.Table  # the catalogue's columns, of these rows
    image: pa.Array  # (n_rows,) hex SHA-256, null where the row has none
    further_images: pa.Array  # (n_rows,) lists of hex SHA-256, of rows with several images
    log_price: np.ndarray  # (n_rows,) honest prediction
    loss: np.ndarray  # (n_rows,) its SMAPE, percent, whatever the row counts

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def floor(self) -> float:
        """Log of the lowest price that is submitted, and scored."""
        return float(np.log(self.record["inputs"].get("price_floor", PRICE_FLOOR)))

    @property
    def counts(self) -> np.ndarray:
        """What each row counts in a score, of mean 1, shape (n_rows,)."""
        weight = self.training.weight
        return np.ones(len(self)) if weight is None else weight / weight.mean()

    @property
    def has_image(self) -> np.ndarray:
        """Whether an image of the row could be had, its first or another one, bool, shape (n_rows,)."""
        further = [any(images) for images in self.further_images.to_pylist()]
        return np.asarray(self.image.is_valid()) | np.array(further, bool)

    def losses(self, log_price: np.ndarray) -> np.ndarray:
        """SMAPE of each row times what the row counts, shape (n_rows,): their mean is the score."""
        return self.counts * smape_rows(self.training.log_actual, log_price)

    def head_log_prices(self) -> np.ndarray:
        """Out-of-fold prediction of every head, raised to the floor, shape (n_rows, n_heads)."""
        return np.maximum(self.training.log_prices, self.floor)


def read_rows(workspace: Workspace, folder: str | None = None) -> ReportRows:
    """The rows of a blend; None: of the standing one.

    Raises:
        WorkspaceError: nothing was blended yet.
        FoldMismatchError, RowMismatchError: the blend is older than folds, catalogue or predictions.
    """
    record = read_blend(workspace, folder)
    training = read_training_rows(workspace, selection_of(workspace, record["inputs"]))
    whole = read_split(workspace, "train").combine_chunks()
    at = pc.index_in(training.sample_id, value_set=whole["sample_id"].combine_chunks())
    table = whole.take(at).combine_chunks()
    log_price = read_honest(workspace, record)
    known = known_links(workspace)
    image, further = row_images(table["image"], known), further_row_images(table, known)
    loss = smape_rows(training.log_actual, log_price)
    return ReportRows(record, training, at.to_numpy(), table, image, further, log_price, loss)


def expected_score(record: dict[str, Any]) -> tuple[float, list[float]]:
    """What a blend is expected to score on new rows, with its interval: of the test rows, where there are any.

    Args:
        record: blend.json.
    """
    scores = record["scores"]
    if (found := scores.get("expected")) is not None:
        return float(found["test"]["smape"]), list(found["test"]["interval"])
    return float(scores["nested"]), list(scores["test_interval"] or scores["nested_interval"])
