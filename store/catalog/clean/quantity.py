"""`Value:` and `Unit:` lines that disagree with the title.

A weight or volume agrees when it is, within rounding, a size of the title or that times its packs, its counts or
both; ounces and fluid ounces are compared as numbers, since sellers mix them up. A count agrees when it is one of the
title's counts, their product, or (a slip of the unit) one of its sizes. Where the title says nothing of the kind,
there is nothing to disagree with.
"""

import dataclasses
import itertools
import math
import re

import numpy as np
import pyarrow.compute as pc

from store.catalog.clean.rows import Catalogue, Finding
from store.catalog.parse.packs import Packs, find_packs
from store.catalog.parse.units import UNITS, Unit, normalise

MOST_COUNTS, MOST_SIZES = 12, 50  # of one title; it has more where it is no title
TOLERANCE = 0.06  # labels round, twice where a size is written in two units
_OUNCE = {"g": UNITS["ounce"][1], "ml": UNITS["fl oz"][1]}
_UNIT_SIZES = {
    dimension: {size for other, size in UNITS.values() if other == dimension}
    for dimension, _ in UNITS.values()
}
_DIGIT = re.compile(r"\d")


def disagreements(rows: Catalogue) -> Finding:
    """Rows of train and test whose lines fit nothing that their title says."""
    written = pc.and_(pc.is_valid(rows.value), pc.and_(pc.is_valid(rows.unit), pc.is_valid(rows.name)))
    found, reasons = [], []
    for i in np.flatnonzero(np.array(written, dtype=bool)).tolist():
        value, unit, name = rows.value[i].as_py(), rows.unit[i].as_py(), rows.name[i].as_py()
        reason = disagreement(value, normalise(unit), name)
        if reason is not None:
            found.append(i)
            reasons.append(reason)
    return Finding("quantity", np.array(found, np.int64), None, reasons)


def disagreement(value: float, unit: Unit | None, name: str) -> str | None:
    """Why the lines don't fit the title, in words; None where they do or nothing can be said."""
    if unit is None or unit.dimension is None or value <= 0 or not _DIGIT.search(name):
        return None
    packs = find_packs(name)
    packs = dataclasses.replace(packs, sizes=packs.sizes[:MOST_SIZES])
    if unit.dimension == "count":
        possible = _counts(packs)
        sizes = {size.amount / one for size in packs.sizes for one in _UNIT_SIZES[size.dimension]}
        if possible == {1.0} or value == 1 or any(_near(value, one) for one in possible | sizes):
            return None
        said = ", ".join(f"{one:g}" for one in sorted(possible - {1.0}))
        return f"{value:g} {unit.name}, the title counts {said}"
    if not packs.sizes:
        return None
    listed = value * unit.size / _OUNCE[unit.dimension]
    ounces = {size.amount / _OUNCE[size.dimension] for size in packs.sizes}
    counts, all_times = _counts(packs), {1} | {size.times for size in packs.sizes}
    many = {times * count for times in all_times for count in counts}
    if any(_near(listed, one * times) for one in ounces for times in many):
        return None
    said = ", ".join(dict.fromkeys(f"{size.amount:.4g} {size.dimension}" for size in packs.sizes))
    others = sorted(many - {1.0})
    times = f" and counts {', '.join(f'{one:g}' for one in others)}" if others else ""
    return f"{value:g} {unit.name} ({value * unit.size:.4g} {unit.dimension}), the title says {said}{times}"


def _counts(packs: Packs) -> set[float]:
    """Every product of some of the title's counts, of the first `MOST_COUNTS` where it has more."""
    written = (packs.packs, packs.counted, *(size.times for size in packs.sizes))
    factors = [one for one in written if one != 1][:MOST_COUNTS]
    subsets = itertools.chain.from_iterable(
        itertools.combinations(factors, n) for n in range(min(len(factors), 4) + 1)
    )
    return {float(math.prod(subset)) for subset in subsets}


def _near(left: float, right: float) -> bool:
    return abs(left - right) <= TOLERANCE * max(left, right)
