"""How much of the price each block explains, by marginal likelihood; and ridge on blocks of given weights."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

LEAST, MOST = np.exp(-9.0), np.exp(7.0)  # of a block's variance over that of the noise
MAX_STEPS = 40  # of the search for weights
TOLERANCE = 1e-4  # of the residual, relative
MAX_PRODUCTS = 1000  # of conjugate gradients
SKETCHED_FROM = 500  # rows
SKETCH = 96  # directions of largest variance that are taken out of the way of conjugate gradients
SKETCHED_AT_ONCE = 8_000_000  # values of the sketch: of more rows it is made some directions at a time
BYTES_OF_SOLVER = 5 * 8 * SKETCH  # about what it takes of memory for each row
INTERCEPT = 10.0  # a column of it is an intercept that is barely shrunk
MERGED_BELOW = 4_000_000  # stored values of sparse blocks, where a product takes less time than its call


def find_weights(
    kernels: np.ndarray | Sequence[np.ndarray],
    target: np.ndarray,
    prior: float,
    noise: np.ndarray | None = None,
) -> np.ndarray:
    """Variance of each block over that of the noise, shape (n_blocks,), by marginal likelihood of a Gaussian model.

    All rows and all blocks take part at once, so that few rows suffice; the scale of the noise is profiled out.

    Args:
        kernels: shape (n_blocks, n_rows, n_rows), each centred, of mean diagonal 1.
        target: log price, shape (n_rows,).
        prior: weight of the squared logarithm of each variance in the objective, against extremes from few rows.
        noise: its variance in each row over that of a row of mean weight, shape (n_rows,); None: the same in all.

    Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning", chapter 5.
    """
    from scipy.linalg import cho_solve
    from scipy.optimize import minimize

    from heads.linear.lapack import cholesky, invert

    precision = None if noise is None else 1.0 / noise
    n, centred = len(target), target - np.average(target, weights=precision)
    diagonal = np.diag_indices(n)
    flat = np.asarray(kernels).reshape(len(kernels), n * n)
    upper = np.triu(np.full((n, n), 2.0), 1)  # a symmetric sum from one triangle
    upper[diagonal] = 1.0

    def objective(logs: np.ndarray) -> tuple[float, np.ndarray]:
        weights = np.exp(logs)
        inverse = (weights @ flat).reshape(n, n)
        inverse[diagonal] += 1.0 if noise is None else noise
        if not cholesky(inverse):
            raise np.linalg.LinAlgError("the kernels of the blocks hold values that are not finite")
        dual = cho_solve((inverse.T, True), centred, check_finite=False)
        squared = max(float(centred @ dual), 1e-12)
        log_determinant = 2.0 * float(np.log(inverse[diagonal]).sum())
        invert(inverse)
        inverse -= np.multiply.outer(dual * (n / squared), dual)
        inverse *= upper
        slopes = 0.5 * weights * (flat @ inverse.ravel())
        value = 0.5 * (n * np.log(squared / n) + log_determinant) + prior * float(logs @ logs)
        return value, slopes + 2.0 * prior * logs

    found = minimize(
        objective,
        np.zeros(len(flat)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(np.log(LEAST), np.log(MOST))] * len(flat),
        options={"maxiter": MAX_STEPS, "ftol": 1e-5},
    )
    return np.asarray(np.exp(found.x))


def centred_kernel(X: Any, scale: float) -> np.ndarray:
    """X X' of centred columns over scale^2, shape (n_rows, n_rows) float64; X is sparse or dense."""
    products = X @ X.T
    kernel = (products.toarray() if hasattr(products, "toarray") else products).astype(np.float64)
    kernel -= kernel.mean(axis=0)
    kernel -= kernel.mean(axis=1, keepdims=True)
    return np.asarray(kernel / scale**2)


def block_scale(X: Any) -> float:
    """Root of the mean squared length of centred rows, 0 where all rows are the same."""
    if not X.shape[1]:
        return 0.0
    squares = X.multiply(X).sum() if hasattr(X, "multiply") else np.einsum("ij,ij->", X, X, dtype=np.float64)
    mean = np.asarray(X.mean(axis=0, dtype=np.float64)).ravel()
    squared = float(squares) / X.shape[0] - float(mean @ mean)
    return float(np.sqrt(squared)) if squared > 1e-9 else 0.0


