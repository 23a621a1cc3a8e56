"""Records of a run: `history.parquet` with a row for each step, and a chart of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from embed.finetune.job import FinetuneJob
from store.schema import TUNING_HISTORY
from store.workspace import Workspace

HISTORY_FILE = "history.parquet"
CURVE_FILE = "curve.svg"


@dataclass
class History:
    """Rows of one fold."""

    fold: int
    rows: list[dict[str, float | int | None]] = field(default_factory=list)

    @classmethod
    def read(cls, workspace: Workspace, path: str, fold: int, up_to: float = math.inf) -> "History":
        """The rows of a run up to a step, such as the one that it goes on from."""
        if not workspace.exists(path):
            return cls(fold)
        found = workspace.read_table(path).to_pylist()
        return cls(fold, [row for row in found if row["step"] <= up_to])

    def add(self, **row: float | int | None) -> None:
        self.rows.append({"fold": self.fold, **row})

    def publish(self, workspace: Workspace, path: str) -> None:
        workspace.publish_table(path, pa.Table.from_pylist(self.rows, schema=TUNING_HISTORY))


def publish_curve(job: FinetuneJob) -> None:
    """Draw every fold of a run, as far as each has come."""
    histories = []
    for fold in job.all_folds:
        path = f"{job.fold_folder(fold)}/{HISTORY_FILE}"
        if job.workspace.exists(path):
            histories.append(History.read(job.workspace, path, fold))
    job.workspace.publish_bytes(f"{job.folder}/{CURVE_FILE}", curve_svg(histories).encode())


WIDTH, HEIGHT, MARGIN = 640, 320, 48
COLOURS = ("#3366cc", "#dc3912", "#109618", "#ff9900", "#990099", "#0099c6", "#dd4477", "#66aa00")
MOST_POINTS = 40  # of a fold's training curve: means over so many stretches


def curve_svg(histories: Sequence[History]) -> str:
    """SMAPE over steps as SVG: thin, of the rows trained on; thick with dots, of the rows set aside."""
    trained = {h.fold: _smoothed([(r["step"], r["smape"]) for r in h.rows]) for h in histories}
    inner = {h.fold: _points([(r["step"], r["inner_smape"]) for r in h.rows]) for h in histories}
    everything = [point for lines in (trained, inner) for line in lines.values() for point in line]
    if not everything:
        return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"/>'
    right = max(x for x, _ in everything)
    low, high = min(y for _, y in everything), max(y for _, y in everything)
    low, high = low - 0.05 * (high - low) - 1e-6, high + 0.05 * (high - low) + 1e-6

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x, y = point
        across, down = WIDTH - MARGIN - 80, HEIGHT - 2 * MARGIN
        return MARGIN + x / max(right, 1) * across, MARGIN + (high - y) / (high - low) * down

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="Learning curves" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{MARGIN}" y="24">SMAPE, percent: thin while training, thick on the rows set aside</text>',
        f'<text x="{WIDTH - 80}" y="{HEIGHT - 16}" text-anchor="end">{right:,.0f} steps</text>',
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = low + share * (high - low)
        y = place((0, value))[1]
        parts.append(f'<line x1="{MARGIN}" x2="{WIDTH - 80}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.1f}</text>')
    for at, fold in enumerate(trained):
        colour = COLOURS[at % len(COLOURS)]
        for line, width in ((trained[fold], 1), (inner[fold], 2.5)):
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, line))
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
            )
        for x, y in map(place, inner[fold]):
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - 70}" y="{MARGIN + 16 * at + 4}" fill="{colour}">fold {fold}</text>')
    return "".join([*parts, "</svg>\n"])


def _points(pairs: Sequence[tuple[float | int | None, float | int | None]]) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in pairs if x is not None and y is not None]


def _smoothed(
    pairs: Sequence[tuple[float | int | None, float | int | None]],
) -> list[tuple[float, float]]:
    points = _points(pairs)
    size = max(1, -(-len(points) // MOST_POINTS))
    stretches = [points[at : at + size] for at in range(0, len(points), size)]
    return [(sum(x for x, _ in s) / len(s), sum(y for _, y in s) / len(s)) for s in stretches]
