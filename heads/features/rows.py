"""Rows as heads read them: vectors, parsed fields, texts, groups. Nothing here is fitted."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from heads.features.tfidf import Tokens
from store.errors import HeadError
from store.schema import CATEGORICAL_PREFIX, NUMERIC_PREFIX
from store.vectors.folded import FoldedMatrix
from store.vectors.matrix import Matrix
from store.vectors.ondisk import OnDisk


@dataclass(frozen=True)
class CategoricalColumn:
    """One categorical column."""

    levels: tuple[str, ...]
    codes: np.ndarray  # (n_rows,) int32 into `levels`, -1 where missing


@dataclass(frozen=True)
class FieldTable:
    """Parsed fields as a table: numbers and categories."""

    names: tuple[str, ...] = ()  # of the columns of X
    X: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))  # (n_rows, n_numbers), NaN where missing
    categories: Mapping[str, CategoricalColumn] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # messages about the columns

    def subset(self, index: np.ndarray) -> "FieldTable":
        """The chosen rows, by positions or mask."""
        chosen = {name: CategoricalColumn(c.levels, c.codes[index]) for name, c in self.categories.items()}
        return FieldTable(self.names, self.X[index], chosen)

    def further(self) -> "FieldTable":
        """The further columns of the user's file alone, without what is parsed out of the text."""
        at = [i for i, name in enumerate(self.names) if name.startswith(NUMERIC_PREFIX)]
        kept = {name: c for name, c in self.categories.items() if name.startswith(CATEGORICAL_PREFIX)}
        return FieldTable(tuple(self.names[i] for i in at), self.X[:, at], kept)


@dataclass(frozen=True)
class Rows:
    """Rows of a catalogue as heads take them: vectors, fields, texts and groups, all in one order."""

    sample_id: pa.Array  # (n_rows,)
    matrices: tuple[Matrix, ...]  # one per vector set; a row without a vector is zero and not valid
    fields: FieldTable
    texts: Mapping[str, np.ndarray]  # composition -> (n_rows,) str objects, "" where there is no text
    group: np.ndarray  # (n_rows,) int64: rows of one group stay together in inner splits
    folded: tuple[FoldedMatrix, ...] = ()  # of fine-tuned encoders: among `matrices` once a fold is chosen
    tokens: Mapping[str, Tokens] = field(default_factory=dict)  # composition -> its texts cut into words
    weight: np.ndarray | None = None  # (n_rows,) what each counts in a fit, > 0; None: all alike

    def __len__(self) -> int:
        return len(self.sample_id)

    def subset(self, index: np.ndarray) -> "Rows":
        """The chosen rows, by positions or mask."""
        return Rows(
            self.sample_id.filter(pa.array(index))
            if index.dtype == bool
            else self.sample_id.take(pa.array(index)),
            tuple(matrix.rows(index) for matrix in self.matrices),
            self.fields.subset(index),
            {name: texts[index] for name, texts in self.texts.items()},
            self.group[index],
            tuple(matrix.rows(index) for matrix in self.folded),
            {name: tokens.subset(index) for name, tokens in self.tokens.items()},
            None if self.weight is None else self.weight[index],
        )

    def with_tokens(self, compositions: Sequence[str]) -> "Rows":
        """The same rows with the words of these compositions, so that parts of the rows need not be cut again."""
        cut = {name: Tokens.of(self.texts[name]) for name in compositions if name in self.texts}
        return dataclasses.replace(self, tokens=cut)

    def for_fold(self, fold: int) -> "Rows":
        """The same rows as a head may see them that is fitted without this fold, or predicts it.

        Vectors of fine-tuned encoders are those of the model that never saw the fold.

        Raises:
            FoldMismatchError: an encoder was not tuned for that fold.
        """
        if not self.folded:
            return self
        matched = tuple(matrix.for_fold(fold) for matrix in self.folded)
        return dataclasses.replace(self, matrices=(*self.matrices, *matched), folded=())

    def select(self, vectors: Sequence[str]) -> "Rows":
        """The same rows with the named vector sets alone, in that order, those with a matrix a fold last."""
        plain = {matrix.name: matrix for matrix in self.matrices}
        folded = {matrix.name: matrix for matrix in self.folded}
        assert set(vectors) <= plain.keys() | folded.keys()
        return dataclasses.replace(
            self,
            matrices=tuple(plain[name] for name in vectors if name in plain),
            folded=tuple(folded[name] for name in vectors if name in folded),
        )

    @property
    def n_columns(self) -> int:
        """Dimensions of all vector sets together, of fine-tuned encoders for every fold."""
        folded = sum(matrix.dim * len(matrix.by_fold) for matrix in self.folded)
        return folded + sum(matrix.dim for matrix in self.matrices)

    @property
    def on_disk(self) -> bool:
        """Whether any vectors lie in a file."""
        of_folds = [matrix for folded in self.folded for matrix in folded.by_fold.values()]
        return any(isinstance(matrix.X, OnDisk) for matrix in (*self.matrices, *of_folds))

    def in_memory(self) -> "Rows":
        """The same rows with their vectors in memory."""
        return dataclasses.replace(
            self,
            matrices=tuple(matrix.in_memory() for matrix in self.matrices),
            folded=tuple(matrix.in_memory() for matrix in self.folded),
        )

    def text(self, composition: str) -> np.ndarray:
        """Texts of one composition, shape (n_rows,) of str.

        Raises:
            HeadError: these rows were read without it.
        """
        if composition not in self.texts:
            raise HeadError(
                f"rows hold no texts of composition {composition!r}, "
                f"only {', '.join(self.texts) or 'none'}: name it in the head's `texts`"
            )
        return self.texts[composition]

    @classmethod
    def from_array(cls, X: np.ndarray, *, seen: bool = True) -> "Rows":
        """A plain matrix, shape (n_rows, n_columns), as rows with one vector set, each its own group.

        A row that is NaN throughout is a row without a vector.

        Args:
            seen: False for rows to predict: their groups are none of the training rows'.
        """
        n_rows, valid = len(X), ~np.isnan(X).all(axis=1)
        if not valid.all():
            X = X.copy()
            X[~valid] = 0
        return cls(
            sample_id=pa.array(np.arange(n_rows)),
            matrices=(Matrix("X", X, valid),),
            fields=FieldTable((), np.empty((n_rows, 0))),
            texts={},
            group=np.arange(n_rows) if seen else -1 - np.arange(n_rows),
        )
