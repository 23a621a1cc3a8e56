import hashlib
import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from store.catalog.clean.run import clean_catalog
from store.catalog.cli import catalog
from store.catalog.images.blobs import blob_path
from store.catalog.images.open import quiet_pillow
from store.catalog.read import read_split
from store.catalog.show.charts import apart, label, ticks
from store.catalog.show.facts import coverage_of, histogram, read_facts
from store.catalog.show.page import thumbnail_of
from store.workspace import Workspace
from tests.clean_rows import image_bytes, publish
from tests.fake_images import NEEDS_AVIF, encoded, photo
from tests.fakes import catalog_table, publish_catalog


@pytest.fixture
def workspace(tmp_path):
    found = Workspace(tmp_path)
    names = {"a": image_bytes(0), "b": image_bytes(1), "broken": b"nothing"}
    train = [
        {
            "sample_id": i,
            "text": f"Item Name: <b>Fig & jam</b> {i % 7}, {i} oz",
            "price": 2.0 + i,
            "image": "a",
        }
        for i in range(10)
    ]
    train += [
        {"sample_id": 20, "text": "Item Name: oil", "price": 3.0, "image": "b"},
        {"sample_id": 21, "text": "Item Name: oil", "price": 9.0, "image": "broken"},
        {"sample_id": 22, "text": "tea", "price": 1.0, "image": None},
        {
            "sample_id": 23,
            "text": "",
            "price": 2000.0,
            "image": None,
            "image_link": "https://nowhere.example/x.jpg",
        },
    ]
    test = [{"sample_id": 30, "text": "Item Name: oil", "image": "b"}]
    publish(found, train, test, names, [i % 2 for i in range(len(train))])
    return found


def run(workspace, *options):
    return CliRunner().invoke(catalog, ["show", "-w", workspace.root, *options], catch_exceptions=False)


def test_the_facts_are_there_for_machines_as_well(workspace):
    record = json.loads(run(workspace, "--json", "--text").stdout)
    assert record["file"] is None
    assert not workspace.exists("catalog.html")
    train = record["splits"][0]
    assert (train["name"], train["rows"]) == ("train", len(read_split(workspace, "train")))
    assert sum(record["price"]["counts"]["train"]) == train["rows"]
    assert json.loads(run(workspace, "--json").stdout)["file"].endswith("catalog.html")


def test_the_page_needs_nothing_but_itself(workspace):
    clean_catalog(workspace)
    assert run(workspace).exit_code == 0
    page = workspace.read_bytes("catalog.html").decode()
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert not re.search(r"<script|<link|@import|url\(", page)
    assert "default-src 'none'" in page


def test_texts_of_the_catalogue_can_not_write_html(workspace):
    clean_catalog(workspace)
    run(workspace)
    page = workspace.read_bytes("catalog.html").decode()
    assert "<b>Fig" not in page
    assert "&lt;b&gt;Fig &amp; jam&lt;/b&gt;" in page


def test_the_page_fits_every_screen_and_axe_finds_nothing_serious(browser, workspace):
    from axe_playwright_python import sync_playwright as axe

    clean_catalog(workspace)
    run(workspace)
    for width, scheme in ((390, "dark"), (768, "light"), (1280, "light")):
        options = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme, "bypass_csp": True}
        page, complaints = browser.new_context(**options).new_page(), []
        page.on("console", lambda message, said=complaints: said.append(message.text))
        page.on("pageerror", lambda error, said=complaints: said.append(str(error)))
        page.goto(Path(workspace.path("catalog.html")).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert complaints == []
        if width != 768:
            found = axe.Axe().run(page).response["violations"]
            assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []


def test_a_terminal_that_lacks_characters_shows_others_in_their_place(workspace):
    train = [
        {"sample_id": f"茶{i % 2}", "text": f"thé {i}", "price": 1.0 + i, "image": None} for i in range(2)
    ]
    publish(workspace, train)
    command = [sys.executable, "-m", "store.cli", "catalog", "show", "-w", workspace.root]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "latin-1"})
    assert done.returncode == 0, done.stderr
    said = done.stdout.decode("latin-1")
    assert "(first: ?0, ?1)" in said
    assert re.search(r"train  @ +@  1 to 2, log axis", said)


@pytest.mark.parametrize(
    "kind", [pytest.param("AVIF", marks=NEEDS_AVIF), "WEBP", "TIFF", "GIF", "PNG", "JPEG"]
)
def test_an_image_however_damaged_has_no_thumbnail_and_stops_nothing(workspace, kind):
    whole = bytearray(encoded(photo(60, 40), kind))
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = whole.copy()
        for at in random.integers(0, len(whole), 4):
            damaged[at] = random.integers(256)
        digest = hashlib.sha256(damaged).hexdigest()
        workspace.publish_bytes(blob_path(digest), bytes(damaged))
        with quiet_pillow():
            found = thumbnail_of(workspace, digest)
        assert found is None or found.startswith("data:image/jpeg;base64,")


