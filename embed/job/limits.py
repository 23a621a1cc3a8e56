"""Limits of failures: a run stops where too many inputs fail, or one split lacks far more vectors than the other."""

from dataclasses import dataclass

from embed.job.plan import EncoderPlan, SetPlan
from store.catalog.images.blobs import MADE_AGAIN
from store.errors import ConfigError, FailureLimitError


@dataclass(frozen=True)
class FailureLimits:
    """How many failures a run allows.

    Raises:
        ConfigError: a limit is not a share from 0 to 1.
    """

    max_failures: float = 0.01  # share of distinct contents that are there
    max_coverage_gap: float = 0.05  # share of rows without a vector, train against test

    def __post_init__(self) -> None:
        for name, share in vars(self).items():
            if not 0 <= share <= 1:  # NaN as well
                raise ConfigError(f"{name} must be a share from 0 to 1, got {share:g}")


def check_failures(name: str, n_failed: int, n_wanted: int, limits: FailureLimits, example: str = "") -> None:
    """Stop a run whose failures are too many; called as they come, so that hours are not lost.

    Raises:
        FailureLimitError: more than the share allowed.
    """
    if n_failed > limits.max_failures * n_wanted:
        raise FailureLimitError(
            f"{name}: {n_failed} of {n_wanted} inputs failed, more than --max-failures {limits.max_failures:g} "
            f"allows{f' (one of them: {example})' if example else ''}: correct them and run 'shelfprice embed run --retry-failed', "
            f"or pass --max-failures {_enough(n_failed / n_wanted):g} to go on without them"
        )


def check_coverage(plan: EncoderPlan, limits: FailureLimits) -> None:
    """Compare the shares of rows without a vector; before the work is done, as far as it can be known.

    What is missing may still fail, which moves a share by `max_failures` at most.

    Raises:
        FailureLimitError: train and test differ by more than the points allowed.
    """
    slack = limits.max_failures if len(plan.missing) else 0.0
    for one in plan.sets:
        gap = _gap(one)
        if gap > limits.max_coverage_gap + slack:
            shares = ", ".join(f"{s} {c.without_vector:.1%}" for s, c in one.splits.items())
            images, again = "", ""
            if plan.spec.modality == "image":
                images = "leave images out with --no-images, "
                if any(counts.n_failed for counts in one.splits.values()):
                    again = (
                        " ('shelfprice status --failures' names those that failed; of a damaged image: "
                        f"{MADE_AGAIN}, then 'shelfprice embed run --retry-failed')"
                    )
            raise FailureLimitError(
                f"{one.vector_set}: rows without a vector differ between the splits ({shares}) by more than "
                f"--max-coverage-gap {limits.max_coverage_gap:g}, so a head would learn from what it won't see: "
                f"complete the inputs{again}, {images}or pass --max-coverage-gap {_enough(gap):g}"
            )


def _gap(one: SetPlan) -> float:
    shares = [counts.without_vector for counts in one.splits.values() if counts.n_rows]
    return max(shares) - min(shares) if shares else 0.0


def _enough(share: float) -> float:
    """The share rounded up to a whole percent."""
    return min(1.0, (int(share * 100) + 1) / 100)
