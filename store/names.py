"""Names that users give (head labels, runs) as parts of paths: checked here, where paths are made of them."""

import unicodedata

from store.errors import ConfigError

MOST_CHARACTERS = 100  # file systems take 255 bytes, a digest and a suffix come after


def file_name(name: str, what: str) -> str:
    """A name as one part of a path; `:`, which not every file system takes, becomes `.`.

    >>> file_name("ridge:images", "a head")
    'ridge.images'

    Args:
        what: it names, such as "a head".

    Raises:
        ConfigError: it could lead elsewhere, or is no name that people can read and type.
    """
    written = name.replace(":", ".")
    problem = _problem(written)
    if problem:
        raise ConfigError(
            f"the name of {what} becomes part of a path and {problem}, got {name[: MOST_CHARACTERS + 1]!r}: take another"
        )
    return written


def _problem(name: str) -> str:
    if not name.strip():
        return "must not be empty"
    if len(name) > MOST_CHARACTERS or len(name.encode(errors="replace")) > 2 * MOST_CHARACTERS:
        return f"may have {MOST_CHARACTERS} characters at most"
    if any(separator in name for separator in "/\\"):
        return "must not hold a separator of paths"
    if ".." in name or name.startswith("."):
        return "must not begin with '.' nor hold '..'"
    if name != name.strip():
        return "must not begin or end with a blank"
    if any(unicodedata.category(character).startswith("C") for character in name):
        return "must not hold control characters"
    return ""
