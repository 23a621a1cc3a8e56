"""Options of an address, read and checked: what every library file takes in the same words."""

from collections.abc import Collection

from embed.encoders.base import Address
from store.errors import EncoderError

YES, NO = ("yes", "true", "1"), ("no", "false", "0")


def check_options(address: Address, known: Collection[str]) -> None:
    """Raises EncoderError where an option is not known."""
    if unknown := sorted(set(address.options) - set(known)):
        raise EncoderError(
            f"{address.name}: unknown option {unknown[0]!r}, one of {', '.join(sorted(known))}"
        )


def one_of(address: Address, option: str, known: tuple[str, ...], default: str | None = None) -> str:
    """The value of an option that has few; the first where there is no other default.

    Raises:
        EncoderError: another value.
    """
    value = address.options.get(option, default or known[0])
    if value not in known:
        raise EncoderError(f"{address.name}: {option} must be one of {', '.join(known)}, got {value!r}")
    return value


def flag(address: Address, option: str, default: bool) -> bool:
    """The value of an option that is yes or no.

    Raises:
        EncoderError: it is neither.
    """
    value = address.options.get(option)
    if value is None:
        return default
    if value.lower() not in (*YES, *NO):
        raise EncoderError(f"{address.name}: {option} must be yes or no, got {value!r}")
    return value.lower() in YES


def number(address: Address, option: str, least: int, most: int | None = None) -> int | None:
    """The value of an option that is a whole number; None where it is not given.

    Raises:
        EncoderError: no whole number, or outside of its range.
    """
    value = address.options.get(option)
    if value is None:
        return None
    if not value.isdecimal() or not least <= int(value) <= (most or int(value)):
        raise EncoderError(
            f"{address.name}: {option} must be a whole number from {least} to {most or 'any'}, got {value!r}"
        )
    return int(value)


def long_texts(address: Address) -> str:
    """What becomes of texts beyond `max_tokens`: "truncate" or "chunks"."""
    return one_of(address, "long", ("truncate", "chunks"))
