"""A model at work: rows in, prices with intervals and flags out."""

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from threadpoolctl import ThreadpoolController

from ensemble.blend import apply_blend, as_prices
from ensemble.conformal import Intervals, RowKinds, fit_intervals
from ensemble.model.answers import (
    NO_IMAGE,
    NO_TEXT,
    UNLIKE_TRAINING,
    UNREADABLE_IMAGE,
    Priced,
)
from ensemble.model.contents import read_calibration, read_training, read_vectors
from ensemble.model.encoders import ModelEncoders
from ensemble.model.folder import CALIBRATION, RELATIVES, TRAINING, VECTORS, ModelFolder
from ensemble.model.nearness import Nearness
from ensemble.model.relatives import TrainingRelatives
from ensemble.model.rows import ModelRows, RowShape, composed, model_rows, with_further_columns
from ensemble.outlook import head_spread
from heads.base import MOST_BEYOND, Head
from heads.features.fields import field_table
from heads.features.rows import FieldTable, Rows
from heads.fitted import predict_fitted, read_fitted
from heads.folds.parallel import each_on_a_core, on_one_core
from store.catalog.ingest.readings import source_of_mappings
from store.catalog.ingest.source import TableSource
from store.catalog.parse.fields import field_columns
from store.errors import ConfigError, CorruptFileError
from store.schema import CATALOG_COLUMNS
from store.vectors.matrix import Matrix
from store.workspace import Workspace

HEADS = "heads"
FEW_ROWS = 32  # whose prices are computed before a second core has begun
PROBES = ["", "green tea 500 g, pack of 2"]  # texts of rows that a loaded model is tried on
FURTHER = "further"  # values of the user's own columns, as something that a row may lack


@dataclass(frozen=True)
class FittedHead:
    """One head of the blend."""

    name: str
    models: Sequence[Head]  # whose mean is its price
    sets: tuple[str, ...]  # vector sets that it reads

    def rows(self, rows: Rows) -> Rows:
        """The rows as this head takes them."""
        return rows.select(list(self.sets))


