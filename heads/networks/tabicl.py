"""`tabicl`: a pretrained transformer that reads the training rows as its context, on components and fields."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from heads.base import Head
from heads.features.blocks import with_bare_numbers
from heads.features.rows import Rows
from heads.params import MOST_SEED, param
from heads.trees.columns import ComponentColumns
from store.errors import HeadError

HUB = "jingang/TabICL"  # where the weights are


@dataclass(kw_only=True, eq=False)
class TabICL(Head):
    """TabICL, a pretrained transformer for tables, on log price: it reads the training rows as its context.

    It predicts the median; nothing is trained but the principal components of the vectors.

    Weights come from the hub, or from a folder where `models` names one. A fit keeps its context alone; the weights
    are loaded when rows are predicted.

    Source: Qu et al., TabICL: a tabular foundation model for in-context learning on large data, 2025.
    """

    name: ClassVar[str] = "tabicl"
    summary: ClassVar[str] = "TabICL, a pretrained transformer, with the training rows as context"
    texts: ClassVar[tuple[str, ...]] = ("name",)
    extra: ClassVar[str | None] = "tabicl"
    libraries: ClassVar[tuple[str, ...]] = ("tabicl", "torch")

    components: int = param(16, low=1, high=65_536)  # principal components of each vector set
    n_estimators: int = param(8, low=1, high=1000)  # views of the table that are averaged
    context_rows: int = param(
        20_000, low=2, high=1_000_000
    )  # training rows in the context, at most, drawn at random
    checkpoint: str = param("tabicl-regressor-v2-20260212.ckpt")  # name of the file of weights
    models: str = param("", recorded=False)  # folder with the file of weights; empty: the model hub
    device: str = param("", recorded=False)  # device, such as cuda; empty: a GPU where there is one
    random_state: int = param(42, low=0, high=MOST_SEED)

    def _fit(self, rows: Rows, log_price: np.ndarray) -> None:
        chosen = np.random.default_rng(self.random_state).permutation(len(rows))[: self.context_rows]
        context = with_bare_numbers(rows).subset(np.sort(chosen))
        self.columns_ = ComponentColumns(self.components).fit(context)
        self.context_ = self.columns_.values(context, slice(None))
        self.log_price_ = log_price[np.sort(chosen)]
        self.models_ = self.models  # a head that was written and read looks there again

    def _predict(self, rows: Rows) -> np.ndarray:
        X = self.columns_.values(with_bare_numbers(rows), slice(None))
        model = self._regressor().fit(self.context_, self.log_price_)
        return np.asarray(model.predict(X, output_type="median"), np.float64)

    def _regressor(self) -> Any:
        """TabICL with the weights that the parameters name.

        Raises:
            HeadError: the package is not installed, or the weights can't be had; says how to get them.
        """
        regressor = self.library("tabicl").TabICLRegressor
        models = self.models or (self.models_ if Path(self.models_, self.checkpoint).is_file() else "")
        file = Path(models, self.checkpoint) if models else None
        if file is not None and not file.is_file():
            raise HeadError(
                f"tabicl finds no {self.checkpoint} in {models}: put it there, from {HUB} of the model hub, or leave "
                "models out to fetch it"
            )
        return regressor(
            n_estimators=self.n_estimators,
            model_path=file or self._fetched(),
            allow_auto_download=False,
            device=self.device or None,
            random_state=self.random_state,
        )

    def _fetched(self) -> Path:
        """The weights in the hub's cache, fetched where they are missing."""
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(HUB, self.checkpoint))
        except (OSError, ValueError) as error:  # what the hub's client raises for every reason
            raise HeadError(
                f"tabicl can't get {self.checkpoint} from {HUB} of the model hub ({error}): carry the file over and set "
                'models = "FOLDER" under [heads.params.tabicl] of shelfprice.toml'
            ) from error
