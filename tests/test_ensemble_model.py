"""One fitted model as a folder: packed, loaded, pricing new products."""

import base64
import copy
import csv
import gc
import hashlib
import json
import math
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

import embed
import ensemble
import heads
import store
from ensemble import PriceModel
from ensemble.conformal import Intervals
from ensemble.model import encoders
from ensemble.model.answers import (
    BAD_NUMBER,
    NO_IMAGE,
    NO_TEXT,
    OTHER_CURRENCY,
    UNKNOWN_CATEGORY,
    UNLIKE_TRAINING,
    UNREADABLE_IMAGE,
    Priced,
)
from ensemble.model.encoders import ModelEncoders, averaged
from ensemble.model.fitting import fit_rows, image_column, rows_before, score_before
from ensemble.model.folder import ModelFolder, copy_folder
from ensemble.model.pack import pack
from ensemble.model.predictions import price_file
from ensemble.model.price_model import ModelInputs
from ensemble.model.rows import image_contents
from ensemble.model.training_rows import write_training
from ensemble.serving.app import create_app
from ensemble.serving.settings import Limits, ServeSettings
from heads.defaults import FEW, MANY
from heads.registry import head_class
from store.catalog.images.blobs import blob_path, read_blob
from store.catalog.images.links import known_links, row_images
from store.catalog.read import image_references, read_split
from store.cli import main
from store.config import ROW_NUMBER, ColumnConfig, Config, load_config, save_config
from store.errors import (
    CatalogError,
    ConfigError,
    CorruptFileError,
    HeadError,
    ShelfpriceError,
    WorkspaceError,
)
from store.prune import remove_leftovers
from store.vectors.matrix import Matrix
from store.vectors.sets import VectorSet, current_spec, publish_current
from store.workspace import Workspace
from tests.fake_prices import running, serving
from tests.fakes import publish_vectors
from tests.snippets import copy_vectors
from tests.soak.packed import forge

VECTORS = {"letters@structured": 12, "colours": 6}  # of encoders that do not exist


def write_tables(root: Path, n_train: int, n_test: int) -> None:
    """A demo catalogue with two columns more; its images are in `demo/images`."""
    store.make_demo(root / "demo", n_train=n_train, n_test=n_test)
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        table = pd.read_csv(root / f"demo/{split}.csv", dtype={"sample_id": str})
        table["rating"] = np.where(
            rng.random(len(table)) < 0.1, np.nan, rng.integers(10, 50, len(table)) / 10
        )
        table["shop"] = rng.choice(["north", "south", "east"], len(table))
        table.to_csv(root / f"{split}.csv", index=False)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The model of a workspace with default heads; all vectors are in its cache, no encoder exists."""
    root = tmp_path_factory.mktemp("model")
    write_tables(root, 160, 24)
    run = Workspace(root / "run")
    store.ingest(run, root / "train.csv", root / "test.csv", images=root / "demo/images")
    for name, dim in VECTORS.items():
        publish_vectors(
            run, VectorSet(*name.split("@")), {split: letters(run, split, dim) for split in ("train", "test")}
        )
    config = load_config(run)
    save_config(run, replace(config, heads=replace(config.heads, vectors=tuple(VECTORS))))
    heads.train_heads(run)
    blend = ensemble.make_blend(run)
    ensemble.write_submission(run)
    pack(run, root / "model")
    with (root / "run/submission.csv").open() as file:
        submission = {row["sample_id"]: float(row["price"]) for row in csv.DictReader(file)}
    return SimpleNamespace(
        root=root, run=root / "run", folder=root / "model", blend=blend, submission=submission
    )


def letters(run: Workspace, split: str, dim: int) -> np.ndarray:
    """Counts of letters, turned at random."""
    texts = store.read_split(run, split)["text"].to_pylist()
    counts = np.array([np.bincount([ord(c) % 26 for c in text], minlength=26) for text in texts])
    turn = np.random.default_rng(1).standard_normal((26, dim))
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) @ turn


@pytest.fixture(scope="module")
def model(packed: SimpleNamespace) -> PriceModel:
    return PriceModel.load(packed.folder, cache=packed.run)


@pytest.fixture(scope="module")
def rows(packed: SimpleNamespace) -> list[dict[str, object]]:
    """Test rows as mappings, each with the bytes of its image."""
    run = Workspace(packed.run)
    table = pd.read_csv(packed.root / "test.csv", dtype={"sample_id": str}).set_index("sample_id", drop=False)
    test = store.read_split(run, "test")
    digests = row_images(test["image"], known_links(run)).to_pylist()
    images = [None if sha256 is None else read_blob(run, sha256) for sha256 in digests]
    ids = list(map(str, test["sample_id"].to_pylist()))
    return table.loc[ids].assign(image_link=images).to_dict("records")


@pytest.fixture(scope="module")
def fitted(readme_python: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A model fitted on a frame with the embedded encoders, and its folder."""
    root = tmp_path_factory.mktemp("fitted")
    copy_vectors(readme_python / "run", root / "work", shards=False)
    write_tables(root, 110, 8)
    table = frame_of(root, "train")
    model = PriceModel(
        text="title",
        image="photo",
        numeric=["rating"],
        categorical=["shop"],
        workspace=root / "work",
        heads=["ridge"],
    )
    model.fit(table[:90], price="price")
    model.save(root / "saved")
    return SimpleNamespace(root=root, table=table, model=model, folder=root / "saved")


def frame_of(root: Path, split: str) -> pd.DataFrame:
    """A table of the demo with paths of images."""
    table = pd.read_csv(root / f"{split}.csv", dtype={"sample_id": str})
    table = table.rename(columns={"catalog_content": "title", "image_link": "photo"})
    found = [sorted((root / "demo/images").glob(f"*{one}.*")) for one in table["sample_id"]]
    return table.assign(photo=[str(paths[0]) if paths else None for paths in found])


