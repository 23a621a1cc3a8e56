"""The facts as one HTML page that needs nothing else: style, script, drawings and thumbnails are in it."""

import base64
import hashlib
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from ensemble.report.dimensions import cut
from store.catalog.show.charts import priced
from store.catalog.show.style import STYLE
from store.rooms import size_text

Thumbnail = Callable[[str], str | None]  # digest -> data URL
MOST_IMAGE_BYTES = 2_500_000  # of all thumbnails together; rows beyond it are shown without


def page_of(facts: dict[str, Any], thumbnail: Thumbnail) -> str:
    """The page; whatever text the catalogue holds is escaped by the template engine."""
    from jinja2 import Environment, StrictUndefined

    from ensemble.report.charts import curve, density

    script = _resource("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "price": lambda price: priced(price, facts["typical_price"]),
        "size": size_text,
        "seconds": _seconds,
        "cut": cut,
        "points": lambda value: f"{value:+.2f}",
        "share": lambda value: f"{value:.1%}",
        "signed": lambda value: f"{value:+.0%}" if abs(value) < 10 else f"×{1 + value:,.0f}",
    }
    return environment.from_string(_resource("page.html")).render(
        facts=facts,
        style=STYLE + _resource("page.css"),
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        thumbnail=Album(thumbnail),
        density=density(facts["density"]),
        curve=curve(facts["curve"]["points"]) if facts["curve"]["points"] else None,
        widest=max((one["smape"] for several in facts["slices"] for one in several["slices"]), default=1.0),
        reasons=list(dict.fromkeys(row["reason"] for row in facts["worst"])),
        **_ranges(facts),
    )


class Album:
    """Thumbnails, as long as there is room for them."""

    def __init__(self, thumbnail: Thumbnail) -> None:
        self._thumbnail, self._n_bytes = thumbnail, 0

    def __call__(self, digest: str | None) -> str | None:
        if digest is None or self._n_bytes >= MOST_IMAGE_BYTES:
            return None
        url = self._thumbnail(digest)
        self._n_bytes += len(url or "")
        return url


def _ranges(facts: dict[str, Any]) -> dict[str, Any]:
    """Axes that rows of a table share."""
    board = facts["leaderboard"]
    ends = [value for entry in board if entry["kind"] != "median" for value in entry["interval"]]
    low, high = min(ends), max(ends)
    margin = 0.05 * max(high - low, 1e-9)
    most = max((abs(v) for one in facts["importance"]["inputs"] for v in one["interval"]), default=1.0)
    return {"board_low": low - margin, "board_width": high - low + 2 * margin, "most_points": most or 1.0}


def _seconds(value: float) -> str:
    """3 h 20 min, 4 min 10 s, 12.3 s."""
    if value >= 3600:
        return f"{value // 3600:.0f} h {value % 3600 // 60:.0f} min"
    return f"{value // 60:.0f} min {value % 60:.0f} s" if value >= 100 else f"{value:.1f} s"


def _resource(name: str) -> str:
    return (files("ensemble.report") / name).read_text(encoding="utf-8")
