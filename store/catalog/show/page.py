"""The facts of a catalogue as one HTML page that needs nothing else: styles, charts and thumbnails are in it."""

import base64
import io
from collections.abc import Callable
from html import escape

from store.catalog.images.blobs import read_blob
from store.catalog.images.open import UndecodableError, flattened, open_image, room_for
from store.catalog.show.charts import log_histogram, priced
from store.catalog.show.doubts import DoubtfulRow, Example
from store.catalog.show.facts import Facts, SplitFacts
from store.catalog.show.style import STYLE
from store.config import CleanConfig
from store.errors import WorkspaceError
from store.workspace import Workspace

THUMBNAIL = 112  # pixels a side
POLICIES = frozenset(CleanConfig.__dataclass_fields__)
Thumbnail = Callable[[str], str | None]  # digest -> data URL


def page_of(facts: Facts, thumbnail: Thumbnail) -> str:
    """The page."""
    has_test = len(facts.splits) > 1
    halves = [
        _prices(facts),
        _section(
            "Length of text",
            _legend(has_test) + log_histogram(facts.length, "characters"),
            "Share of rows by characters of the catalogue text.",
        ),
        _section("Field coverage", _coverage(facts), "Share of rows in which a field was found."),
    ]
    if facts.against:
        halves.append(_against(facts))
    sections = [_cards(facts.splits), f'<div class="halves">{"".join(halves)}</div>', _missing(facts.splits)]
    sections.append(_doubts(facts, thumbnail))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>Catalogue {escape(facts.workspace)}</title><style>{STYLE}</style></head><body><main>"
        f'<header><h1>Catalogue</h1><p class="quiet">{escape(facts.workspace)}</p></header>'
        + "".join(sections)
        + "</main></body></html>\n"
    )


def thumbnail_of(workspace: Workspace, digest: str) -> str | None:
    """An image as a data URL of a small JPEG; None where it can't be decoded."""
    try:
        with open_image(read_blob(workspace, digest)) as image:
            image.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))
            with room_for(image):
                flat = flattened(image).convert("RGB")
                flat.thumbnail((THUMBNAIL, THUMBNAIL))
    except (UndecodableError, WorkspaceError, OSError):
        return None
    content = io.BytesIO()
    flat.save(content, "JPEG", quality=72)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def _section(title: str, body: str, note: str = "", kind: str = "") -> str:
    said = f'<p class="quiet">{escape(note)}</p>' if note else ""
    return f'<section class="{kind}"><h2>{escape(title)}</h2>{said}{body}</section>'


def _cards(splits: list[SplitFacts]) -> str:
    cards = []
    for split in splits:
        share = split.with_image / max(split.rows, 1)
        facts = [
            (f"{split.rows:,}", f"{split.name} rows"),
            (f"{split.texts:,}", "distinct texts"),
            (f"{split.with_image:,}", f"with an image ({share:.1%})"),
            (f"{split.n_images:,}", "distinct images"),
        ]
        if split.with_several:
            facts.append((f"{split.with_several:,}", "with several images"))
        cards += [
            f'<div class="card"><b>{number}</b><span>{escape(what)}</span></div>' for number, what in facts
        ]
    return f'<div class="cards">{"".join(cards)}</div>'


def _prices(facts: Facts) -> str:
    cells = "".join(
        f"<td>{priced(price, facts.typical_price)}</td>" for price in facts.price_quantiles.values()
    )
    names = {"0%": "lowest", "50%": "median", "100%": "highest"}
    head = "".join(f"<th>{names.get(name, name)}</th>" for name in facts.price_quantiles)
    table = f'<table class="numbers"><tr>{head}</tr><tr>{cells}</tr></table>'
    return _section("Price", log_histogram(facts.price, "price") + table, "Share of training rows by price.")


def _legend(has_test: bool) -> str:
    test = '<span><i class="line"></i>test</span>' if has_test else ""
    return f'<p class="legend"><span><i class="box"></i>train</span>{test}</p>'


def _coverage(facts: Facts) -> str:
    rows = []
    for field, shares in facts.coverage.items():
        bars = "".join(
            f'<td class="meter"><div><i style="width:{100 * share:.1f}%"></i></div><span>{share:.1%}</span></td>'
            for share in shares.values()
        )
        rows.append(f"<tr><th>{escape(field)}</th>{bars}</tr>")
    head = "".join(f"<th>{escape(split.name)}</th>" for split in facts.splits)
    return f"<table><tr><td></td>{head}</tr>{''.join(rows)}</table>"


