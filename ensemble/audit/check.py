"""What one check found."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["ok", "caution", "fail", "skipped"]


@dataclass(frozen=True)
class Check:
    """One check: a verdict, the words for it, and the figures behind it."""

    name: str
    verdict: Verdict
    words: str
    figures: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
