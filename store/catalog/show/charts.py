"""Histograms with a log axis, drawn as SVG by hand."""

import math
from collections.abc import Callable

import numpy as np

from store.catalog.show.facts import Histogram

WIDTH, HEIGHT = 560, 210
LABEL_WIDTH = 10.5  # of one character of a tick, at the size that phones have
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 12, 40


def log_histogram(found: Histogram, unit: str) -> str:
    """Shares of each split's rows; the first split as bars, the second as a line over them."""
    shares = {split: counts / max(counts.sum(), 1) for split, counts in found.counts.items()}
    top = max([float(s.max(initial=0)) for s in shares.values()] + [1e-9])
    step = _nice(top / 3)
    top = step * math.ceil(top / step - 1e-9)
    inner_width, inner_height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    low, high = np.log10(found.edges[0]), np.log10(found.edges[-1])

    def x_of(value: float) -> float:
        return float(_LEFT + (np.log10(value) - low) / (high - low) * inner_width)

    def y_of(share: float) -> float:
        return _TOP + (1 - share / top) * inner_height

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Histogram of {unit}, log axis">']
    for i in range(round(top / step) + 1):
        y = y_of(i * step)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{100 * i * step:.3g}%</text>'
        )
    for tick in apart(ticks(float(found.edges[0]), float(found.edges[-1])), x_of):
        x = x_of(tick)
        parts.append(
            f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{HEIGHT - _BOTTOM}" y2="{HEIGHT - _BOTTOM + 4}"/>'
        )
        parts.append(
            f'<text x="{x:.1f}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{label(tick)}</text>'
        )
    parts.append(
        f'<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 5}" text-anchor="end" class="unit">{unit}, log axis</text>'
    )
    edges = [x_of(edge) for edge in found.edges]
    for number, share in enumerate(shares.values()):
        if number == 0:
            bars = zip(edges[:-1], edges[1:], share.tolist(), strict=True)
            parts += [
                f'<rect class="bar" x="{a + 0.5:.1f}" width="{max(b - a - 1, 0.5):.1f}" y="{y_of(s):.1f}" '
                f'height="{s / top * inner_height:.1f}"/>'
                for a, b, s in bars
                if s > 0
            ]
        else:
            middles = (np.array(edges[:-1]) + np.array(edges[1:])) / 2
            points = " ".join(
                f"{x:.1f},{y_of(s):.1f}" for x, s in zip(middles.tolist(), share.tolist(), strict=True)
            )
            parts.append(f'<polyline class="over" points="{points}"/>')
    return "".join([*parts, "</svg>"])


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two on a log axis: powers of ten, and 2 and 5 times those where few are."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 4, 5, 6, 7, 8, 9)):
        found = [m * 10.0**e for e in exponents for m in mantissas if low <= m * 10.0**e <= high]
        if len(found) >= 4:
            break
    return found


def apart(values: list[float], x_of: Callable[[float], float]) -> list[float]:
    """Those of some ticks whose labels stand apart on a phone as well, powers of ten before others."""
    kept: list[float] = []
    for value in sorted(values, key=lambda one: (math.log10(one) % 1 > 1e-9, one)):
        half = LABEL_WIDTH * len(label(value)) / 2
        if all(
            abs(x_of(value) - x_of(one)) >= half + LABEL_WIDTH * (len(label(one)) / 2 + 1) for one in kept
        ):
            kept.append(value)
    return sorted(kept)


def label(value: float) -> str:
    """1000 -> 1k, 0.1 -> 0.1."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def priced(price: float, typical: float) -> str:
    """1,234 or 12.30: prices of a page alike, with decimals where a typical one is below 100; 0.00123 as it is."""
    if 0 < price < 0.1:
        return f"{price:.3g}"
    return f"{price:,.{0 if typical >= 100 else 2}f}"


def _nice(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next((m * power for m in (1, 2, 5) if m * power >= step), 10 * power)
