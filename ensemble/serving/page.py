"""The page: a form by the model's columns, and its answer laid out for people."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from ensemble.model.answers import (
    BAD_NUMBER,
    NO_IMAGE,
    NO_TEXT,
    OTHER_CURRENCY,
    UNKNOWN_CATEGORY,
    UNLIKE_TRAINING,
    UNREADABLE_IMAGE,
    Explanation,
)
from ensemble.model.price_model import ModelInputs

INTERVAL = 0.9  # of the page
MOST_NEAR = 5
MOST_EFFECTS = 8
_MOST_TICKS = 6
_CHAR = 2.2  # percent that a character of a label takes on the narrowest screen
_EDGE = 0.06  # of the scale, left free on both sides
SENTENCES = {
    NO_TEXT: "Without a text the price is less certain.",
    NO_IMAGE: "Without an image the price is less certain.",
    UNREADABLE_IMAGE: "The image could not be read; the price is of the rest.",
    UNKNOWN_CATEGORY: "A category was never seen in training and was left out.",
    BAD_NUMBER: "A number could not be read and was left out.",
    OTHER_CURRENCY: "The text names another currency than the model's.",
    UNLIKE_TRAINING: "Unlike every product that the model was trained on: take the price with care.",
}


@dataclass(frozen=True)
class Mark:
    """A place on the scale, in percent of its width."""

    at: float
    label: str

    @property
    def anchor(self) -> str:
        """Where its label stands, so that none leaves the scale."""
        return "start" if self.at < 8 else "end" if self.at > 92 else "middle"

    @property
    def left(self) -> float:
        """Where its label begins."""
        return self.at - {"start": 0.0, "middle": 0.5, "end": 1.0}[self.anchor] * self.width

    @property
    def width(self) -> float:
        """Of its label, at most."""
        return _CHAR * len(self.label)


@dataclass(frozen=True)
class Scale:
    """A price with its interval and near prices on a logarithmic axis."""

    price: Mark
    low: Mark
    high: Mark
    near: tuple[Mark, ...]
    ticks: tuple[Mark, ...]


@dataclass(frozen=True)
class Bar:
    """An effect, as a bar from the middle; in percent of the width."""

    text: str
    x: float
    width: float
    lowers: bool


@dataclass(frozen=True)
class Near:
    """A near product."""

    text: str
    price: str
    likeness: str
    image: str | None


@dataclass(frozen=True)
class Answer:
    """One explanation, in the words of the page."""

    reason: str | None  # refused
    price: str = ""
    low: str = ""
    high: str = ""
    warnings: tuple[str, ...] = ()
    scale: Scale | None = None
    bars: tuple[Bar, ...] = ()
    base_price: str | None = None
    near: tuple[Near, ...] = ()
    heads: tuple[tuple[str, str, str], ...] = ()  # name, share, price


def money(price: float, currency: str | None) -> str:
    """A price for people: cents below 100, the sign of its currency before it."""
    text = f"{price:.2g}" if price < 0.01 else f"{price:,.2f}" if price < 100 else f"{price:,.0f}"
    if not currency:
        return text
    return f"{currency} {text}" if currency[-1].isalnum() else f"{currency}{text}"


def scale_of(low: float, price: float, high: float, near: Sequence[float], currency: str | None) -> Scale:
    """Where prices stand on a logarithmic axis that holds all of them.

    Args:
        near: prices of near products, > 0, as are the others.
    """
    logs = [math.log(value) for value in (low, price, high, *near)]
    first, last = min(logs), max(logs)
    if last - first < 0.1:  # all the same
        first, last = first - 0.05, last + 0.05
    edge = _EDGE * (last - first)
    first, last = first - edge, last + edge

    def mark(value: float) -> Mark:
        return Mark(round(100 * (math.log(value) - first) / (last - first), 2), money(value, currency))

    ticks: list[Mark] = []
    for tick in map(mark, _ticks(math.exp(first), math.exp(last))):
        if not ticks or tick.left > ticks[-1].left + ticks[-1].width + _CHAR:
            ticks.append(tick)
    return Scale(mark(price), mark(low), mark(high), tuple(mark(value) for value in near), tuple(ticks))


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two prices: 1, 2, 5 times powers of ten, evenly spaced ones in a narrow range."""
    if high / low < 8:
        step = _round_up((high - low) / (_MOST_TICKS - 1))
        return [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high]
        if len(found) <= _MOST_TICKS:
            return found
    return found[:: math.ceil(len(found) / _MOST_TICKS)]


def _round_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value)


class Page:
    """Renders the page of one model.

    Args:
        image_path: path of a near product's image on this server, relative to the page.
    """

    def __init__(
        self, inputs: ModelInputs, currency: str | None, image_path: Callable[[str | None], str | None]
    ) -> None:
        environment = Environment(
            loader=PackageLoader("ensemble.serving"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._page = environment.get_template("page.html")
        self._answer = environment.get_template("answer.html")
        self._inputs = inputs
        self._currency = currency
        self._image_path = image_path

    def form(
        self, cells: dict[str, str] | None = None, answer: Answer | None = None, problem: str | None = None
    ) -> str:
        """The whole page; `cells` are what was typed."""
        return self._page.render(
            inputs=self._inputs, cells=cells or {}, answer=answer, problem=problem, interval=INTERVAL
        )

    def part(self, answer: Answer) -> str:
        """The answer alone."""
        return self._answer.render(answer=answer, interval=INTERVAL)

    def answer(self, explained: Explanation, image_problem: str | None) -> Answer:
        """An explanation in the words of the page."""
        priced = explained.priced
        if priced.price is None or priced.low is None or priced.high is None:
            return Answer(priced.reason or "refused")
        near = explained.near[:MOST_NEAR]
        warnings = [SENTENCES.get(flag, flag) for flag in priced.flags]
        if image_problem:
            warnings.append(f"The image: {image_problem}.")
        return Answer(
            reason=None,
            price=self._money(priced.price),
            low=self._money(priced.low),
            high=self._money(priced.high),
            warnings=tuple(warnings),
            scale=scale_of(
                priced.low, priced.price, priced.high, [one.price for one in near], self._currency
            ),
            bars=_bars(explained),
            base_price=None if explained.base_price is None else self._money(explained.base_price),
            near=tuple(
                Near(one.text, self._money(one.price), _likeness(one.cosine), self._image_path(one.image))
                for one in near
            ),
            heads=tuple(
                (name, f"{share:.0%}", self._money(math.exp(explained.log_prices[name])))
                for name, share in explained.shares.items()
                if name in explained.log_prices
            ),
        )

    def _money(self, price: float) -> str:
        return money(price, self._currency)


def _bars(explained: Explanation) -> tuple[Bar, ...]:
    shown = explained.effects[:MOST_EFFECTS]
    widest = max((abs(one.log_effect) for one in shown), default=0.0) or 1.0
    bars = []
    for one in shown:
        width = 50 * abs(one.log_effect) / widest
        lowers = one.log_effect < 0
        bars.append(Bar(one.text, round(50 - width if lowers else 50, 2), round(width, 2), lowers))
    return tuple(bars)


def _likeness(cosine: dict[str, float]) -> str:
    return ", ".join(f"{name.partition('@')[0]} {value:.2f}" for name, value in cosine.items())
