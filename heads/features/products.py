"""Matrix products whose rows do not depend on one another; libraries round one row and 1,000 rows differently."""

from collections.abc import Iterator

import numpy as np

# Multiplied together, always: the last block is filled up. Of more OpenBLAS computes the later ones otherwise: in float32
# from the seventh of 12 on, in float64 from the thirteenth of 16 on, as far as was seen.
ROWS = 8


def blocks_of(n_rows: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Which rows of the result a block is, and the `ROWS` positions that are multiplied for it."""
    for start in range(0, n_rows, ROWS):
        positions = np.minimum(np.arange(start, start + ROWS), n_rows - 1)
        yield slice(start, min(start + ROWS, n_rows)), positions


def row_products(X: np.ndarray, W: np.ndarray) -> np.ndarray:
    """X @ W, shapes (n_rows, n) and (n, m): each row has the same bits whatever other rows are in X."""
    found = np.empty((len(X), W.shape[1]), np.result_type(X, W))
    for rows, positions in blocks_of(len(X)):
        found[rows] = (X[positions] @ W)[: rows.stop - rows.start]
    return found
