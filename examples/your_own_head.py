"""A head of your own: checked, cross-predicted on plain arrays, and trained beside the others of a workspace.

Usage: python examples/your_own_head.py [FOLDER]; needs shelfprice[starter].

In a package of yours the last step is an entry point instead, and `shelfprice heads run --head bayes` finds it:

    [options.entry_points]
    shelfprice.heads =
        bayes = my_package:Bayes
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import BayesianRidge

import embed
import heads
import store


@dataclass(kw_only=True, eq=False)
class Bayes(heads.Head):
    """Bayesian ridge regression on vectors and fields; the penalty comes out of the fit."""

    name = "bayes"
    summary = "Bayesian ridge regression on vectors and fields"
    libraries = ("scikit-learn",)

    scale: str = "block"  # of the vectors, see heads.Design

    def _fit(self, rows: heads.Rows, log_price: np.ndarray) -> None:
        self.design_ = heads.Design(scale=self.scale).fit(rows)
        self.model_ = BayesianRidge().fit(self.design_.transform(rows), log_price)

    def _predict(self, rows: heads.Rows) -> np.ndarray:
        return self.model_.predict(self.design_.transform(rows))


def main(folder: Path) -> None:
    heads.check_head(Bayes())
    print("bayes passes every check of heads.check_head")

    demo, run = folder / "demo", folder / "run"
    store.make_demo(demo, n_train=200, n_test=40)
    store.ingest(run, demo / "train.csv", demo / "test.csv")
    embed.embed_catalogue(run, "minilm@structured")

    X, table = embed.vectors(run, "minilm@structured"), store.read_split(run)
    price, name = table["price"].to_numpy(), table["name"].to_pylist()
    found = heads.cross_predict(Bayes(target="price"), X, price, groups=name)
    print(f"bayes on vectors alone: SMAPE {store.smape(price, found):.1f}")

    heads.register_head("bayes", Bayes)
    for head in heads.train_heads(run, ["ridge", "bayes"]):
        print(f"{head.head} on vectors and fields: SMAPE {head.smape:.1f}, {head.folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "your-own-head"))
