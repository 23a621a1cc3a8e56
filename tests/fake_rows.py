"""Rows as heads see them, made on the spot: two vector sets, fields, texts and prices that hang together."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from heads.features.rows import CategoricalColumn, FieldTable, Rows
from store.vectors.matrix import Matrix


def with_one_core() -> Iterator[None]:
    """Fits this small are over before a second core has been woken. For an autouse fixture."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


# Parameters that make a head cheap; one that is not named here runs with its defaults.
QUICK: dict[str, dict[str, object]] = {
    "lightgbm": {"n_estimators": 80, "learning_rate": 0.2, "num_leaves": 7, "colsample_bytree": 1.0},
    "fusion": {
        "projected": 32,
        "hidden": (32,),
        "seeds": 1,
        "batch_rows": 32,
        "dropout": 0.1,
        "learning_rate": 5e-3,
    },
    "mlp-batchnorm": {"hidden": (32, 16), "seeds": 1, "batch_rows": 64, "dropout": 0.0, "epochs": 20},
    "mlp-layernorm": {"hidden": (32, 16), "seeds": 1, "batch_rows": 64, "dropout": 0.0, "epochs": 20},
    "sparse-mlp": {"hidden": (16, 8), "seeds": 1, "batch_rows": 32, "epochs": 15},
    "tabm": {"members": 4, "width": 16, "blocks": 1, "batch_rows": 64, "epochs": 20},
    "xgboost": {
        "n_estimators": 60,
        "learning_rate": 0.2,
        "max_depth": 3,
        "colsample_bytree": 1.0,
        "subsample": 1.0,
        "n_jobs": 1,
    },
    "xgboost-baseline": {
        "n_estimators": 40,
        "max_depth": 3,
        "learning_rate": 0.2,
        "brands": False,
        "n_jobs": 1,
    },
}
BRANDS = ("acme", "bolt", "crest", "dune", "elm", "fern", "gale", "hart")


def fake_rows(n_rows: int, seed: int = 0, no_image: float = 0.2) -> tuple[Rows, np.ndarray]:
    """Rows in pairs that share a group, and their log price of shape (n_rows,).

    A quarter of the price's spread is noise; the rest is told by brand, size, both vectors and the words.
    """
    rng = np.random.default_rng(seed)
    group = np.arange(n_rows) // 2
    brand = rng.integers(0, len(BRANDS), n_rows)
    size = rng.lognormal(4, 1, n_rows)
    text, image = rng.standard_normal((n_rows, 12)), rng.standard_normal((n_rows, 6))
    valid = rng.random(n_rows) >= no_image
    signal = 0.3 * brand + 0.5 * np.log(size) + 0.3 * text[:, 0] + 0.3 * image[:, 0] * valid
    log_price = 1 + signal + rng.normal(0, 0.25, n_rows)
    names = [f"{BRANDS[b]} thing number{b} of {s:.0f} g" for b, s in zip(brand, size, strict=True)]
    numbers = np.column_stack(
        [np.where(rng.random(n_rows) < 0.1, np.nan, np.log(size)), np.zeros(n_rows), rng.random(n_rows) < 0.5]
    )
    fields = FieldTable(
        ("log_value", "log_pack_count", "flag:organic"),
        numbers,
        {
            "unit": CategoricalColumn(("g",), np.zeros(n_rows, np.int32)),
            "fact:brand": CategoricalColumn(BRANDS, brand.astype(np.int32)),
        },
    )
    texts = np.array(names, dtype=object)
    rows = Rows(
        sample_id=pa.array(np.arange(n_rows) + 1000),
        matrices=(
            Matrix("minilm@structured", text.astype(np.float16), np.ones(n_rows, dtype=bool)),
            Matrix("efficientnet-lite0", (image * valid[:, None]).astype(np.float16), valid),
        ),
        fields=fields,
        texts={composition: texts for composition in ("full", "name", "structured")},
        group=group,
    )
    return rows, log_price


def rows_for(head: type, rows: Rows) -> Rows:
    """The rows with the vector sets that a head reads; one that names its own gets as many of the fake ones."""
    if head.vectors is None:
        return rows
    return rows.select([matrix.name for matrix in rows.matrices[: len(head.vectors)]])


def folds_of(rows: Rows, k: int = 4) -> np.ndarray:
    """A fold a row, groups whole, shape (n_rows,)."""
    return (rows.group % k).astype(np.int16)