def test_the_test_file_is_priced_as_it_was_submitted_in_any_batch_and_order(
    packed: SimpleNamespace, model: PriceModel, rows: list[dict[str, object]]
) -> None:
    expected = [packed.submission[str(row["sample_id"])] for row in rows]
    np.testing.assert_allclose([one.price for one in model.price(rows)], expected, rtol=1e-6)
    backwards = model.price(rows[::-1])
    np.testing.assert_allclose([one.price for one in backwards], expected[::-1], rtol=1e-6)
    alone = [model.price([row])[0] for row in rows[:6]]
    np.testing.assert_allclose([one.price for one in alone], expected[:6], rtol=1e-6)
    moved = PriceModel.load(packed.folder)  # without the workspace: the folder has the vectors of these rows
    np.testing.assert_allclose([one.price for one in moved.price(rows)], expected, rtol=1e-6)
    with (packed.run / "intervals.csv").open() as file:
        bounds = {row["sample_id"]: (float(row["low"]), float(row["high"])) for row in csv.DictReader(file)}
    for row, one in zip(rows, model.price(rows), strict=True):
        if not one.flags:
            np.testing.assert_allclose((one.low, one.high), bounds[str(row["sample_id"])], rtol=1e-6)


def test_vectors_made_anew_price_alike_alone_and_together(fitted: SimpleNamespace) -> None:
    rows = frame_of(fitted.root, "test").to_dict("records")
    together = [one.price for one in PriceModel.load(fitted.folder).price(rows)]
    fresh = PriceModel.load(fitted.folder)  # holds no vector of these rows
    assert [fresh.price([row])[0].price for row in rows] == together
    known = fitted.table[:8]  # of passes with others beside them
    cached = PriceModel.load(fitted.folder, cache=fitted.root / "work").predict(known)
    np.testing.assert_allclose(fitted.model.predict(known), cached, rtol=0.01)


