"""Losses of the networks, all in log price. The one SMAPE loss is here."""

from collections.abc import Callable

import torch
from torch.nn import functional

from heads.trees.objectives import HUBER_DELTA


def smape_loss(
    predicted: torch.Tensor, actual: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean of 2 tanh(|d| / 2), d = predicted - actual log price: a hundredth of SMAPE, 0 to 2.

    Args:
        predicted: log price, any shape that broadcasts with `actual`.
        actual: log price.
        weight: what each value counts, a shape that broadcasts with `actual`; None: all alike.

    Returns:
        A scalar. It is bounded, so a row with a large error has a bounded effect.
    """
    return 2.0 * _mean(torch.tanh((predicted - actual).abs() / 2.0), weight)


def huber_log_loss(
    predicted: torch.Tensor, actual: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean Huber loss of log price: quadratic within 0.2, about 20% of the price, linear beyond."""
    predicted, actual = torch.broadcast_tensors(predicted, actual)
    reduction = "mean" if weight is None else "none"
    loss = functional.huber_loss(predicted, actual, reduction=reduction, delta=HUBER_DELTA)
    return _mean(loss, weight) / HUBER_DELTA


def mae_log_loss(
    predicted: torch.Tensor, actual: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean absolute error of log price."""
    return _mean((predicted - actual).abs(), weight)


def _mean(loss: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    return loss.mean() if weight is None else (loss * weight).mean()


LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "smape": smape_loss,
    "huber-log": huber_log_loss,
    "mae-log": mae_log_loss,
}
