"""What the commands of this room print: short tables, and words that say what a figure means."""

from typing import Any


def blend_lines(record: dict[str, Any]) -> list[str]:
    """The summary of one blend, line by line; `record` is what `run_blend` returns."""
    state = "up to date, nothing to do" if record["up_to_date"] else f"written in {record['seconds']:.1f} s"
    notes = [f"Note: {note}." for note in record["notes"]]
    if not record["standing"]:
        notes += [
            "A trial of chosen heads: the standing blend stays (--standing puts this one in its place)."
        ]
    return [*score_lines(record), *notes, f"{record['folder']}/blend.json: {state}"]


def score_lines(record: dict[str, Any]) -> list[str]:
    """The scores of one blend; `record` is the content of blend.json."""
    scores, weights = record["scores"], record["weights"]
    heads = sorted(scores["heads"], key=scores["heads"].__getitem__)
    width = max(len("plain average"), *(len(head) for head in heads))
    lines = [
        f"{len(heads)} {_plural('head', len(heads))}, {record['n_rows']:,} rows in {record['n_groups']:,} groups, "
        f"{record['n_folds']} folds. SMAPE, percent 0 to 200, lower is better.",
        "",
        f"  {'head':<{width}}  {'SMAPE':>7}  {'weight':>6}",
    ]
    lines += [f"  {h:<{width}}  {scores['heads'][h]:7.2f}  {_weight(weights[h])}" for h in heads]
    if len(heads) > 1:
        lines += ["", f"  {'plain average':<{width}}  {scores['average']:7.2f}"]
        lines += [f"  {'blend, naive':<{width}}  {scores['naive']:7.2f}  fitted and scored on the same rows"]
    low, high = scores["nested_interval"]
    lines += [
        f"  {'blend, honest':<{width}}  {scores['nested']:7.2f}  on folds that took no part in it; "
        f"{scores['interval_level']:.0%} interval {low:.2f} to {high:.2f}",
        "",
        *_verdict(record),
    ]
    if scores["test_interval"] is not None:
        low, high = scores["test_interval"]
        lines += [
            f"Expect {scores['nested']:.2f} on the {record['n_test']:,} test rows, {low:.2f} to {high:.2f}, "
            "if they are like the training rows ('shelfprice ensemble audit' looks)."
        ]
    factor, interval = record["intervals"]["median_factor"], record["intervals"]
    lines += [
        f"Intervals: {interval['coverage']:.0%} stated, {interval['measured_coverage']:.1%} of unseen rows inside; "
        f"the middle one is price / {factor:.2f} to price x {factor:.2f}."
    ]
    return lines


def _verdict(record: dict[str, Any]) -> list[str]:
    scores, inner = record["scores"], record["inner"]
    if len(scores["heads"]) == 1:
        return ["One head: nothing to blend, its own prices are taken."]
    low, high = scores["gain_over_best_head_interval"]
    against = "beats" if low > 0 else "loses to" if high < 0 else "can't be told from"
    gain = f"{inner['gain']:+.2f} ± {inner['gain_error']:.2f}"
    if record["method"] == "average":
        taken = f"Plain average taken: weights gain {gain} over it on inner folds, inside the noise."
    else:
        taken = f"Method {record['method']}: gains {gain} over the plain average on inner folds."
    calibration = record["calibration"]["kind"]
    return [
        taken + ("" if calibration == "none" else f" Calibration: {calibration}."),
        f"Optimism {scores['optimism']:+.2f}. The blend {against} its best head, {scores['best_head']}: "
        f"{scores['gain_over_best_head']:+.2f}, interval {low:+.2f} to {high:+.2f}.",
    ]


def submit_lines(result: dict[str, Any]) -> list[str]:
    """The summary of one submission."""
    low, high = result["test_interval"]
    median = format(result["median_price"], ",.2f" if result["median_price"] >= 0.1 else ".3g")
    lines = [
        f"{result['n_rows']:,} prices written to {result['file']}, median {median}; "
        f"expect SMAPE {result['nested_smape']:.2f}, {low:.2f} to {high:.2f}.",
        f"{result['coverage']:.0%} intervals per row: {result['intervals_file']}",
    ]
    if result["n_at_floor"]:
        lines.append(
            f"{result['n_at_floor']:,} {_plural('price', result['n_at_floor'])} raised to the floor of {result['price_floor']:g}."
        )
    for file, count in result["rejected"].items():
        lines.append(f"{count:,} {_plural('row', count)} of {file} rejected at ingest: not predicted.")
    return [*lines, *(f"Note: {note}." for note in result["notes"])]


def _weight(weight: float) -> str:
    return f"{weight:6.2f}" if weight >= 0.005 else f"{'-' if weight == 0 else '<0.01':>6}"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else word + "s"


def audit_lines(result: dict[str, Any]) -> list[str]:
    """The summary of an audit: a verdict and its words per check."""
    lines = [f"{check['verdict']:>8}  {check['name']}: {check['words']}" for check in result["checks"]]
    return [*lines, *(f"    note  {note}" for note in result["notes"])]
