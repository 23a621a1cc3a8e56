"""Losses of the networks, all in log price. The one SMAPE loss is here."""

from collections.abc import Callable

import torch
from torch.nn import functional

from heads.trees.objectives import HUBER_DELTA


def smape_loss(predicted: torch.Tensor, actual: torch.Tensor) -> torch.Tensor:
    """Mean of 2 tanh(|d| / 2), d = predicted - actual log price: a hundredth of SMAPE, 0 to 2.

    Args:
        predicted: log price, any shape that broadcasts with `actual`.
        actual: log price.

    Returns:
        A scalar. It is bounded, so a row with a large error has a bounded effect.
    """
    return 2.0 * torch.tanh((predicted - actual).abs() / 2.0).mean()


def huber_log_loss(predicted: torch.Tensor, actual: torch.Tensor) -> torch.Tensor:
    """Mean Huber loss of log price: quadratic within 0.2, about 20% of the price, linear beyond."""
    predicted, actual = torch.broadcast_tensors(predicted, actual)
    return functional.huber_loss(predicted, actual, delta=HUBER_DELTA) / HUBER_DELTA


def mae_log_loss(predicted: torch.Tensor, actual: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of log price."""
    return (predicted - actual).abs().mean()


LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "smape": smape_loss,
    "huber-log": huber_log_loss,
    "mae-log": mae_log_loss,
}
