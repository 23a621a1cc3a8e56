"""The report's two drawings as SVG, in colours of the page."""

import math
from typing import Any

from markupsafe import Markup

from store.catalog.show.charts import apart, label, ticks

SIZE, LEFT, TOP, RIGHT, BOTTOM = 420, 52, 12, 20, 44
CURVE_HEIGHT = 300
SHADES = 6  # of density


def density(found: dict[str, Any]) -> Markup:
    """Predicted against true price, both on log axes, darker where more rows are."""
    edges, cells = found["edges"], found["cells"]
    low, high = math.log(edges[0]), math.log(edges[-1])
    inner = SIZE - LEFT - RIGHT
    step = inner / (len(edges) - 1)

    def place(price: float) -> float:
        return (math.log(price) - low) / (high - low) * inner

    top = max(count for *_, count in cells)
    paths: list[list[str]] = [[] for _ in range(SHADES)]
    for x, y, count in cells:
        shade = min(int(SHADES * math.log1p(count) / math.log1p(top)), SHADES - 1)
        left, upper = LEFT + x * step, TOP + inner - (y + 1) * step
        paths[shade].append(f"M{left:.1f} {upper:.1f}h{step:.1f}v{step:.1f}h-{step:.1f}z")
    parts = [
        f'<svg viewBox="0 0 {SIZE} {TOP + inner + BOTTOM}" role="img" '
        'aria-label="Predicted price against true price, log axes: rows on the diagonal are predicted exactly">'
    ]
    parts += [f'<path class="d{at}" d="{"".join(path)}"/>' for at, path in enumerate(paths) if path]
    parts.append(f'<line class="ideal" x1="{LEFT}" y1="{TOP + inner}" x2="{LEFT + inner}" y2="{TOP}"/>')
    for tick in apart(ticks(edges[0], edges[-1]), place):
        parts.append(_below(LEFT + place(tick), TOP + inner, label(tick)))
        parts.append(_beside(TOP + inner - place(tick), label(tick)))
    parts.append(
        f'<text x="{LEFT + inner}" y="{TOP + inner + 38}" text-anchor="end" class="unit">true price, log axis</text>'
        f'<text x="{LEFT + 4}" y="{TOP + 10}" class="unit">predicted</text>'
    )
    return Markup("".join([*parts, "</svg>"]))


def curve(points: list[dict[str, Any]]) -> Markup:
    """The expected score by the number of rows, with its interval; dots where it was measured."""
    width, height = 560 - LEFT - RIGHT, CURVE_HEIGHT - TOP - BOTTOM
    sizes = [math.log(point["n_rows"]) for point in points]
    ends = [value for point in points for value in point["interval"]]
    step = _nice((max(ends) - min(ends)) / 4)
    low, high = step * math.floor(min(ends) / step), step * math.ceil(max(ends) / step)

    def x_of(n_rows: float) -> float:
        return LEFT + (math.log(n_rows) - sizes[0]) / (sizes[-1] - sizes[0]) * width

    def y_of(smape: float) -> float:
        return TOP + (high - smape) / (high - low) * height

    upper = [f"{x_of(p['n_rows']):.1f},{y_of(p['interval'][1]):.1f}" for p in points]
    lower = [f"{x_of(p['n_rows']):.1f},{y_of(p['interval'][0]):.1f}" for p in reversed(points)]
    middle = [f"{x_of(p['n_rows']):.1f},{y_of(p['smape']):.1f}" for p in points]
    parts = [
        f'<svg viewBox="0 0 560 {CURVE_HEIGHT}" role="img" aria-label="Expected SMAPE by number of rows">'
    ]
    for i in range(round((high - low) / step) + 1):
        y = y_of(low + i * step)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + width}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_beside(y, f"{low + i * step:.6g}"))
    parts.append(f'<polygon class="band" points="{" ".join(upper + lower)}"/>')
    parts.append(f'<polyline class="law" points="{" ".join(middle)}"/>')
    for point in points:
        x = x_of(point["n_rows"])
        parts.append(_below(x, TOP + height, f"{point['share']:.0%}"))
        if point["measured"] is not None:
            parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y_of(point["measured"]):.1f}" r="4"/>')
    parts.append(
        f'<text x="{LEFT + width}" y="{CURVE_HEIGHT - 5}" text-anchor="end" class="unit">share of the rows, log axis</text>'
    )
    return Markup("".join([*parts, "</svg>"]))


def _below(x: float, y: float, said: str) -> str:
    return (
        f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 4}"/>'
        f'<text x="{x:.1f}" y="{y + 18}" text-anchor="middle">{said}</text>'
    )


def _beside(y: float, said: str) -> str:
    return f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{said}</text>'


def _nice(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(max(step, 1e-9)))
    return next((m * power for m in (1, 2, 5) if m * power >= step), 10 * power)
