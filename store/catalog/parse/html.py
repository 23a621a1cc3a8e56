"""HTML in catalogue texts: tags go, entities become the characters that they stand for."""

import html
import re
from html.entities import html5

_BLOCKS = (
    "p br div li ul ol dl dt dd tr table thead tbody tfoot td th h1 h2 h3 h4 h5 h6 hr section article header footer "
    "blockquote pre center"
).split()
_INLINE = (
    "b i u em strong span a font small big sub sup s strike del ins mark code label img abbr cite q tt wbr nobr script "
    "style"
).split()
_ATTRIBUTES = r"(?:\s[^<>]*|/)?"
_SCRIPT = re.compile(rf"<(script|style)\b{_ATTRIBUTES}>[^<]*</\1\s*>", re.IGNORECASE)
_BLOCK = re.compile(rf"</?(?:{'|'.join(_BLOCKS)}){_ATTRIBUTES}>", re.IGNORECASE)
_TAG = re.compile(rf"</?(?:{'|'.join(_BLOCKS + _INLINE)}){_ATTRIBUTES}>|<!--[^<>]*-->", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:([a-zA-Z][a-zA-Z0-9]{1,31};)|#[0-9]{1,7};|#[xX][0-9a-fA-F]{1,6};)")
_AROUND_NEWLINES = re.compile(r"[ \t]*\n[ \t\n]*")
MAY_HOLD_HTML = r"<[a-zA-Z/!]|&[a-zA-Z#]"  # a text without a match has neither tags nor entities


def without_html(text: str) -> str:
    """A text without tags and with its entities read; one that has neither comes back as it is.

    Block elements end a line. Text that was escaped as a whole (`&lt;p&gt;`) is read like HTML as well.

    >>> without_html("<p>Fish &amp; <b>chips</b></p><p>2 pieces</p>")
    'Fish & chips\\n2 pieces'
    """
    unescaped = _ENTITY.sub(_character, text)
    plain = _TAG.sub("", _BLOCK.sub("\n", _SCRIPT.sub("", unescaped)))
    if plain == text:
        return text
    if plain != unescaped:  # tags are gone, and what they enclosed may be escaped once more
        plain = _AROUND_NEWLINES.sub("\n", _ENTITY.sub(_character, plain)).strip()
    return plain


def _character(match: re.Match[str]) -> str:
    if match[1] is not None and match[1] not in html5:
        return match[0]
    return html.unescape(match[0]).replace("\u00a0", " ")
