"""The answer of a model for one product: a price with its interval, and what moved it."""

from dataclasses import dataclass
from math import exp

# Flags of a priced row, short enough for a table and stable enough for programs.
NO_TEXT = "text missing"
NO_IMAGE = "image missing"  # the model has seen images, this row has none
UNREADABLE_IMAGE = "image unreadable"
UNKNOWN_CATEGORY = "unknown category"  # of a categorical column
BAD_NUMBER = "number unreadable"  # of a numeric column: taken as missing
OTHER_CURRENCY = "other currency"  # the text names a sign of another currency than the model's
UNLIKE_TRAINING = (
    "unlike training"  # further from every training row than nearly all of those are from one another
)
FLAGS = (
    NO_TEXT,
    NO_IMAGE,
    UNREADABLE_IMAGE,
    UNKNOWN_CATEGORY,
    BAD_NUMBER,
    OTHER_CURRENCY,
    UNLIKE_TRAINING,
)


@dataclass(frozen=True)
class Priced:
    """The price of one row, in `PriceModel.currency`; one for each row that was asked about."""

    price: float | None  # None: the row was refused
    low: float | None  # the interval holds the price with the probability that was asked for
    high: float | None
    flags: tuple[str, ...] = ()  # of FLAGS: what the row lacked, or what makes the price less certain
    reason: str | None = None  # why the row was refused


@dataclass(frozen=True)
class Effect:
    """One thing that moved a price."""

    what: str  # such as "organic", "value", "brand = levis", "pack of 2"
    log_effect: float  # added to the log price
    text: str  # such as "+12% 'organic'"

    @property
    def factor(self) -> float:
        """What the price was multiplied by."""
        return exp(self.log_effect)


@dataclass(frozen=True)
class NearProduct:
    """A training row that is near to the one priced."""

    id: int | str
    text: str  # its name, or the beginning of its text
    price: float
    cosine: dict[
        str, float
    ]  # vector set, or "item name" -> cosine; a set without a vector of either is left out
    image: str | None  # a small JPEG of it in the model's folder, by its path there; None: there is none


@dataclass(frozen=True)
class Explanation:
    """Why one row has its price.

    The effects are exact: base_price times the product of all their factors is the price, before it is rounded and held
    to the lowest one.
    """

    priced: Priced
    base_price: float | None  # before any effect; None: the row was refused
    shares: dict[str, float]  # head -> its weight in the blend; they add up to 1
    log_prices: dict[str, float]  # head -> the log price that it gave
    effects: tuple[Effect, ...]  # largest first; the last one, "everything else", sums up the small ones
    near: tuple[NearProduct, ...]  # nearest first

    @classmethod
    def refused(cls, reason: str) -> "Explanation":
        """Of a row that has no price, for a reason."""
        return cls(Priced(None, None, None, (), reason), None, {}, {}, (), ())
