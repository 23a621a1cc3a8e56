"""Text vectors and a head of shelfprice in a scikit-learn pipeline of your own.

Usage: python examples/vectors_in_sklearn.py [FOLDER]; needs shelfprice[starter] and pandas.
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import store
from embed import TextEncoder
from heads import Ridge


def main(folder: Path) -> None:
    store.make_demo(folder / "demo", n_train=200, n_test=0)
    store.ingest(folder / "run", folder / "demo/train.csv")
    table = store.read_split(folder / "run", "train").to_pandas()

    # The cache is that of the workspace: a second run encodes nothing.
    columns = ColumnTransformer(
        [
            ("name", TextEncoder("minilm", cache=folder / "run"), "name"),
            ("size", make_pipeline(SimpleImputer(), StandardScaler()), ["value", "pack_count"]),
        ]
    )
    regressors = {
        "heads.Ridge": Ridge(target="price"),
        "RidgeCV": TransformedTargetRegressor(
            RidgeCV(alphas=[1.0, 10.0, 100.0]), func=np.log, inverse_func=np.exp
        ),
    }
    for name, regressor in regressors.items():
        scores = cross_val_score(
            make_pipeline(columns, regressor),
            table,
            table["price"],
            groups=table["name"],  # rows of one name in one fold
            cv=GroupKFold(5),
            scoring=store.smape_scorer(),
        )
        print(f"{name}: SMAPE {-scores.mean():.1f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "vectors-in-sklearn"))