def test_a_text_and_an_image_that_were_priced_lately_are_not_embedded_again(
    fitted: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = frame_of(fitted.root, "test").dropna(subset=["photo"]).to_dict("records")[:3]
    model, embedded = PriceModel.load(fitted.folder), []
    embed = ModelEncoders._embed

    def counted(self: ModelEncoders, missing: dict[str, list[object]]) -> object:
        embedded.extend((encoder, len(contents)) for encoder, contents in missing.items())
        return embed(self, missing)

    monkeypatch.setattr(ModelEncoders, "_embed", counted)
    monkeypatch.setattr(encoders, "MOST_RECENT", 2)
    first = [model.price([row])[0] for row in rows]
    n_sets = len(embedded) // len(rows)
    assert n_sets >= 2
    embedded.clear()
    assert model.price([rows[2], rows[1]]) == [first[2], first[1]]
    assert embedded == []
    model.price([rows[1] | {"title": "another title of the same photo"}])
    assert 0 < len(embedded) < n_sets  # the texts alone
    embedded.clear()
    assert model.price([rows[0]]) == first[:1]  # two others were priced since
    assert len(embedded) == n_sets


def test_loading_and_the_first_price_import_no_library_that_is_not_needed(fitted: SimpleNamespace) -> None:
    program = (
        "import sys; from ensemble import PriceModel\n"
        f"one = PriceModel.load({str(fitted.folder)!r}).price([{{'title': 'green tea, 20 bags'}}])[0]\n"
        "assert one.price > 0 and not {'torch', 'transformers', 'timm', 'sklearn', 'lightgbm'} & "
        "sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_changed_byte_of_any_file_is_found(
    packed: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [file for file in packed.folder.rglob("*") if file.is_file()]
    files = [file for file in files if file.suffix != ".jpg"] + [
        file for file in files if file.suffix == ".jpg"
    ][:3]
    assert {"model.json", "README.md", "training.arrow", "fitted.json", "vectors.npz"} <= {
        f.name for f in files
    }
    opened = PriceModel.load(packed.folder)
    for file in files:
        content = file.read_bytes()
        at = len(content) // 2
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(CorruptFileError, match=r"was changed|can't be read|lacks|not the model's"):
            PriceModel.load(packed.folder)
        if file.name == "vectors.npz":  # since it was opened
            with pytest.raises(
                CorruptFileError, match=r"vectors\.npz was changed \(its digest does not match\)"
            ):
                opened.save(packed.root / "copied")
            assert not (packed.root / "copied").exists()
        file.write_bytes(content)
    foreign = packed.folder / "more.bin"
    foreign.touch()
    with pytest.raises(CorruptFileError, match=r"holds files that are not the model's \(first: more.bin\)"):
        PriceModel.load(packed.folder)
    foreign.unlink()
    with monkeypatch.context() as patched:
        patched.setattr("ensemble.model.folder.open_regular", lambda path: os.close(-1))
        with pytest.raises(WorkspaceError, match=r"can't read .*: Bad file descriptor"):
            PriceModel.load(packed.folder)
    assert PriceModel.load(packed.folder).fingerprint


def test_a_folder_loads_as_it_comes_back_from_a_model_hub(packed: SimpleNamespace, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(packed.folder, folder)
    (folder / ".gitattributes").write_text("*.npz filter=lfs diff=lfs merge=lfs -text\n")
    kept = folder / ".cache/huggingface/download/heads/model.json.metadata"
    kept.parent.mkdir(parents=True)
    kept.write_text("0\n")
    model = PriceModel.load(folder)
    assert model.fingerprint == PriceModel.load(packed.folder).fingerprint
    model.save(tmp_path / "saved")
    assert not list((tmp_path / "saved").glob(".*"))
    _, header, body = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(header) == {
        "library_name": "shelfprice",
        "tags": ["tabular-regression", "price-prediction"],
    }
    assert body.startswith("\n# Price model\n")


def test_a_folder_of_a_newer_format_and_one_that_is_no_model_are_refused(
    packed: SimpleNamespace, tmp_path: Path
) -> None:
    record = json.loads((packed.folder / "model.json").read_bytes()) | {"format": 99}
    (tmp_path / "model.json").write_text(json.dumps(record))
    with pytest.raises(
        WorkspaceError, match=r"is of format 99, and this version of shelfprice reads up to 1"
    ):
        PriceModel.load(tmp_path)
    for content in (b'{"a":' * 10_000, b"[1]", b"{}", b"\xff"):
        (tmp_path / "model.json").write_bytes(content)
        with pytest.raises(CorruptFileError, match=r"model\.json can't be read: .*copy the model again"):
            PriceModel.load(tmp_path)
    with pytest.raises(WorkspaceError, match="holds no model"):
        PriceModel.load(packed.run)
    with pytest.raises(WorkspaceError, match="exists and is not a model"):
        pack(packed.run, packed.run)


def test_what_moved_a_price_multiplies_to_it(
    packed: SimpleNamespace, model: PriceModel, rows: list[dict[str, object]]
) -> None:
    for explained, row in zip(model.explain(rows[:10]), rows, strict=False):
        assert explained.priced.price == pytest.approx(packed.submission[str(row["sample_id"])], rel=1e-6)
        assert explained.base_price is not None
        product = explained.base_price * math.prod(effect.factor for effect in explained.effects)
        assert product == pytest.approx(explained.priced.price, rel=1e-3, abs=1e-4)  # rounded to 4 decimals
        assert sum(explained.shares.values()) == pytest.approx(1.0)
        assert set(explained.log_prices) == set(explained.shares)
        assert len(explained.near) == 5
        cosines = [sum(one.cosine.values()) for one in explained.near]
        assert cosines == sorted(cosines, reverse=True)
    words = {effect.what for one in model.explain(rows) for effect in one.effects}
    assert any(word.startswith("'") for word in words), words
    near = model.explain(rows[:1])[0].near[0]
    assert near.price > 0
    assert near.text
    assert near.image is not None
    assert (packed.folder / near.image).read_bytes().startswith(b"\xff\xd8")


def test_each_head_tells_parts_that_add_up_to_its_log_price(
    packed: SimpleNamespace, model: PriceModel
) -> None:
    from heads.contributions import explain_rows
    from store.catalog.ingest.source import read_source

    pricer = model._fitted
    made = pricer.rows_of(read_source(str(packed.root / "test.csv")))
    for head in pricer.heads:
        of_head = head.rows(made.rows)
        found = explain_rows(head.models, of_head, 2.0)
        total = [found.base + sum(parts.values()) for parts in found.parts]
        np.testing.assert_allclose(total, head.models[0].predict(of_head), atol=1e-5, err_msg=head.name)


def test_a_row_that_lacks_something_is_flagged_and_has_a_wider_interval_or_is_refused(
    fitted: SimpleNamespace,
) -> None:
    model, rows = fitted.model, frame_of(fitted.root, "test").to_dict("records")
    good = next(row for row in rows if isinstance(row["photo"], str) and row["rating"] == row["rating"])
    (plain,) = model.price([good])
    bad = [
        {**good, "photo": b"no image"},
        {**good, "photo": None},
        {**good, "title": float("nan")},
        {**good, "shop": "west"},
        {**good, "rating": "many"},
        {**good, "rating": float("nan")},
        {},
        {"title": "zzz qqq xxx 7 wwwww"},
        {**good, "photo": Image.new("RGB", (40, 40), "red"), "title": 12.5},
    ]
    found = model.price(bad)
    assert len(found) == len(bad)
    for one, flag in zip(
        found, (UNREADABLE_IMAGE, NO_IMAGE, NO_TEXT, UNKNOWN_CATEGORY, BAD_NUMBER), strict=False
    ):
        assert flag in one.flags
        assert one.price is not None
        assert one.reason is None
        assert one.high / one.low > plain.high / plain.low
    assert found[5].flags == plain.flags
    assert found[6].price is None
    assert found[6].reason == "nothing is known of this row: no text, no image, no value of any column"
    assert UNLIKE_TRAINING in found[7].flags
    assert found[8].price is not None
    wide, narrow = model.price([good], interval=0.99)[0], model.price([good], interval=0.5)[0]
    assert wide.low <= plain.low < narrow.low < narrow.high < plain.high <= wide.high
    with pytest.raises(ConfigError, match=r"interval must be between 0.5 and 0.999, got 1.5"):
        model.price([good], interval=1.5)


@pytest.mark.parametrize("has_further_columns", [True, False])
def test_an_amount_in_another_currency_is_flagged_and_widens_the_interval(
    fitted: SimpleNamespace, has_further_columns: bool
) -> None:
    model, pricer = PriceModel.load(fitted.folder), PriceModel.load(fitted.folder)._fitted
    told = [f"green tea, {amount} a box" for amount in ("€12", "12 €", "12,50 EUR", "CHF 9")]
    own = [f"green tea, {amount} a box" for amount in ("$12", "12 USD", "12", "12 eurasian herbs")]
    rows = [{"title": title} for title in told + own]
    plain = model.price(rows)  # the training file names no currency
    pricer.shape = replace(pricer.shape, readings=replace(pricer.shape.readings, currency="$"))
    assert "further" in pricer.held
    if not has_further_columns:
        del pricer.held["further"]
    found = pricer.price_rows(pricer.rows_of_mappings(rows), 0.9)
    for one, before in zip(found[: len(told)], plain, strict=False):
        assert {*one.flags} - {*before.flags} == {OTHER_CURRENCY}
        assert one.price == before.price
        assert one.high / one.low > before.high / before.low
    assert found[len(told) :] == plain[len(told) :]


def test_an_image_that_can_not_be_read_never_narrows_the_interval(fitted: SimpleNamespace) -> None:
    model = PriceModel.load(fitted.folder)
    row = frame_of(fitted.root, "test").dropna(subset=["photo", "rating"]).to_dict("records")[0]
    model._fitted._intervals[0.9] = Intervals(  # as where training rows without an image are told better
        0.9, knots=(0.0, 1.0), log_widths=(-1.0, -1.0), slopes={"no_image": -1.0}, middles={"no_image": 0.2}
    )
    plain, without, unreadable, one_of_two = model.price(
        [
            row,
            {**row, "photo": None},
            {**row, "photo": b"no image"},
            {**row, "photo": [row["photo"], "none.jpg"]},
        ]
    )
    assert without.high / without.low < plain.high / plain.low
    assert unreadable.high / unreadable.low > plain.high / plain.low
    assert one_of_two.high / one_of_two.low > plain.high / plain.low
    assert one_of_two.price == plain.price


def test_the_commands_pack_and_price_a_file_row_by_row(packed: SimpleNamespace, tmp_path: Path) -> None:
    out = tmp_path / "prices.csv"
    table = (packed.root / "test.csv").read_text() + "99999,one field too few\n"
    (tmp_path / "new.csv").write_text(table)
    args = ["predict", str(tmp_path / "new.csv"), "--out", str(out), "--json"]
    done = CliRunner().invoke(main, [*args, "-w", str(packed.run)])
    assert done.exit_code == 0, done.output
    with out.open() as file:
        priced = list(csv.DictReader(file))
    assert list(priced[0]) == ["sample_id", "price", "low", "high", "flags", "reason"]
    assert len(priced) == len(packed.submission) + 1
    assert "wrong number of fields" in priced[-1]["reason"]
    for row in priced[:-1]:
        assert float(row["price"]) == pytest.approx(packed.submission[row["sample_id"]], rel=1e-6)
    for old, new, like in (("shop", "Shop", ", did you mean 'Shop'?"), ("rating", "x", "")):
        (tmp_path / "other.csv").write_text(table.replace(f",{old}", f",{new}", 1))
        done = CliRunner().invoke(
            main, ["predict", str(tmp_path / "other.csv"), "--json", "-w", str(packed.run)]
        )
        note = f"the file has no column {old!r}, which the model reads: missing in every row{like}"
        assert f"note: {note}" in done.stderr
        assert json.loads(done.stdout)["notes"] == [note]
    packing = CliRunner().invoke(
        main, ["ensemble", "pack", "-w", str(packed.run), "--to", str(tmp_path / "m"), "--json"]
    )
    assert packing.exit_code == 0, packing.output
    record = json.loads(packing.stdout)
    assert record["torch_free"] is False
    assert record["fingerprint"] == PriceModel.load(tmp_path / "m").fingerprint


def test_a_product_of_a_test_row_s_id_is_priced_with_its_own_image(
    packed: SimpleNamespace, model: PriceModel, rows: list[dict[str, object]], tmp_path: Path
) -> None:
    run = Workspace(packed.run)
    row = next(row for row in rows if row["image_link"] is not None)
    table = pd.read_csv(packed.root / "test.csv", dtype={"sample_id": str})
    table = table[table["sample_id"] == row["sample_id"]]
    digests = row_images(read_split(run, "train")["image"], known_links(run)).to_pylist()
    others = [run.path(blob_path(sha256)) for sha256 in digests[:40] if sha256 is not None]
    of_others = [one.price for one in model.price([{**row, "image_link": path} for path in others])]
    own = packed.submission[str(row["sample_id"])]
    far = int(np.argmax(np.abs(np.log(of_others) - np.log(own))))
    assert abs(np.log(of_others[far] / own)) > 1e-4
    cells = [table["image_link"].iloc[0], None, others[far]]
    pd.concat([table] * 3).assign(image_link=cells).to_csv(tmp_path / "new.csv", index=False)
    priced = price_file(model, str(tmp_path / "new.csv"), workspace=run)
    expected = [own, own, of_others[far]]
    np.testing.assert_allclose([float(one[1]) for one in priced.rows], expected, rtol=1e-6)


def test_an_id_of_zero_is_an_id(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"sample_id": [0, 1, None], "title": ["tea", "jam", "oil"]}), tmp_path / "new.parquet"
    )
    answer = Priced(1.0, 0.5, 2.0, ())
    model = SimpleNamespace(
        id_columns=("sample_id",),
        inputs=ModelInputs(("title",), None, (), ()),
        images_per_row="all",
        fingerprint="0",
        price_lines=lambda source, interval, cells: [(line, answer) for line in source.lines.tolist()],
    )
    priced = price_file(model, str(tmp_path / "new.parquet"))
    assert [row[0] for row in priced.rows] == ["0", "1", ""]


def test_a_file_is_priced_by_a_folder_alone_with_images_by_id(
    fitted: SimpleNamespace, tmp_path: Path
) -> None:
    table = frame_of(fitted.root, "test")
    table.assign(photo=None).to_csv(tmp_path / "new.csv", index=False)
    args = [
        "predict",
        str(tmp_path / "new.csv"),
        "--model",
        str(fitted.folder),
        "--json",
        "--id-column",
        "sample_id",
    ]
    done = CliRunner().invoke(main, [*args, "--images", str(fitted.root / "demo/images")])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [float(row["price"]) for row in found["prices"]] == fitted.model.predict(table).tolist()
    assert found["n_refused"] == 0
    assert found["fingerprint"] == fitted.model.fingerprint
    plain = CliRunner().invoke(main, args[:-3])
    assert plain.stdout.startswith("line,price,low,high,flags,reason\n2,")
    assert "image missing" in plain.stdout


def test_the_card_states_data_score_limits_and_licences(packed: SimpleNamespace) -> None:
    card = (packed.folder / "README.md").read_text()
    for said in (
        f"**{packed.blend.smape:.2f}**",
        "## Limits",
        "small copies of their images, 10,000 at most",
        "## Licences of weights",
        *(f"| {head} |" for head, weight in packed.blend.weights.items() if weight > 0),
    ):
        assert said in card


def test_a_head_that_was_not_kept_or_is_damaged_is_fitted_again_and_one_that_can_not_be_is_named(
    packed: SimpleNamespace, tmp_path: Path
) -> None:
    workspace = Workspace(packed.run)
    folder = next(f for h, f in packed.blend.record["inputs"]["heads"].items() if packed.blend.weights[h] > 0)
    record = workspace.read_json(f"{folder}/head.json")
    fitted = {name for name in record["files"] if name.startswith("fitted/")}
    assert fitted >= {"fitted/fitted.json", "fitted/fitted.npz"}
    before = {name: workspace.read_bytes(f"{folder}/{name}") for name in fitted}
    tree = json.loads(before["fitted/fitted.json"])
    tree["models"][0]["params"]["seed"] = 5
    changed = json.dumps(tree).encode()
    for damage in (
        lambda: workspace.publish_bytes(f"{folder}/fitted/fitted.json", changed),
        lambda: workspace.remove(f"{folder}/fitted/fitted.npz"),
        lambda: workspace.remove(f"{folder}/fitted"),
    ):
        damage()
        lines: list[str] = []
        pack(packed.run, tmp_path / "again", log=lines.append)
        assert any(
            line.endswith("is damaged or gone: it is fitted again") and f"{folder}/fitted/" in line
            for line in lines
        )
        assert {name: workspace.read_bytes(f"{folder}/{name}") for name in fitted} == before
    workspace.publish_json(  # of a version that recorded no digests
        f"{folder}/head.json", {name: one for name, one in record.items() if name not in ("files", "tables")}
    )
    workspace.remove(f"{folder}/fitted")
    pack(packed.run, tmp_path / "again", log=lines.append)
    assert any("was not kept as fitted: it is fitted again" in line for line in lines)
    blend = packed.blend.record["folder"]
    record = workspace.read_json(f"{blend}/blend.json")
    tuned = "finetuned:both"
    changed = {**record, "weights": {tuned: 1.0}, "inputs": {**record["inputs"], "heads": {tuned: folder}}}
    workspace.publish_json(f"{blend}/blend.json", changed)
    with pytest.raises(HeadError, match=r"finetuned:both is tuned along with its encoders, fold by fold"):
        pack(packed.run, tmp_path / "tuned")
    workspace.publish_json(f"{blend}/blend.json", record)
    spec = current_spec(workspace, "letters")
    publish_current(workspace, replace(spec, modality="joint"))
    with pytest.raises(
        HeadError, match=r"reads letters@structured, which embeds image and text together, and can't"
    ):
        pack(packed.run, tmp_path / "joint")
    publish_current(workspace, spec)


def test_saving_deletes_what_a_killed_process_left_and_no_folder_that_is_being_written(
    fitted: SimpleNamespace, tmp_path: Path
) -> None:
    left, young, other = (tmp_path / f".writing-{name}" for name in ("saved-a", "saved-b", "else-a"))
    for folder in (left, young, other):
        (folder / "model").mkdir(parents=True)
    for folder in (left, other):
        os.utime(folder, (0, 0))
    fitted.model.save(tmp_path / "saved")
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, young.name, "saved"]


