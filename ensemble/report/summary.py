"""What `shelfprice ensemble report` prints."""

import re
import textwrap
from typing import Any

from store.catalog.images.links import MADE_AGAIN


def report_lines(facts: dict[str, Any], file: str) -> list[str]:
    """The summary of a report: the score, the first findings, what more rows would bring."""
    sentences = re.split(r"(?<=\.) ", facts["score"]["sentence"])
    lines = [line for one in sentences for line in textwrap.wrap(one, 80, subsequent_indent="  ")]
    held = facts["holdout"]
    if held is not None:
        low, high = held["interval"]
        lines.append(f"On {held['n_rows']:,} hold-out rows: {held['smape']:.2f}, {low:.2f} to {high:.2f}.")
    lines += [f"  {one['points']:+.2f}  {one['words']}" for one in facts["findings"][:5]]
    if not facts["findings"]:
        lines.append("No slice is worse than the rest by more than chance explains.")
    points = {point["share"]: point for point in facts["curve"]["points"]}
    if points:
        low, high = points[2.0]["interval"]
        lines.append(
            f"Double the rows would bring {points[1.0]['smape']:.2f} to about {points[2.0]['smape']:.2f} "
            f"({low:.2f} to {high:.2f})."
        )
    if gone := facts.get("images_gone"):
        lines.append(f"note: {gone:,} images are gone, and the page shows rows without them: {MADE_AGAIN}")
    return [*lines, f"wrote {file}"]
