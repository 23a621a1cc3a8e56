"""`neighbours`: the price of the most similar training products, text, image and further columns weighed together."""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from heads.base import Head
from heads.features.rows import Rows
from heads.kernels.mixture import FieldDistances, GaussianVectors
from heads.kernels.names import NameSimilarities
from heads.kernels.nearest import EXACT_BELOW, Nearest
from heads.params import param
from store.errors import HeadError
from store.metric import smape_log
from store.vectors.matrix import Matrix
from store.weights import weighted_median

TUNE_ROWS = 2500  # training rows that the choices are scored on
WEIGHTS = (0.0, 0.15, 0.3, 0.6, 1.0, 1.6)  # of a similarity, against the first one's 1
TEMPERATURES = (0.015, 0.03, 0.045, 0.06, 0.08, 0.1, 0.14)
COUNTS = (4, 8, 16, 24)
BLOCK_ROWS = 1024
COLUMNS = "columns"  # the name of the further columns among vector sets
LEAST_PRICE = 1e-300  # against division by 0, where prices are too far apart for their ratio


@dataclass(frozen=True)
class NeighbourChoice:
    """How candidates become one price."""

    weights: tuple[float, ...]  # of each similarity
    temperature: float  # difference of similarity that divides a neighbour's weight by e
    count: int  # neighbours that have a weight
    decide: bool  # True: the neighbour's price with the least expected SMAPE; False: the mean log price


@dataclass(frozen=True)
class Candidates:
    """For each row, training rows near to it in any vector set."""

    position: np.ndarray  # (n_rows, n_candidates) into the training rows, -1 where there is none
    similarity: np.ndarray  # (n_similarities, n_rows, n_candidates) float32


@dataclass(frozen=True)
class Retrieved:
    """The nearest training rows of each row, most similar first."""

    position: np.ndarray  # (n_rows, n_nearest) into the rows fitted on, -1 where there is none
    similarity: np.ndarray  # (n_similarities, n_rows, n_nearest) float32, NaN where unknown
    weight: np.ndarray  # (n_rows, n_nearest), sums to 1, or 0 where a row has no neighbour

    def part(self, of: slice) -> "Retrieved":
        """Some of the rows."""
        return Retrieved(self.position[of], self.similarity[:, of], self.weight[of])


