"""`PriceModel`: a fitted blend that is saved as one folder and prices new products."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import pyarrow as pa

from ensemble.model.answers import Explanation, Priced
from ensemble.model.estimator import FrameRegressor
from ensemble.model.folder import ModelFolder, copy_folder
from ensemble.model.tables import check_column, prices_of, read_with_images, table_chunks, with_prices
from store.config import ROW_NUMBER, ColumnConfig, Config, ImagePolicy, load_config
from store.errors import PriceError, WorkspaceError
from store.workspace import Workspace

if TYPE_CHECKING:
    from ensemble.model.pricing import Pricer
    from ensemble.model.rows import ModelRows
    from store.catalog.ingest.source import TableSource

PRICE = "price"  # column of prices, where none is named
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class ModelInputs:
    """Names of the columns that a model reads."""

    text: tuple[str, ...]
    image: str | None  # None: the model knows no images
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]


class PriceModel(FrameRegressor):
    """Prices of catalogue rows by a blend of heads over cached vectors; a scikit-learn regressor on frames.

        >>> from ensemble import PriceModel
        >>> model = PriceModel(text=["title", "description"], image="photo", numeric=["rating"], categorical=["brand"])
        >>> model.fit(train, price="price")
        >>> model.predict(new)
        >>> model.save("model/")
        >>> PriceModel.load("model/").price([{"title": "green tea, 20 bags"}])

    Args:
        text: columns of text, the first one the main one.
        image: column of images: paths, bytes, Pillow images, lists of these, or links that the workspace has fetched (to
            `predict` a link is a missing image, as nothing is fetched); None: there is none.
        numeric: columns read as numbers.
        categorical: columns read as categories.
        workspace: folder that keeps vectors, folds and predictions between fits; None: a temporary one.
        encoders: vector sets, see `embed.vectors` of `shelfprice.toml`; None: the defaults.
        heads: heads that are trained and blended; None: the defaults.
        random_state: decides folds and heads.
    """

    def __init__(
        self,
        text: str | Sequence[str] = "catalog_content",
        image: str | None = None,
        numeric: str | Sequence[str] = (),
        categorical: str | Sequence[str] = (),
        *,
        workspace: str | os.PathLike[str] | None = None,
        encoders: Sequence[str] | None = None,
        heads: Sequence[str] | None = None,
        random_state: int = 42,
    ) -> None:
        self.text = text
        self.image = image
        self.numeric = numeric
        self.categorical = categorical
        self.workspace = workspace
        self.encoders = encoders
        self.heads = heads
        self.random_state = random_state

    _pricer: "Pricer | None" = None
    _held: Any = None  # a temporary workspace, kept for more rows later

    # ---- what a fitted or loaded model knows -----------------------------------------------------

    @property
    def inputs(self) -> ModelInputs:
        """Names of the columns that it reads."""
        readings = self._fitted.shape.readings
        categorical = tuple(n for n, one in readings.columns.items() if one.kind == "categorical")
        numeric = tuple(n for n, one in readings.columns.items() if one.kind != "categorical")
        knows_images = any(one.has_image for one in self._fitted.shape.sets)
        return ModelInputs(readings.text, readings.image if knows_images else None, numeric, categorical)

    @property
    def currency(self) -> str | None:
        """The currency of its prices, as the training file wrote it; None: it named none."""
        return self._fitted.shape.readings.currency

    @property
    def fingerprint(self) -> str:
        """Digest of everything that decides its prices, 16 hexadecimal digits."""
        return self._fitted.folder.fingerprint

    @property
    def images_per_row(self) -> ImagePolicy:
        """Whether the vectors of all images of a row are averaged, or the first one's is taken."""
        return self._fitted.shape.readings.images_per_row

    @property
    def id_columns(self) -> tuple[str, ...]:
        """Columns of ids in the files that it was fitted on, of the test file first."""
        return tuple(self._fitted.manifest["id_columns"])

    @property
    def training_ids(self) -> frozenset[str]:
        """Ids of the training rows."""
        return frozenset(map(str, self._fitted.training["id"].to_pylist()))

    @property
    def score_(self) -> dict[str, Any]:
        """The honest score: `smape` with its `interval`, `median_smape` of the training rows' median price beside it, and
        `coverage` with `measured_coverage` of the intervals of rows."""
        from store.metric import smape_log

        scores, coverage = self._fitted.manifest["scores"], self._fitted.manifest["coverage"]
        actual = self._fitted.held["actual"]
        return {
            "smape": scores["nested"],
            "interval": tuple(scores["nested_interval"]),
            "interval_level": scores["interval_level"],
            "median_smape": smape_log(actual, np.full(len(actual), np.median(actual))),
            "coverage": coverage["coverage"],
            "measured_coverage": coverage["measured_coverage"],
        }

    # ---- pricing ---------------------------------------------------------------------------------

    def embed(self, rows: Sequence[Mapping[str, Any]]) -> "ModelRows":
        """Read rows given as mappings and embed their texts and images: all that takes long of `price` and `explain`,
        which take what this returns. So one thread can embed some rows while another prices others.
        """
        return self._fitted.rows_of_mappings(rows)

    def price(self, rows: "Sequence[Mapping[str, Any]] | ModelRows", interval: float = 0.9) -> list[Priced]:
        """Price rows given as mappings: one answer for each, in their order; safe to call from several threads.

        A column may be left out or None. An image may be a path, the bytes of an image file, or a Pillow image. What a
        row lacks is flagged, and a row about which nothing at all is known is refused with a reason; neither is an
        exception.

        Args:
            rows: mappings, or what `embed` made of them.
            interval: probability that a row's interval holds its price, 0.5 to 0.999.

        Raises:
            ConfigError: interval is out of its range.
        """
        return self._fitted.price_rows(self._embedded(rows), interval)

    def explain(self, rows: Any, interval: float = 0.9) -> list[Explanation]:
        """Why rows have their prices: heads, what moved the price, and near training rows, one answer for each.

        Args:
            rows: mappings or embedded ones as of `price`, or a frame or file as of `predict`.
        """
        from ensemble.model.explain import explanations
        from ensemble.model.rows import ModelRows

        pricer = self._fitted
        if isinstance(rows, (list, tuple, ModelRows)):
            source, parts = None, iter([self._embedded(rows)])
        else:
            source, parts = self._parts(rows)
        found = [
            one for part in parts for one in explanations(pricer, part, pricer.price_rows(part, interval))
        ]
        if source is None:
            return found
        refused = {line: Explanation.refused(reason) for line, reason in source.malformed}
        return [one for _, one in _in_file_order(source, found, refused)]

    def predict(self, X: Any, interval: float | None = None) -> Any:
        """Prices of the rows of a frame or file.

        Args:
            X: pandas, Polars or Arrow frame, or the path of a CSV or Parquet file.
            interval: probability that a row's interval holds its price.

        Returns:
            Shape (n_rows,) float64, NaN where a row was refused; with `interval` a table of `price`, `low`, `high`,
            `flags` and `reason` instead: a pandas frame where X is one, else an Arrow table.
        """
        answers = [one for _, one in self.price_lines(X, 0.9 if interval is None else interval)]
        if interval is None:
            return np.array([np.nan if one.price is None else one.price for one in answers], np.float64)
        table = pa.table(
            {
                "price": pa.array([one.price for one in answers], pa.float64()),
                "low": pa.array([one.low for one in answers], pa.float64()),
                "high": pa.array([one.high for one in answers], pa.float64()),
                "flags": pa.array(["; ".join(one.flags) for one in answers], pa.string()),
                "reason": pa.array([one.reason for one in answers], pa.string()),
            }
        )
        return table.to_pandas().set_index(X.index) if hasattr(X, "iloc") else table

    def price_lines(
        self, X: Any, interval: float = 0.9, images: Sequence[Any] | None = None
    ) -> list[tuple[int, Priced]]:
        """As `price`, of a frame or file: one answer for each row, with the line where it starts, or the row's number.

        Args:
            images: of each row a path, bytes or a Pillow image; None: what the image column holds.
        """
        source, parts = self._parts(X, images)
        answers = [answer for part in parts for answer in self._fitted.price_rows(part, interval)]
        refused = {line: Priced(None, None, None, (), reason) for line, reason in source.malformed}
        return _in_file_order(source, answers, refused)

    def evaluate(self, X: Any, y: Any = None, *, price: str | None = None) -> dict[str, Any]:
        """SMAPE, MAE, R2 and coverage on rows with prices, beside what was promised.

        Args:
            X: as of `predict`.
            y: prices, one for each row that `predict` has an answer for, shape (n_rows,); None: they are a column of X.
            price: that column.

        Returns:
            `n_rows`, `smape`, `mae`, `r2`, `coverage`, each `promised` beside it; rows without a price, or that were
            refused, are left out.

        Raises:
            CatalogError: X has no such column of prices.
            PriceError: there are not as many prices as rows.
        """
        from sklearn.metrics import r2_score

        from store.metric import scores

        source, cells = read_with_images(X, self._fitted.shape.readings.image)
        if y is None:
            source = replace(source, malformed=())  # they have no price
            actual = prices_of(source, price or PRICE)
        else:
            actual = np.asarray(y, np.float64).ravel()
            n_rows = source.n_rows + len(source.malformed)
            if len(actual) != n_rows:
                raise PriceError(f"evaluate needs one price a row, got {len(actual)} for {n_rows} rows")
        promised = self.score_
        answers = [one for _, one in self.price_lines(source, promised["coverage"], cells)]
        found = np.array(
            [(np.nan,) * 3 if one.price is None else (one.price, one.low, one.high) for one in answers]
        )
        known = np.isfinite(actual) & (actual > 0) & np.isfinite(found).all(axis=1)
        actual, (predicted, low, high) = actual[known], found[known].T
        measured = scores(np.log(actual), np.log(predicted))
        return {
            "n_rows": int(known.sum()),
            "smape": measured["smape"],
            "mae": measured["mae"],
            "r2": float(r2_score(actual, predicted)),
            "coverage": float(((actual >= low) & (actual <= high)).mean()),
            "promised": {"smape": promised["smape"], "coverage": promised["coverage"]},
        }

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R2 of prices, as scikit-learn's regressors have it; a row that was refused counts as the median price."""
        from sklearn.metrics import r2_score

        predicted = self.predict(X)
        predicted[np.isnan(predicted)] = float(np.exp(np.median(self._fitted.held["actual"])))
        return float(r2_score(np.asarray(y, np.float64), predicted, sample_weight=sample_weight))

    # ---- fitting, keeping ------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, *, price: str | None = None, warm: bool = False) -> Self:
        """Fit on a frame or file.

        Args:
            X: pandas, Polars or Arrow frame, or the path of a CSV or Parquet file.
            y: prices, shape (n_rows,); None: they are the column `price` of X.
            price: column of prices.
            warm: X are further rows of the catalogue that the model was fitted on: they join it, and only what is new is
                embedded; `changed_` says what that did to the score.

        Raises:
            CatalogError: a column is missing, or too many rows can't be used; the model stays as it was.
            WorkspaceError: warm, and the model was not fitted in this process or into its workspace.
        """
        from ensemble.model.fitting import fit_rows, image_column, rows_before, score_before, together
        from ensemble.model.pricing import Pricer

        column = price or PRICE
        source, cells = read_with_images(X, self.image)
        if y is not None:
            source = with_prices(source, y, column)
        held = self._temporary(warm)
        workspace = Workspace(held.name if self.workspace is None else self.workspace)
        read = [*self._texts, *as_names(self.numeric), *as_names(self.categorical), column]
        for name in read:
            check_column(source, name)
        table = pa.table({name: source.columns[name] for name in read})
        if self.image is not None:
            if cells is None:
                check_column(source, self.image)
                cells = source.columns[self.image].to_pylist()
            table = table.append_column(self.image, image_column(cells))
        if warm:
            table = together(rows_before(workspace, self.image), table)
        before = score_before(workspace) if warm else None
        config = self._config(workspace, column)
        self._pricer = Pricer(fit_rows(workspace, table, self.image, config, source.malformed))
        self._held = held
        vars(self).pop("changed_", None)
        if warm:
            self.changed_ = {
                "new_rows": source.n_rows,
                "before": before,
                "after": self.score_["smape"],
            }
        return self

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model into a folder; nothing of it is a pickle.

        Raises:
            WorkspaceError: the folder holds something that is no model, or can't be written.
        """
        copy_folder(self._fitted.folder, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, cache: str | os.PathLike[str] | None = None) -> Self:
        """A model from its folder; every file is compared with its digest, and torch is not imported.

        Args:
            cache: workspace whose vectors are taken where it has them.

        Raises:
            CorruptFileError: a file is missing or was changed.
            WorkspaceError: the folder is no model, of a newer format, or needs a package that is not installed.
        """
        from ensemble.model.pricing import Pricer

        opened = ModelFolder.open(folder)
        model = cls()
        model._pricer = Pricer(opened, None if cache is None else Workspace.of(cache))
        model._pricer.check_heads()
        inputs = model.inputs
        model.text, model.image = inputs.text, inputs.image
        model.numeric, model.categorical = inputs.numeric, inputs.categorical
        asked = opened.manifest.get("fit", {})  # older folders do not say
        model.heads, model.encoders = asked.get("heads") or None, asked.get("vectors")
        model.random_state = opened.manifest["seed"]
        return model

    # ---- state -----------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        if self._pricer is not None:
            raise WorkspaceError(
                "a fitted PriceModel can't be pickled or deep-copied: call save, and PriceModel.load where it is needed"
            )
        return dict(vars(self))

    def __sklearn_is_fitted__(self) -> bool:
        return self._pricer is not None

    # ---- parts -----------------------------------------------------------------------------------

    @property
    def _fitted(self) -> "Pricer":
        if self._pricer is None:
            raise WorkspaceError(
                "this PriceModel is not fitted: call fit, or PriceModel.load for one on disk"
            )
        return self._pricer

    def _embedded(self, rows: "Sequence[Mapping[str, Any]] | ModelRows") -> "ModelRows":
        from ensemble.model.rows import ModelRows

        return rows if isinstance(rows, ModelRows) else self.embed(rows)

    @property
    def _texts(self) -> tuple[str, ...]:
        return as_names(self.text)

    def _parts(
        self, X: Any, images: Sequence[Any] | None = None
    ) -> "tuple[TableSource, Iterator[ModelRows]]":
        """A table, and its rows part by part."""
        source, held = read_with_images(X, self._fitted.shape.readings.image if images is None else None)
        cells = held if images is None else images

        def parts() -> "Iterator[ModelRows]":
            start = 0
            for part in table_chunks(source):
                own = None if cells is None else cells[start : start + part.n_rows]
                yield self._fitted.rows_of(part, own)
                start += part.n_rows

        return source, parts()

    def _temporary(self, warm: bool) -> Any:
        """A workspace for a model that names none: warm, the one that it was fitted in."""
        if self.workspace is not None:
            return None
        if warm and self._held is None:
            raise WorkspaceError(
                "fit(warm=True) needs what the model was fitted on: give PriceModel a workspace, or fit it first"
            )
        return self._held if warm else tempfile.TemporaryDirectory(prefix="shelfprice-")

    def _config(self, workspace: Workspace, price: str) -> Config:
        """The workspace's configuration with what the parameters say."""
        first, *more = self._texts
        config = load_config(workspace)
        columns = ColumnConfig(
            sample_id=ROW_NUMBER,
            text=first,
            more_text=tuple(more),
            image_link=self.image or ColumnConfig.image_link,
            price=price,
            numeric=as_names(self.numeric),
            categorical=as_names(self.categorical),
            max_rejected=config.columns.max_rejected,
        )
        embed, heads = config.embed, config.heads
        if self.encoders is not None:
            embed = replace(embed, vectors=tuple(self.encoders))
            heads = replace(heads, vectors=tuple(self.encoders))
        if self.heads is not None:
            heads = replace(heads, run=tuple(self.heads))
        return replace(config, seed=self.random_state, columns=columns, embed=embed, heads=heads)


def as_names(given: str | Sequence[str]) -> tuple[str, ...]:
    """Names of columns; a single one may stand for itself."""
    return (given,) if isinstance(given, str) else tuple(given)


def _in_file_order(
    source: "TableSource", answers: Sequence[Answer], refused: Mapping[int, Answer]
) -> list[tuple[int, Answer]]:
    """Each answer with its line, those of lines that are no rows among them."""
    found = list(zip(source.lines.tolist(), answers, strict=True))
    return sorted([*found, *refused.items()], key=lambda one: one[0]) if refused else found