def solve_blocks(
    blocks: Sequence[Any],
    scales: Sequence[float],
    target: np.ndarray,
    row_weights: np.ndarray,
    tolerance: float = TOLERANCE,
) -> tuple[list[np.ndarray], float]:
    """Ridge on blocks side by side, by conjugate gradients on products with the blocks alone.

    Args:
        blocks: sparse or dense, shape (n_rows, n_columns) each.
        scales: what the columns of each are multiplied by; the penalty is 1.
        target: shape (n_rows,), of mean about 0.
        row_weights: shape (n_rows,).
        tolerance: of the residual, relative.

    Returns:
        Coefficients of each block's raw columns, and the intercept.
    """
    from scipy.sparse.linalg import LinearOperator, cg

    n, roots = len(target), np.sqrt(row_weights)
    matrices = [(X, X.T, scale) for X, scale in zip(*_merged(blocks, scales), strict=True)]

    def explained(vectors: np.ndarray) -> np.ndarray:
        """Products of the blocks' kernel with one vector, shape (n_rows,), or with several, (n_rows, n_vectors)."""
        weighted = (roots * vectors.T).T
        total = np.broadcast_to(INTERCEPT**2 * weighted.sum(axis=0), vectors.shape).copy()
        for X, transposed, scale in matrices:
            total += scale**2 * (X @ (transposed @ weighted.astype(X.dtype)))
        return np.asarray((roots * total.T).T)

    def multiplied(vector: np.ndarray) -> np.ndarray:
        return explained(vector.ravel()) + vector.ravel()

    operator = LinearOperator((n, n), matvec=multiplied, dtype=np.float64)
    near = _nystroem_inverse(explained, n) if n >= SKETCHED_FROM else None
    dual, _ = cg(operator, roots * target, rtol=tolerance, maxiter=MAX_PRODUCTS, M=near)
    weighted = roots * dual
    coefficients = [
        np.asarray(scale**2 * (block.T @ weighted), np.float32)
        for block, scale in zip(blocks, scales, strict=True)
    ]
    return coefficients, INTERCEPT**2 * float(weighted.sum())


def _merged(blocks: Sequence[Any], scales: Sequence[float]) -> tuple[list[Any], list[float]]:
    """Matrices with the same kernel, and their scales: small sparse blocks as one."""
    from scipy.sparse import hstack

    sparse = [at for at, block in enumerate(blocks) if hasattr(block, "nnz")]
    if len(sparse) < 2 or sum(blocks[at].nnz for at in sparse) >= MERGED_BELOW:
        return list(blocks), list(scales)
    one = hstack([blocks[at] * blocks[at].dtype.type(scales[at]) for at in sparse], "csr")
    rest = [at for at in range(len(blocks)) if at not in sparse]
    return [one, *(blocks[at] for at in rest)], [1.0, *(scales[at] for at in rest)]


def _nystroem_inverse(explained: Callable[[np.ndarray], np.ndarray], n_rows: int) -> Any:
    """About the inverse of kernel plus identity, as an operator: exact along the kernel's largest directions.

    A few directions, such as what all rows have in common, have a variance of millions; conjugate gradients would take
    hundreds of steps to tell them from the rest.

    Args:
        explained: vectors of shape (n_rows, n_vectors) -> products of the kernel with them.

    Source: Frangella, Tropp and Udell, "Randomized Nystroem preconditioning", SIAM J. Matrix Anal. Appl. 44 (2023).
    """
    from scipy.linalg import eigh, qr, svd
    from scipy.sparse.linalg import LinearOperator

    draws = np.random.default_rng(0).standard_normal((n_rows, SKETCH))
    basis = qr(draws, mode="economic", overwrite_a=True, check_finite=False)[0]
    at_once = max(1, SKETCHED_AT_ONCE // n_rows)
    parts = [explained(basis[:, at : at + at_once]) for at in range(0, SKETCH, at_once)]
    sketch = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    del parts
    among = basis.T @ sketch
    values, vectors = eigh((among + among.T) / 2, check_finite=False)
    sure = values > 1e-6 * values[-1]  # products are of single precision: the rest may be noise
    del basis, draws
    root = sketch @ vectors[:, sure]
    root /= np.sqrt(values[sure])
    del sketch
    directions, lengths, _ = svd(root, full_matrices=False, overwrite_a=True, check_finite=False)
    variances = lengths**2
    rest = variances[-1] if sure.all() else 0.0  # of the directions that are not among these
    shrunk = (rest + 1.0) / (variances + 1.0) - 1.0

    def multiplied(vector: np.ndarray) -> np.ndarray:
        column = vector.ravel()
        return np.asarray(column + directions @ (shrunk * (directions.T @ column)))

    return LinearOperator((n_rows, n_rows), matvec=multiplied, dtype=np.float64)
