"""Damaged and foreign texts.

Encoding: characters that no writer typed (U+FFFD, control characters), sequences that are one encoding read as another
(the badness heuristic of ftfy), and HTML entities left undecoded.

Language, by a rule: a text is written in another script than most of the catalogue (20 letters and more, most of them);
or its function words are another language's: at least `LEAST_HITS` of them, and `TIMES` those of the catalogue's main
language, which is the one whose function words are most frequent over all texts. Seven languages are told apart.
"""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.clean.near import word_ids
from store.catalog.clean.rows import Catalogue, Finding

LEAST_LETTERS = 20
LEAST_HITS = 4
TIMES = 2
_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x{80}-\x{9f}]"
_ENTITY = r"&(?:#\d{2,6}|#x[0-9a-fA-F]{2,6}|amp|lt|gt|quot|apos|nbsp|[a-z]{3,6});"
_ASCII_LETTER = np.array([chr(byte).isalpha() and byte < 128 for byte in range(256)])
# Frequent words that mean nothing in the other languages of the list, nor as a name of a product.
_FUNCTION_WORDS = {
    "English": "the and with of for is are this your from that you our to it by or not all",
    "Spanish": "el los las una y del con para por más sin está sus muy también como su al",
    "French": "le les et des une du avec est pour dans sur vous votre nos aux cette sont ou sans plus",
    "German": "der das und mit für ist ein eine auf von nicht auch sich oder aus dem den wird zu",
    "Italian": "il gli della di che sono nel più alla delle dei questo anche con per una è",
    "Portuguese": "os uma do da em com não são mais seu sua dos das pelo você à é",
    "Dutch": "het een van en voor met niet zijn ook aan je deze bij wordt uit naar",
}


def encoding_damage(rows: Catalogue) -> Finding:
    """Rows whose text holds characters that no writer meant."""
    from ftfy.badness import badness

    text = rows.text
    control = _matches(text, _CONTROL)
    replaced = np.array(pc.match_substring(text, "�"), dtype=bool)
    entity = _matches(text, _ENTITY)
    foreign = np.flatnonzero(~np.array(pc.string_is_ascii(text), dtype=bool))
    scores = {i: badness(text[i].as_py()) for i in foreign.tolist()}
    garbled = np.zeros(len(rows), bool)
    garbled[[i for i, score in scores.items() if score > 0]] = True
    found = np.flatnonzero(control | replaced | entity | garbled)
    reasons = []
    for i in found.tolist():
        parts = []
        if replaced[i]:
            parts.append("replacement characters (U+FFFD)")
        if control[i]:
            parts.append("control characters")
        if garbled[i]:
            parts.append(f"read in the wrong encoding: {_garbled_part(text[i].as_py())!r}")
        if entity[i]:
            match = re.search(_ENTITY, text[i].as_py())
            parts.append(f"HTML entity {match.group() if match else ''}")
        reasons.append("; ".join(parts))
    return Finding("encoding", found, None, reasons)


def other_languages(rows: Catalogue) -> Finding:
    """Rows written in another script or language than the catalogue."""
    letters, latin = letter_counts(rows.text)
    is_latin = 2 * latin >= letters
    enough = letters >= LEAST_LETTERS
    most_are_latin = bool(is_latin[enough].mean() >= 0.5) if enough.any() else True
    other_script = enough & (is_latin != most_are_latin)
    hits = function_word_hits(rows.text)
    names = list(_FUNCTION_WORDS)
    main = int(np.argmax(hits.sum(axis=0)))
    others = hits.copy()
    others[:, main] = -1
    best = np.argmax(others, axis=1)
    at_best = others[np.arange(len(rows)), best]
    other_words = (at_best >= LEAST_HITS) & (at_best > TIMES * hits[:, main]) & ~other_script
    found = np.flatnonzero(other_script | other_words)
    script = "mostly not in Latin letters" if most_are_latin else "mostly in Latin letters"
    reasons = [
        f"{script}, unlike the catalogue"
        if other_script[i]
        else f"{at_best[i]} function words of {names[best[i]]}, {hits[i, main]} of {names[main]}"
        for i in found.tolist()
    ]
    return Finding("language", found, None, reasons)


def letter_counts(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Letters of each text, and those of them that are Latin, both int64, shape (n_texts,).

    Bytes under 128 are counted by a table, since a pattern that matches every letter is slow; patterns see the rest.
    """
    size = pc.binary_length(texts).to_numpy().astype(np.int64)
    content = np.frombuffer(b"".join(texts.cast(pa.binary()).to_pylist()), np.uint8)
    latin = np.zeros(len(texts), np.int64)
    filled = size > 0
    if filled.any():
        starts = (np.cumsum(size) - size)[filled]
        latin[filled] = np.add.reduceat(_ASCII_LETTER[content], starts, dtype=np.int64)
    letters = latin.copy()
    wider = np.flatnonzero(~np.array(pc.string_is_ascii(texts), dtype=bool))
    rest = pc.replace_substring_regex(texts.take(pa.array(wider)), r"[\x00-\x7f]+", "")
    letters[wider] += pc.count_substring_regex(rest, r"\pL").to_numpy()
    latin[wider] += pc.count_substring_regex(rest, r"\p{Latin}").to_numpy()
    return letters, latin


def function_word_hits(texts: pa.Array) -> np.ndarray:
    """Distinct function words of each language in each text, int64, shape (n_texts, n_languages)."""
    row, ids, dictionary = word_ids(texts)
    every_word = pa.array(sorted({word for words in _FUNCTION_WORDS.values() for word in words.split()}))
    listed = np.array(pc.is_in(dictionary, every_word), dtype=bool)[ids]
    keys = np.unique(row[listed] * len(dictionary) + ids[listed])
    row, ids = np.divmod(keys, max(len(dictionary), 1))
    hits = np.zeros((len(texts), len(_FUNCTION_WORDS)), np.int64)
    for column, words in enumerate(_FUNCTION_WORDS.values()):
        of_language = np.array(pc.is_in(dictionary, pa.array(words.split())), dtype=bool)
        chosen = row[of_language[ids]] if len(ids) else row
        hits[:, column] = np.bincount(chosen, minlength=len(texts))
    return hits


def _matches(text: pa.Array, pattern: str) -> np.ndarray:
    return np.array(pc.match_substring_regex(text, pattern), dtype=bool)


def _garbled_part(text: str) -> str:
    from ftfy.badness import BADNESS_RE

    match = BADNESS_RE.search(text)
    return text[max(0, match.start() - 8) : match.end() + 8] if match else ""
