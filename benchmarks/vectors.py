"""Vectors made up for benchmarks, with a known signal: what an encoder's look like, without an encoder."""

from dataclasses import dataclass

import numpy as np

BLOCK_ROWS = 4096
NOISE = 0.3  # of log price, which nothing can predict


@dataclass(frozen=True)
class Drawn:
    """Vectors and their prices."""

    X: np.ndarray  # (n_rows, n_columns) float16
    log_price: np.ndarray  # (n_rows,)
    signal: np.ndarray  # (n_rows,) log price without its noise
    fold: np.ndarray  # (n_rows,) int16


def draw(n_rows: int, n_columns: int, n_folds: int, n_latent: int = 48, seed: int = 0) -> Drawn:
    """Vectors that a few latent properties spread over all columns, with noise in each.

    Log price is a line in some properties, a step in one, and a product of two.
    """
    rng = np.random.default_rng(seed)
    strength = 1.0 / np.sqrt(1 + np.arange(n_latent))
    latent = rng.standard_normal((n_rows, n_latent)).astype(np.float32)
    spread = (rng.standard_normal((n_latent, n_columns)) * strength[:, None]).astype(np.float32)
    X = np.empty((n_rows, n_columns), np.float16)
    for start in range(0, n_rows, BLOCK_ROWS):
        part = latent[start : start + BLOCK_ROWS]
        X[start : start + BLOCK_ROWS] = part @ spread + rng.standard_normal(
            (len(part), n_columns), np.float32
        )
    line = latent[:, :12] @ (rng.standard_normal(12) / 4)
    signal = 3 + line + 0.5 * (latent[:, 0] > 0) + 0.3 * latent[:, 1] * latent[:, 2]
    log_price = signal + rng.normal(0, NOISE, n_rows)
    return Drawn(X, log_price, signal.astype(np.float64), rng.integers(0, n_folds, n_rows).astype(np.int16))
