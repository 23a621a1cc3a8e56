"""The base of heads that are networks: their recipe, several seeds averaged, features in one tensor."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from heads.base import Head
from heads.features.design import Design
from heads.features.rows import Rows
from heads.params import MOST_SEED, param

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torch import nn

    from heads.networks.training import Batch, TrainingRecipe

PREDICTED_ROWS = 8192
SMALL_BATCH = 256  # rows of a step
LARGE_ROWS = 32_768  # trained on, from which on a step takes twice as many


@dataclass(frozen=True)
class NetworkParts:
    """What a head that is a network is made of."""

    design: Design  # scales vectors and fields; fitted
    gaps: bool  # whether some row lacks a vector, so that the network is told which
    network: "nn.Module"  # untrained
    recipe: "TrainingRecipe"


@dataclass(kw_only=True, eq=False)
class NetworkHead(Head):
    """A network on standardised vectors and fields; a subclass says which.

    Test rows: the mean of the fold models, each the mean of its seeds.
    """

    test_mode: ClassVar[Literal["refit", "average"]] = "average"
    libraries: ClassVar[tuple[str, ...]] = ("torch",)
    code_version: ClassVar[int] = 4
    takes_weights: ClassVar[bool] = True

    loss: str = param("huber-log", one_of=("smape", "huber-log", "mae-log"))
    learning_rate: float = param(1e-3, low=1e-9, high=10, was="rate")  # the highest learning rate
    weight_decay: float = param(1e-4, low=0, high=1000)
    batch_rows: int = param(  # rows of a step; 0: 256, or 512 at twice the rate for many rows
        0, low=0, high=1_000_000
    )
    epochs: int = param(40, low=1, high=100_000)  # passes over the rows, at most
    patience: int = param(8, low=0, high=100_000)  # epochs without a better inner score
    schedule: str = param("cosine", one_of=("cosine", "plateau"))
    dropout: float = param(0.2, low=0, below=1)
    seeds: int = param(  # networks averaged, each with another inner split for early stopping
        2, low=1, high=100
    )
    fields: bool = True  # use parsed fields
    precision: str = param(  # of training; auto: bf16 where the hardware multiplies it, else fp32
        "auto", one_of=("auto", "fp32", "bf16"), was_values={"fp32": "float32", "bf16": "bfloat16"}
    )
    random_state: int = param(42, low=0, high=MOST_SEED)

    # ---- to implement ----------------------------------------------------------------------------

    def _network(self, widths: list[int]) -> "nn.Module":
        """The network for features of these widths: each vector set, then the fields."""
        raise NotImplementedError

    # ---- for fine-tuning -------------------------------------------------------------------------

    def parts(self, rows: Rows) -> "NetworkParts":
        """The head in parts, with what scales its features fitted on `rows`: fine-tuning puts them on encoders."""
        from heads.networks.training import seeded

        self._fit_features(rows)
        with seeded(self.random_state):
            network = self._network(self._widths())
        return NetworkParts(self.design_, self.gaps_, network, self._recipe(len(rows)))

    def batch_of(self, rows: Rows) -> "Batch":
        """The network's outputs for these rows by position, off their vectors; after `parts`."""
        return self._batch(rows)

    # ---- the rest --------------------------------------------------------------------------------

    def _fit(self, rows: Rows, log_price: np.ndarray) -> None:
        from heads.networks.training import seeded, train_network

        self._fit_features(rows)
        batch, recipe = self._training_batch(rows), self._recipe(len(rows))
        self.trained_ = []
        for seed in range(self.random_state, self.random_state + self.seeds):
            with seeded(seed):
                network = self._network(self._widths())
                self.trained_.append(
                    train_network(self.name, network, batch, log_price, rows.group, recipe, seed, rows.weight)
                )

    def _predict(self, rows: Rows) -> np.ndarray:
        from heads.networks.training import predict_network

        predicted = np.zeros(len(rows))
        for start in range(0, len(rows), PREDICTED_ROWS):
            part = np.arange(start, min(start + PREDICTED_ROWS, len(rows)))
            batch, here = self._batch(rows.subset(part)), np.arange(len(part))
            for trained in self.trained_:
                # In bf16, which it may have been trained in, a row's price would depend on the rows beside it.
                predicted[part] += predict_network(trained.network, batch, here, "fp32") + trained.mean
        return predicted / len(self.trained_)

    def learned(self) -> dict[str, Any]:
        return {
            "epochs": [trained.epochs for trained in self.trained_],
            "inner_smape": [trained.smape for trained in self.trained_],
        }

    def fitted_state(self) -> dict[str, Any]:
        """See `Head.fitted_state`; of each network its weights by name."""
        trained = [
            {
                "mean": one.mean,
                "epochs": one.epochs,
                "smape": one.smape,
                "weights": {name: w.numpy() for name, w in one.network.state_dict().items()},
            }
            for one in self.trained_
        ]
        return super().fitted_state() | {"trained_": trained}

    def restore(self, state: dict[str, Any], rows: "Callable[[pa.Array], Rows]") -> None:
        """See `Head.restore`; builds the networks anew and puts the weights in."""
        import torch

        from heads.networks.training import Trained

        super().restore({name: value for name, value in state.items() if name != "trained_"}, rows)
        self.trained_ = []
        for one in state["trained_"]:
            network = self._network(self._widths())
            network.load_state_dict({name: torch.from_numpy(w.copy()) for name, w in one["weights"].items()})
            self.trained_.append(Trained(network.eval(), one["mean"], one["epochs"], one["smape"]))

    def _recipe(self, n_rows: int) -> "TrainingRecipe":
        from heads.networks.training import TrainingRecipe

        own = self.get_params()
        if not self.batch_rows:
            times = 2 if n_rows >= LARGE_ROWS else 1
            own |= {"batch_rows": times * SMALL_BATCH, "learning_rate": times * self.learning_rate}
        return TrainingRecipe(
            **{
                field.name: own[field.name]
                for field in dataclasses.fields(TrainingRecipe)
                if field.name in own
            }
        )

    def _fit_features(self, rows: Rows) -> None:
        self.design_ = Design("column", self.fields).fit(rows)
        self.gaps_ = any(not matrix.valid.all() for matrix in rows.matrices)

    def _widths(self) -> list[int]:
        widths = [len(block.mean_) + block.indicates_ for block in self.design_.blocks_]
        block = self.design_.field_block_
        return [*widths, len(block.names_)] if block is not None and block.names_ else widths

    def _training_batch(self, rows: Rows) -> "Batch":
        """Features of rows that are trained on, in the type of training; they lie in a file where the vectors do."""
        from heads.networks.mapped_features import MappedFeatures

        if not rows.on_disk:
            return self._held(rows, self._dtype())
        return MappedFeatures(self.design_, rows, self._missing(rows), self._dtype())

    def _batch(self, rows: Rows) -> "Batch":
        """Features of rows that are priced, in fp32, ready to be indexed."""
        import torch

        return self._held(rows, torch.float32)

    def _held(self, rows: Rows, dtype: "torch.dtype") -> "Batch":
        """Features of these rows as one tensor, and which vectors are missing."""
        import torch

        X = torch.empty((len(rows), self.design_.width(rows)), dtype=dtype)
        for part, features in self.design_.transform_parts(rows):
            X[part] = torch.from_numpy(features)
        missing = self._missing(rows)

        def batch(network: "nn.Module", index: "torch.Tensor") -> "torch.Tensor":
            out: torch.Tensor = network(X[index], None if missing is None else missing[index])
            return out

        return batch

    def _dtype(self) -> "torch.dtype":
        import torch

        from heads.networks.training import resolved_precision

        return torch.bfloat16 if resolved_precision(self.precision) == "bf16" else torch.float32

    def _missing(self, rows: Rows) -> "torch.Tensor | None":
        """Which vectors each row lacks, shape (n_rows, n_widths); None where no training row lacks one."""
        import torch

        if not self.gaps_:
            return None
        flags = [~matrix.valid for matrix in rows.matrices]
        flags += [np.zeros(len(rows), bool)] * (len(self._widths()) - len(flags))
        return torch.from_numpy(np.column_stack(flags))
