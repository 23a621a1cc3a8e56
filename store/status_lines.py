"""The status of a workspace for people."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from store.failures import FailedRow
    from store.inventory import VectorHolding
    from store.status import Status

MARGIN = 12


def lines_of(status: "Status", step: tuple[str, str] | None) -> Iterator[str]:
    """One line a thing, its subject in the margin."""
    yield from _subject("workspace", [status.workspace])
    yield from _subject("catalogue", _catalog(status))
    width = max((len(one.name) for one in status.vectors), default=0) + 2
    yield from _subject("vectors", [f"{one.name:<{width}}{_vectors(one)}" for one in status.vectors])
    yield from _subject("folds", [_folds(status)])
    yield from _subject("cleaning", [_cleaning(status)])
    yield from _subject("heads", _heads(status))
    yield from _subject("blend", [_blend(status)])
    yield from _subject("submission", [_submission(status)])
    yield from _subject("next", [f"{step[0]}  ({step[1]})" if step else "nothing: all is up to date"])


def failure_lines(rows: Sequence["FailedRow"]) -> Iterator[str]:
    """One line a row that failed; a row is there once for each thing that it lacks."""
    for row in rows:
        file = f" ({row.file})" if row.file is not None else ""
        yield f"{row.what}: {row.split} {row.sample_id}{file}: {row.stage}: {row.reason}"
    yield f"{len(rows)} failures" if rows else "no failures"


def _subject(subject: str, lines: Sequence[str]) -> Iterator[str]:
    for number, line in enumerate(lines or ["none"]):
        yield f"{subject if number == 0 else '':<{MARGIN}}{line}"


def _catalog(status: "Status") -> list[str]:
    if status.catalog is None:
        return []
    lines = []
    for name, split in status.catalog.splits.items():
        to_get = split.with_link - split.with_image
        lines.append(
            f"{name:<6}{split.rows:>9,} rows, {split.with_image:,} with an image"
            + (f", {to_get:,} with a link alone" if to_get else "")
        )
    rejected = status.catalog.rejected
    if rejected:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in rejected.items())
        lines.append(f"{sum(rejected.values()):,} rows rejected: {reasons}")
    if status.images is not None:
        images = status.images
        failed = f", {images.failed:,} failed" if images.failed else ""
        lines.append(f"{images.stored:,} distinct images, {size_text(images.n_bytes)}{failed}")
    return lines


def _vectors(one: "VectorHolding") -> str:
    if one.problem is not None:
        return one.problem
    parts = []
    for split, rows in one.coverage.items():
        notes = [f"{rows.failed:,} failed"] if rows.failed else []
        notes += [f"{rows.missing:,} missing"] if rows.missing else []
        parts.append(f"{split} {rows.have:,} of {rows.rows:,}" + (f" ({', '.join(notes)})" if notes else ""))
    about = (
        f"{one.dim}-d, {size_text(one.n_bytes)}, {one.fingerprint}" if one.fingerprint else "never embedded"
    )
    extra = "" if one.is_configured else ", not configured"
    return f"{', '.join(parts)}{'; ' if parts else ''}{about}{extra}"


def _folds(status: "Status") -> str:
    folds = status.folds
    if folds is None:
        return "none: the next 'heads run' decides them"
    how = f"{folds.grouping} groups, seed {folds.seed}" if folds.grouping else "brought along"
    stale = f"; stale: {folds.stale}" if folds.stale else ""
    return f"{folds.k} folds of {folds.rows:,} rows in {folds.groups:,} groups, {how}, {folds.hash}{stale}"


def _cleaning(status: "Status") -> str:
    cleaning = status.cleaning
    if cleaning is None:
        return "none"
    policies = ", ".join(f"{finding}={policy}" for finding, policy in cleaning.policies.items())
    if cleaning.stale is not None:
        return f"{policies or 'keep'}; stale: {cleaning.stale}"
    if not policies:
        return "none: training takes every row as it is"
    return f"{policies}; {'up to date' if cleaning.digest else 'up to date, no row is concerned'}"


def _heads(status: "Status") -> list[str]:
    lines = []
    for one in status.heads:
        if one.stale:
            state = f"stale: {'; '.join(one.stale)}"
        else:
            state = "older run" if one.is_superseded else "up to date"
        smape = f"{one.smape:8.3f}" if one.smape is not None else " " * 8
        lines.append(f"{one.head:<18} SMAPE{smape}  {state}")
    stale = {one.head for one in status.heads}
    lines.extend(f"{head:<18} not trained" for head in status.untrained if head not in stale)
    return lines


def _blend(status: "Status") -> str:
    blend = status.blend
    if blend is None:
        return "none"
    weights = ", ".join(f"{head} {weight:.2f}" for head, weight in blend.weights.items())
    score = f"honest SMAPE {blend.nested:.3f}, " if blend.nested is not None else ""
    return f"{score}{weights}; {'stale: ' + '; '.join(blend.stale) if blend.stale else 'up to date'}"


def _submission(status: "Status") -> str:
    submission = status.submission
    if submission is None:
        return "none"
    state = f"stale: {'; '.join(submission.stale)}" if submission.stale else "up to date"
    return f"submission.csv, {size_text(submission.n_bytes)}; {state}"


def size_text(n_bytes: int) -> str:
    """Bytes in the unit that reads best."""
    size = float(n_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
