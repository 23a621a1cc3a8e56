"""`reranked-neighbours`: prices of near products, ranked by boosted trees on the error that each is expected to have."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from heads.base import FoldPredictions, Head
from heads.features.rows import Rows
from heads.folds.crossfit import LEAST_GROUPS, crossfit
from heads.folds.nested import inner_cells
from heads.folds.parallel import each_on_a_core, n_cores
from heads.kernels.names import RESPECTS
from heads.kernels.neighbours import Neighbours, Retrieved, least_expected_smape
from heads.linear.additive import Additive, BlockSum, CountedRows, described, mean_weights
from heads.params import MOST_SEED, param
from heads.trees.lightgbm import quiet_logger
from store.metric import smape_log, smape_rows

TOLERANCES = (0.003, 0.1, 0.3)  # log prices this near to one another count as alike
TEMPERATURES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)  # of expected SMAPE in percent; 0: the best candidate alone
NEIGHBOUR, MOVED, SUM, MEAN, MOVED_MEAN = range(5)  # kinds of candidates
BLOCK_ROWS = 2048
PER_SET = 16  # nearest rows taken from each vector set, where no more are candidates


@dataclass(kw_only=True, eq=False)
class SteadyNeighbours(Neighbours):
    """Neighbours that tell in more respects how alike names are, and compare vectors by whitened axes.

    Their twins keep their order, whatever the rounding of products: trees would amplify it.
    """

    decimals: ClassVar[int | None] = 4
    whitened_from: ClassVar[int] = 1
    steady: ClassVar[bool] = True
    n_respects: ClassVar[int] = len(RESPECTS)


@dataclass(frozen=True)
class Decision:
    """How the expected errors of a row's candidates become one price."""

    # difference in expected SMAPE that divides a candidate's weight by e; 0: the best candidate alone
    temperature: float
    # True: the candidate with the least expected SMAPE to all; False: their mean log price
    is_candidate: bool


