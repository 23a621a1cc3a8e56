"""How encoders and head are tuned, and the defaults of the three systems that the challenge was won with."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from heads.networks.schedule import SCHEDULES
from store.errors import ConfigError

HEADS = ("fusion", "mlp-layernorm", "mlp-batchnorm")
LOSSES = ("smape", "huber-log", "mae-log")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class FinetuneRecipe:
    """Everything that changes the tuned weights, besides encoders, rows and seed."""

    head: str = "fusion"
    loss: str = "huber-log"
    epochs: int = 6  # of fine-tuning, at most
    warmup_epochs: int = 20  # of the head on cached vectors, at most: encoders frozen
    augmented_warmup: int = (
        0  # the first so many epochs of fine-tuning train the head alone, on augmented inputs
    )
    image_rate: float = 1e-4  # peak learning rates
    text_rate: float = 5e-5
    head_rate: float = 5e-4
    layer_decay: float = 1.0  # rate of each block relative to the one after it
    lora: int = 0  # rank of adapters, which are then all that is trained of an encoder; 0: its own weights
    last_blocks: int = (
        0  # only so many of an encoder's last blocks, and what follows them, are trained; 0: all
    )
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    warmup: float = 0.1  # share of the steps over which the rates rise
    batch_rows: int = 32  # of one optimiser step, over all processes
    clip: float = 1.0  # greatest norm of a gradient
    average: float = 0.0  # decay of a running mean of the weights a step, which is then what is kept; 0: off
    patience: int = 6  # epochs without a better inner score; it often gets better only once the rates fall
    aside: int = 8  # one in so many groups of the training folds is set aside for early stopping
    augment: bool = False
    precision: str = "auto"
    checkpointing: bool = False  # recompute activations in the backward pass: less memory, more time

    def check(self) -> "FinetuneRecipe":
        """Raises ConfigError for a value that can't be; names the option and what it may be."""
        choices = {"head": HEADS, "loss": LOSSES, "schedule": SCHEDULES, "precision": PRECISIONS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"fine-tuning: {name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )
        least: dict[str, float] = {"epochs": 1, "batch_rows": 1, "patience": 1, "aside": 2}
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"fine-tuning: {name} must be a finite number, got {value}")
        positive = ("head_rate", "clip")
        shares = ("warmup", "average")
        for name, limit in least.items():
            if getattr(self, name) < limit:
                raise ConfigError(f"fine-tuning: {name} must be at least {limit}, got {getattr(self, name)}")
        for name in (
            "image_rate",
            "text_rate",
            "lora",
            "last_blocks",
            "warmup_epochs",
            "augmented_warmup",
            "weight_decay",
        ):
            if getattr(self, name) < 0:
                raise ConfigError(f"fine-tuning: {name} must not be negative, got {getattr(self, name)}")
        for name in positive:
            if getattr(self, name) <= 0:
                raise ConfigError(f"fine-tuning: {name} must be above 0, got {getattr(self, name)}")
        for name in shares:
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"fine-tuning: {name} must be from 0 to below 1, got {getattr(self, name)}")
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(f"fine-tuning: layer_decay must be above 0, at most 1, got {self.layer_decay}")
        if self.augmented_warmup and not self.augment:
            raise ConfigError(
                "fine-tuning: an augmented warm-up needs augmentation: pass --augment, or leave it to the cached vectors"
            )
        return self

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


# System -> what differs from `Recipe`. Rates, frozen epochs, schedule, loss, weight decay and clipping are the winning
# system's; how many epochs and how many rows a step are not published and are chosen here.
_WON_WITH: dict[str, Any] = {
    "loss": "smape",
    "schedule": "plateau",
    "warmup": 0.0,
    "patience": 5,  # two halvings of the rates
    "clip": 1.0,
    "weight_decay": 1e-4,
}
SYSTEMS: dict[tuple[str, ...], dict[str, Any]] = {
    ("bert-base", "efficientnet-b4"): {
        **_WON_WITH,
        "head": "fusion",
        "image_rate": 1e-4,
        "text_rate": 2e-5,
        "head_rate": 1e-3,
        "warmup_epochs": 4,
        "augment": True,
        "epochs": 12,
    },
    ("clip-vit-l14",): {
        **_WON_WITH,
        "head": "mlp-layernorm",
        "image_rate": 3e-6,
        "text_rate": 3e-6,
        "head_rate": 5e-4,
        "warmup_epochs": 3,
        "epochs": 10,
        "checkpointing": True,
    },
    ("clip-vit-h14",): {
        **_WON_WITH,
        "head": "mlp-batchnorm",
        "image_rate": 2e-6,
        "text_rate": 2e-6,
        "head_rate": 1.5e-4,
        "warmup_epochs": 2,
        "epochs": 8,
        "checkpointing": True,
    },
}


def recipe_for(encoders: Sequence[str], given: dict[str, Any]) -> FinetuneRecipe:
    """The recipe of a system, known or not, with what the user gives over it.

    Args:
        encoders: as the user names them; options behind `?`, a tower and a composition don't make another system.
        given: fields of `FinetuneRecipe` that the user sets.
    """
    names = tuple(sorted({_plain(name) for name in encoders}))
    return FinetuneRecipe(**{**SYSTEMS.get(names, {}), **given}).check()


def _plain(encoder: str) -> str:
    name = encoder.partition("@")[0].partition("?")[0]
    return name.removesuffix(".image").removesuffix(".text")
