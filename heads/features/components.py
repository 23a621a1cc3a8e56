"""Rows -> a few hundred columns: principal components of each vector set, then fields; fitted inside the fold."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from heads.features.design import FieldBlock, VectorBlock
from heads.features.rows import Rows
from heads.trees.columns import FIT_ROWS, principal_axes


@dataclass
class Compressed:
    """Each vector set by its first components, keeping the geometry, and fields beside them.

    Args:
        components: of each vector set; a set of fewer columns keeps them all.
        fields: whether parsed fields are taken in.
        unit_columns: scale every column to unit variance, as networks like; otherwise each vector set has a
            total variance of 1, as kernels like.
    """

    components: int = 128
    fields: bool = True
    unit_columns: bool = False
    blocks_: list[VectorBlock] = field(init=False, repr=False)
    axes_: list[np.ndarray] = field(init=False, repr=False)  # (dim, n_kept) each
    field_block_: FieldBlock | None = field(init=False, repr=False)
    divisor_: np.ndarray | None = field(init=False, repr=False)

    def fit(self, rows: Rows) -> Self:
        self.blocks_ = [VectorBlock("block").fit(matrix) for matrix in rows.matrices]
        sample = rows.subset(np.arange(0, len(rows), max(1, len(rows) // FIT_ROWS)))
        self.axes_ = []
        for block, matrix in zip(self.blocks_, sample.matrices, strict=True):
            X = block.transform(matrix)[:, : matrix.dim]
            self.axes_.append(principal_axes(X.T @ X, min(self.components, *X.shape)))
        self.field_block_ = FieldBlock().fit(rows) if self.fields else None
        self.divisor_ = None
        if self.unit_columns:
            spread = self.transform(sample).std(axis=0)
            self.divisor_ = np.where(spread > 1e-6, spread, 1.0).astype(np.float32)
        return self

    def transform(self, rows: Rows) -> np.ndarray:
        """Shape (n_rows, n_columns) float32."""
        parts = []
        for block, axes, matrix in zip(self.blocks_, self.axes_, rows.matrices, strict=True):
            X = block.transform(matrix)
            parts += [X[:, : matrix.dim] @ axes, X[:, matrix.dim :]]
        if self.field_block_ is not None:
            parts.append(self.field_block_.transform(rows))
        X = np.concatenate(parts, axis=1)
        return X if self.divisor_ is None else X / self.divisor_
