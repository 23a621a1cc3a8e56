"""How encoders and head are tuned, and the defaults of the three systems that the challenge was won with."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from heads.networks.schedule import SCHEDULES
from heads.params import misfits, param
from store.errors import ConfigError

HEADS = ("fusion", "mlp-layernorm", "mlp-batchnorm")
LOSSES = ("smape", "huber-log", "mae-log")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class FinetuneRecipe:
    """Everything that changes the tuned weights, besides encoders, rows and seed."""

    head: str = param("fusion", one_of=HEADS)
    loss: str = param("huber-log", one_of=LOSSES)
    epochs: int = param(6, low=1, high=100_000)  # of fine-tuning, at most
    warmup_epochs: int = param(  # of the head on cached vectors, at most: encoders frozen
        20, low=0, high=100_000
    )
    augmented_warmup: int = param(  # first epochs that train the head alone, on augmented inputs
        0, low=0, high=100_000
    )
    image_rate: float = param(1e-4, low=0, high=10)  # peak learning rates
    text_rate: float = param(5e-5, low=0, high=10)
    head_rate: float = param(5e-4, above=0, high=10)
    layer_decay: float = param(1.0, above=0, high=1)  # rate of each block relative to the one after it
    lora: int = param(  # rank of adapters, then all that is trained of an encoder; 0: its weights
        0, low=0, high=65_536
    )
    last_blocks: int = param(0, low=0, high=10_000)  # only so many of an encoder's last are trained; 0: all
    weight_decay: float = param(1e-4, low=0, high=1000)
    schedule: str = param("cosine", one_of=SCHEDULES)
    warmup: float = param(0.1, low=0, below=1)  # share of the steps over which the rates rise
    batch_rows: int = param(32, low=1, high=1_000_000)  # of one optimiser step, over all processes
    clip: float = param(1.0, above=0, high=1e9)  # greatest norm of a gradient
    average: float = param(  # decay of a running mean of the weights, which is then kept; 0: off
        0.0, low=0, below=1
    )
    patience: int = param(6, low=1, high=100_000)  # epochs without a better inner score, which may come late
    aside: int = param(8, low=2, high=1_000_000)  # one in so many groups is set aside for early stopping
    augment: bool = False
    precision: str = param("auto", one_of=PRECISIONS)
    checkpointing: bool = False  # recompute activations in the backward pass: less memory, more time

    def check(self) -> "FinetuneRecipe":
        """Raises ConfigError for a value that can't be; names the option and what it may be."""
        for name, expected in misfits(type(self), vars(self)):
            raise ConfigError(f"fine-tuning: {name} must be {expected}, got {getattr(self, name)!r}")
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
