"""Currencies as they are written beside prices: sign or code -> one spelling for each."""

from collections import Counter
from collections.abc import Mapping

# Spelling in lower case, without blanks and points at its ends -> the currency.
_SPELLINGS: dict[str, str] = {
    "$": "$ us$ usd dollar dollars",
    "€": "€ eur euro euros",
    "£": "£ gbp",
    "₹": "₹ rs inr re rupees",
    "¥": "¥ jpy jp¥ 円",
    "CNY": "cny rmb cn¥ 元",
    "₩": "₩ krw 원",
    "₽": "₽ rub руб р",
    "₺": "₺ try tl",
    "₫": "₫ vnd đ",
    "฿": "฿ thb",
    "₱": "₱ php",
    "₦": "₦ ngn",
    "₪": "₪ ils nis",
    "₴": "₴ uah грн",
    "zł": "zł pln zl",
    "Kč": "kč czk",
    "Ft": "ft huf",
    "lei": "lei ron",
    "kr": "kr",
    "SEK": "sek",
    "NOK": "nok",
    "DKK": "dkk",
    "CHF": "chf fr sfr",
    "R$": "r$ brl",
    "CAD": "cad c$ ca$",
    "AUD": "aud a$ au$",
    "NZD": "nzd nz$",
    "SGD": "sgd s$",
    "HKD": "hkd hk$",
    "MXN": "mxn mx$",
    "AED": "aed dh dhs",
    "SAR": "sar sr",
    "IDR": "idr rp",
    "MYR": "myr rm",
    "ZAR": "zar r",
    "EGP": "egp",
    "PKR": "pkr",
    "BDT": "bdt ৳ tk",
    "LKR": "lkr",
    "NPR": "npr",
    "KES": "kes ksh kshs",
    "TZS": "tzs tsh tshs",
    "UGX": "ugx ush ushs",
    "GHS": "ghs gh₵ ₵",
    "XOF": "xof cfa fcfa",
    "DZD": "dzd",
    "QAR": "qar qr",
    "TWD": "twd nt$",
    "ARS": "ars ar$",
    "CLP": "clp",
    "COP": "cop col$",
    "PEN": "s/",
    "BGN": "bgn лв",
    "RSD": "rsd",
    "₾": "₾",
    "₸": "₸ kzt тг",
    "KWD": "kwd",
    "BHD": "bhd",
    "OMR": "omr",
    "JOD": "jod",
    "TND": "tnd",
}
CURRENCIES = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings.split()}
THREE_DECIMALS = frozenset(("KWD", "BHD", "OMR", "JOD", "TND"))  # a thousandth is their smallest coin


def currency_of(written: str) -> str | None:
    """The currency that a sign, code or word stands for; None where it is none."""
    return CURRENCIES.get(written.strip(" .\u00a0\u202f").lower())


def currency_counts(cells: Mapping[str, int]) -> Counter[str]:
    """Currencies of a column that holds their signs and codes of three letters alone; nothing where it holds more.

    Args:
        cells: distinct cells and how often each occurs.
    """
    counts: Counter[str] = Counter()
    for cell, n in cells.items():
        if not cell or cell.lower() in ("nan", "none", "null"):
            continue
        kind = currency_of(cell) if not cell.isalpha() or (len(cell) == 3 and cell.isupper()) else None
        if kind is None:
            return Counter()
        counts[kind] += n
    return counts
