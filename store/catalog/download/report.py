"""A run's summary for people and machines."""

from collections import Counter
from typing import Any

from store.catalog.download.run import Summary
from store.errors import NetworkError

UNREACHABLE = ("dns:", "connect:")
INSIDE = ("address refused: private", "address refused: loopback")


def as_dict(summary: Summary) -> dict[str, Any]:
    """The summary as plain JSON values."""
    wanted = summary.wanted
    return {
        "n_rows": wanted.n_rows,
        "n_rows_from_folder": wanted.n_from_folder,
        "n_rows_without_link": wanted.n_without,
        "n_rows_unusable_link": wanted.n_unusable.total(),
        "n_links": wanted.n_links,
        "n_stored_before": summary.n_stored_before,
        "n_failed_before": summary.n_failed_before,
        "n_asked": summary.n_asked,
        "n_stored": summary.n_stored,
        "n_new_images": summary.n_new_images,
        "n_cut": summary.n_cut,
        "n_not_modified": summary.n_not_modified,
        "n_failed": summary.n_failed,
        "n_recovered_void": summary.n_void,
        "n_rows_with_image": summary.n_rows_with_image,
        "n_bytes": summary.n_bytes,
        "seconds": round(summary.seconds, 3),
        "failed": dict(summary.failed.most_common()),
        "unusable": dict(wanted.n_unusable.most_common()),
        "notes": dict(wanted.notes.most_common()),
    }


def as_lines(summary: Summary) -> list[str]:
    """The summary as lines to print."""
    wanted = summary.wanted
    lines = [
        f"{wanted.n_rows} rows: {wanted.n_rows_with_link} with a link ({wanted.n_links} different), "
        f"{wanted.n_from_folder} with an image from a folder, {wanted.n_without} without a link, "
        f"{wanted.n_unusable.total()} with a link that can't be used"
    ]
    lines += _counted("  unusable", wanted.n_unusable) + _counted("  read as", wanted.notes)
    lines.append(
        f"stored before: {summary.n_stored_before}, asked now: {summary.n_asked}, stored: {summary.n_stored} "
        f"({summary.n_new_images} new images, {summary.n_bytes / 1e6:.1f} MB), "
        f"unchanged: {summary.n_not_modified}, failed: {summary.n_failed}"
    )
    if summary.n_cut:
        lines.append(f"  {summary.n_cut} lack the end of their file: the part that is there is decoded")
    lines += _counted("  failed", summary.failed)
    if any(reason.startswith(INSIDE) for reason in summary.failed):
        lines.append(
            "  private and loopback addresses are asked only with --allow-private (and --retry-failed)"
        )
    lines.append(f"rows with an image by link now: {summary.n_rows_with_image}")
    if summary.n_failed_before:
        lines.append(f"{summary.n_failed_before} links failed in an earlier run: --retry-failed asks again")
    if summary.n_asked and summary.seconds > 0:
        rate = summary.n_stored / summary.seconds
        lines.append(
            f"{summary.seconds:.1f} s, {rate:.0f} images/s, {summary.n_bytes / summary.seconds / 1e6:.1f} MB/s"
        )
    return lines


def refuse_if_unreachable(summary: Summary) -> None:
    """Raise where no server could be reached, so that a missing network is not taken for missing images.

    Raises:
        NetworkError: links were asked for and not one server could be reached.
    """
    lost = sum(n for reason, n in summary.failed.items() if reason.startswith(UNREACHABLE))
    if summary.n_asked and lost == summary.n_asked:
        first = summary.failed.most_common(1)[0][0]
        raise NetworkError(
            f"not one of {summary.n_asked} links could be reached ({first}): "
            "check the network, then run again with --retry-failed"
        )


def _counted(label: str, counts: Counter[str]) -> list[str]:
    return [f"{label}: {n} {reason}" for reason, n in counts.most_common()]
