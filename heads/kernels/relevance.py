"""The variance of each part of a Gaussian process, and the precision of each field in the distances of rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

FIELDS, FIELDS_AND_WORDS = "fields", "fields x words"  # the local parts
LEAST, MOST = -9.0, 7.0  # logarithm of a variance over that of the noise
LEAST_PRECISION, MOST_PRECISION = -12.0, 4.0  # logarithms
MAX_STEPS = 60  # of the search


@dataclass(frozen=True)
class Relevance:
    """Variances over that of the noise, and precisions of fields."""

    linear: dict[str, float]  # block -> its variance
    local: dict[str, float]  # local part -> its variance
    precision: dict[str, float]  # field -> what its squared distances are multiplied by

    def to_json(self) -> dict[str, Any]:
        """As plain values, rounded."""
        return {
            kind: {name: float(f"{value:.4g}") for name, value in getattr(self, kind).items()}
            for kind in ("linear", "local", "precision")
        }

    @classmethod
    def mean(cls, records: list[dict[str, Any]]) -> "Relevance":
        """The geometric mean of each value over the records of `to_json` that have it."""
        means = []
        for kind in ("linear", "local", "precision"):
            names = dict.fromkeys(name for record in records for name in record[kind])
            values = {name: [one[kind][name] for one in records if name in one[kind]] for name in names}
            means.append({name: float(np.exp(np.mean(np.log(found)))) for name, found in values.items()})
        return cls(*means)


@dataclass(frozen=True)
class Evidence:
    """The marginal likelihood of log prices under a sum of linear kernels, a smooth one of fields, and that times words.

    Args:
        linear: block -> kernel of shape (n_rows, n_rows), centred, of mean diagonal 1.
        columns: of fields, shape (n_rows, n_columns); distances are weighted sums of theirs.
        owner: field of each column, shape (n_columns,), into `names`.
        names: fields.
        words: how alike the words of two rows are, shape (n_rows, n_rows); None: there are none.
        target: log price less its mean, shape (n_rows,).
        noise: its variance in each row over that of a row of mean weight, shape (n_rows,).
        prior: weight of squared logarithms in the objective, of variances over 1 and of precisions over one a field.

    Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning", chapter 5.
    """

    linear: Mapping[str, np.ndarray]
    columns: np.ndarray
    owner: np.ndarray
    names: list[str]
    words: np.ndarray | None
    target: np.ndarray
    noise: np.ndarray
    prior: float

    def find(self) -> Relevance:
        """The most likely values."""
        from scipy.optimize import minimize

        variances = len(self.linear) + len(self._local_parts)
        bounds = [(LEAST, MOST)] * variances + [(LEAST_PRECISION, MOST_PRECISION)] * len(self.names)
        options = {"maxiter": MAX_STEPS, "ftol": 1e-5}
        found = minimize(
            self._objective, self._middle, jac=True, method="L-BFGS-B", bounds=bounds, options=options
        )
        return self._relevance(np.exp(found.x))

    @property
    def _local_parts(self) -> list[str]:
        if not self.names:
            return []
        return [FIELDS] if self.words is None else [FIELDS, FIELDS_AND_WORDS]

    @property
    def _middle(self) -> np.ndarray:
        """What the prior draws the logarithms to."""
        variances = np.zeros(len(self.linear) + len(self._local_parts))
        return np.concatenate([variances, np.full(len(self.names), -np.log(max(len(self.names), 1)))])

    def _relevance(self, values: np.ndarray) -> Relevance:
        at = len(self.linear) + len(self._local_parts)
        return Relevance(
            dict(zip(self.linear, values[: len(self.linear)].tolist(), strict=True)),
            dict(zip(self._local_parts, values[len(self.linear) : at].tolist(), strict=True)),
            dict(zip(self.names, values[at:].tolist(), strict=True)),
        )

    def _near(self, precision: np.ndarray) -> np.ndarray:
        return rational_quadratic(self.columns, self.columns, precision[self.owner])

    def _local(self, near: np.ndarray, variances: list[float]) -> list[np.ndarray]:
        """The local parts, each times its variance."""
        parts = [variances[0] * near]
        if self.words is not None:
            parts.append(variances[1] * near * self.words)
        return parts

    def _objective(self, logs: np.ndarray) -> tuple[float, np.ndarray]:
        from scipy.linalg import cho_factor, cho_solve, lapack

        n, found = len(self.target), self._relevance(np.exp(logs))
        precision = np.array(list(found.precision.values()))
        near = self._near(precision) if found.local else np.zeros((n, n))
        local = self._local(near, list(found.local.values())) if found.local else []
        total = sum(local, np.zeros((n, n)))
        for name, kernel in self.linear.items():
            total += found.linear[name] * kernel
        diagonal = np.diag_indices(n)
        total[diagonal] += self.noise
        factor, lower = cho_factor(total, lower=True, overwrite_a=True, check_finite=False)
        dual = cho_solve((factor, lower), self.target, check_finite=False)
        squared = max(float(self.target @ dual), 1e-12)  # the scale of the noise is profiled out
        value = 0.5 * (n * np.log(squared / n) + 2.0 * float(np.log(factor[diagonal]).sum()))
        slope = lapack.dpotri(factor, lower=1)[0]
        slope = np.tril(slope) + np.tril(slope, -1).T
        slope -= (n / squared) * np.outer(dual, dual)
        slope *= 0.5  # of the objective by each entry of the kernel
        slopes = [found.linear[name] * np.vdot(slope, kernel) for name, kernel in self.linear.items()]
        slopes += [np.vdot(slope, part) for part in local]
        if local:
            slope *= sum(local)
            slope *= near  # by half the squared distance a rational quadratic falls by its square
            products = np.einsum("ij,ij->j", self.columns, slope @ self.columns)
            apart = slope.sum(axis=1) @ (self.columns * self.columns) - products
            slopes += (-precision * np.bincount(self.owner, apart, len(self.names))).tolist()
        away = logs - self._middle
        return value + self.prior * float(away @ away), np.array(slopes) + 2.0 * self.prior * away


def rational_quadratic(left: np.ndarray, right: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """1 over 1 plus half the squared distances, shape (n_left, n_right).

    It is a mixture of Gaussians of all lengths: rows that are a little apart still tell something of one another.

    Args:
        left, right: shape (n_rows, n_columns).
        precision: of each column, shape (n_columns,).

    Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning", section 4.2.
    """
    left, right = left * np.sqrt(precision), right * np.sqrt(precision)
    apart = left @ right.T
    apart *= -2.0
    apart += np.einsum("ij,ij->i", left, left)[:, None]
    apart += np.einsum("ij,ij->i", right, right)
    np.maximum(apart, 0.0, out=apart)
    apart *= 0.5
    apart += 1.0
    return np.reciprocal(apart, out=apart)