def test_coverage_of_many_columns_takes_time_that_grows_with_their_number_alone():
    names = [f"numeric:{i}" for i in range(20_000)]
    table = catalog_table([{"sample_id": 1, "price": 1.0}])
    table = pa.table(dict(zip([*table.column_names, *names], [*table.columns, *([[1.0]] * len(names))])))
    signal.alarm(120)  # it took a quarter of an hour where time grew with the square
    try:
        shares = coverage_of({"train": table, "test": table})
    finally:
        signal.alarm(0)
    assert shares["numeric:19999"] == {"train": 1.0, "test": 1.0}
    assert shares["image_link"] == {"train": 0.0, "test": 0.0}


def test_duplicates_are_shown_with_their_images_and_a_broken_one_says_so(workspace):
    clean_catalog(workspace)
    run(workspace)
    page = workspace.read_bytes("catalog.html").decode()
    assert page.count("data:image/jpeg;base64,") > 4
    assert "can&#x27;t be decoded" in page or "can't be decoded" in page
    assert "Prices of one text that contradict" in page


def test_page_and_terminal_say_the_same_counts(workspace):
    clean_catalog(workspace)
    printed = run(workspace).output
    page = workspace.read_bytes("catalog.html").decode()
    facts = read_facts(workspace)
    assert [split.rows for split in facts.splits] == [14, 1]
    assert facts.splits[0].missing == {"no link": 1, "a link, not fetched yet": 1}
    for words in ("no link", "a link, not fetched yet", "2,000", "image_link"):
        assert words in printed
        assert words in page


def test_a_link_that_can_not_be_used_says_why_and_not_that_it_is_still_to_come(tmp_path):
    workspace = Workspace(tmp_path)
    links = ["https://a.example/1.jpg", "images/1.jpg", '""', None]
    publish_catalog(
        workspace,
        catalog_table([{"sample_id": i, "price": 1.0, "image_link": link} for i, link in enumerate(links)]),
    )
    assert read_facts(workspace).splits[0].missing == {
        "a link, not fetched yet": 1,
        "relative link": 1,
        "no link": 2,
    }


def test_without_clean_the_next_step_is_named_and_text_alone_writes_nothing(workspace):
    shown = run(workspace, "--text")
    assert "not looked for yet: run 'shelfprice catalog clean'" in shown.output
    assert not workspace.exists("catalog.html")


def test_findings_of_another_catalogue_are_not_shown(workspace):
    clean_catalog(workspace)
    train = [{"sample_id": i, "text": f"new {i}", "price": 1.0 + i, "image": None} for i in range(4)]
    publish(workspace, train, fold=[0, 1, 0, 1])
    workspace.remove("catalog/test.parquet")
    shown = run(workspace, "--text")
    assert "the catalogue has changed since they were found" in shown.output


def test_one_price_and_one_length_make_a_page(tmp_path):
    found = Workspace(tmp_path)
    publish(found, [{"sample_id": i, "text": f"t{i}", "price": 5.0, "image": None} for i in range(3)])
    assert run(found).exit_code == 0
    assert "<svg" in found.read_bytes("catalog.html").decode()


@given(st.lists(st.floats(1e-3, 1e7), min_size=1, max_size=40))
def test_every_value_falls_into_a_bin(values):
    found = histogram({"train": np.array(values)})
    assert found.counts["train"].sum() == len(values)


@given(st.floats(1e-2, 1e6), st.floats(1.05, 1e5))
def test_ticks_are_inside_the_axis_and_not_too_many(low, factor):
    found = ticks(low, low * factor)
    assert all(low <= tick <= low * factor for tick in found)
    assert len(found) <= 14


@given(st.floats(1e-2, 1e6), st.floats(1.05, 1e5))
def test_labels_of_ticks_stand_apart_on_a_phone(low, factor):
    def x_of(value):
        return 500 * math.log(value / low) / math.log(factor)

    found = ticks(low, low * factor)
    kept = apart(found, x_of)
    assert bool(kept) == bool(found)
    assert set(kept) <= set(found)
    ends = [(x_of(v) - 5.2 * len(label(v)), x_of(v) + 5.2 * len(label(v))) for v in kept]
    assert all(one[1] < other[0] for one, other in itertools.pairwise(ends))


def test_numbers_on_an_axis_are_short():
    assert [label(value) for value in (0.1, 20, 1000, 5e6)] == ["0.1", "20", "1k", "5M"]
