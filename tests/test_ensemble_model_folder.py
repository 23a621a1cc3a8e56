"""A packed model and a workspace that come from someone else: what pricing reads of them, and what it does not."""

import csv
import hashlib
import io
import json
import os

import pyarrow as pa
import pytest

from ensemble.model.answers import UNREADABLE_IMAGE
from ensemble.model.encoders import REFERENCE, ModelEncoders
from ensemble.model.folder import FORMAT, KIND, MANIFEST, OWN, ModelFolder, _own_digest
from ensemble.model.predictions import PricedFile, _workspace_images
from ensemble.model.rows import image_contents
from store.catalog.images.blobs import blob_path
from store.catalog.images.links import merge_links
from store.catalog.parse.fields import FIELDS_VERSION
from store.errors import CorruptFileError, EncoderError, WorkspaceError
from store.schema import LINKS
from store.vectors.sets import VectorSet
from store.workspace import Workspace
from tests.fakes import catalog_table, fake_spec, publish_catalog
from tests.soak.commands import result_of


@pytest.mark.parametrize("name", ["../secret", "heads/../../secret", "/etc/passwd"])
def test_a_model_that_names_a_file_elsewhere_is_refused(tmp_path, name):
    (tmp_path / "secret").write_text("x")
    entry = {"kind": "converted", "encoder": "a", "folder": name}
    for call in (
        lambda: ModelFolder(tmp_path / "model", {}).read(name),
        ModelEncoders(tmp_path / "model", [entry]).load,
    ):
        with pytest.raises(CorruptFileError, match="which leads out of the model: don't use it"):
            call()


def test_a_model_that_may_not_be_looked_into_is_named(tmp_path):
    (tmp_path / MANIFEST).write_text("{}")

    def told():
        os.chmod(tmp_path, 0)
        try:
            ModelFolder.open(tmp_path)
        except WorkspaceError as error:
            return str(error)
        finally:
            os.chmod(tmp_path, 0o755)

    assert result_of(told) == f"can't read {tmp_path / MANIFEST}: Permission denied"


def test_an_encoder_that_a_model_names_is_never_downloaded(tmp_path, monkeypatch):
    asked = []

    def find(encoder, modality, cache, precision, models_dir, offline):
        asked.append((encoder, offline))
        raise EncoderError("not on this machine")

    monkeypatch.setattr("embed.encoding.find_encoder", find)
    spec = fake_spec("someone/model")
    one = VectorSet(spec.name, "name")
    entry = {
        "kind": REFERENCE,
        "encoder": spec.name,
        "spec": spec.to_json(),
        "fingerprint": spec.fingerprint,
    }
    with pytest.raises(EncoderError, match="not on this machine"):
        ModelEncoders(tmp_path, [entry]).matrices([one], {one: ["tea"]}, [[]])
    assert asked == [("someone/model", True)]


def test_an_image_of_the_workspace_whose_bytes_are_others_is_one_that_can_not_be_read(tmp_path):
    workspace = Workspace(tmp_path)
    names = {"1": b"right", "2": b"swapped", "3": b"gone"}
    links = {f"https://shop.example/{one}.jpg": content for one, content in names.items()}
    publish_catalog(workspace, catalog_table([{"sample_id": 1, "image": next(iter(links)), "price": 1.0}]))
    for link, content in links.items():
        digest = hashlib.sha256(content).hexdigest()
        if content != b"gone":
            workspace.publish_bytes(blob_path(digest), b"other" if content == b"swapped" else content)
        row = dict.fromkeys(LINKS.names) | {"link": link, "sha256": digest, "tries": 1}
        merge_links(workspace, pa.Table.from_pylist([row], schema=LINKS))
    of_links, _ = _workspace_images(workspace)
    found = {}
    for link, content in links.items():
        said: set[str] = set()
        found[content] = image_contents([of_links[link]], said), said
    assert found == {
        b"right": ([b"right"], set()),
        b"swapped": ([], {UNREADABLE_IMAGE}),
        b"gone": ([], {UNREADABLE_IMAGE}),
    }


def test_prices_for_a_spreadsheet_hold_no_formula_and_others_the_ids_as_they_are():
    rows = [
        ("=HYPERLINK(1)", "1.5", "1", "2", "", ""),
        ("7", "-2", "-3", "1", "", ""),
        ("@a", "1", "1", "1", "", ""),
    ]
    priced = PricedFile(("id", "price", "low", "high", "flags", "reason"), rows, "0")
    plain, for_people = (list(csv.reader(io.StringIO(priced.csv(way)))) for way in (False, True))
    assert [row[0] for row in plain] == ["id", "=HYPERLINK(1)", "7", "@a"]
    assert [row[0] for row in for_people] == ["id", "'=HYPERLINK(1)", "7", "'@a"]
    assert [row[1:] for row in plain] == [row[1:] for row in for_people]


def test_a_model_whose_texts_were_parsed_by_another_version_is_refused(tmp_path):

    manifest = {
        "kind": KIND,
        "format": FORMAT,
        "files": {},
        "fields_version": 2,
        "versions": {"shelfprice": "0.1.0"},
    }
    (tmp_path / MANIFEST).write_text(json.dumps(manifest | {OWN: _own_digest(manifest)}))
    with pytest.raises(WorkspaceError, match=r"0\.1\.0, which parses texts in another way"):
        ModelFolder.open(tmp_path)


def test_a_folder_of_a_model_that_can_not_be_read_is_named(tmp_path, monkeypatch):
    manifest = {"kind": KIND, "format": FORMAT, "files": {}, "fields_version": FIELDS_VERSION}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest | {OWN: _own_digest(manifest)}))
    (tmp_path / "heads").mkdir()
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("heads"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr("ensemble.model.folder.manifest_problem", lambda manifest: None)
    monkeypatch.setattr("ensemble.model.folder.os.scandir", refused)
    with pytest.raises(WorkspaceError, match="heads: Permission denied"):
        ModelFolder.open(tmp_path)
