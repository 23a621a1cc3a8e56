"""The share of its peak that the learning rate has at a step: of heads, and of encoders that are tuned."""

import math
from dataclasses import dataclass

LEAST_SHARE = 0.02  # of the peak, where the cosine ends
SCHEDULES = ("cosine", "plateau")


@dataclass
class RateSchedule:
    """A linear warm-up, then a cosine to the end or a halving on each plateau. Its state is plain data.

    Args:
        kind: one of `SCHEDULES`.
        n_steps: of the whole training.
        warmup: share of the steps over which the rate rises.
        patience: epochs without a better score after which a plateau halves the rate.
    """

    kind: str
    n_steps: int
    warmup: float = 0.1
    patience: int = 3
    factor: float = 1.0
    best: float = math.inf
    stale: int = 0

    def share(self, step: int) -> float:
        """Of the peak at a step, 0-based."""
        warm = max(1, int(self.warmup * self.n_steps))
        if step < warm:
            return (step + 1) / warm
        if self.kind == "plateau":
            return self.factor
        done = (step - warm) / max(1, self.n_steps - warm)
        return LEAST_SHARE + (1 - LEAST_SHARE) * (1 + math.cos(math.pi * min(done, 1.0))) / 2

    def observe(self, score: float) -> None:
        """After an epoch, with its score on the rows set aside: lower is better."""
        self.stale = 0 if score < self.best else self.stale + 1
        self.best = min(score, self.best)
        if self.kind == "plateau" and self.stale >= self.patience:
            self.factor, self.stale = self.factor / 2, 0

    def state(self) -> dict[str, float]:
        """For a checkpoint, as JSON."""
        best = self.best if math.isfinite(self.best) else -1.0
        return {"factor": self.factor, "best": best, "stale": self.stale}

    def load(self, state: dict[str, float]) -> None:
        """Go on from what `state` gave."""
        self.factor, self.stale = state["factor"], int(state["stale"])
        self.best = state["best"] if state["best"] >= 0 else math.inf
