"""Escapes what a terminal would act on in text of users' files and folders."""

import re

# Control characters apart from tab and newline (an escape sequence can rewrite the screen, or a window's title), marks
# that turn the direction of what follows, separators of lines, and halves of surrogate pairs, which can't be written.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """A text with everything that a terminal would act on written as an escape.

    >>> printable("Tea \\x1b[2J")
    'Tea \\\\x1b[2J'
    """
    return _UNPRINTABLE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
