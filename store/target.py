"""The two units of a target: price, and log price, which everything is computed in."""

import warnings
from typing import Any, Literal, get_args

import numpy as np

from store.errors import PriceError

Target = Literal["log_price", "price"]

MOST_LOG_PRICE = 25.0  # a price of 7e10, in whatever currency
LEAST_ROWS = 10  # that a target must have to be recognised by its cents


def as_log_price(
    values: Any, target: Target, who: str, ids: Any = None, *, stacklevel: int = 3
) -> np.ndarray:
    """The log price of each row, shape (n_rows,) float64.

    Args:
        values: what `target` says, shape (n_rows,).
        who: what they are of, the first word of a message.
        ids: names of the rows in a message; None: their positions.

    Raises:
        PriceError: `target` is unknown, or a price is not finite and > 0; names the row.
    """
    check_target(target, who)
    values = np.asarray(values, dtype=np.float64)
    usable = np.isfinite(values) & ((target == "log_price") | (values > 0))
    if not usable.all():
        row = int(np.flatnonzero(~usable)[0])
        unit = target.replace("_", " ")
        name = row if ids is None else ids[row]
        raise PriceError(f"{who}: {unit} of {name} is {values[row]}, prices must be finite and > 0")
    return np.log(values) if target == "price" else values


def check_target(target: str, who: str) -> None:
    """Raises PriceError for a unit that is not one of `Target`."""
    if target not in get_args(Target):
        raise PriceError(f"{who}: target must be 'log_price' or 'price', got {target!r}")


def warn_of_prices(log_price: np.ndarray, who: str, stacklevel: int = 3) -> None:
    """Warn where log prices, shape (n_rows,), must rather be prices; names the parameter that takes them.

    Args:
        stacklevel: of `warnings.warn`; 3 for the caller of who calls this.
    """
    if looks_like_price(log_price):
        warnings.warn(
            f"{who}: the target should be log prices but looks like prices ({log_price.min():g} to "
            f'{log_price.max():g}): give target="price", or np.log(price)',
            stacklevel=stacklevel,
        )


def looks_like_price(values: np.ndarray) -> bool:
    """Whether values given as log prices, shape (n_rows,), are probably prices.

    Either one is larger than any price's logarithm, or all are > 0 and in whole cents, as no logarithms are.
    """
    if values.max(initial=0.0) > MOST_LOG_PRICE:
        return True
    if len(values) < LEAST_ROWS or values.min() <= 0 or np.ptp(values) == 0:
        return False
    cents = 100 * values
    return bool(np.abs(cents - np.round(cents)).max() < 1e-6)
