"""The share of each peak rate that a step is taken with."""

import math
from dataclasses import dataclass

from embed.finetune.recipe import FinetuneRecipe

LEAST_SHARE = 0.02  # where the cosine ends
STALE_EPOCHS = 1  # epochs without a better inner score after which a plateau halves the rates


@dataclass
class RateSchedule:
    """A rise, then a cosine to the end or a halving on each plateau. Its state is plain data."""

    recipe: FinetuneRecipe
    n_steps: int  # of the whole run
    factor: float = 1.0
    best: float = math.inf
    stale: int = 0

    def share(self, step: int) -> float:
        """Of the peak rates at a step, 0-based."""
        rise = int(self.recipe.rise * self.n_steps)
        if step < rise:
            return (step + 1) / (rise + 1)
        if self.recipe.schedule == "plateau":
            return self.factor
        done = (step - rise) / max(1, self.n_steps - rise)
        return LEAST_SHARE + (1 - LEAST_SHARE) * (1 + math.cos(math.pi * min(done, 1.0))) / 2

    def observe(self, smape: float) -> None:
        """After an epoch, with its inner score."""
        self.stale = 0 if smape < self.best else self.stale + 1
        self.best = min(smape, self.best)
        if self.stale > STALE_EPOCHS:
            self.factor, self.stale = self.factor / 2, 0

    def state(self) -> dict[str, float]:
        best = self.best if math.isfinite(self.best) else -1.0
        return {"factor": self.factor, "best": best, "stale": self.stale}

    def load(self, state: dict[str, float]) -> None:
        self.factor, self.stale = state["factor"], int(state["stale"])
        self.best = state["best"] if state["best"] >= 0 else math.inf