@dataclass(kw_only=True, eq=False)
class RerankedNeighbours(Head):
    """The price of the candidate that boosted trees expect the least SMAPE of.

    Candidates of a row are the log prices of its nearest training rows, each as it is and moved by the difference that
    `additive` sees between the two rows, the price by `additive` itself, and the means of both kinds. The trees learn
    the SMAPE of a candidate from how similar the two rows are in each respect, how many other candidates agree, and how
    far `additive` is away. They learn it on the rows fitted on, each retrieved without its own group and priced by an
    `additive` that was fitted without its inner fold. Several ensembles are averaged, each trained without another share of
    the groups. What these shares are priced at chooses whether the best candidate or a mean weighted by the expected
    errors is the price.
    """

    name: ClassVar[str] = "reranked-neighbours"
    summary: ClassVar[str] = "prices of the nearest training rows and of additive, ranked by boosted trees"
    texts: ClassVar[tuple[str, ...]] = ("full", "name")
    libraries: ClassVar[tuple[str, ...]] = ("faiss-cpu", "lightgbm", "scikit-learn", "scipy")
    side_by_side: ClassVar[bool] = True
    code_version: ClassVar[int] = 7
    takes_weights: ClassVar[bool] = True
    learning_exponent: ClassVar[float] = 0.0  # as of `neighbours`

    candidates: int = param(12, low=1, high=1000)  # nearest training rows whose prices are candidates
    n_inner_folds: int = param(5, low=2, high=100)  # inner folds for what additive prices rows at
    ranked_rows: int = param(  # rows whose candidates the trees learn from, at most
        20_000, low=8, high=1_000_000
    )
    bags: int = param(  # ensembles that are averaged, each trained without another share of the groups
        3, low=2, high=1000
    )
    n_estimators: int = param(50, low=1, high=100_000)  # trees of each
    learning_rate: float = param(0.12, low=1e-9, high=10)
    num_leaves: int = param(15, low=2, high=131_072)
    min_data_in_leaf: int = param(60, low=0, high=1e9)
    random_state: int = param(42, low=0, high=MOST_SEED)  # seed of the samples and the trees
    n_jobs: int = param(0, low=0, high=4096)  # cores, 0: all

    def _fit(self, rows: Rows, log_price: np.ndarray) -> None:
        cell = inner_cells(rows.group, self.n_inner_folds)
        groups = [len(np.unique(rows.group[cell != held])) for held in np.unique(cell)]
        self.below_: Head = Additive(random_state=self.random_state)
        if len(groups) < 2 or min(groups) < LEAST_GROUPS or np.ptp(log_price) == 0:
            self.below_.fit(rows, log_price)
            self.boosters_: list[Any] = []  # too few rows to learn an order on: the price is that of additive
            return
        found = crossfit(self.below_, rows, log_price, cell)
        self.below_ = found.model
        self._rank(rows, log_price, found.oof, vars(self).get("given_"))

    def fit_predict_folds(
        self, train: Rows, log_price: np.ndarray, fold: np.ndarray, test: Rows | None
    ) -> FoldPredictions | None:
        """See `Head.fit_predict_folds`; the inner folds of a fold are the other folds, so that two folds share a fit.

        What `additive` prices fold i at without the folds i and j serves the model that predicts j, and the other way
        round.
        """
        folds = np.unique(fold).tolist()
        pairs = list(combinations(folds, 2))
        left = [len(np.unique(train.group[(fold != i) & (fold != j)])) for i, j in pairs]
        if len(folds) < 3 or min(left) < LEAST_GROUPS:
            return None
        unfitted, counted = Additive(random_state=self.random_state), CountedRows.of(train)

        def without(held: tuple[int, ...], weights: Mapping[str, float] | None = None) -> BlockSum:
            return counted.fit(np.flatnonzero(~np.isin(fold, held)), log_price, unfitted, weights)

        # What each row is priced at for the model that predicts a fold, and without the row's own fold alone.
        below, oof = np.empty((len(folds), len(train))), np.empty(len(train))
        of_pairs = dict(zip(pairs, each_on_a_core(without, pairs, self.n_jobs), strict=True))
        for pair, fitted in of_pairs.items():
            for mine, other in (pair, pair[::-1]):
                rows_of = np.flatnonzero(fold == other)
                below[folds.index(mine), rows_of] = counted.predict(fitted, rows_of)

        def without_one(held: int) -> BlockSum:
            """With the mean weights of the pairs that this fold is of: none of them saw it."""
            return without(
                (held,), mean_weights([described(of_pairs[pair]) for pair in pairs if held in pair])
            )

        of_folds = dict(zip(folds, each_on_a_core(without_one, folds, self.n_jobs), strict=True))
        for held, fitted in of_folds.items():
            rows_of = np.flatnonzero(fold == held)
            oof[rows_of] = counted.predict(fitted, rows_of)

        def one_fold(held: int) -> tuple[np.ndarray, dict[str, Any]]:
            inside = np.flatnonzero(fold != held)
            head = self.clone()
            head._rank(train.subset(inside), log_price[inside], below[folds.index(held), inside])
            outside = np.flatnonzero(fold == held)
            return head._priced(train.subset(outside), oof[outside]), head.learned()

        predicted, learned = np.empty(len(train)), []
        for held, (of_fold, chosen) in zip(folds, each_on_a_core(one_fold, folds, self.n_jobs), strict=True):
            predicted[fold == held] = of_fold
            learned.append(chosen)
        weights = mean_weights([described(fitted) for fitted in of_pairs.values()])
        self.below_ = unfitted.take(counted, without((), weights))
        self._rank(train, log_price, oof, _agreed(learned))
        return FoldPredictions(predicted, None if test is None else self._predict(test), learned, self)

    def prepared(self, rows: Rows) -> Rows:
        """See `Head.prepared`; item names are cut into words once for all folds."""
        return rows.with_tokens(("name",))

    def _predict(self, rows: Rows) -> np.ndarray:
        below = self.below_.predict(rows)
        if not self.boosters_:
            return below
        return self._priced(rows, below)

    def _priced(self, rows: Rows, below: np.ndarray) -> np.ndarray:
        """Log prices of rows that `additive` prices at `below`, shape (n_rows,) each."""
        found = np.empty(len(rows))
        for start in range(0, len(rows), BLOCK_ROWS):
            part = np.arange(start, min(start + BLOCK_ROWS, len(rows)))
            near = self.near_.retrieved(rows.subset(part), self.candidates)
            log_price, features = self._candidates_of(near, below[part])
            found[part] = decided(log_price, self._expected(self.boosters_, features), self.decision_)
        return found

    def learned(self) -> dict[str, Any]:
        if not self.boosters_:
            return {}
        return {"temperature": self.decision_.temperature, "is_candidate": self.decision_.is_candidate}

    def for_refit(self, learned: list[dict[str, Any]]) -> "RerankedNeighbours":
        """What most folds decided; it is not decided again."""
        head = self.clone()
        vars(head)["given_"] = _agreed(learned)
        return head

    def files(self) -> dict[str, bytes]:
        """`model-<bag>.txt`: LightGBM's own text format, of expected SMAPE; `reranked.json`: the decision."""
        if not self.boosters_:
            return {}
        record = {**self.learned(), "features": self._feature_names()}
        models = {
            f"model-{bag}.txt": booster.model_to_string().encode()
            for bag, booster in enumerate(self.boosters_)
        }
        return {**models, "reranked.json": json.dumps(record).encode()}

    def fitted_state(self) -> dict[str, Any]:
        """See `Head.fitted_state`."""
        nested = {
            name: getattr(self, name).fitted_state() for name in ("below_", "near_") if hasattr(self, name)
        }
        return super().fitted_state() | nested

    def restore(self, state: dict[str, Any], rows: Callable[[pa.Array], Rows]) -> None:
        """See `Head.restore`."""
        heads: dict[str, Head] = {"below_": Additive(), "near_": self._unfitted_near()}
        for name in heads.keys() & state.keys():
            heads[name].restore(state[name], rows)
        super().restore(state | {name: heads[name] for name in heads.keys() & state.keys()}, rows)

    # ---- parts -----------------------------------------------------------------------------------

    def _unfitted_near(self) -> Neighbours:
        return SteadyNeighbours(candidates=max(PER_SET, self.candidates))

    def _rank(
        self,
        rows: Rows,
        log_price: np.ndarray,
        below: np.ndarray,
        given: Decision | None = None,
    ) -> None:
        """Learn the order of candidates.

        Args:
            below: what `additive` prices each row at without its inner fold, groups whole, shape (n_rows,).
            given: how they become a price; None: it is chosen.
        """
        import lightgbm

        lightgbm.register_logger(quiet_logger())
        self.log_price_, self.residual_ = log_price, log_price - below
        self.near_ = self._unfitted_near()
        ranked = np.sort(np.random.default_rng(self.random_state).permutation(len(rows))[: self.ranked_rows])
        near, of_rows = (
            self.near_.fit_retrieved(rows, log_price, ranked, self.candidates),
            rows.subset(ranked),
        )
        blocks = [slice(start, start + BLOCK_ROWS) for start in range(0, len(ranked), BLOCK_ROWS)]
        parts = [self._candidates_of(near.part(of), below[ranked[of]]) for of in blocks]
        prices, features = (np.concatenate(part) for part in zip(*parts, strict=True))
        error, part = smape_rows(log_price[ranked][:, None], prices), inner_cells(of_rows.group, self.bags)
        aside = [part == one for one in np.unique(part)]
        if len(aside) == 1:  # a single group: none is left out, nothing is chosen
            aside, given = [np.zeros(len(part), bool)], given or Decision(0.0, True)

        def trained(bag: int) -> tuple[Any, np.ndarray | None]:
            booster = self._trained(features, error, ~aside[bag], of_rows.weight, bag)
            return booster, None if given else self._expected([booster], features[aside[bag]])

        found = each_on_a_core(trained, range(len(aside)), self.n_jobs)
        self.boosters_ = [booster for booster, _ in found]
        if given is None:
            expected = np.zeros(prices.shape)
            for rows_of, (_, of_bag) in zip(aside, found, strict=True):
                expected[rows_of] = of_bag
            given = _best_decision(log_price[ranked], prices, expected, of_rows.weight)
        self.decision_ = given

    def _trained(
        self, features: np.ndarray, error: np.ndarray, chosen: np.ndarray, weight: np.ndarray | None, bag: int
    ) -> Any:
        """Trees that give the error of a candidate by its features, from the candidates of the chosen rows."""
        import lightgbm

        X = features[chosen].reshape(-1, features.shape[-1])
        params = {
            "objective": "regression",
            "learning_rate": self.learning_rate,
            "num_leaves": self.num_leaves,
            "min_data_in_leaf": min(self.min_data_in_leaf, len(X) // 4),
            "max_bin": 127,
            "feature_fraction": 0.7,
            "bagging_fraction": 0.7,
            "bagging_freq": 1,
            "seed": self.random_state + bag,
            "num_threads": n_cores(self.n_jobs),
            "deterministic": True,
            "force_col_wise": True,
            "verbosity": -1,
        }
        of_candidates = None if weight is None else np.repeat(weight[chosen], features.shape[1])
        data = lightgbm.Dataset(X, error[chosen].ravel(), weight=of_candidates)
        return lightgbm.train(params, data, self.n_estimators)

    def _expected(self, boosters: Sequence[Any], features: np.ndarray) -> np.ndarray:
        """The SMAPE that is expected of each candidate, shape (n_rows, n_candidates)."""
        X = features.reshape(-1, features.shape[-1])
        found = [one.predict(X, num_threads=n_cores(self.n_jobs)) for one in boosters]
        return np.asarray(np.mean(found, axis=0)).reshape(features.shape[:2])

    def _candidates_of(self, found: Retrieved, below: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log prices of the candidates (n_rows, n_candidates), their features (n_rows, n_candidates, n_features)."""
        known = found.position >= 0
        weight = np.where(known, found.weight, 0.0)
        total = weight.sum(axis=1, keepdims=True)
        own = below[:, None]
        residual = np.where(known, self.residual_[found.position], 0.0)
        near = np.where(known, self.log_price_[found.position], own)
        moved = own + residual
        share = weight / np.maximum(total, 1e-9)
        mean = np.where(total > 0, (share * near).sum(axis=1, keepdims=True), own)
        moved_mean = own + (share * residual).sum(axis=1, keepdims=True)
        prices = {NEIGHBOUR: near, MOVED: moved, SUM: own, MEAN: mean, MOVED_MEAN: moved_mean}
        of_row = [below, share.max(axis=1), _deviation(near, share), _deviation(moved, share)]
        features = [
            _features(kind, price, own, (near, moved), share, of_row, found, residual)
            for kind, price in prices.items()
        ]
        return np.concatenate(list(prices.values()), axis=1), np.concatenate(features, axis=1)

    def _feature_names(self) -> list[str]:
        """In the order of the columns that the trees see."""
        names = self.near_.similarity_names()
        agreement = [f"share within {t:g}" for t in TOLERANCES] + ["expected SMAPE"]
        return [
            *("kind", "log price", "log price less additive", "distance to additive"),
            *(f"{one} of {of}" for of in ("neighbours", "moved neighbours") for one in agreement),
            *("additive", "largest weight", "deviation of neighbours", "deviation of moved neighbours"),
            *(f"{of}: {name}" for of in ("cosine", "cosine less the largest") for name in names),
            *("rank", "weight", "residual of additive"),
        ]


def _best_decision(
    true: np.ndarray, prices: np.ndarray, expected: np.ndarray, weight: np.ndarray | None
) -> Decision:
    """That of the least SMAPE, on rows whose expected errors are of trees that did not see them."""
    trials = [Decision(one, of) for one in TEMPERATURES for of in (True, False)]
    scores = [smape_log(true, decided(prices, expected, one), weight) for one in trials]
    return trials[int(np.argmin(scores))]


def _agreed(learned: list[dict[str, Any]]) -> Decision | None:
    """What most folds decided; None: none of them had enough rows."""
    decisions = Counter(Decision(**chosen) for chosen in learned if chosen)
    return decisions.most_common(1)[0][0] if decisions else None


def _features(
    kind: int,
    price: np.ndarray,
    own: np.ndarray,
    others: tuple[np.ndarray, np.ndarray],
    share: np.ndarray,
    of_row: list[np.ndarray],
    found: Retrieved,
    residual: np.ndarray,
) -> np.ndarray:
    """What speaks for the candidates of one kind, shape (n_rows, n_candidates, n_features) float32.

    Args:
        price: their log prices, (n_rows, n_candidates).
        own: log price by `additive`, (n_rows, 1).
        others: log prices of the neighbours, and these moved, each (n_rows, n_neighbours).
        share: weights of the neighbours, (n_rows, n_neighbours).
        of_row: what is the same for all candidates of a row, each (n_rows,).
        residual: of `additive` at the neighbours, (n_rows, n_neighbours).
    """
    columns = [np.full(price.shape, float(kind)), price, price - own, np.abs(price - own)]
    for other in others:
        apart = np.abs(price[:, :, None] - other[:, None, :])
        columns += [np.einsum("rij,rj->ri", apart < t, share) for t in TOLERANCES]
        columns.append(np.einsum("rij,rj->ri", 200.0 * np.tanh(apart / 2.0), share))
    columns += [np.broadcast_to(one[:, None], price.shape) for one in of_row]
    cosine = found.similarity
    of_pair = [
        *cosine,
        *(cosine - np.max(np.where(np.isfinite(cosine), cosine, -1.0), axis=2, keepdims=True)),
        np.broadcast_to(np.arange(share.shape[1]), share.shape),
        share,
        residual,
    ]
    is_pair = kind in (NEIGHBOUR, MOVED)
    columns += of_pair if is_pair else [np.full(price.shape, np.nan)] * len(of_pair)
    return np.stack(columns, axis=-1).astype(np.float32)


def _deviation(price: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Standard deviation of weighted log prices, shape (n_rows,)."""
    mean = (share * price).sum(axis=1, keepdims=True)
    return np.asarray(np.sqrt((share * (price - mean) ** 2).sum(axis=1)))


def decided(prices: np.ndarray, expected: np.ndarray, decision: Decision) -> np.ndarray:
    """One log price a row, shape (n_rows,).

    Args:
        prices: log prices of candidates, (n_rows, n_candidates).
        expected: SMAPE of each, same shape.
    """
    if decision.temperature == 0:
        return np.asarray(prices[np.arange(len(prices)), expected.argmin(axis=1)])
    weight = np.exp((expected.min(axis=1, keepdims=True) - expected) / decision.temperature)
    weight /= weight.sum(axis=1, keepdims=True)
    return least_expected_smape(prices, weight) if decision.is_candidate else (weight * prices).sum(axis=1)
