"""TF-IDF in two steps: counting, which fits nothing but a vocabulary, and weighting, fitted inside the fold.

Terms are words, or characters where a text has no words to tell rows apart by: see `token_pattern`.
"""

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from store.catalog.parse.words import UNSPACED

COLUMNS = "named columns"  # in place of a composition: the words of further columns
WORD = r"(?u)\b\w+\b"
CHARACTER = r"(?u)\w"
UNSPACED_CHARACTER_OR_WORD = rf"(?u)[{UNSPACED}]|[^\W{UNSPACED}]+"
MANY_TEXTS = 1000  # from which numbering words is worth looking all known terms up
SAMPLED_TEXTS = 2000  # that the script is told by
MOST_KEPT_WORDS, MOST_KEPT_LETTERS = (
    20_000,
    30,
)  # of new texts, whose characters were looked up; longer ones are rare


def is_unspaced(texts: Sequence[str] | np.ndarray) -> bool:
    """Whether most letters of the texts are of scripts without spaces; the first `SAMPLED_TEXTS` are looked at."""
    sample = " ".join(texts[:SAMPLED_TEXTS])
    return 2 * len(re.findall(f"[{UNSPACED}]", sample)) > len(re.findall(r"[^\W\d_]", sample))


def token_pattern(texts: Sequence[str] | np.ndarray) -> str:
    """What a term is in such texts: a word, or a single character of a script without spaces."""
    return UNSPACED_CHARACTER_OR_WORD if is_unspaced(texts) else WORD


# ---- counting ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Terms:
    """One family of terms: which text, cut how."""

    composition: str
    analyzer: str  # "word", "char" or "char_wb"
    shortest: int  # terms of so many words or characters …
    longest: int  # … to so many

    def count(self, texts: np.ndarray, min_df: int) -> tuple[Any, Any]:
        """A fitted scikit-learn counter and its counts, sparse float32 of shape (n_texts, n_terms).

        Words that no `min_df` texts share, such as codes, are cut to characters, other than those of further columns.
        Terms held by fewer texts than that could never be used in a fold.
        """
        from sklearn.feature_extraction.text import CountVectorizer

        vectorizer = CountVectorizer(
            analyzer=self.analyzer,
            ngram_range=(self.shortest, self.longest),
            token_pattern=token_pattern(texts) if self.analyzer == "word" else None,
            min_df=min_df,
            dtype=np.float32,
        )
        if found := _numbered(vectorizer, texts):
            terms, counts = found
            kept = np.flatnonzero(_held_by(counts) >= min_df)
            if len(kept):
                kept = kept[np.argsort(terms[kept], kind="stable")]  # as scikit-learn orders them
                vectorizer.vocabulary_ = {term: at for at, term in enumerate(terms[kept].tolist())}
                return vectorizer, _in_order(counts[:, kept])
        else:
            try:
                return vectorizer, vectorizer.fit_transform(texts)
            except ValueError as error:  # scikit-learn's words for an empty vocabulary
                if "vocabulary" not in str(error) and "no terms remain" not in str(error).lower():
                    raise
        if self.analyzer == "word" and self.composition != COLUMNS:
            return Terms(self.composition, "char", 1, 3).count(texts, min_df)
        return vectorizer, _no_terms(len(texts))