def _missing(splits: list[SplitFacts]) -> str:
    rows = [
        f"<tr><th>{split.name}</th><td class=num>{n:,}</td><td>{escape(reason)}</td>"
        f"<td class=quiet>{escape(', '.join(split.missing_ids[reason]))}</td></tr>"
        for split in splits
        for reason, n in split.missing.items()
    ]
    if not rows:
        return _section("Missing images", "<p>Every row has its image.</p>", kind="wide")
    head = "<tr><td></td><th class=num>rows</th><th>why</th><th>first rows</th></tr>"
    return _section("Missing images", f"<table>{head}{''.join(rows)}</table>", kind="wide")


def _against(facts: Facts) -> str:
    rows = []
    for what, train, test in facts.against:
        is_share = what.startswith("share")
        said = [f"{value:.1%}" if is_share else f"{value:,.1f}" for value in (train, test)]
        apart = abs(train - test) > 0.05 if is_share else abs(train - test) > 0.2 * max(train, test)
        mark = ' class="apart"' if apart else ""
        rows.append(
            f"<tr{mark}><th>{escape(what)}</th><td class=num>{said[0]}</td><td class=num>{said[1]}</td></tr>"
        )
    head = "<tr><td></td><th class=num>train</th><th class=num>test</th></tr>"
    note = "Fields whose shares differ. Marked: shares more than 5 points apart, means more than a fifth."
    return _section("Train against test", f"<table>{head}{''.join(rows)}</table>", note)


def _doubts(facts: Facts, thumbnail: Thumbnail) -> str:
    doubts = facts.doubts
    if not doubts.findings:
        return _section("Duplicates and doubtful rows", f"<p>{escape(doubts.note or '')}</p>", kind="wide")
    rows = []
    for one in doubts.findings:
        groups = f"{one.groups:,}" if one.groups is not None else ""
        changes = ", ".join(f"{what} {n:,}" for what, n in one.decisions.items() if what != "keep")
        kind = "" if one.train_rows or one.test_rows else ' class="nothing"'
        policy = escape(one.policy) if one.name in POLICIES else ""
        decided = f'<br><span class="quiet">{escape(changes)}</span>' if changes else ""
        rows.append(
            f"<tr{kind}><th>{escape(one.summary)} <code>{one.name}</code></th><td class=num>{groups}</td>"
            f"<td class=num>{one.train_rows:,}</td><td class=num>{one.test_rows:,}</td><td>{policy}{decided}</td></tr>"
        )
    head = "<tr><td></td><th class=num>groups</th><th class=num>train rows</th><th class=num>test rows</th><th>policy</th></tr>"
    table = f"<table>{head}{''.join(rows)}</table>"
    summaries = {one.name: one.summary for one in doubts.findings}
    shown = "".join(
        f"<h3>{escape(summaries[name][0].upper() + summaries[name][1:])} <code>{name}</code></h3>"
        + _examples(examples, thumbnail, facts.typical_price)
        for name, examples in doubts.examples.items()
    )
    note = (
        doubts.note
        or "What training does about each is its policy: 'shelfprice catalog clean --policy NAME=POLICY'."
    )
    return _section("Duplicates and doubtful rows", table + shown, note, kind="wide")


def _examples(examples: list[Example], thumbnail: Thumbnail, typical: float) -> str:
    groups = []
    for example in examples:
        rows = "".join(_row(row, thumbnail, typical) for row in example.rows)
        more = example.size - len(example.rows)
        rest = f'<p class="more">and {more:,} more</p>' if more > 0 else ""
        groups.append(
            f'<div class="group"><p class="quiet">{escape(example.reason)}</p><div class="rows">{rows}</div>{rest}</div>'
        )
    return f'<div class="groups">{"".join(groups)}</div>'


def _row(row: DoubtfulRow, thumbnail: Thumbnail, typical: float) -> str:
    urls = [thumbnail(one) for one in row.images]
    lacking = "can't be decoded" if row.images else "no image"
    image = "".join(
        f'<img src="{url}" alt="">' if url else f'<div class="none">{lacking}</div>' for url in urls or [None]
    )
    price = f"<b>{priced(row.price, typical)}</b>" if row.price is not None else '<b class="quiet">test</b>'
    name = " ".join(row.name.split())
    shown = name if len(name) <= 90 else f"{name[:89]}…"
    return f'<figure>{image}<figcaption>{price} <span class="quiet">{escape(row.sample_id)}</span><br>{escape(shown)}</figcaption></figure>'
