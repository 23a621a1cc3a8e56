"""How much a row sells: pack count, and the total over the pack in g, ml or pieces.

The `Value:`/`Unit:` lines are usually the total over the pack, but not always: `Value: 2 Count` stands beside
"16 oz (Pack of 2)", `10.7 Ounce` beside "10.7 Ounce - 8 per case", `10752 Ounce` beside "1.75 Ounce (Pack of 64)".
So they are compared with what the name says, its size s and its counts (n packs of c):

1. A weight or volume that is s times n, c or both is the total.
2. One that is s itself is the total, unless the size is written first and the packs after it ("10.7 Ounce - 8 per
   case"), or as "each": then s times the packs is.
3. One that fits nothing is taken where the name has no packs (unless it is a bare 1, the filler of empty lines);
   where it has, the name is.
4. A count, or nothing, beside a size in the name: s times the packs; a weight says more than a count. Where the name
   has no packs, a count of 2 to 48 is taken for them.
5. No size anywhere: the count of the lines, or packs times what is counted inside one, whichever is greater;
   a line that repeats one of the two factors is not the total.
"""

from dataclasses import dataclass

from store.catalog.parse.packs import Packs
from store.catalog.parse.sizes import Size
from store.catalog.parse.units import UNITS, Unit

_OUNCES = {"g": UNITS["ounce"][1], "ml": UNITS["fl oz"][1]}  # one ounce, one fluid ounce
_TOLERANCE = 0.04  # labels round: 16.91 fl oz x 24 is listed as 408
_MOST_PACKS_IN_LINES = 48
_MOST_COUNTED_OUNCES = 400.0  # "9 oz, 60 count" are 60 pieces of 9 oz together


@dataclass(frozen=True)
class Quantity:
    """Total over the pack; `amount` and `dimension` are None where nothing says."""

    pack_count: float
    amount: float | None
    dimension: str | None  # "g", "ml", "count"


def decide_quantity(value: float | None, unit: Unit | None, packs: Packs) -> Quantity:
    """Pack count and total of one row.

    Args:
        value, unit: the `Value:` and `Unit:` lines, None where missing.
        packs: what the item name says.
    """
    dimension = unit.dimension if unit is not None and value is not None and value > 0 else None
    pack_count = _pack_count(value, dimension, packs)
    if dimension in ("g", "ml") and value is not None and unit is not None:
        listed = Size(value * unit.size, dimension, unit.name == "ounce")
        return Quantity(pack_count, *_weigh(listed, value, packs))
    if packs.sizes:
        size = _main_size(packs)
        many = _multiplier(size, packs)
        if many == 1 and size.times == 1 and dimension == "count" and packs.counted == 1:
            many = int(pack_count)
        return Quantity(pack_count, size.amount * size.times * many, size.dimension)
    written = packs.packs * (packs.counted if packs.counted != packs.packs else 1)
    if dimension == "count" and value is not None:
        repeats = written > 1 and value in (1, packs.packs, packs.counted)
        return Quantity(pack_count, float(written) if repeats else value, "count")
    return Quantity(pack_count, float(written), "count") if written > 1 else Quantity(pack_count, None, None)


def _pack_count(value: float | None, dimension: str | None, packs: Packs) -> float:
    if packs.packs > 1 or packs.counted > 1 or packs.packs_start >= 0:
        return float(packs.packs if packs.packs > 1 else packs.counted)
    for size in packs.sizes:
        if size.times > 1:
            return float(size.times)
    if dimension == "count" and value is not None and value.is_integer() and value > 1:
        # "16 FL OZ" listed as 16 Count is a slip of the unit; 200 leaves of 2.6 oz are no packs of 2.6 oz.
        is_slip = any(_near(value, _ounces(size)) for size in packs.sizes)
        if not is_slip and not (packs.sizes and value > _MOST_PACKS_IN_LINES):
            return value
    return 1.0


def _weigh(listed: Size, value: float, packs: Packs) -> tuple[float, str]:
    """Total and dimension where the lines give a weight or volume."""
    total = _ounces(listed)
    factors = {packs.packs * packs.counted, packs.packs, packs.counted}
    for size in packs.sizes:
        one = _ounces(size)
        if any(many > 1 and _near(total, one * many) for many in {size.times * f for f in factors}):
            return _in_dimension(listed, size)
    repeated = [size for size in packs.sizes if _near(total, _ounces(size))]
    if repeated:
        size = max(repeated, key=lambda size: size.times)
        return _total(size, size.times * _written_after(size, packs), listed)
    if not packs.sizes:
        return listed.amount, listed.dimension
    size = _main_size(packs)
    if packs.packs * packs.counted * size.times == 1 and value != 1:
        return _in_dimension(listed, size)
    return _total(size, size.times * _multiplier(size, packs), listed)


def _written_after(size: Size, packs: Packs) -> int:
    """The packs that a size is multiplied by when the lines repeat the size alone."""
    if packs.packs > 1 and (size.is_each or packs.packs_start > size.start):
        return packs.packs
    return packs.counted if size.is_each else 1


def _main_size(packs: Packs) -> Size:
    """The size of one item: one that is multiplied, else the last before the packs, else the first."""
    for size in packs.sizes:
        if size.times > 1:
            return size
    start = packs.packs_start if packs.packs > 1 else packs.counted_start
    before = [size for size in packs.sizes if 0 <= size.start < start]
    if not before:
        return packs.sizes[0]
    last = before[-1]
    for size in before:  # "8 fl oz (236 ml), pack of 4": the same twice
        if _near(_ounces(size), _ounces(last)):
            return size
    return last


def _multiplier(size: Size, packs: Packs) -> int:
    """How often a size is sold when the lines don't say; a number written twice counts once."""
    many = packs.packs if packs.packs != size.times else 1
    if packs.counted in (size.times, packs.packs):
        return many
    is_items = packs.counted > 1 and not packs.is_pieces and packs.counted_start > size.start
    if is_items and _ounces(size) * packs.counted <= _MOST_COUNTED_OUNCES:
        many *= packs.counted
    return many


def _in_dimension(listed: Size, size: Size) -> tuple[float, str]:
    """The amount of the lines, in the dimension that the name makes sure of."""
    if size.is_plain_ounce:
        return listed.amount, listed.dimension
    return _ounces(listed) * _OUNCES[size.dimension], size.dimension


def _total(size: Size, many: int, listed: Size) -> tuple[float, str]:
    """`many` times a size of the name; plain ounces are what the lines say they are."""
    dimension = listed.dimension if size.is_plain_ounce else size.dimension
    return _ounces(size) * many * _OUNCES[dimension], dimension


def _ounces(size: Size) -> float:
    """Weight in ounces or volume in fluid ounces: sellers mix the two up, so they are compared as numbers."""
    return size.amount / _OUNCES[size.dimension]


def _near(left: float, right: float) -> bool:
    return abs(left - right) <= _TOLERANCE * max(abs(left), abs(right))
