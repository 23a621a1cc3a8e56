"""How much memory vectors may take, and which heads train from files where they need more."""

import re

import numpy as np

from heads.base import Head
from store.errors import ConfigError, HeadError

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
VALUE_BYTES = 4  # heads compute with float32
BLOCK_ROWS = 64  # read together
MIXED_BLOCKS = 1024  # whose rows are shuffled among each other


def parse_bytes(text: str) -> int:
    """From `4GB`, `500 MB` or a number of bytes.

    Raises:
        ConfigError: anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    if not match or float(match[1]) <= 0:
        raise ConfigError(f"--memory is a size such as 4GB or 500MB, got {text!r}")
    return int(float(match[1]) * UNITS[match[2].upper()])


def fits(n_rows: int, n_columns: int, memory: int | None) -> bool:
    """Whether vectors of so many rows fit into `memory` bytes; None: all do."""
    return memory is None or n_rows * n_columns * VALUE_BYTES <= memory


def check_beyond_memory(head: Head, name: str, n_rows: int, n_columns: int) -> None:
    """Raises HeadError for a head that needs all vectors in memory."""
    if not head.beyond_memory:
        gigabytes = n_rows * n_columns * VALUE_BYTES / 1e9
        raise HeadError(
            f"{name} needs its vectors in memory, {gigabytes:.1f} GB, more than --memory allows: leave it out, raise "
            "--memory, or take ridge, lightgbm, xgboost or an mlp, which train from a file"
        )


def block_order(
    positions: np.ndarray,
    random: np.random.Generator,
    block_rows: int = BLOCK_ROWS,
    blocks: int = MIXED_BLOCKS,
) -> np.ndarray:
    """Positions in a random order that a file is read in quickly: blocks shuffled, then rows within so many blocks.

    Up to `block_rows * blocks` rows it is a full shuffle.

    Args:
        positions: ascending, shape (n_rows,).
        block_rows: rows that lie together.
        blocks: whose rows are mixed.
    """
    n_blocks = -(-len(positions) // block_rows)
    parts = [positions[b * block_rows : (b + 1) * block_rows] for b in random.permutation(n_blocks)]
    windows = [np.concatenate(parts[start : start + blocks]) for start in range(0, len(parts), blocks)]
    return np.concatenate([random.permutation(window) for window in windows])
