"""Unit spellings: what people write -> the normalised spelling, its dimension and its size in g, ml or pieces."""

from dataclasses import dataclass

MOST_AMOUNT = 1e12  # a longer run of digits is a code, not an amount
# Normalised spelling -> (dimension, size of one in that dimension).
UNITS: dict[str, tuple[str, float]] = {
    "milligram": ("g", 0.001),
    "gram": ("g", 1.0),
    "kilogram": ("g", 1000.0),
    "ounce": ("g", 28.349523125),
    "pound": ("g", 453.59237),
    "ml": ("ml", 1.0),
    "cl": ("ml", 10.0),
    "liter": ("ml", 1000.0),
    "fl oz": ("ml", 29.5735295625),
    "pint": ("ml", 473.176473),
    "quart": ("ml", 946.352946),
    "gallon": ("ml", 3785.411784),
    "count": ("count", 1.0),
}
# Spelling without dots and spaces, lower case -> normalised spelling.
SPELLINGS: dict[str, str] = {
    **dict.fromkeys(("mg", "mgs", "milligram", "milligrams"), "milligram"),
    **dict.fromkeys(("g", "gm", "gms", "gr", "grm", "grms", "gram", "grams", "gramm", "gramme"), "gram"),
    **dict.fromkeys(("grammes", "gram(gm)", "gramms"), "gram"),
    **dict.fromkeys(("kg", "kgs", "kilo", "kilos", "kilogram", "kilograms", "kilogramm"), "kilogram"),
    **dict.fromkeys(("oz", "ozs", "ounce", "ounces", "0z"), "ounce"),
    **dict.fromkeys(("lb", "lbs", "pound", "pounds"), "pound"),
    **dict.fromkeys(("ml", "mls", "milliliter", "milliliters", "millilitre", "millilitres"), "ml"),
    **dict.fromkeys(("mililitro", "mililitros", "milliter"), "ml"),
    **dict.fromkeys(("cl", "centiliter", "centilitre"), "cl"),
    **dict.fromkeys(("l", "lt", "ltr", "ltrs", "liter", "liters", "litre", "litres"), "liter"),
    **dict.fromkeys(("floz", "fl-oz", "fl-ounce", "flozs", "fz", "flounce", "flounces", "fl"), "fl oz"),
    **dict.fromkeys(("fluidounce", "fluidounces", "fluidounce(s)", "fluidoz", "fluid-ounce"), "fl oz"),
    **dict.fromkeys(("pint", "pints"), "pint"),
    **dict.fromkeys(("qt", "qts", "quart", "quarts"), "quart"),
    **dict.fromkeys(("gal", "gals", "gallon", "gallons"), "gallon"),
    **dict.fromkeys(("count", "counts", "ct", "cnt", "each", "ea", "piece", "pieces", "pc", "pcs"), "count"),
    **dict.fromkeys(("unit", "units", "unidades", "unidad", "item", "items", "stück"), "count"),
    **dict.fromkeys(("pack", "packs", "pk", "pks"), "pack"),
    **dict.fromkeys(("foot", "feet", "ft"), "foot"),
    **dict.fromkeys(("inch", "inches", "in", '"', "″", "”"), "inch"),
    **dict.fromkeys(("sqft", "squarefoot", "squarefeet"), "sq ft"),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), "meter"),
    **dict.fromkeys(
        ("sqm", "m2", "m²", "squaremeter", "squaremeters", "squaremetre", "squaremetres"), "sq m"
    ),
    **dict.fromkeys(("cm", "cms", "centimeter", "centimeters", "centimetre", "centimetres"), "cm"),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), "mm"),
}
# Things that are counted one by one, written as a unit: `Unit: bottle`.
COUNTED = frozenset(
    "pack bag bags bottle bottles box boxes can cans capsule capsules carton cartons case cases jar jars "
    "packet packets pouch pouches sachet sachets tablet tablets tub tubs tin tins stick sticks bar bars "
    "pod pods roll rolls k-cup k-cups kcups teabags pair pairs set sets perbox percarton ziplockbags".split()
)
MISSING = frozenset(("", "none", "nan", "null", "na", "n/a", "-", "--", "---", "."))


@dataclass(frozen=True)
class Unit:
    """One unit as written: its normalised spelling, and its dimension where it has one."""

    name: str
    dimension: str | None  # "g", "ml", "count" or None: neither weight, volume nor a count
    size: float  # of one, in the dimension


def normalise(spelling: str) -> Unit | None:
    """The unit that a spelling stands for; one that is not known stays itself, lower case; None where none is meant.

    `Fl. Oz`, `fluid ounce` and `FZ` are "fl oz"; `Each` and `ct` are "count"; `None` and `8` are no unit.
    """
    lowered = " ".join(spelling.lower().split())
    key = lowered.replace(".", "").replace(" ", "")
    if key in MISSING or not any(character.isalpha() or character in '"″”' for character in key):
        return None
    name = SPELLINGS.get(key, lowered)
    if name in UNITS:
        dimension, size = UNITS[name]
        return Unit(name, dimension, size)
    return Unit(name, "count" if key in COUNTED else None, 1.0)
