"""The best score that anyone can reach on the demo, computed from the shares and the noise."""

import itertools
from functools import cache

import numpy as np

from store.catalog.demo.assortment import FINISHES, GIFT_COUNTS, GIFT_SHARE, NOISE_SIGMA, RICH_PACKAGE
from store.catalog.demo.products import image_log_factor
from store.metric import smape_rows

GRID = np.linspace(-8.0, 8.0, 4001)  # standard deviations


def expected_smape(
    offsets: np.ndarray, shares: np.ndarray, guess: float, sigma: float = NOISE_SIGMA
) -> float:
    """Mean SMAPE of predicting `guess` where log price is an offset, drawn by its share, plus normal noise.

    Args:
        offsets: log price of each state, shape (n_states,).
        shares: probability of each state, shape (n_states,).
    """
    density = np.exp(-(GRID**2) / 2)
    density /= density.sum()
    actual = offsets[:, None] + sigma * GRID[None, :]
    rows = smape_rows(actual, np.full_like(actual, guess))
    return float(shares @ (rows @ density))


@cache
def smape_floor(sigma: float = NOISE_SIGMA) -> float:
    """SMAPE of predicting the true price without its noise: E[200 tanh(sigma |z| / 2)], z standard normal.

    No predictor is better, since the noise is symmetric about the log price and unimodal.
    """
    return expected_smape(np.zeros(1), np.ones(1), 0.0, sigma)


@cache
def smape_floor_blind(is_gift: bool) -> float:
    """SMAPE of the best prediction from everything except the image."""
    counts = GIFT_COUNTS if is_gift else {1: 1.0}
    packages = ((True, RICH_PACKAGE[1]), (False, 1 - RICH_PACKAGE[1]))
    offsets, shares = [], []
    for (finish, (_, share)), (is_rich, rich), (count, gift) in itertools.product(
        FINISHES.items(), packages, counts.items()
    ):
        offsets.append(image_log_factor(finish, is_rich, count))
        shares.append(share * rich * gift)
    offset, share_of = np.array(offsets), np.array(shares)
    guesses = np.linspace(offset.min(), offset.max(), 801)
    return min(expected_smape(offset, share_of, float(guess)) for guess in guesses)


def smape_floor_without_images(gift_share: float = GIFT_SHARE) -> float:
    """The same over a catalogue in which this share of rows is gift sets."""
    return gift_share * smape_floor_blind(True) + (1 - gift_share) * smape_floor_blind(False)
