"""What an item name counts, beside its sizes: "Pack of 3", "24 Count", "8 per case", "50 tea bags"."""

import re
from dataclasses import dataclass, field

from store.catalog.parse.sizes import Size, Taken, find_sizes

_WORDS = {
    word: number
    for number, word in enumerate(
        "one two three four five six seven eight nine ten eleven twelve".split(), start=1
    )
}
_WORD = "|".join(_WORDS)
_NUMBER = r"(?P<number>[0-9](?<![\w./$].)(?<!\d,.)[0-9]{0,4})"

# Packs: how many of the item. Each pattern with the pieces of text without which it can't match.
_PACKS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (
        re.compile(
            r"\b(?:pack|pk|case|box|set|bundle|carton|lot|bag|tray|combo|packet|crate|display|jar|tin|tub)s?"
            rf"(?: of |-of-|\(of )\(?(?P<number>[0-9]{{1,4}}|{_WORD})\b(?![.,]\d)"
        ),
        (" of ", "-of-", "(of "),
    ),
    (
        re.compile(r"\b(?:pack|case|pk)\)?\s*+(?:[-–:=]\s*+)?\(?(?P<number>[0-9]{1,3})\s*+(?:$|[),;|])"),
        ("pack", "case", "pk"),
    ),
    (
        re.compile(
            rf"(?<![\w./])(?<!\d,)(?P<number>[0-9]{{1,4}}|{_WORD})[\s-]*(?:pack|pk|pck|pckt|case)s?\b(?! of \d)"
        ),
        ("pack", "pk", "pck", "case"),
    ),
    (
        re.compile(
            _NUMBER + r"\s*(?:[a-z]+\s*)?(?:/|\bper\b|\bto an?\b)\s*(?:case|carton|box|pack|cs|ctn)\b"
        ),
        ("/", "per", "to a"),
    ),
)
_TWIN = re.compile(r"\b(?:twin|double)[\s-]?pack\b")
_DOZEN = re.compile(rf"(?:(?<![\w.])(?P<number>[0-9]{{1,3}}|{_WORD})\s+)?\bdozen\b")

# A small number that belongs to the name before it: "Omega 3 Softgels", "Omega 3-6-9 Capsules", "Vitamin B 12 Tablets".
_NAMED = re.compile(r"\b(?:omega|vitamin [bdk]|stage|step|formula|grade|type|level)[\s-]+(?:\d[\s/&-]+)*$")
_NAMING = ("omega", "vitamin", "stage", "step", "formula", "grade", "type", "level")
_LONGEST_NAMING = 24  # characters before a number
_MOST_NAMED = 12

# Counted inside one pack.
_QUALIFIERS = (
    "individual individually wrapped single serve mini small large snack tea resealable glass plastic assorted gift "
    "keurig coffee chewy premium sealed disposable stick herbal green black count ct k-cup kcup energy protein size"
).split()
_ITEMS = "count ct cnt ea can bottle jar pouch bag box packet pack bar canister tub carton container tin pair"
_PIECES = "piece pc pcs stick teabag pod capsule tablet softgel slice roll sheet wipe cookie bagel k-cup sachet unit"
_NOUN = "|".join(f"{noun}(?:e?s)?" for noun in f"{_ITEMS} {_PIECES}".split())
_TIMES = re.compile(  # "6 x 30 ct"
    rf"(?<![\w.,/])(?P<number>[0-9]{{1,3}})\s*[x×]\s*(?=[0-9]{{1,4}}[\s-]*(?:{_NOUN})\b)"
)
_COUNT = re.compile(
    _NUMBER + r"[\s-]*"
    rf"(?P<qualifier>(?:(?:{'|'.join(_QUALIFIERS)})[\s-]+){{0,3}})"
    rf"(?P<noun>{_NOUN})"
    r"(?!\w|\s*(?:gold|diamond|tw\b|per\b))"
)
_PIECE_NOUNS = frozenset(_PIECES.split())


@dataclass(frozen=True, slots=True)
class Packs:
    """Everything countable in a name. Counts are 1 and positions -1 where nothing is written."""

    sizes: tuple[Size, ...] = ()
    packs: int = 1  # "pack of 3", "8 per case"
    packs_start: int = -1
    counted: int = 1  # inside one pack: "18 count", "20 cans", "50 tea bags"
    counted_start: int = -1
    is_pieces: bool = False  # counted are parts of one item (tea bags, slices), not items of the size written
    taken: Taken = field(default_factory=Taken, compare=False)  # by the numbers read


NOTHING = Packs()


def find_packs(name: str) -> Packs:
    """Sizes and counts of an item name."""
    lowered = name.lower()
    if len(lowered) != len(name):  # a few letters lower to two characters
        lowered = "".join(low if len(low := letter.lower()) == 1 else letter for letter in name)
    taken = Taken(len(lowered))
    sizes = find_sizes(lowered, name, taken)
    outer: list[tuple[int, int]] = []  # (number, start), best first
    for pattern, needed in _PACKS:
        if any(part in lowered for part in needed):
            for match in pattern.finditer(lowered):
                _take(match, taken, outer)
    if "x" in lowered or "×" in lowered:
        for match in _TIMES.finditer(lowered):
            _take(match, taken, outer)
    outer.extend((2, match.start()) for match in _TWIN.finditer(lowered) if "pack" in lowered)
    several = [one for one in outer if one[0] > 1]
    packs, packs_start = several[0] if several else (1, outer[0][1] if outer else -1)
    inside = [(number, start, False) for number, start in several[1:] if number != packs]
    inside.extend(one for one in _counted(lowered, taken) if one[0] > 1)
    counted, counted_start, is_pieces = inside[0] if inside else (1, -1, False)
    return Packs(sizes, packs, packs_start, counted, counted_start, is_pieces, taken)


def _counted(lowered: str, taken: Taken) -> list[tuple[int, int, bool]]:
    counted: list[tuple[int, int, bool]] = []
    is_naming = any(word in lowered for word in _NAMING)
    for match in _COUNT.finditer(lowered):
        start = match.start("number")
        is_small = is_naming and int(match["number"]) <= _MOST_NAMED
        if is_small and _NAMED.search(lowered, max(0, start - _LONGEST_NAMING), start):
            continue
        is_pieces = "tea" in match["qualifier"] or match["noun"].removesuffix("s") in _PIECE_NOUNS
        found: list[tuple[int, int]] = []
        _take(match, taken, found)
        counted.extend((number, start, is_pieces) for number, start in found)
    if "dozen" in lowered:
        for match in _DOZEN.finditer(lowered):
            number = match["number"]
            counted.append((12 * (_integer(number) if number else 1), match.start(), False))
    return counted


def _take(match: re.Match[str], taken: Taken, found: list[tuple[int, int]]) -> None:
    span = match.span("number")
    if taken.meets(span):
        return
    taken.add(span)
    number = _integer(match["number"])
    if number > 0:
        found.append((number, span[0]))


def _integer(text: str) -> int:
    return _WORDS.get(text) or int(text)