class Pricer:
    """A model's folder, loaded."""

    def __init__(
        self, folder: ModelFolder, cache: Workspace | None = None, *, load_encoders: bool = True
    ) -> None:
        """Args:
        cache: workspace whose vectors are taken where it has them.
        load_encoders: now, beside the heads, and the rest as well; else when they are first needed.
        """
        self.folder = folder
        self.manifest = folder.manifest
        self._intervals: dict[float, Intervals] = {}
        try:
            self.shape = RowShape.from_json(self.manifest["rows"])
            self.encoders = ModelEncoders(folder.path, self.manifest["encoders"], cache)
            loading = threading.Thread(target=self._load_encoders)
            if load_encoders:
                loading.start()
            _ = self.training, self.vectors  # once, before two heads ask for them at once
            self.heads = each_on_a_core(self._head, self.manifest["heads"])
            if load_encoders:
                _ = self.held, self.relatives
                loading.join()
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            raise CorruptFileError(
                f"{folder.path} is incomplete ({error!r:.200}): copy the model again"
            ) from error

    # ---- parts, loaded when first needed ---------------------------------------------------------

    @cached_property
    def training(self) -> pa.Table:
        """Training rows: `id`, `name`, `price`, `group`, `image` (path of a small JPEG, or null)."""
        return read_training(self.folder.path / TRAINING)

    @cached_property
    def held(self) -> dict[str, np.ndarray]:
        """Honest and true log prices of the training rows, and what a lack of text or image moves."""
        return read_calibration(self.folder.path / CALIBRATION)

    @cached_property
    def vectors(self) -> dict[str, Matrix]:
        """Vectors of the training rows, set -> matrix of float16."""
        names = [str(one) for one in self.shape.sets]
        dims = [self.encoders.dims[one.encoder] for one in self.shape.sets]
        read = read_vectors(self.folder.path / VECTORS, dims, len(self.training))
        return {name: Matrix(name, X, valid) for name, (X, valid) in zip(names, read, strict=True)}

    @cached_property
    def nearness(self) -> Nearness:
        """How near rows are to the training rows."""
        return Nearness.of(self.vectors, {k: float(v) for k, v in self.manifest["unlike"].items()})

    @cached_property
    def _libraries(self) -> ThreadpoolController:
        """Libraries with threads of their own that the loaded heads compute with."""
        return ThreadpoolController()

    @cached_property
    def relatives(self) -> TrainingRelatives | None:
        """What tells which rows have a relative among the training rows; None in folders of before 0.2."""
        path = self.folder.path / RELATIVES
        return TrainingRelatives.load(path) if path.is_file() else None

    # ---- pricing ---------------------------------------------------------------------------------

    def price_rows(self, rows: ModelRows, coverage: float) -> list[Priced]:
        """One answer for each row, in their order."""
        if not 0.5 <= coverage <= 0.999:
            raise ConfigError(f"interval must be between 0.5 and 0.999, got {coverage:g}")
        if not len(rows):
            return []
        log_prices = self.log_prices(rows.rows)
        log_price = self.blended(log_prices)
        price = as_prices(log_price, self.floor)
        nearness = self.nearness
        with self._cores_for(len(rows)):
            unlike = nearness.is_unlike(rows.rows)
        for at in np.flatnonzero(unlike):
            rows.flags[at].add(UNLIKE_TRAINING)
        level = None if self.relatives is None else self.relatives.levels(rows.table, rows.images)
        kinds = RowKinds(head_spread(log_prices), level, rows.has_image)
        half_width = self._half_width(log_price, kinds, rows.flags, coverage)
        low, high = (as_prices(end, self.floor) for end in self._ends(log_price, half_width))
        order = {flag: i for i, flag in enumerate((NO_TEXT, NO_IMAGE, UNREADABLE_IMAGE))}
        return [
            Priced(None, None, None, _sorted(said, order), reason)
            if reason is not None
            else Priced(float(price[at]), float(low[at]), float(high[at]), _sorted(said, order))
            for at, (said, reason) in enumerate(zip(rows.flags, rows.refused, strict=True))
        ]

    def check_heads(self) -> None:
        """Price two made-up rows by every head.

        Raises:
            CorruptFileError: what a head learned does not fit the rows of the model.
        """
        parsed = field_columns(PROBES)
        names = [name for name in CATALOG_COLUMNS if name in parsed]
        table = pa.table({"text": PROBES, **{name: parsed[name] for name in names}})
        dims = self.encoders.dims
        try:
            table = with_further_columns(table, self.shape.columns)
            rows = Rows(
                pa.array(np.arange(len(PROBES))),
                tuple(
                    Matrix(
                        str(one),
                        np.ones((len(PROBES), dims[one.encoder]), np.float16),
                        np.array([False, True]),
                    )
                    for one in self.shape.sets
                ),
                field_table(table, columns=self.shape.columns),
                {name: composed(table, name) for name in self.shape.compositions},
                -1 - np.arange(len(PROBES)),
            )
            log_prices = self.log_prices(rows)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise CorruptFileError(
                f"{self.folder.path} is not usable: its heads can't price a row ({error!r:.200})"
            ) from error
        if log_prices.shape != (len(PROBES), len(self.heads)) or log_prices.dtype.kind != "f":
            raise CorruptFileError(f"{self.folder.path} is not usable: its heads give no log prices")

    def log_price(self, rows: Rows) -> np.ndarray:
        """The blend's log price of rows, shape (n_rows,)."""
        return self.blended(self.log_prices(rows))

    def blended(self, log_prices: np.ndarray) -> np.ndarray:
        """The blend's log price, shape (n_rows,), from each head's, shape (n_rows, n_heads)."""
        return apply_blend(self.manifest["blend"], [head.name for head in self.heads], log_prices)

    def log_prices(self, rows: Rows) -> np.ndarray:
        """Each head's log price, shape (n_rows, n_heads)."""
        low, high = self.manifest["log_price_range"]
        with self._cores_for(len(rows)):
            columns = [predict_fitted(head.models, head.rows(rows)) for head in self.heads]
        return np.clip(np.stack(columns, axis=1), low - MOST_BEYOND, high + MOST_BEYOND)

    def _cores_for(self, n_rows: int) -> AbstractContextManager[None]:
        """One core for a few products, all of them for many."""
        return on_one_core(self._libraries) if n_rows <= FEW_ROWS else nullcontext()

    def rows_of(self, source: TableSource, images: Sequence[Any] | None = None) -> ModelRows:
        """Rows of a table; see `model_rows`."""
        return model_rows(self.shape, self.encoders, source, images)

    def rows_of_mappings(self, rows: Sequence[Mapping[str, Any]]) -> ModelRows:
        """Rows given one by one."""
        source, images = source_of_mappings(rows, self.shape.readings)
        return self.rows_of(source, images)

    @property
    def floor(self) -> float:
        """The lowest price."""
        return float(self.manifest["price_floor"])

    def intervals(self, coverage: float) -> Intervals:
        """Intervals of a stated probability, from the honest prices of the training rows; to three digits, but those packed."""
        packed = next((one for one in self.manifest["intervals"] if one["coverage"] == coverage), None)
        if packed is None:
            coverage = round(coverage, 3)  # so many are kept at most, whatever is asked for
        if coverage not in self._intervals:
            self._intervals[coverage] = (
                fit_model_intervals(self.held, self.manifest, coverage)
                if packed is None
                else Intervals.from_json(packed)
            )
        return self._intervals[coverage]

    def _half_width(
        self, log_price: np.ndarray, kinds: RowKinds, flags: list[set[str]], coverage: float
    ) -> np.ndarray:
        """Of each row's interval in log price; wider for what it lacks, by what that was measured to move."""
        fitted = self.intervals(coverage)
        half_width = fitted.half_width(log_price, kinds)
        with_image = fitted.half_width(log_price, replace(kinds, has_image=np.ones(len(flags), bool)))
        is_told = "no_image" in (fitted.slopes or {})  # the width was fitted on rows without an image too

        def widened(width: float, names: set[str]) -> float:
            moved = sum(float(np.quantile(self.held[name], coverage)) ** 2 for name in names)
            return float(np.sqrt(width**2 + moved))

        for at, said in enumerate(flags):
            if not said:
                continue
            wider = {"text"} if NO_TEXT in said else set()
            if said - {NO_TEXT, NO_IMAGE, UNREADABLE_IMAGE, UNLIKE_TRAINING}:
                wider.add(FURTHER if FURTHER in self.held else "text")
            lacks_image = said & {NO_IMAGE, UNREADABLE_IMAGE} and "image" in self.held
            without = {*wider, "image"} if lacks_image else wider
            half_width[at] = widened(half_width[at], wider if is_told else without)
            if is_told and UNREADABLE_IMAGE in said:  # it may be unlike rows that never had one
                half_width[at] = max(half_width[at], widened(with_image[at], without))
            if UNLIKE_TRAINING in said:
                half_width[at] *= float(self.manifest["unlike_widens"])
        return half_width

    def _ends(self, log_price: np.ndarray, half_width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low, high = self.manifest["interval_limits"]
        return (
            np.minimum(np.maximum(log_price - half_width, low), log_price),
            np.maximum(np.minimum(log_price + half_width, high), log_price),
        )

    def _head(self, entry: dict[str, Any]) -> FittedHead:
        folder, sets = f"{HEADS}/{entry['folder']}", tuple(entry["sets"])

        def training_rows(ids: pa.Array) -> Rows:
            position = pc.index_in(ids, value_set=self.training["id"].combine_chunks()).to_numpy()
            return Rows(
                ids,
                tuple(self.vectors[name].rows(position) for name in sets),
                FieldTable(),
                {},
                self.training["group"].to_numpy()[position],
            )

        models = read_fitted(lambda name: self.folder.read(f"{folder}/{name}"), training_rows)
        return FittedHead(entry["name"], models, sets)

    def _load_encoders(self) -> None:
        try:
            self.encoders.load()
        except Exception:  # noqa: BLE001 - said again, in full, by whoever first embeds
            return


def fit_model_intervals(
    held: Mapping[str, np.ndarray], manifest: Mapping[str, Any], coverage: float
) -> Intervals:
    """Intervals by what is known of a row when it is priced; see `RowKinds`."""
    kinds = RowKinds(held.get("spread"), held.get("level"), held.get("has_image"))
    fitted = fit_intervals(
        held["nested"],
        held["actual"],
        coverage,
        kinds,
        tuple(manifest["interval_limits"]),
        held.get("latest"),
    )
    return fitted.narrowed(manifest["size_factor"])


def _sorted(flags: set[str], order: dict[str, int]) -> tuple[str, ...]:
    return tuple(sorted(flags, key=lambda flag: (order.get(flag, len(order)), flag)))
