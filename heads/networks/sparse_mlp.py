"""`sparse-mlp`: TF-IDF straight into small networks, several averaged: how the Mercari challenge was won."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from heads.features.columns import column_words
from heads.features.design import FieldBlock
from heads.features.rows import Rows
from heads.features.tfidf import WordPairs
from heads.networks.head import NetworkHead
from heads.params import param
from store.errors import HeadError

if TYPE_CHECKING:
    from torch import nn

    from heads.networks.training import Batch


@dataclass(kw_only=True, eq=False)
class SparseMlp(NetworkHead):
    """Small networks on log price of TF-IDF of words and pairs of texts and further columns, with fields, averaged.

    Each has 192-64-64-1 units; its first layer is a sparse product.

    Source: Lopuhin and Jankiewicz, Mercari price suggestion challenge, first place (2018).
    """

    name: ClassVar[str] = "sparse-mlp"
    summary: ClassVar[str] = "TF-IDF of words and pairs into small networks, several averaged"
    vectors: ClassVar[tuple[str, ...]] = ()
    texts: ClassVar[tuple[str, ...]] = ("full",)
    libraries: ClassVar[tuple[str, ...]] = ("torch", "scikit-learn")
    code_version: ClassVar[int] = 6

    learning_rate: float = 3e-3
    batch_rows: int = 512
    epochs: int = 12
    patience: int = 3
    seeds: int = 3
    hidden: tuple[int, ...] = param((192, 64, 64), low=1, high=16_384, least_items=1)
    min_df: int = param(2, low=1, high=1e9, was="min_rows")  # training rows that must hold a term
    max_features: int = param(60_000, low=1, high=1e8, was="max_words")  # terms, at most

    def _fit_features(self, rows: Rows) -> None:
        self.words_ = WordPairs(self.min_df, self.max_features)
        self.words_.fit_transform(self._texts(rows))
        self.field_block_ = FieldBlock().fit(rows) if self.fields else None
        if not self.words_.n_terms and not self._widths()[0]:
            raise HeadError(
                f"{self.name}: no word occurs in {self.min_df} or more of the {len(rows)} rows: name the text column by "
                "--text-column of 'shelfprice catalog ingest'"
            )

    def _texts(self, rows: Rows) -> np.ndarray:
        """Shape (n_rows,) of str: what the rows say, and, unless fields are left out, the words of further columns."""
        texts = rows.text("full")
        return texts + " " + column_words(rows.fields) if self.fields else texts

    def _widths(self) -> list[int]:
        return [0 if self.field_block_ is None else len(self.field_block_.names_)]

    def _network(self, widths: list[int]) -> "nn.Module":
        from heads.networks.layers import SparseNetwork

        return SparseNetwork(self.words_.n_terms, widths[0], self.hidden)

    def _training_batch(self, rows: Rows) -> "Batch":
        return self._batch(rows)

    def _batch(self, rows: Rows) -> "Batch":
        import torch

        X = self.words_.transform(self._texts(rows))
        dense = None
        if self.field_block_ is not None and self.field_block_.names_:
            dense = torch.from_numpy(self.field_block_.transform(rows))

        def batch(network: "nn.Module", index: "torch.Tensor") -> "torch.Tensor":
            part = X[index.numpy()]
            out: torch.Tensor = network(
                torch.from_numpy(part.indices.astype(np.int64)),
                torch.from_numpy(part.indptr.astype(np.int64)),
                torch.from_numpy(part.data),
                None if dense is None else dense[index],
            )
            return out

        return batch
