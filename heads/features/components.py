"""Principal components of each vector set, fitted inside the fold: rows -> a few hundred dense columns."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from heads.features.design import FieldBlock, VectorBlock
from heads.features.products import row_products
from heads.features.rows import Rows

FIT_ROWS = 20_000  # rows that components are found on: more change them little
ITERATIONS = 8


@dataclass
class ComponentFeatures:
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
        sample = component_sample(rows)
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
            parts += [row_products(X[:, : matrix.dim], axes), X[:, matrix.dim :]]
        if self.field_block_ is not None:
            parts.append(self.field_block_.transform(rows))
        X = np.concatenate(parts, axis=1)
        return X if self.divisor_ is None else X / self.divisor_


def component_sample(rows: Rows) -> Rows:
    """The rows that components are found on."""
    return rows.subset(np.arange(0, len(rows), max(1, len(rows) // FIT_ROWS)))


def principal_axes(products: np.ndarray, count: int) -> np.ndarray:
    """The leading eigenvectors of a symmetric matrix, largest first, shape (dim, at most count) float32.

    Of a wide matrix they are found by subspace iteration, which is exact where the spectrum falls off and
    elsewhere close enough: directions told apart badly are about as long as one another.
    """
    dim = len(products)
    if dim <= 4 * count:
        _, axes = np.linalg.eigh(products.astype(np.float64))
        kept = axes[:, ::-1][:, :count]
    else:
        start = np.random.default_rng(0).standard_normal((dim, count + count // 4)).astype(products.dtype)
        basis, _ = np.linalg.qr(products @ start)
        for _ in range(ITERATIONS):
            basis, _ = np.linalg.qr(products @ basis)
        _, turn = np.linalg.eigh((basis.T @ products @ basis).astype(np.float64))
        kept = basis @ turn[:, ::-1][:, :count]
    signs = np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(kept.shape[1])])
    return np.asarray(kept * signs, np.float32)
