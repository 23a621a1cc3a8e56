"""Parameters of heads: the values each may have, declared on its field, and the names of version 0.1.0."""

import dataclasses
import math
import numbers
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from store.errors import HeadError

MOST_SEED = 2**31 - 1  # that every library takes
_METADATA = "param"
_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a list of whole numbers",
}


@dataclass(frozen=True)
class Declared:
    """What a parameter may be.

    A tuple's limits hold for each of its items, which are whole numbers.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None  # exclusive
    below: float | None = None  # exclusive
    multiple_of: int = 1
    one_of: tuple[str, ...] = ()
    least_items: int = 0
    most_items: int = 16
    was: str | None = None  # its name in version 0.1.0, which records on disk keep
    was_values: Mapping[str, str] = field(default_factory=dict)  # value -> the value of version 0.1.0
    recorded: bool = True  # False: it decides no log price

    def holds(self, value: float) -> bool:
        """Whether a number lies within the limits."""
        return (
            value == value
            and abs(value) != math.inf
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (self.multiple_of == 1 or value % self.multiple_of == 0)
        )

    def described(self, kind: type) -> str:
        """Such as `a number above 0, at most 10`."""
        if self.one_of:
            return f"one of {', '.join(self.one_of)}"
        words = [_KINDS[kind]]
        if self.low is not None and self.high is not None:
            words[0] += f" from {_written(self.low, kind)} to {_written(self.high, kind)}"
        elif self.low is not None:
            words[0] += f" of at least {_written(self.low, kind)}"
        if self.above is not None:
            words[0] += f" above {_written(self.above, kind)}"
        if self.below is not None:
            words.append(f"below {_written(self.below, kind)}")
        if self.high is not None and self.low is None:
            words.append(f"at most {_written(self.high, kind)}")
        if self.multiple_of > 1:
            words.append(f"a multiple of {self.multiple_of}")
        if kind is tuple and self.least_items:
            words.append(f"{self.least_items} item or more")
        return ", ".join(words)


def _written(limit: float, kind: type) -> str:
    return f"{limit:,.0f}" if kind is int else f"{limit:,g}"


def param(default: Any, **declared: Any) -> Any:
    """A parameter of a head: a dataclass field with its default and the values that it may have.

    A subclass may change only the default.

    >>> from dataclasses import dataclass
    >>> @dataclass(kw_only=True, eq=False)
    ... class Sized:
    ...     size: int = param(64, low=1, high=512)
    >>> Sized().size
    64

    Args:
        default: the value of a head that is made without it.
        declared: fields of `Declared`, such as `low` and `high`.

    Returns:
        The dataclass field.
    """
    return field(default=default, metadata={_METADATA: Declared(**declared)})


def declared_of(cls: type, name: str) -> Declared:
    """What the nearest class declares of a parameter; the bare type of its default where none does."""
    for base in cls.__mro__:
        own = base.__dict__.get("__dataclass_fields__", {}).get(name)
        if own is not None and _METADATA in own.metadata:
            found: Declared = own.metadata[_METADATA]
            return found
    return Declared()


def defaults_of(cls: type) -> dict[str, Any]:
    """Parameter -> default."""
    return {one.name: one.default for one in dataclasses.fields(cls)}


def current_params(cls: Any, params: Mapping[str, Any], *, warn: bool = True) -> dict[str, Any]:
    """Parameters under their present names and values; those of version 0.1.0 are accepted too.

    Args:
        cls: class of the head.
        warn: with a FutureWarning; False: they were read from a record.

    Raises:
        HeadError: a parameter is unknown, or given under both names.
    """
    known = defaults_of(cls)
    now = {was: name for name in known if (was := declared_of(cls, name).was) is not None}
    found: dict[str, Any] = {}
    for given, value in params.items():
        name = now.get(given, given)
        if name not in known:
            raise HeadError(
                f"{cls.name} has no parameter {given!r}, it takes {', '.join(sorted(known)) or 'none'}"
            )
        if name in found:
            raise HeadError(f"{cls.name}: {name} is given twice, also by its old name: leave one out")
        values = {old: new for new, old in declared_of(cls, name).was_values.items()}
        found[name] = values.get(value, value) if isinstance(value, str) else value
        if warn and (name != given or found[name] is not value):
            old, new = (
                (given, name) if name != given else (f"{name} = {value!r}", f"{name} = {found[name]!r}")
            )
            warnings.warn(
                f"{cls.name}: {old} is now {new}: the next version will not accept the old one",
                FutureWarning,
                stacklevel=3,
            )
    return found


def run_params(
    label: str, configured: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...] | None, bool]:
    """What the configuration says of a head: its own parameters, the vector sets it reads, whether tuning is used.

    Raises:
        HeadError: `vectors` or `tuned` is of another kind.
    """
    params = dict(configured)
    vectors, tuned = params.pop("vectors", None), params.pop("tuned", True)
    if vectors is not None and not (
        isinstance(vectors, (list, tuple)) and all(isinstance(one, str) for one in vectors)
    ):
        raise HeadError(_refused(label, "vectors", "a list of vector sets", vectors))
    if not isinstance(tuned, bool):
        raise HeadError(_refused(label, "tuned", "true or false", tuned))
    return params, None if vectors is None else tuple(vectors), tuned


def recorded_params(cls: type, params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as records on disk hold them: by the names and values of version 0.1.0, so that their digest stays."""
    recorded = {}
    for name, value in params.items():
        declared = declared_of(cls, name)
        if not declared.recorded:
            continue
        if isinstance(value, str):
            value = declared.was_values.get(value, value)
        recorded[declared.was or name] = value
    return recorded


def check_params(cls: type, params: Mapping[str, Any], label: str) -> None:
    """Check each parameter against what its class declares.

    Args:
        params: under their present names.
        label: the head, as the user calls it.

    Raises:
        HeadError: a value is of another kind, not finite or outside of its range.
    """
    for name, expected in misfits(cls, params):
        raise HeadError(_refused(label, name, expected, params[name]))


def misfits(cls: type, params: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each parameter whose value is not what its class declares, and what it must be, in words."""
    defaults = defaults_of(cls)
    for name, value in params.items():
        kind, declared = type(defaults[name]), declared_of(cls, name)
        if kind in _KINDS and not _is_fit(value, kind, declared):
            yield name, declared.described(kind)


def _refused(label: str, name: str, expected: str, value: Any) -> str:
    shown = repr(value)
    return (
        f"{label}: parameter {name} must be {expected}, got {shown[:60]}: change it in "
        f'[heads.params."{label}"] of shelfprice.toml, or where the head is made'
    )


def _is_fit(value: Any, kind: type, declared: Declared) -> bool:
    if kind is tuple:
        return (
            isinstance(value, (tuple, list))
            and declared.least_items <= len(value) <= declared.most_items
            and all(_is_fit(item, int, declared) for item in value)
        )
    if kind is str:
        return isinstance(value, str) and (not declared.one_of or value in declared.one_of)
    if kind is bool or isinstance(value, (bool, np.bool_)):
        return kind is bool and isinstance(value, (bool, np.bool_))
    whole = isinstance(value, numbers.Integral)
    return (whole or (kind is float and isinstance(value, numbers.Real))) and declared.holds(value)
