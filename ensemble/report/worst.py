"""The rows with the largest errors, each with what it was compared with and a guess at the reason."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from ensemble.report.dimensions import cut
from ensemble.report.nearest import NearRows
from ensemble.report.rows import ReportRows
from store.catalog.clean.duplicates import codes, column_codes

N_WORST = 50
MOST_TEXT = 400  # characters of a row's text that are kept
MOST_NAME = 120
ALIKE = 0.9  # cosine from which on two rows are the same product in other words
CONTRADICTS = math.log(1.5)  # of log price
AGREES = math.log(1.5)  # of log price: near rows and the prediction
FAR_OFF = math.log(3.0)  # of log price: far from the prices of near rows
MISREAD = 8.0  # times the quantity of near rows
FACTOR = 0.12  # of log price: how near to a factor an error must be
DISAGREE = math.log(2.5)  # between the heads' predictions
RARE = 0.05  # share of rows that are less near to any other


@dataclass(frozen=True)
class NearPrice:
    """A training row that a row was near to."""

    sample_id: str
    name: str
    price: float
    cosine: float | None  # None: it has the same text or image
    image: str | None


@dataclass(frozen=True)
class WorstRow:
    """One row, its prices, and what may have gone wrong."""

    sample_id: str
    name: str
    text: str
    price: float
    predicted: float
    smape: float
    fold: int
    image: str | None  # hex SHA-256
    further_images: list[str]  # of a row with several
    heads: dict[str, float]  # head -> predicted price
    near: list[NearPrice]
    reason: str  # a few words, of `REASONS`
    words: str  # one sentence, empty where nothing was found

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


REASONS = (
    "contradicting twin",
    "quantity misread",
    "outlier price",
    "broken image",
    "nothing alike",
    "heads disagree",
    "no reason seen",
)


def worst_positions(rows: ReportRows) -> np.ndarray:
    """The rows of largest error, the worst first; of equal ones the first of the catalogue."""
    return np.argsort(-rows.loss, kind="stable")[:N_WORST]


def worst_rows(rows: ReportRows, near: NearRows | None) -> list[WorstRow]:
    """The worst rows in words."""
    judge = _Judge(rows, near)
    return [judge.row(int(at)) for at in worst_positions(rows)]


class _Judge:
    """Looks at one row at a time."""

    def __init__(self, rows: ReportRows, near: NearRows | None) -> None:
        self.rows, self.near = rows, near
        self.price = np.exp(rows.training.log_actual)
        self.of_heads = rows.head_log_prices()
        text, image = (codes(column)[0] for column in (rows.table["text"], rows.image))
        empty = np.asarray(pc.equal(rows.table["text"], "").fill_null(True))
        self.same = np.where(empty, -1, text), image
        self.has_image = rows.has_image
        self.columns = column_codes(rows.table)
        known = near.cosine[:, 0][np.isfinite(near.cosine[:, 0])] if near is not None else np.empty(0)
        self.rare = float(np.quantile(known, RARE)) if len(known) else -np.inf

    def row(self, at: int) -> WorstRow:
        rows = self.rows
        twins = self._twins(at)
        close = self.near.of(at) if self.near is not None else []
        reason, words = self._reason(at, twins, close)
        shown: list[tuple[int, float | None]] = [(i, None) for i in twins[:2]]
        shown += [(i, cosine) for i, cosine in close if i not in twins][: 4 - len(shown)]
        heads = zip(rows.training.heads, self.of_heads[at].tolist(), strict=True)
        return WorstRow(
            str(rows.training.sample_id[at]),
            self._name(at),
            cut(rows.table["text"][at].as_py() or "", MOST_TEXT),
            float(self.price[at]),
            float(np.exp(rows.log_price[at])),
            float(rows.loss[at]),
            int(rows.training.fold[at]),
            rows.image[at].as_py(),
            [one for one in rows.further_images[at].as_py() if one],
            {head: float(np.exp(value)) for head, value in heads},
            [self._near(i, cosine) for i, cosine in shown],
            reason,
            words,
        )

    def _twins(self, at: int) -> list[int]:
        """Other rows with the same text or image, and the same further columns."""
        of_text, of_image = ((code == code[at]) & (code[at] >= 0) for code in self.same)
        found = (of_text | of_image) & (self.columns == self.columns[at])
        found[at] = False
        return [int(i) for i in np.flatnonzero(found)]

    def _near(self, at: int, cosine: float | None) -> NearPrice:
        sample_id = str(self.rows.training.sample_id[at])
        return NearPrice(
            sample_id, self._name(at), float(self.price[at]), cosine, self.rows.image[at].as_py()
        )

    def _name(self, at: int) -> str:
        table = self.rows.table
        return cut(
            " ".join((table["name"][at].as_py() or table["text"][at].as_py() or "").split()), MOST_NAME
        )

    def _reason(self, at: int, twins: list[int], close: list[tuple[int, float]]) -> tuple[str, str]:
        rows = self.rows
        actual, predicted = float(rows.training.log_actual[at]), float(rows.log_price[at])
        log_price = rows.training.log_actual
        alike = [*twins, *(i for i, cosine in close if cosine >= ALIKE)]
        against = [
            i
            for i in alike
            if abs(log_price[i] - actual) >= CONTRADICTS
            and abs(log_price[i] - predicted) < abs(predicted - actual) / 2
        ]
        if against:
            how = "has the same text or image" if against[0] in twins else "is nearly the same"
            return REASONS[
                0
            ], f"Row {rows.training.sample_id[against[0]]} {how} and costs {self._written(against[0])}."
        if (said := self._quantity(at, close, predicted - actual)) is not None:
            return REASONS[1], said
        middle = float(np.median(log_price[[i for i, _ in close]])) if len(close) >= 3 else math.nan
        if abs(middle - predicted) <= AGREES and abs(actual - middle) >= FAR_OFF:
            return REASONS[2], (
                f"The {len(close)} nearest rows cost {math.exp(middle):,.2f} in the middle, as predicted: is the price right?"
            )
        if rows.table["image"][at].as_py() is not None and not self.has_image[at]:
            return REASONS[3], "The image that it names could not be fetched or read."
        if close and close[0][1] < self.rare:
            return REASONS[4], (
                f"Its nearest row has cosine {close[0][1]:.2f}: {1 - RARE:.0%} of rows have a nearer one."
            )
        heads = self.of_heads[at]
        if np.ptp(heads) >= DISAGREE:
            low, high = np.exp(heads.min()), np.exp(heads.max())
            return REASONS[5], f"Heads predict from {low:,.2f} to {high:,.2f}."
        return REASONS[6], ""

    def _quantity(self, at: int, close: list[tuple[int, float]], error: float) -> str | None:
        """Whether the quantity is far from that of near rows, or the price is off by the pack or value."""
        columns = ("value", "unit", "pack_count", "quantity", "quantity_unit")
        own = {name: self.rows.table[name][at].as_py() for name in columns}
        if own["quantity"]:
            units = self.rows.table["quantity_unit"]
            others = [
                self.rows.table["quantity"][i].as_py()
                for i, _ in close
                if units[i].as_py() == own["quantity_unit"] and self.rows.table["quantity"][i].as_py()
            ]
            if len(others) >= 3:
                middle = float(np.median(others))
                times = own["quantity"] / middle
                if max(times, 1 / times) >= MISREAD and error * math.log(times) > 0:
                    return (
                        f"Its quantity was read as {own['quantity']:,.6g} {own['quantity_unit'] or ''}, that of near "
                        f"rows is {middle:,.6g}: was it misread?"
                    )
        for what, factor in (("pack of", own["pack_count"]), ("value", own["value"])):
            if factor and factor >= 3 and abs(abs(error) - math.log(factor)) <= FACTOR:
                return f"The price is off by its {what} {factor:g}: is it the price of one?"
        return None

    def _written(self, at: int) -> str:
        return f"{self.price[at]:,.2f}"