def test_a_model_takes_the_place_of_a_model_alone_and_of_no_file_beside_it(
    fitted: SimpleNamespace, tmp_path: Path
) -> None:
    folder, link = tmp_path / "saved", tmp_path / "current"
    fitted.model.save(folder)
    link.symlink_to(folder)
    fitted.model.save(link)
    assert link.is_symlink()
    assert PriceModel.load(folder).fingerprint == fitted.model.fingerprint
    for name in ("notes.txt", ".git/config", "heads/mine.txt", "images/elsewhere"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(tmp_path) if name == "images/elsewhere" else (folder / name).write_text("")
        with pytest.raises(
            WorkspaceError, match=rf"holds 1 files that are not the model's \(first: {name}\)"
        ):
            fitted.model.save(folder)
        assert os.path.lexists(folder / name)
        (folder / name).unlink()
    (folder / "model.json").write_text("{")
    with pytest.raises(WorkspaceError, match="holds a damaged model, so that it is not known which"):
        fitted.model.save(folder)


def test_a_model_with_right_digests_and_any_content_is_priced_by_or_refused(
    packed: SimpleNamespace, tmp_path: Path
) -> None:
    draw, outcomes = random.Random(4), []
    products = pd.read_csv(packed.root / "test.csv").head(3)  # whose vectors the model holds
    files = [path.relative_to(packed.folder).as_posix() for path in packed.folder.rglob("*.*")]
    kept = [file for file in files if not file.endswith((".jpg", ".md"))]
    for number, file in enumerate([*kept, *["model.json"] * 40]):
        folder = tmp_path / str(number)
        shutil.copytree(packed.folder, folder, copy_function=os.link)
        changed = forge(folder, file, draw)
        try:
            model = PriceModel.load(folder, cache=packed.run)
            model.predict(products, interval=0.7)
            outcomes.append("priced")
        except ShelfpriceError:
            outcomes.append("refused")
        except Exception as error:
            raise AssertionError(f"{changed} ended in {error!r}") from error
    assert {"priced", "refused"} == {*outcomes}


def test_images_that_are_gone_are_told_when_a_model_is_packed(
    packed: SimpleNamespace, tmp_path: Path
) -> None:
    shutil.copytree(packed.run, tmp_path / "run", ignore=shutil.ignore_patterns("vectors", "predictions"))
    run, said = Workspace(tmp_path / "run"), list[str]()
    shutil.rmtree(tmp_path / "run/images/blobs")
    train = store.read_split(run, "train").combine_chunks()
    write_training(run, tmp_path, train, np.arange(len(train)), True, said.append)
    n_images = len(set(row_images(train["image"], known_links(run)).drop_null().to_pylist()))
    assert len(said) == 1
    assert f"note: {n_images} of {n_images} images of the training rows are gone" in said[0]
    assert "run 'shelfprice catalog ingest' with --images again" in said[0]


def test_a_frame_is_fitted_saved_and_evaluated(fitted: SimpleNamespace, tmp_path: Path) -> None:
    model, table = fitted.model, fitted.table
    assert model.inputs == ModelInputs(("title",), "photo", ("rating",), ("shop",))
    assert model.score_["interval"][0] <= model.score_["smape"] <= model.score_["interval"][1]
    assert model.score_["smape"] < model.score_["median_smape"]
    loaded = PriceModel.load(fitted.folder)
    assert loaded.fingerprint == model.fingerprint
    new = table[90:]
    np.testing.assert_array_equal(loaded.predict(new), model.predict(new))
    frame = loaded.predict(new, interval=0.8)
    assert list(frame.columns) == ["price", "low", "high", "flags", "reason"]
    assert frame.index.equals(new.index)
    assert loaded.predict(new[:0]).shape == (0,)
    measured = loaded.evaluate(new)
    assert measured["n_rows"] == len(new)
    assert measured["promised"]["smape"] == model.score_["smape"]
    new.to_csv(tmp_path / "new.csv", index=False)
    with (tmp_path / "new.csv").open("a") as file:
        file.write("one field too few\n")
    assert loaded.evaluate(tmp_path / "new.csv") == measured
    opened = [Image.open(path) if isinstance(path, str) else None for path in new["photo"]]
    assert loaded.evaluate(new.assign(photo=opened))["n_rows"] == len(new)
    y, weight = pd.to_numeric(new["price"]), np.arange(len(new))
    assert loaded.score(new, y, sample_weight=weight) != loaded.score(new, y)
    np.testing.assert_allclose(
        loaded.score(new, y, sample_weight=weight),
        loaded.score(new.loc[new.index.repeat(weight)], y.repeat(weight)),
    )


def test_a_model_grows_by_new_rows_and_leaves_earlier_models_as_they_are(
    fitted: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, new = fitted.model, fitted.table[90:]
    n_priced = int((pd.to_numeric(fitted.table["price"], errors="coerce") > 0).sum())
    prices, places = model.predict(new), fitted.root / "work/fit"
    embedded: list[int] = []
    run = embed.embed_catalogue

    def counted(workspace: Workspace) -> object:
        done = run(workspace)
        embedded.append(sum(outcome.n_embedded for outcome in done))
        return done

    monkeypatch.setattr("embed.catalogue.embed_catalogue", counted)
    grown = PriceModel(**model.get_params())
    with monkeypatch.context() as patched:
        patched.setattr("heads.run.train_heads", lambda workspace: os.close(-1))
        with pytest.raises(OSError, match="Bad file descriptor"):
            grown.fit(new, price="price", warm=True)
    with pytest.raises(WorkspaceError, match="this PriceModel is not fitted"):
        grown.predict(new)
    grown.fit(new, price="price", warm=True)  # their rows are there once
    assert len(grown.training_ids) == n_priced
    assert grown.changed_ == {
        "new_rows": len(new),
        "before": model.score_["smape"],
        "after": grown.score_["smape"],
    }
    before = grown.score_["smape"]
    grown.fit(new[:1].assign(title="a text never seen", photo=None), price="price", warm=True)
    assert grown.changed_ == {"new_rows": 1, "before": before, "after": grown.score_["smape"]}
    assert len(grown.training_ids) == n_priced + 1
    assert embedded[-1] == sum(one.text is not None for one in grown._fitted.shape.sets)  # of one text
    gc.collect()  # models that a later fit took the place of
    np.testing.assert_array_equal(model.predict(new), prices)
    model.save(tmp_path / "model")
    assert PriceModel.load(tmp_path / "model").fingerprint == model.fingerprint != grown.fingerprint
    (places / "model-of-a-kill").mkdir()
    (places / "model").mkdir()
    pruned = remove_leftovers(Workspace(fitted.root / "work"), load_config(Workspace(fitted.root / "work")))
    assert {one.path for one in pruned.removed} >= {"fit/model-of-a-kill", "fit/model"}
    assert len(pruned.busy) == len(list(places.glob("model-*"))) == 2
    del grown
    gc.collect()
    assert len(list(places.glob("model-*"))) == 1
    np.testing.assert_array_equal(model.predict(new), prices)


def test_a_fit_that_fails_leaves_the_model_as_it_was(
    fitted: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit_rows(workspace: Workspace, *_: object) -> ModelFolder:
        copy_folder(ModelFolder.open(fitted.folder), workspace.path("model"))
        return ModelFolder.open(workspace.path("model"))

    new = fitted.table[90:]
    model = PriceModel("title", image="photo", numeric=["rating"], categorical=["shop"])
    with monkeypatch.context() as patched:
        patched.setattr("ensemble.model.fitting.fit_rows", fit_rows)
        model.fit(fitted.table, price="price")
    with pytest.raises(CatalogError, match="has no column 'shop'"):
        model.fit(new.drop(columns="shop"), price="price")
    new.to_csv(tmp_path / "new.csv", index=False)
    with (tmp_path / "new.csv").open("a") as file:
        file.write("one field too few\n" * 5)
    with pytest.raises(
        CatalogError, match=r"5 of 25 rows .* can't be used, .*: 5 with wrong number of fields"
    ):
        model.fit(tmp_path / "new.csv", price="price")
    np.testing.assert_array_equal(model.predict(new), PriceModel.load(fitted.folder).predict(new))


def test_it_is_a_regressor_of_scikit_learn(fitted: SimpleNamespace, tmp_path: Path) -> None:
    from sklearn.base import clone, is_regressor
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import Pipeline

    shutil.copytree(fitted.root / "work", tmp_path / "work")  # with vectors of every text
    model = PriceModel("title", workspace=tmp_path / "work", heads=["ridge"], encoders=["minilm@structured"])
    table = fitted.table[pd.to_numeric(fitted.table["price"], errors="coerce") > 0]
    assert is_regressor(model)
    assert clone(model).get_params() == model.get_params()
    changed = (
        f"text='title', workspace={tmp_path / 'work'!r}, encoders=['minilm@structured'], heads=['ridge']"
    )
    assert repr(model) == f"PriceModel({changed})"
    loaded = clone(PriceModel.load(fitted.folder))
    assert (loaded.heads, loaded.random_state) == (["ridge"], 42)
    assert set(loaded.encoders) == {*map(str, fitted.model._fitted.shape.sets)}
    assert copy.deepcopy(model).get_params() == model.get_params()
    with pytest.raises(
        WorkspaceError, match="a fitted PriceModel can't be pickled or deep-copied: call save"
    ):
        copy.deepcopy(fitted.model)
    with pytest.raises(ConfigError, match="PriceModel has no parameter 'texts'"):
        model.set_params(texts="title")
    with pytest.raises(WorkspaceError, match="this PriceModel is not fitted"):
        model.predict(table)
    X, y = table[["title"]], table["price"].astype(float)
    scores = cross_val_score(Pipeline([("model", model)]), X, y, cv=2, scoring=store.smape_scorer())
    assert ((scores < 0) & (scores > -150)).all()


def test_an_image_may_be_a_path_bytes_or_a_pillow_image_and_a_row_may_have_several(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 8), "blue")
    picture.save(tmp_path / "a.png")
    content, path = (tmp_path / "a.png").read_bytes(), str(tmp_path / "a.png")
    said: set[str] = set()
    for cell in (path, tmp_path / "a.png", content, [None, content], {"bytes": content, "path": None}):
        assert image_contents(cell, said) == [content]
    assert len(image_contents(picture, said)) == 1
    assert image_contents([path, content], said) == [content, content]
    assert image_contents(f"{path};{path}", said, "first") == [content]
    assert image_contents("https://example.com/a.png", said) == []
    assert not said
    assert image_contents(str(tmp_path / "none.png"), said) == []
    assert said == {UNREADABLE_IMAGE}


def test_every_image_of_a_row_is_fitted_on_and_kept_for_more_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("embed.catalogue.embed_catalogue", "heads.run.train_heads", "ensemble.score.make_blend"):
        monkeypatch.setattr(name, lambda workspace: None)
    manifest = {"scores": {"nested": 50.0}}
    monkeypatch.setattr("ensemble.model.pack.pack", lambda workspace, to: ModelFolder(to, manifest))
    for colour in ("blue", "red"):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{colour}.png")
    blue, red = ((tmp_path / f"{colour}.png").read_bytes() for colour in ("blue", "red"))
    link = "https://example.com/a.png"
    Image.new("RGB", (8, 8), "green").save(tmp_path / "green.png")
    cells = [str(tmp_path / "blue.png"), [blue, red], link, None, str(tmp_path / "green.png")]
    prices = [*range(1, 5), None]  # the last row is refused
    rows = pa.table({"text": ["tea", "jam", "rice", "oil", "salt"], "price": prices})
    rows = rows.append_column("photo", image_column(cells))
    workspace = Workspace(tmp_path / "w")
    columns = ColumnConfig(
        sample_id=ROW_NUMBER, text="text", image_link="photo", price="price", max_rejected=0.5
    )
    fit_rows(workspace, rows, "photo", Config(columns=columns), [(7, "wrong number of fields: 1 where 3")])
    assert rows_before(workspace, "photo").equals(rows)
    assert score_before(workspace) == 50.0
    rejected = workspace.read_table("catalog/rejected.parquet")["reason"].to_pylist()
    assert rejected[-1] == "wrong number of fields: 1 where 3"
    assert len(rejected) == 2
    known = known_links(workspace)
    train = read_split(workspace, "train")
    found = [[known.get(one) for one in row] for row in image_references(train)]
    of_blue, of_red = (hashlib.sha256(content).hexdigest() for content in (blue, red))
    assert found == [[of_blue], [of_blue, of_red], [], []]
    assert train["image_link"].to_pylist()[2:] == [link, None]  # found once it is fetched
    with pytest.raises(CatalogError, match="the image of row 2 can't be read"):
        image_column([blue, object()])


def test_vectors_of_several_images_are_averaged_as_those_of_the_catalogue() -> None:
    X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float16)
    first = Matrix("colours", X, np.array([True, False, True]))
    second = Matrix("colours", X[::-1].copy(), np.array([True, True, False]))
    found = averaged([first, second], normalize=False)
    assert found.valid.all()
    np.testing.assert_allclose(found.X[0], (X[0].astype(float) + X[2]) / 2, rtol=1e-3)
    np.testing.assert_array_equal(found.X[1:], [second.X[1], X[2]])
    assert np.linalg.norm(averaged([first, second], normalize=True).X[0].astype(float)) == pytest.approx(
        1, rel=1e-3
    )


def test_mlflow_keeps_it_and_loads_it_from_a_local_store(
    fitted: SimpleNamespace,
    packed: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    import mlflow

    from ensemble.model.mlflow import log_mlflow

    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("prices", (tmp_path / "store").as_uri()))
    with mlflow.start_run():
        logged = log_mlflow(fitted.folder)
    loaded = mlflow.pyfunc.load_model(logged.model_uri)
    table = frame_of(fitted.root, "test")[["title", "rating", "shop"]]
    priced = loaded.predict(table)
    np.testing.assert_array_equal(priced["price"], PriceModel.load(fitted.folder).predict(table))
    narrow = loaded.predict(table, params={"interval": 0.5})
    assert (narrow["high"] / narrow["low"] < priced["high"] / priced["low"]).all()
    files = [file.name for file in (tmp_path / "store").rglob("*") if file.is_file()]
    assert "model.json" in files
    assert not [name for name in files if name.endswith((".pkl", ".pickle"))]
    args = ["ensemble", "pack", "-w", str(packed.run), "--to", str(tmp_path / "packed"), "--mlflow", "--json"]
    done = CliRunner().invoke(main, args)
    assert done.exit_code == 0, done.output
    assert not [one for one in recwarn if "input example" in str(one.message)]
    of_command = mlflow.pyfunc.load_model(str(tmp_path / "packed"))
    table = pd.read_csv(packed.root / "test.csv")
    texts = table[["catalog_content", "rating", "shop"]]
    np.testing.assert_array_equal(
        of_command.predict(texts)["price"], PriceModel.load(packed.folder).predict(texts)
    )


def test_a_server_gives_the_prices_of_the_submission_to_clients_at_once(
    packed: SimpleNamespace, model: PriceModel, rows: list[dict[str, object]]
) -> None:
    cells = [
        {n: v for n, v in row.items() if n in ("catalog_content", "rating", "shop") and v == v}
        for row in rows
    ]
    photos = [row["image_link"] and {"base64": base64.b64encode(row["image_link"]).decode()} for row in rows]
    bodies = [{"products": [one | {"image_link": photo}]} for one, photo in zip(cells, photos, strict=True)]
    with (
        serving(create_app(model, packed.folder, ServeSettings(limits=Limits(batch_rows=5)))) as url,
        ThreadPoolExecutor(8) as clients,
    ):
        answers = list(clients.map(lambda body: httpx.post(f"{url}/v1/price", json=body).json(), bodies))
        why = httpx.post(f"{url}/v1/explain", json=bodies[0]).json()["explanations"][0]
        near = [httpx.get(url + one["image"]) for one in why["near"] if one["image"]]
        page = httpx.post(url, files={"catalog_content": (None, cells[0]["catalog_content"])})
    found = [answer["prices"][0] for answer in answers]
    expected = [packed.submission[str(row["sample_id"])] for row in rows]
    np.testing.assert_allclose([one["price"] for one in found], expected, rtol=1e-6)
    assert why["priced"] == found[0]
    assert math.isclose(sum(one["share"] for one in why["heads"]), 1)
    assert near
    assert {one.headers["content-type"] for one in near} == {"image/jpeg"}
    assert 'class="price"' in page.text


def test_the_lines_of_the_page_price_explain_and_save(
    fitted: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parent.parent / "docs/model.md").read_text()
    lines = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    assert "model.fit(train" in lines

    def fit(self: PriceModel, X: object, price: str) -> None:
        """Another test fits."""
        assert price == "price"
        self._pricer = fitted.model._pricer

    monkeypatch.setattr(PriceModel, "fit", fit)
    monkeypatch.chdir(tmp_path)
    names = {"train": fitted.table[:90], "new": fitted.table[90:94], "holdout": fitted.table[94:]}
    exec(lines, names)
    assert PriceModel.load("model/").fingerprint == fitted.model.fingerprint


def test_a_file_is_priced_without_torch_by_the_packages_of_the_page_alone(
    fitted: SimpleNamespace, tmp_path: Path
) -> None:
    page = (Path(__file__).parent.parent / "docs/model.md").read_text()
    (named,) = re.findall(r"pip install --no-cache-dir \\\n(.*?)\nCOPY", page, re.DOTALL)
    packages = shlex.split(named.replace("\\\n", " "))
    table = frame_of(fitted.root, "test")
    table.to_csv(tmp_path / "new.csv", index=False)
    command = [
        "predict",
        str(tmp_path / "new.csv"),
        "--model",
        str(fitted.folder),
        "--out",
        str(tmp_path / "p.csv"),
    ]
    program = [sys.executable, "-m", "tests.only_packages", *packages, "--", *command]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(pd.read_csv(tmp_path / "p.csv")["price"], fitted.model.predict(table))


def test_a_server_prices_uploads_without_torch_by_the_packages_of_the_dockerfile_alone(
    fitted: SimpleNamespace,
) -> None:
    page = (Path(__file__).parent.parent / "docs/serving.md").read_text()
    (named,) = re.findall(r"pip install --no-cache-dir \\\n(.*?)\nUSER", page, re.DOTALL)
    defaults = {library for head in {*FEW, *MANY} for library in head_class(head).libraries}
    assert defaults <= set(shlex.split(named.replace("\\\n", " ")))  # of heads that this model does without
    image = next((fitted.root / "demo/images").iterdir()).read_bytes()
    program = ("tests.only_packages", *shlex.split(named.replace("\\\n", " ")), "--", "serve")
    with running(fitted.folder, "--allow-links", program=program) as (url, process):
        parts = {"title": (None, "green tea, 20 bags"), "photo": ("tea.jpg", image)}
        answer = httpx.post(f"{url}/v1/explain", files=parts, timeout=60).json()["explanations"][0]
        loaded = Path(f"/proc/{process.pid}/maps")
        assert not loaded.exists() or "libtorch" not in loaded.read_text()
    assert answer["priced"]["price"] > 0
    assert answer["priced"]["flags"] == []
    assert len(answer["near"]) == 5
