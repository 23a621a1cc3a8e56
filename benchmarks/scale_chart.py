"""The figure of docs/scale.md: seconds and memory over rows, both axes logarithmic, as an SVG without a library."""

import math
from dataclasses import dataclass

WIDTH, HEIGHT, LEFT, TOP, GAP = 300, 240, 60, 40, 120
COLOURS = ("#2a6f97", "#bc4749", "#588157", "#6a4c93")


@dataclass(frozen=True)
class Taken:
    """What one step took."""

    seconds: float
    processor_seconds: float
    gigabytes: float  # at its peak


PANELS = (
    ("processor seconds", "processor_seconds", 0.1, 1000.0),
    ("peak gigabytes", "gigabytes", 0.01, 10.0),
)


def draw(found: dict[int, dict[str, Taken]]) -> str:
    """Two panels, from rows -> step -> what it took."""
    steps = list(next(iter(found.values())))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * (WIDTH + GAP) + 40} {HEIGHT + 130}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for panel, (title, field, low, high) in enumerate(PANELS):
        x0 = LEFT + panel * (WIDTH + GAP)
        parts.append(f'<text x="{x0}" y="{TOP - 14}" font-weight="bold">{title}</text>')
        for tick in range(round(math.log10(low)), round(math.log10(high)) + 1):
            y = _y(10.0**tick, low, high)
            parts.append(f'<line x1="{x0}" y1="{y:.1f}" x2="{x0 + WIDTH}" y2="{y:.1f}" stroke="#ddd"/>')
            parts.append(f'<text x="{x0 - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**tick:g}</text>')
        for i, step in enumerate(steps):
            at = [(_x(n, x0, found), _y(max(low, getattr(found[n][step], field)), low, high)) for n in found]
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
            parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[i]}" stroke-width="2"/>')
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[i]}"/>' for x, y in at]
        for n in found:
            x = _x(n, x0, found)
            parts.append(
                f'<text x="{x:.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{n / 1e6:g} M rows</text>'
            )
    for i, step in enumerate(steps):
        x = LEFT + i * 180
        parts.append(f'<rect x="{x}" y="{TOP + HEIGHT + 42}" width="12" height="12" fill="{COLOURS[i]}"/>')
        parts.append(f'<text x="{x + 18}" y="{TOP + HEIGHT + 52}">{step}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _x(n: int, x0: int, found: dict[int, dict[str, tuple[float, float]]]) -> float:
    low, high = math.log10(min(found)), math.log10(max(found))
    return x0 + 20 + (WIDTH - 40) * (math.log10(n) - low) / (high - low)


def _y(value: float, low: float, high: float) -> float:
    return TOP + HEIGHT * (1 - math.log10(value / low) / math.log10(high / low))
