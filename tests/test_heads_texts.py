"""Heads that read texts, on texts as some catalogues have them: without spaces, of codes, of nothing at all."""

import dataclasses

import numpy as np
import pytest

from heads.folds.crossfit import crossfit
from heads.linear.sparse import Sparse
from heads.networks.sparse_mlp import SparseMlp
from heads.registry import head_class, make_head
from heads.testing import folds_of, make_rows, rows_for
from store.errors import HeadError
from tests.fake_rows import with_one_core

one_core = pytest.fixture(autouse=True)(with_one_core)

SCRIPTS = {
    "chinese": [chr(0x4E00 + i) for i in range(300)],
    "japanese": [chr(0x3042 + i) for i in range(70)],
    "thai": [chr(0x0E01 + i) for i in range(46)],
}
KINDS = (
    *SCRIPTS,
    "chinese and a size",
    "digits",
    "one letter",
    "letters",
    "punctuation",
    "nothing",
    "one for all",
)
TEXT_HEADS = {
    "sparse": {},
    "gaussian-process": {"tune_rows": 60},
    "kernel-ridge": {"tune_rows": 60},
    "neighbours": {},
    "sparse-mlp": {"seeds": 1, "epochs": 2},
}


def texts_of(kind: str, n_rows: int) -> np.ndarray:
    rng = np.random.default_rng(0)

    def text() -> str:
        if kind.partition(" ")[0] in SCRIPTS:
            written = "".join(rng.choice(SCRIPTS[kind.partition(" ")[0]], rng.integers(6, 20)))
            return written + (" 500ml" if " " in kind else "")
        return {
            "digits": str(rng.integers(10**9)),
            "one letter": "a",
            "letters": " ".join(rng.choice(list("abcdefghij"), 5)),
            "punctuation": "--- !!!",
            "nothing": "",
            "one for all": "red tea",
        }[kind]

    return np.array([text() for _ in range(n_rows)], dtype=object)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", sorted(TEXT_HEADS))
def test_texts_of_any_kind_are_learned_from_or_refused_in_words(name, kind):
    rows, log_price = make_rows(100)
    texts = texts_of(kind, 100)
    rows = dataclasses.replace(rows, texts=dict.fromkeys(rows.texts, texts))
    head = make_head(name, TEXT_HEADS[name], 0)
    rows = rows_for(head_class(name), rows)
    if (name, kind) == ("sparse", "nothing"):
        with pytest.raises(
            HeadError, match="no word occurs in 2 or more of the 100 rows: name the text column"
        ):
            crossfit(head, rows, log_price, folds_of(rows))
        return
    result = crossfit(head, rows, log_price, folds_of(rows), rows.subset(np.arange(9)))
    assert np.isfinite(result.oof).all()
    assert result.test.shape == (9,)


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_a_price_that_a_character_tells_is_learned_from_texts_without_spaces(script):
    rows, log_price = make_rows(160)
    told = log_price > np.median(log_price)
    mark = SCRIPTS[script][7]
    plain = [text.replace(mark, "") for text in texts_of(script, 160)]
    marked = [f"{t[:3]}{mark}{t[3:]}" if is_told else t for t, is_told in zip(plain, told, strict=True)]

    def agreement(texts: list[str]) -> float:
        held = dataclasses.replace(rows, texts=dict.fromkeys(rows.texts, np.array(texts, dtype=object)))
        return float(np.corrcoef(crossfit(Sparse(), held, log_price, folds_of(rows)).oof, told)[0, 1])

    assert agreement(marked) > 0.3 > agreement(plain)


def test_without_a_term_and_without_a_field_there_is_nothing_to_learn_from():
    rows, log_price = make_rows(40)
    bare = dataclasses.replace(rows, texts={"full": np.array([""] * 40, dtype=object)})
    with pytest.raises(
        HeadError, match="sparse-mlp: no word occurs in 2 or more of the 40 rows: name the text column"
    ):
        SparseMlp(fields=False).fit(bare, log_price)
