"""The printed output of the ensemble commands: short tables, and sentences that explain the figures."""

import textwrap
from typing import Any

from ensemble.expected import LEAST_ROWS, UNSCORED

DIFFERENT = 0.01  # of a score: two that are nearer are one
KNOWN_GROUPS = (
    "This is not the score of the {:.0%} of test rows whose group train has: folds keep groups apart."
)


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
        f"{record['n_folds']} folds.",
        "SMAPE is in percent: 0 is perfect, 200 the worst.",
        "",
        f"  {'head':<{width}}  {'SMAPE':>7}  {'weight':>6}",
    ]
    lines += [f"  {h:<{width}}  {scores['heads'][h]:7.2f}  {_weight(weights[h])}" for h in heads]
    if len(heads) > 1:
        lines += ["", f"  {'plain average':<{width}}  {scores['average']:7.2f}"]
        lines += [f"  {'blend, naive':<{width}}  {scores['naive']:7.2f}  fitted and scored on the same rows"]
    low, high = scores["nested_interval"]
    lines += [
        f"  {'blend, honest':<{width}}  {scores['nested']:7.2f}  on folds that took no part in it,",
        f"  {'':<{width}}  {'':>7}  {scores['interval_level']:.0%} interval {low:.2f} to {high:.2f}",
        "",
        *_verdict(record),
    ]
    lines += expectation(record)
    factor, interval = record["intervals"]["median_factor"], record["intervals"]
    lines += [
        f"Intervals per row: {interval['coverage']:.0%} coverage stated, {interval['measured_coverage']:.1%} measured on unseen rows.",
        f"The median interval runs from price / {factor:.2f} to price x {factor:.2f}.",
    ]
    return lines


def expectation(record: dict[str, Any]) -> list[str]:
    """What to expect of the test rows, and of products without a relative in train where that is another score."""
    scores, n_test = record["scores"], record["n_test"]
    found = scores.get("expected")
    if found is None:  # a blend of before 0.2
        if scores["test_interval"] is None:
            return []
        low, high = scores["test_interval"]
        return [f"Expect SMAPE {scores['nested']:.2f} on the {n_test:,} test rows, {low:.2f} to {high:.2f}."]
    test, alone = found["test"], found["without_relative"]
    low, high = test["interval"]
    known = found.get("known_groups")
    what = f"the {n_test:,} test rows" if n_test else "rows like these"
    what = what if known is None else "rows of new groups"
    lines = [
        f"Expect SMAPE {test['smape']:.2f} on {what}, {low:.2f} to {high:.2f}.",
        "  They must be like the training rows: 'shelfprice ensemble audit' checks it.",
    ]
    if known is not None:
        lines.append(f"  {KNOWN_GROUPS.format(known)}")
        lines.append("  For their score ingest without --group-column.")
    if found["curve_heads"]:
        lines.append(
            f"  Included: {test['size_factor'] - 1:+.1%} for a model of all rows instead of all folds but one."
        )
        lines += textwrap.wrap(
            f"Estimated by the learning curve of {', '.join(found['curve_heads'])}.",
            80,
            initial_indent="  ",
            subsequent_indent="  ",
        )
    if (shares := found["test_shares"]) is not None and shares["none"] < 1:
        lines.append(
            f"{1 - shares['none']:.0%} of the test rows have a relative in train, {shares['product']:.0%} the same product."
        )
        lines.append(
            f"{1 - found['train_shares']['none']:.0%} of the training rows have one in another fold."
        )
    if alone is not None and abs(alone["smape"] - test["smape"]) > DIFFERENT * test["smape"]:
        low, high = alone["interval"]
        lines.append(
            f"On products without a relative in train expect SMAPE {alone['smape']:.2f}, {low:.2f} to {high:.2f}."
        )
    if blocks := found.get("blocks"):
        scores_of = ", ".join(f"{block['smape']:.2f}" for block in blocks)
        lines.append(
            f"Each fold is predicted from earlier ones; from the earliest on they score {scores_of}."
        )
        lines.append(
            f"Prices of the latest are {blocks[-1]['level']:+.1%} off the level that earlier rows predict."
        )
        lines.append("  The expected score counts each twice the one before, and allows for their scatter.")
    if test["unscored"] > UNSCORED:
        lines += [
            f"{test['unscored']:.0%} of the test rows have a relative in train of a kind that fewer than {LEAST_ROWS}",
            "  training rows have in another fold: the true score may be lower than expected.",
        ]
    return lines


def _verdict(record: dict[str, Any]) -> list[str]:
    scores, inner = record["scores"], record["inner"]
    if len(scores["heads"]) == 1:
        return ["One head: nothing to blend, its own prices are taken."]
    low, high = scores["gain_over_best_head_interval"]
    against = "better" if low > 0 else "worse" if high < 0 else "not certain"
    gain = f"{inner['gain']:+.2f} ± {inner['gain_error']:.2f}"
    if record["method"] == "average":
        taken = f"Plain average: weights gain {gain} on inner folds, too little to be sure."
    else:
        taken = f"Method {record['method']}: {gain} over the plain average on inner folds."
    calibration = record["calibration"]["kind"]
    if record["weights"][scores["best_head"]] == 1 and calibration == "none":
        return [taken, f"The best head, {scores['best_head']}, has all the weight."]
    return [
        taken,
        *([] if calibration == "none" else [f"Calibration: {calibration}."]),
        f"Optimism {scores['optimism']:+.2f}: the honest score less the naive one.",
        f"Gain over the best head, {scores['best_head']}: {scores['gain_over_best_head']:+.2f} ({low:+.2f} to {high:+.2f}), "
        f"{against}.",
    ]


def submit_lines(result: dict[str, Any]) -> list[str]:
    """The summary of one submission."""
    low, high = result["test_interval"]
    median = format(result["median_price"], ",.2f" if result["median_price"] >= 0.1 else ".3g")
    lines = [
        f"{result['n_rows']:,} prices written to {result['file']}, median {median}.",
        f"Expect SMAPE {result['expected_smape']:.2f} (0 is perfect, 200 the worst), {low:.2f} to {high:.2f}.",
        f"Intervals of {result['coverage']:.0%} for each row: {result['intervals_file']}",
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
    checks = result["checks"]
    lines = [f"{check['verdict']:>8}  {check['name']}: {check['words']}" for check in checks]
    lines += [f"    note  {note}" for note in result["notes"]]
    told = {"fail": "failed", "caution": "to look at", "ok": "passed", "skipped": "skipped"}
    counts = {words: sum(check["verdict"] == verdict for check in checks) for verdict, words in told.items()}
    said = ", ".join(f"{count} {words}" for words, count in counts.items() if count)
    return [*lines, f"{len(checks)} {_plural('check', len(checks))}: {said}."]