@dataclass(frozen=True)
class VocabularyCounter:
    """Counts known terms as the scikit-learn counter does that found them, without the time that its import takes."""

    analyzer: str  # "word", "char" or "char_wb"
    ngram_range: tuple[int, int]
    token_pattern: str | None  # of words
    vocabulary_: dict[str, int]  # term -> column
    _of_words: dict[str, list[int]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def transform(self, texts: Sequence[str] | np.ndarray) -> Any:
        """Sparse float32 of shape (n_texts, n_terms)."""
        import scipy.sparse as sp

        counts = [Counter(self._columns(text.lower())) for text in texts]
        column = [at for one in counts for at in sorted(one)]
        count = [one[at] for one in counts for at in sorted(one)]
        start = np.cumsum([0, *map(len, counts)])
        shape = len(texts), len(self.vocabulary_)
        return sp.csr_matrix((np.array(count, np.float32), np.array(column, np.int32), start), shape)

    def get_feature_names_out(self) -> np.ndarray:
        """Terms in the order of their columns, shape (n_terms,) of str."""
        return np.array(sorted(self.vocabulary_, key=self.vocabulary_.__getitem__), object)

    def _columns(self, text: str) -> Iterable[int]:
        """The column of each known term of a text."""
        shortest, longest = self.ngram_range
        if self.analyzer == "word":
            words = re.findall(self.token_pattern or WORD, text)
            runs = (zip(*(words[at:] for at in range(n)), strict=False) for n in range(shortest, longest + 1))
            return self._known(map(" ".join, chain.from_iterable(runs)))
        if self.analyzer == "char":
            return self._known(_cuts(re.sub(r"\s\s+", " ", text), shortest, longest))
        return chain.from_iterable(map(self._columns_of_word, text.split()))

    def _columns_of_word(self, word: str) -> list[int]:
        """Those of a word's characters; kept, since the words of new texts are mostly the same."""
        found = self._of_words.get(word)
        if found is None:
            found = self._known(_cuts(f" {word} ", *self.ngram_range))
            if len(self._of_words) >= MOST_KEPT_WORDS:
                self._of_words.clear()
            if len(word) <= MOST_KEPT_LETTERS:
                self._of_words[word] = found
        return found

    def _known(self, terms: Iterable[str]) -> list[int]:
        return [at for at in map(self.vocabulary_.get, terms) if at is not None]


def _cuts(text: str, shortest: int, longest: int) -> Iterator[str]:
    """Each run of `shortest` to `longest` characters; the text itself, once, where it is no longer than that."""
    for n in range(shortest, longest + 1):
        yield from (text[at : at + n] for at in range(max(len(text) - n, 0) + 1))
        if len(text) <= n:
            break


def counts_of(vectorizer: Any, texts: np.ndarray) -> Any:
    """Counts of further texts by a counter of `Terms.count`, or one restored; no columns where it found no term."""
    known: dict[str, int] = getattr(vectorizer, "vocabulary_", None) or {}
    if not known:
        return _no_terms(len(texts))
    if len(texts) < MANY_TEXTS or (found := _numbered(vectorizer, texts)) is None:
        return vectorizer.transform(texts)
    import scipy.sparse as sp

    terms, counts = found
    to = np.array([known.get(term, -1) for term in terms.tolist()], np.int64)
    held = np.flatnonzero(to >= 0)
    shape = len(terms), len(known)
    kept = sp.csr_matrix((np.ones(len(held), np.float32), (held, to[held])), shape)
    return _in_order(sp.csr_matrix(counts @ kept))


def _numbered(vectorizer: Any, texts: np.ndarray) -> tuple[np.ndarray, Any] | None:
    """Every term of the texts and its counts, a few times faster than scikit-learn counts them.

    Words are numbered, pairs of them are pairs of numbers, and characters are cut out of each word once.

    Returns:
        Terms, shape (n_terms,) of str, and their counts, shape (n_texts, n_terms); None for other counters.
    """
    import scipy.sparse as sp

    known = dict[str, int]()
    if vectorizer.analyzer == "word" and vectorizer.ngram_range in ((1, 1), (1, 2)):
        pairs = WordPairs()
        counts = pairs._count_new(texts, vectorizer.token_pattern, None)
        words = np.array(list(pairs.words_), object)
        if vectorizer.ngram_range == (1, 1) or not len(words):
            return words, counts[:, : len(words)]
        return np.concatenate(
            [words, words[pairs.pairs_ >> 32] + " " + words[pairs.pairs_ & 0xFFFFFFFF]]
        ), counts
    if vectorizer.analyzer != "char_wb":
        return None
    start, word = _cut(texts, r"\S+", known, grow=True)
    held = sp.csr_matrix((np.ones(len(word), np.float32), word, start), (len(texts), len(known)))
    if not known:
        return np.empty(0, object), held
    from sklearn.feature_extraction.text import CountVectorizer

    letters = CountVectorizer(analyzer="char_wb", ngram_range=vectorizer.ngram_range, dtype=np.float32)
    of_word = letters.fit_transform(list(known))
    return letters.get_feature_names_out(), sp.csr_matrix(held @ of_word)


def _in_order(counts: Any) -> Any:
    """The counts with the columns of each row in order: sums over them do not depend on which other rows were counted."""
    counts.sort_indices()
    return counts


def _no_terms(n_texts: int) -> Any:
    import scipy.sparse as sp

    return sp.csr_matrix((n_texts, 0), dtype=np.float32)


# ---- weighting -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weighting:
    """TF-IDF of counts: 1 + log of the count, times smoothed idf, each row scaled to length 1."""

    columns: np.ndarray  # (n_kept,) of the counts: terms frequent enough in the fitted rows
    idf: np.ndarray  # (n_kept,) float32

    @classmethod
    def fit(cls, counts: Any, min_df: int = 1, max_features: int | None = None) -> "Weighting":
        """From the counts of the fitted rows alone, sparse of shape (n_rows, n_terms).

        Args:
            min_df: rows that must hold a term.
            max_features: terms that are kept at most, those that most rows hold.
        """
        n_rows = counts.shape[0]
        held_by = _held_by(counts)
        columns = np.flatnonzero(held_by >= min(min_df, n_rows))
        if max_features is not None and len(columns) > max_features:
            columns = np.sort(columns[np.argsort(-held_by[columns], kind="stable")[:max_features]])
        idf = np.log((1 + n_rows) / (1 + held_by[columns])) + 1
        return cls(columns, idf.astype(np.float32))

    def transform(self, counts: Any) -> Any:
        """Sparse float32 of shape (n_rows, n_kept)."""
        X = counts[:, self.columns]
        X.data = (1 + np.log(X.data)) * self.idf[X.indices]
        row = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
        X.data /= np.sqrt(np.bincount(row, X.data * X.data, X.shape[0]))[row]
        return X


# ---- words and pairs of words --------------------------------------------------------------------


@dataclass(frozen=True)
class Tokens:
    """Texts cut into words once, for heads that count parts of them again and again; nothing is fitted."""

    pattern: str
    known: tuple[str, ...]  # every word, by its number
    word: np.ndarray  # (n_words,) int32: those of the first text, then those of the second
    start: np.ndarray  # (n_texts + 1,) int64: where each text begins in `word`

    @classmethod
    def of(cls, texts: np.ndarray) -> "Tokens":
        """Of texts, shape (n_texts,) of str."""
        pattern, known = token_pattern(texts), dict[str, int]()
        start, word = _cut(texts, pattern, known, grow=True)
        return cls(pattern, tuple(known), word, start)

    def subset(self, index: np.ndarray) -> "Tokens":
        """The chosen texts, by positions or mask."""
        lengths = np.diff(self.start)[index]
        start = np.concatenate([[0], np.cumsum(lengths)])
        at = np.repeat(self.start[:-1][index] - start[:-1], lengths) + np.arange(start[-1])
        return Tokens(self.pattern, self.known, self.word[at], start)


@dataclass
class WordPairs:
    """TF-IDF of words and of pairs of adjacent ones, counted as numbers: ten times faster than as strings.

    What scikit-learn's `TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)` makes, but for the order of columns.
    Where no two texts share a word, characters and pairs of them are counted instead.

    Args:
        min_df: training texts that must hold a term.
        max_features: terms that are kept at most.
    """

    min_df: int = 1
    max_features: int | None = None
    pattern_: str = field(init=False, repr=False, default=WORD)
    words_: dict[str, int] = field(init=False, repr=False)
    pairs_: np.ndarray = field(init=False, repr=False)  # (n_pairs,) codes of known pairs, ascending
    weighting_: Weighting = field(init=False, repr=False)

    @property
    def n_terms(self) -> int:
        """Columns of what `transform` returns."""
        return len(self.weighting_.columns)

    def fit_transform(self, texts: np.ndarray, tokens: Tokens | None = None) -> Any:
        """Sparse float32 of shape (n_texts, n_terms): words first, then pairs.

        Args:
            tokens: of the texts, where they were cut before.
        """
        counts = self._count_new(texts, token_pattern(texts), tokens)
        if len(texts) > 1 and counts.shape[1] and _held_by(counts).max() < 2:
            counts = self._count_new(texts, CHARACTER, None)
        self.weighting_ = Weighting.fit(counts, self.min_df, self.max_features)
        return self.weighting_.transform(counts)

    def transform(self, texts: np.ndarray, tokens: Tokens | None = None) -> Any:
        """Sparse float32 of shape (n_texts, n_terms); a word never seen is not counted, and no pair reaches across it."""
        row, word = self._words(texts, tokens, grow=False)
        paired, codes = _pairs(row, word)
        return self.weighting_.transform(self._counts(len(texts), row, word, paired, codes))

    def first_words(self, texts: np.ndarray, tokens: Tokens | None = None) -> np.ndarray:
        """Number of each text's first word, shape (n_texts,); -1 where it is unknown or there is none."""
        row, word = self._words(texts, tokens, grow=False)
        found = np.full(len(texts), -1)
        held, at = np.unique(row, return_index=True)
        found[held] = word[at]
        return found

    def _count_new(self, texts: np.ndarray, pattern: str, tokens: Tokens | None) -> Any:
        self.pattern_, self.words_ = pattern, {}
        vars(self).pop("_numbers", None)
        row, word = self._words(texts, tokens, grow=True)
        paired, codes = _pairs(row, word)
        self.pairs_ = np.unique(codes)
        return self._counts(len(texts), row, word, paired, codes)

    def _words(
        self, texts: np.ndarray, tokens: Tokens | None, *, grow: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Row and number of each word in order; -1 where it is unknown."""
        if tokens is None or tokens.pattern != self.pattern_:
            start, word = _cut(texts, self.pattern_, self.words_, grow=grow)
        else:
            if grow:
                first = np.full(len(tokens.known), -1)
                first[tokens.word[::-1]] = np.arange(len(tokens.word))[::-1]
                held = np.flatnonzero(first >= 0)
                held = held[np.argsort(first[held])]
                self.words_ = {tokens.known[number]: at for at, number in enumerate(held.tolist())}
            start, word = tokens.start, self._number_of(tokens.known)[tokens.word]
        return np.repeat(np.arange(len(texts)), np.diff(start)), word.astype(np.int64)

    def _number_of(self, known: tuple[str, ...]) -> np.ndarray:
        """The number here of each word of `Tokens`, -1 where it is unknown; looked up once for many parts of texts."""
        kept: tuple[tuple[str, ...], np.ndarray] | None = vars(self).get("_numbers")
        if kept is None or kept[0] is not known:
            kept = known, np.array([self.words_.get(word, -1) for word in known], np.int32)
            vars(self)["_numbers"] = kept
        return kept[1]

    def _counts(
        self, n_texts: int, row: np.ndarray, word: np.ndarray, paired: np.ndarray, codes: np.ndarray
    ) -> Any:
        import scipy.sparse as sp

        at = np.searchsorted(self.pairs_, codes)
        at[at == len(self.pairs_)] = 0
        known = self.pairs_[at] == codes if len(self.pairs_) else np.zeros(len(codes), bool)
        rows = np.concatenate([row[word >= 0], paired[known]])
        columns = np.concatenate([word[word >= 0], len(self.words_) + at[known]])
        shape = n_texts, len(self.words_) + len(self.pairs_)
        return sp.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape)


def _cut(
    texts: np.ndarray, pattern: str, known: dict[str, int], *, grow: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Where each text begins among the words, one longer than the texts, and the number of each word, int32.

    Args:
        known: numbers of words; with `grow` new words are added, else they are -1.
    """
    numbers, lengths, cut = array("i"), np.zeros(len(texts) + 1, np.int64), re.compile(pattern)
    for i, text in enumerate(texts):
        words = cut.findall(text.lower())
        lengths[i + 1] = len(words)
        if grow:
            numbers.extend([known.setdefault(w, len(known)) for w in words])
        else:
            numbers.extend([known.get(w, -1) for w in words])
    return np.cumsum(lengths), np.array(numbers, np.int32)


def _held_by(counts: Any) -> np.ndarray:
    """Rows that hold each column."""
    return np.bincount(counts.indices, minlength=counts.shape[1])


def _pairs(row: np.ndarray, word: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and code of each pair of adjacent known words of one text."""
    both = (row[1:] == row[:-1]) & (word[1:] >= 0) & (word[:-1] >= 0)
    return row[1:][both], (word[:-1][both] << 32) | word[1:][both]