@dataclass(kw_only=True, eq=False)
class Neighbours(Head):
    """Nearest neighbours: the weighted mean log price of the most similar training rows.

    Similarity is the weighted sum of the cosines of all vector sets, names and columns.

    Candidates are the nearest rows of each vector set; each is then compared in all of them, since a product
    of the same line is near in words and image at once. Weights, temperature and count are chosen on the
    training rows, each predicted by the others without its own group.
    """

    name: ClassVar[str] = "neighbours"
    summary: ClassVar[str] = "prices of the most similar training rows, text and image weighed together"
    texts: ClassVar[tuple[str, ...]] = ("name",)
    libraries: ClassVar[tuple[str, ...]] = ("faiss-cpu", "scikit-learn")
    side_by_side: ClassVar[bool] = True
    takes_weights: ClassVar[bool] = True
    learning_exponent: ClassVar[float] = 0.0  # the nearest of so many rows comes nearer, but ever more slowly
    decimals: ClassVar[int | None] = None  # that similarities are rounded to; None: they are not
    whitened_from: ClassVar[int] = (
        2049  # columns of vectors that are compared by whitened axes, see `Nearest`
    )
    steady: ClassVar[bool] = False  # see `Nearest`
    n_respects: ClassVar[int] = 1  # in which item names are compared, see `NameSimilarities`

    candidates: int = param(32, low=1, high=10_000)  # nearest rows taken from each vector set
    names: bool = True  # whether TF-IDF of item names is a further similarity
    exact_below: int = param(  # training rows from which the search is approximate (IVF)
        EXACT_BELOW, low=0, high=1e12
    )

    def _fit(self, rows: Rows, log_price: np.ndarray) -> None:
        rows = self._index(rows, log_price)
        scored = np.arange(0, len(rows), max(1, len(rows) // TUNE_ROWS))
        held = rows.subset(scored)
        self.choice_ = self._choose(self._candidates(held), log_price[scored], held.weight)

    def fit_retrieved(self, rows: Rows, log_price: np.ndarray, asked: np.ndarray, count: int) -> Retrieved:
        """Fit on the rows, and give so many nearest of those at `asked`: they are searched once for both.

        The choices are made on every so many of the rows at `asked`.
        """
        rows = self._index(rows, log_price)
        held, step = rows.subset(asked), max(1, len(asked) // TUNE_ROWS)
        found, weight = self._candidates(held), None if held.weight is None else held.weight[::step]
        some = Candidates(found.position[::step], found.similarity[:, ::step])
        self.choice_ = self._choose(some, log_price[asked][::step], weight)
        return self._nearest(found, count)

    def _index(self, rows: Rows, log_price: np.ndarray) -> Rows:
        """Take in the rows to find neighbours among; gives them with their further columns as one more vector set."""
        further = replace(rows, fields=rows.fields.further())
        self.columns_ = GaussianVectors(FieldDistances()).fit(further) if _has_columns(further) else None
        self.held_columns_ = None if self.columns_ is None else self.columns_.transform(further)
        rows = replace(rows, matrices=(*rows.matrices, *self._column_matrix(self.held_columns_)))
        if not rows.matrices:
            raise HeadError(
                f"{self.name} needs vectors or further columns: name vector sets in heads.vectors of shelfprice.toml"
            )
        self.log_price_, self.sample_id_ = log_price, rows.sample_id
        self.mean_ = weighted_median(log_price, rows.weight)
        if rows.weight is not None:
            self.row_weight_ = rows.weight
        self.nearest_ = [
            Nearest(self.exact_below, self._is_whitened(matrix), self.steady).fit(matrix, rows.group)
            for matrix in rows.matrices
        ]
        self.names_ = None
        if self.names and any(rows.texts.get("name", ())):
            self.names_ = NameSimilarities(self.n_respects).fit(rows.text("name"), rows.tokens.get("name"))
        return rows

    def _predict(self, rows: Rows) -> np.ndarray:
        return self._weigh(self._candidates(self._with_columns(rows)))[0]

    def prepared(self, rows: Rows) -> Rows:
        """See `Head.prepared`; item names are cut into words once for all folds."""
        return rows.with_tokens(self.texts) if self.names else rows

    def learned(self) -> dict[str, Any]:
        return {
            "weights": dict(zip(self.similarity_names(), self.choice_.weights, strict=True)),
            "temperature": self.choice_.temperature,
            "count": self.choice_.count,
            "decide": self.choice_.decide,
        }

    def explain(self, rows: Rows, split: str) -> tuple[np.ndarray, pa.Table]:
        """See `Head.explain`: which training rows the price of each row is taken from.

        Returns:
            Log prices, and a table of `sample_id`, `split`, `rank` (1: most weight), `neighbour_id`, `weight` (sums
            to 1), `log_price` of the neighbour, and one `cosine:<similarity>` each, null where unknown.
        """
        predicted, near, weight = self._weigh(found := self._candidates(self._with_columns(rows)))
        return predicted, self._evidence(rows, split, found, near, weight)

    def weighed(self, rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log prices (n_rows,), and the training rows behind each, most weight first: positions and weights, both of
        shape (n_rows, count)."""
        predicted, near, weight = self._weigh(found := self._candidates(self._with_columns(rows)))
        return predicted, np.take_along_axis(found.position, near, axis=1), weight

    def retrieved(self, rows: Rows, count: int) -> Retrieved:
        """So many nearest training rows of each row, fewer where there are fewer; its own group is left out."""
        return self._nearest(self._candidates(self._with_columns(rows)), count)

    def _nearest(self, found: Candidates, count: int) -> Retrieved:
        _, near, weight = self._weigh(found, replace(self.choice_, count=count))
        similarity = np.stack([np.take_along_axis(one, near, axis=1) for one in found.similarity])
        return Retrieved(np.take_along_axis(found.position, near, axis=1), similarity, weight)

    def files(self) -> dict[str, bytes]:
        """`neighbours.json`: the choices."""
        return {"neighbours.json": json.dumps(self.learned(), indent=2).encode()}

    def restore(self, state: dict[str, Any], rows: Callable[[pa.Array], Rows]) -> None:
        """See `Head.restore`; builds the indexes anew."""
        if "words_" in state:  # written before names were compared in several respects
            words, held, names = state["words_"], state.get("held_words_"), None
            if words is not None and held is not None:
                names = NameSimilarities(1).take(words, held, np.full(held.shape[0], -1))
            state = {k: v for k, v in state.items() if k not in ("words_", "held_words_")} | {"names_": names}
        super().restore(state, rows)
        matrices = [*rows(self.sample_id_).matrices, *self._column_matrix(self.held_columns_)]
        for index, matrix in zip(self.nearest_, matrices, strict=True):
            index.fill(matrix)

    # ---- parts -----------------------------------------------------------------------------------

    def _with_columns(self, rows: Rows) -> Rows:
        """The rows with their further columns as one more vector set."""
        if self.columns_ is None:
            return rows
        X = self.columns_.transform(replace(rows, fields=rows.fields.further()))
        return replace(rows, matrices=(*rows.matrices, *self._column_matrix(X)))

    def _is_whitened(self, matrix: Matrix) -> bool:
        return matrix.name != COLUMNS and matrix.dim >= self.whitened_from

    @staticmethod
    def _column_matrix(X: np.ndarray | None) -> tuple[Matrix, ...]:
        return () if X is None else (Matrix(COLUMNS, X, np.ones(len(X), dtype=bool)),)

    def similarity_names(self) -> list[str]:
        """In the order of similarities and their weights."""
        names = [f"set {i + 1}" for i in range(len(self.nearest_))]
        if self.columns_ is not None:
            names[-1] = COLUMNS
        return names if self.names_ is None else [*names, *self.names_.respects]

    def _candidates(self, rows: Rows) -> Candidates:
        sets = [
            (index, matrix, index.unit_rows(matrix))
            for index, matrix in zip(self.nearest_, rows.matrices, strict=True)
        ]
        per_set = [index.search(matrix, rows.group, self.candidates, unit) for index, matrix, unit in sets]
        position = np.sort(np.concatenate(per_set, axis=1), axis=1)
        position[:, 1:][position[:, 1:] == position[:, :-1]] = -1
        similarity = [index.cosine(matrix, position, unit) for index, matrix, unit in sets]
        if self.names_ is not None:
            similarity += [*self.names_.compare(rows.text("name"), rows.tokens.get("name"), position)]
        found = np.stack(similarity)
        return Candidates(position, found if self.decimals is None else np.round(found, self.decimals))

    def _choose(self, found: Candidates, log_price: np.ndarray, counts: np.ndarray | None) -> NeighbourChoice:
        """Coordinate search by SMAPE over rows that were predicted without their group.

        From two starts, since what counts in names overlaps: with one similarity of names, and with all.
        """
        n = len(found.similarity)
        plain = n if self.names_ is None else n - self.n_respects + 1
        starts = {(1.0, *(0.6 if i < used else 0.0 for i in range(1, n))) for used in (plain, n)}

        def error(choice: NeighbourChoice) -> float:
            predicted, _, _ = self._weigh(found, choice)
            return smape_log(log_price, predicted, counts)

        searched = (_searched(error, NeighbourChoice(start, 0.05, 16, True)) for start in sorted(starts))
        return min(searched, key=lambda pair: pair[0])[1]

    def _weigh(
        self, found: Candidates, choice: NeighbourChoice | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log price (n_rows,), the neighbours as columns of the candidates (n_rows, count), their weights."""
        choice = choice or self.choice_
        score: np.ndarray = np.zeros(found.position.shape, np.float32)
        for weight, similarity in zip(choice.weights, found.similarity, strict=True):
            if weight:
                score += np.float32(weight) * _filled(similarity)
        score[found.position < 0] = -np.inf
        count = min(choice.count, score.shape[1])
        near: np.ndarray = np.argpartition(score, -count, axis=1)
        near = near[:, -count:]
        order = np.argsort(np.take_along_axis(score, near, axis=1), axis=1, kind="stable")[:, ::-1]
        near = np.take_along_axis(near, order, axis=1)
        top: np.ndarray = np.take_along_axis(score, near, axis=1)
        none: np.ndarray = ~np.isfinite(top[:, 0])
        top[none] = 0.0
        weight_of = np.exp((top - top[:, :1]) / choice.temperature)
        position = np.take_along_axis(found.position, near, axis=1)
        if "row_weight_" in vars(self):
            weight_of *= self.row_weight_[position]
        weight_of /= weight_of.sum(axis=1, keepdims=True)
        prices = self.log_price_[position]
        if choice.decide:
            predicted = least_expected_smape(prices, weight_of)
        else:
            predicted = (weight_of * prices).sum(axis=1)
        predicted[none], weight_of[none] = self.mean_, 0.0
        return predicted, near, weight_of

    def _evidence(
        self, rows: Rows, split: str, found: Candidates, near: np.ndarray, weight: np.ndarray
    ) -> pa.Table:
        row, rank = np.nonzero(weight > 1e-3)
        column = near[row, rank]
        position = found.position[row, column]
        names = [f"cosine:{name}" for name in self.similarity_names()]
        cosines = [pa.array(s[row, column], from_pandas=True) for s in found.similarity]
        return pa.table(
            {
                "sample_id": rows.sample_id.take(pa.array(row)),
                "split": pa.array([split] * len(row), pa.string()),
                "rank": pa.array(rank + 1, pa.int16()),
                "neighbour_id": self.sample_id_.take(pa.array(position)),
                "weight": pa.array(weight[row, rank].astype(np.float32)),
                "log_price": pa.array(self.log_price_[position]),
                **dict(zip(names, cosines, strict=True)),
            }
        )


def _searched(
    error: Callable[[NeighbourChoice], float], best: NeighbourChoice
) -> tuple[float, NeighbourChoice]:
    """The least error that changes of one choice at a time lead to, and the choices there."""
    lowest, before = error(best), np.inf
    while lowest < before - 1e-3:
        before = lowest
        for trials_of in (_other_weights, _other_temperatures, _other_counts):
            scored = [(error(trial), trial) for trial in trials_of(best)]
            lowest, best = min([(lowest, best), *scored], key=lambda pair: pair[0])
    return lowest, best


def _other_weights(of: NeighbourChoice) -> list[NeighbourChoice]:
    if len(of.weights) == 1:
        return []
    changed = [
        tuple(weight if i == at else w for i, w in enumerate(of.weights))
        for at, weight in itertools.product(range(len(of.weights)), WEIGHTS)
    ]
    return [replace(of, weights=weights) for weights in changed if max(weights) > 0]


def _other_temperatures(of: NeighbourChoice) -> list[NeighbourChoice]:
    return [replace(of, temperature=t, decide=d) for t in TEMPERATURES for d in (True, False)]


def _other_counts(of: NeighbourChoice) -> list[NeighbourChoice]:
    return [replace(of, count=k) for k in COUNTS]


def _has_columns(rows: Rows) -> bool:
    return bool(rows.fields.names or rows.fields.categories)


def _filled(similarity: np.ndarray) -> np.ndarray:
    """A candidate without a vector, or of a row without one, is taken as likely as the row's others."""
    known = np.isfinite(similarity)
    if known.all():
        return similarity
    count = known.sum(axis=1, keepdims=True)
    mean = np.where(known, similarity, 0.0).sum(axis=1, keepdims=True) / np.maximum(count, 1)
    return np.where(known, similarity, mean).astype(np.float32)


def least_expected_smape(log_prices: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of a few weighted log prices, both of shape (n_rows, count), the one nearest to all by SMAPE.

    Prices cluster at a few values (999, 1,499), which a mean never equals.
    """
    chosen = np.empty(len(log_prices))
    for start in range(0, len(log_prices), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        logs = log_prices[part]
        prices = np.exp(logs - logs.max(axis=1, keepdims=True))
        apart = np.abs(prices[:, :, None] - prices[:, None, :])
        apart /= np.maximum(prices[:, :, None] + prices[:, None, :], LEAST_PRICE)
        best = (apart @ weights[part][:, :, None])[..., 0].argmin(axis=1)
        chosen[part] = logs[np.arange(len(logs)), best]
    return chosen
