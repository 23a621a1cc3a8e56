"""Why a price is what it is: shares of heads, what moved it, near training rows."""

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ensemble.model.answers import Effect, Explanation, NearProduct, Priced
from ensemble.model.pricing import Pricer
from ensemble.model.rows import ModelRows
from heads.contributions import Part, explain_rows
from heads.features.rows import Rows
from store.schema import CATEGORICAL_PREFIX, NUMERIC_PREFIX

SHOWN_EFFECTS = 12
SHOWN_NEAR = 5
SHOWN_CHARACTERS = 60  # of the name of a training row
SMALLEST = 1e-4  # log price: smaller effects are summed up
REST = "everything else"


def explanations(pricer: Pricer, rows: ModelRows, priced: Sequence[Priced]) -> list[Explanation]:
    """One for each row, in their order."""
    if not len(rows):
        return []
    weights = pricer.manifest["blend"]["weights"]
    total = sum(weights[head.name] for head in pricer.heads)
    shares = {head.name: weights[head.name] / total for head in pricer.heads}
    log_prices, log_price = pricer.log_prices(rows.rows), pricer.log_price(rows.rows)
    mean = float(pricer.held["actual"].mean())
    base, parts = 0.0, [dict[Part, float]() for _ in range(len(rows))]
    for head in pricer.heads:
        found = explain_rows(head.models, head.rows(rows.rows), mean)
        base += shares[head.name] * found.base
        for all_of_row, own in zip(parts, found.parts, strict=True):
            for part, value in own.items():
                all_of_row[part] = all_of_row.get(part, 0.0) + shares[head.name] * value
    labels = _Labels(rows, pricer.training)
    return [
        Explanation(
            priced=answer,
            base_price=None if answer.price is None else math.exp(base),
            shares=shares,
            log_prices={head.name: float(z) for head, z in zip(pricer.heads, log_prices[at], strict=True)},
            effects=() if answer.price is None else _effects(parts[at], log_price[at] - base, labels, at),
            near=_near(pricer, rows.rows, at),
        )
        for at, answer in enumerate(priced)
    ]


def _effects(parts: dict[Part, float], total: float, labels: "_Labels", at: int) -> tuple[Effect, ...]:
    """The largest effects, and what is left of the total: with a mean that is none of logs, the blend's own part too."""
    named: dict[str, float] = {}
    for part, value in parts.items():
        label = labels.of(part, at)
        named[label] = named.get(label, 0.0) + value
    ordered = sorted(named.items(), key=lambda one: -abs(one[1]))
    shown = [(label, value) for label, value in ordered[:SHOWN_EFFECTS] if abs(value) >= SMALLEST]
    left = total - sum(value for _, value in shown)
    return tuple(
        Effect(label, value, f"{math.expm1(value):+.0%} {label}") for label, value in [*shown, (REST, left)]
    )


def _near(pricer: Pricer, rows: Rows, at: int) -> tuple[NearProduct, ...]:
    """The nearest training rows by all sets that the row has."""
    one = rows.subset(np.array([at]))
    if not pricer.nearness.names or not pricer.nearness.keys(one)[0]:
        return ()
    similarity = pricer.nearness.similarity(one)[0]
    count = min(SHOWN_NEAR, len(similarity))
    near = np.argpartition(similarity, -count)[-count:]
    near = near[np.argsort(-similarity[near], kind="stable")]
    cosines = pricer.nearness.cosines(one, 0, near)
    table = pricer.training
    return tuple(
        NearProduct(
            id=table["id"][position].as_py(),
            text=table["name"][position].as_py(),
            price=table["price"][position].as_py(),
            cosine={name: float(values[i]) for name, values in cosines.items()},
            image=table["image"][position].as_py(),
        )
        for i, position in enumerate(near.tolist())
    )


class _Labels:
    """What moved a price, in words, with the row's own values."""

    def __init__(self, rows: ModelRows, training: pa.Table) -> None:
        self._rows = rows
        self._training = training

    def of(self, part: Part, at: int) -> str:
        """Such as "'organic'", "pack of 2", "brand = levis", "the image"."""
        kind, name = part
        match kind:
            case "word":
                return f"'{name}'"
            case "vectors":
                return "the text as a whole" if "@" in name and not name.endswith("@image") else "the image"
            case "fields":
                return "its numbers and categories together"
            case "row":
                return f"the price of '{self._name(name)[:SHOWN_CHARACTERS]}'"
            case "similar":
                return "prices of similar products"
            case "head":
                return f"head {name}"
            case "category":
                return self._category(name, at)
        return self._number(name, at)

    def _name(self, training_id: str) -> str:
        ids = self._training["id"]
        at = pc.index(ids, pa.scalar(training_id).cast(ids.type)).as_py()
        return str(self._training["name"][at].as_py())

    def _category(self, name: str, at: int) -> str:
        name, _, level = name.partition("=")
        if not level:  # trees see the whole category
            category = self._rows.rows.fields.categories[name]
            level = category.levels[category.codes[at]] if category.codes[at] >= 0 else "missing"
        return f"{name.removeprefix(CATEGORICAL_PREFIX).removeprefix('fact:')} = {level}"

    def _number(self, name: str, at: int) -> str:
        fields = self._rows.rows.fields
        value = fields.X[at, fields.names.index(name)] if name in fields.names else np.nan
        if name.startswith("flag:"):
            flag = name.removeprefix("flag:").replace("_", "-")
            return f"'{flag}'" if value else f"not '{flag}'"
        if name.startswith("log_length:"):
            return f"length of the {name.removeprefix('log_length:')}"
        if name.startswith("bare number"):
            return "a number of the name"
        if name == "log_bullets":
            return "number of bullets"
        plain = name.removeprefix(NUMERIC_PREFIX).removeprefix("log_").removeprefix("number:")
        if not np.isfinite(value):
            return f"no {plain.replace('_', ' ').replace('quantity:', 'quantity in ')}"
        number = f"{math.copysign(math.expm1(abs(value)), value):.6g}"
        if name == "log_pack_count":
            return f"pack of {number}"
        if name.startswith("log_quantity:"):
            return f"{number} {name.removeprefix('log_quantity:')}"
        if name.startswith("number:"):
            return f"{number} {plain}"
        return f"{plain} {number}"
