import threading
import warnings
from importlib import import_module
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import embed
from embed import encoding
from embed.encoders import registry
from embed.job.items import png_bytes
from store.catalog.images.open import flattened
from store.errors import ConfigError, EncoderError, MissingVectorsError
from store.vectors.matrix import load_matrix
from store.vectors.sets import VectorSet, current_spec
from store.vectors.shard import read_keys, read_shard
from store.workspace import Workspace
from tests import letter_encoder
from tests.fake_images import broken_images, encoded, photo, publish_images, rotated_by_exif
from tests.fake_models import save_tiny_clip, save_tiny_sentence_model, save_tiny_timm
from tests.fakes import catalog_table, publish_catalog
from tests.letter_encoder import expected

TEXTS = ["green tea, 20 bags", "olive oil", "x", "olive oil", "Aubergine in brine"]
VECTORS = [expected(text, "aeiou") for text in TEXTS]


@pytest.fixture(autouse=True)
def letters(monkeypatch):
    """The short name `vowels`, known in this process; gives the texts that are encoded."""
    monkeypatch.setattr(registry, "_registered", {"letters": letter_encoder})
    monkeypatch.setattr(encoding, "_models", encoding._Models(2))
    encoded_texts: list[str] = []
    plain = letter_encoder.LetterCounter.tokenize

    def tokenize(self, texts):
        encoded_texts.extend(texts)
        return plain(self, texts)

    monkeypatch.setattr(letter_encoder.LetterCounter, "tokenize", tokenize)
    return encoded_texts


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_tiny_sentence_model(folder / "text", max_tokens=8)
    save_tiny_timm(folder / "image")
    save_tiny_clip(folder / "both")
    return folder


@pytest.fixture
def images(tmp_path):
    """Two photos and a broken file."""
    for name, content in {
        "a.png": encoded(photo(40, 30), "PNG"),
        "b.jpg": encoded(photo(64, 64, seed=1)),
        "broken.jpg": broken_images()["truncated JPEG"],
    }.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def publish_texts(workspace, texts):
    publish_catalog(
        workspace, catalog_table([{"sample_id": i, "name": t, "price": 1.0} for i, t in enumerate(texts)])
    )


def published_keys(workspace):
    return read_keys(workspace, current_spec(workspace, "vowels").folder).to_pylist()


def test_a_row_for_each_item_in_order_and_each_text_encoded_once(letters):
    X = embed.encode(TEXTS, "vowels")
    assert (X.dtype, X.shape) == (np.float32, (5, 5))
    assert X.tolist() == VECTORS
    assert sorted(letters) == sorted(set(TEXTS))


@pytest.mark.parametrize(
    "column",
    [
        np.array(TEXTS),
        np.array(TEXTS, object),
        pa.array(TEXTS),
        pa.chunked_array([TEXTS[:2], TEXTS[2:]]),
        tuple(TEXTS),
        (text for text in TEXTS),
        pytest.param("pandas", id="pandas"),
        pytest.param("polars", id="polars"),
    ],
    ids=lambda column: f"{type(column).__module__}.{type(column).__name__}",
)
def test_any_column_of_texts_will_do(column):
    if isinstance(column, str):
        column = import_module(column).Series(TEXTS)
    assert embed.encode(column, "vowels").tolist() == VECTORS


def test_no_item_is_no_row():
    assert embed.encode([], "vowels").shape == (0, 5)


def test_what_a_cache_holds_is_not_computed_again_and_the_vectors_are_the_same(letters, tmp_path):
    embed.encode(TEXTS[:2], "vowels", cache=tmp_path)
    letters.clear()
    X = embed.encode(TEXTS, "vowels", cache=Workspace(tmp_path))
    assert letters == ["x", "Aubergine in brine"]
    np.testing.assert_array_equal(X, embed.encode(TEXTS, "vowels"))


def test_a_damaged_shard_is_put_aside_and_just_its_items_are_encoded_again(letters, tmp_path):
    workspace = Workspace(tmp_path)
    for text in TEXTS[:3]:
        embed.encode([text], "vowels", cache=workspace)
    (folder,) = [name for name in workspace.names("vectors") if name.startswith("vowels")]
    (shard,) = [
        name
        for name in workspace.names(f"vectors/{folder}", "part-")
        if (read_shard(workspace, f"vectors/{folder}/{name}")[1] == VECTORS[1]).all()
    ]
    path = Path(workspace.path(f"vectors/{folder}/{shard}"))
    content = bytearray(path.read_bytes())
    content[content.find(np.array(VECTORS[1], "<f2").tobytes())] ^= (
        0xFF  # in the vectors: the keys look whole
    )
    path.write_bytes(content)
    letters.clear()
    assert embed.encode(TEXTS[:3], "vowels", cache=workspace).tolist() == VECTORS[:3]
    assert letters == [TEXTS[1]]
    assert workspace.names(f"vectors/{folder}", "damaged-") == [f"damaged-{shard}"]


def test_what_a_run_embedded_is_a_hit(letters, tmp_path):
    workspace = Workspace(tmp_path)
    publish_texts(workspace, TEXTS)
    embed.embed_catalogue(workspace, "vowels@name", device="cpu")
    letters.clear()
    assert embed.encode(TEXTS, "vowels", cache=workspace).tolist() == VECTORS
    assert letters == []


def test_what_was_encoded_is_a_hit_for_a_run(letters, tmp_path):
    workspace = Workspace(tmp_path)
    publish_texts(workspace, TEXTS)
    embed.encode(TEXTS, "vowels", cache=workspace)
    letters.clear()
    (outcome,) = embed.embed_catalogue(workspace, "vowels@name", device="cpu")
    assert (outcome.n_embedded, outcome.plan.n_hits) == (0, 4)
    assert letters == []
    assert len(published_keys(workspace)) == 4


def test_encoding_never_changes_what_an_encoder_s_name_stands_for_in_a_workspace(tmp_path):
    workspace = Workspace(tmp_path)
    publish_texts(workspace, TEXTS)
    embed.embed_catalogue(workspace, "vowels@name", device="cpu")
    before = current_spec(workspace, "vowels")
    embed.encode(["new"], "vowels", cache=workspace, precision="fp32")
    assert current_spec(workspace, "vowels") == before
    assert load_matrix(workspace, VectorSet("vowels", "name"), "train").valid.all()


def test_images_of_a_run_are_hits_by_their_bytes(images, models, monkeypatch):
    workspace = Workspace(images / "workspace")
    names = ("a.png", "b.jpg")
    publish_images(workspace, {name: (images / name).read_bytes() for name in names})
    encoder = str(models / "image")
    embed.embed_catalogue(workspace, encoder, device="cpu", max_failures=1.0)
    rows = load_matrix(workspace, VectorSet(encoder), "train").X[:2]
    monkeypatch.setattr("embed.forward.fleet.load_engines", None)  # would be called
    for items in ([images / n for n in names], [(images / n).read_bytes() for n in names]):
        np.testing.assert_array_equal(embed.encode(items, encoder, cache=workspace), rows)


def test_paths_bytes_and_pillow_images_of_the_same_pixels_have_the_same_vector(images, models):
    path = images / "a.png"
    with Image.open(path) as opened:
        items = [path, str(path), path.read_bytes(), bytearray(path.read_bytes()), opened, opened.copy()]
        X = embed.encode(items, str(models / "image"))
    np.testing.assert_array_equal(X[:4], X[[0] * 4])
    np.testing.assert_allclose(X[4:], X[[0, 0]], atol=2e-3)
    np.testing.assert_array_equal(X[4], X[5])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F"])
def test_a_pillow_image_is_written_without_loss_and_always_to_the_same_bytes(mode, tmp_path):
    image = photo(20, 10).convert("L" if mode == "I;16" else "RGB").convert(mode)
    content = png_bytes(image)
    assert content == png_bytes(image.copy())
    (tmp_path / "image.png").write_bytes(content)
    with Image.open(tmp_path / "image.png") as written:
        same = {
            "CMYK": image.convert("RGB"),
            "YCbCr": image.convert("RGB"),
            "F": photo(20, 10).convert("L"),
        }.get(mode, image)
        np.testing.assert_array_equal(np.asarray(written.convert(same.mode)), np.asarray(same))


def test_a_pillow_image_of_32_bit_grey_is_written_as_it_would_enter_a_model():
    deep = Image.fromarray(np.arange(0, 65_536, 256, dtype=np.int32).reshape(16, 16))
    assert deep.mode == "I"
    assert png_bytes(deep) == png_bytes(flattened(deep))


def test_a_pillow_image_is_turned_upright(models, tmp_path):
    upright = photo(40, 20)
    (tmp_path / "turned.png").write_bytes(rotated_by_exif(upright, 6, "PNG"))
    with Image.open(tmp_path / "turned.png") as turned:
        assert png_bytes(turned) == png_bytes(upright)


@pytest.mark.parametrize(
    "items, at, reason",
    [
        (["a", None], 1, "it is empty"),
        (["a", "b", float("nan"), ""], 2, "it is empty, and 1 more"),
        ([""], 0, "it is empty"),
    ],
)
def test_an_item_without_content_is_an_error_that_names_it_before_any_work(letters, items, at, reason):
    with pytest.raises(
        MissingVectorsError, match=rf"item {at} of {len(items)} gives vowels nothing.*{reason}"
    ):
        embed.encode(items, "vowels")
    assert letters == []


def test_on_request_an_item_without_content_is_a_row_of_nan_or_zero():
    import pandas

    items = pandas.Series(["tea", None, pandas.NA, "", pandas.NaT, np.nan], dtype=object)
    for missing, value in (("nan", np.nan), ("zero", 0.0)):
        X = embed.encode(items, "vowels", missing=missing)
        assert X[0].tolist() == expected("tea", "aeiou")
        np.testing.assert_array_equal(X[1:], np.full((5, 5), value))


def test_a_broken_image_is_an_error_that_names_it(images, models):
    items = [images / "a.png", images / "broken.jpg", images / "b.jpg"]
    with pytest.raises(
        MissingVectorsError, match=r"item 1 of 3 has no vector of .*image.*damaged.*missing='nan'"
    ):
        embed.encode(items, str(models / "image"))


@pytest.mark.parametrize("cached", [False, True])
def test_on_request_broken_and_absent_images_are_rows_of_nan_and_a_warning_counts_them(
    images, models, cached
):
    items = [images / "broken.jpg", images / "a.png", None, images / "nowhere.jpg", images / "broken.jpg"]
    cache = images / "cache" if cached else None
    for _ in range(2):  # the second time off the record
        with pytest.warns(UserWarning, match=r"3 of 5 items have no vector.*first: item 0: damaged"):
            X = embed.encode(items, str(models / "image"), cache=cache, missing="nan")
        assert np.isnan(X).all(axis=1).tolist() == [True, False, True, True, True]


def test_missing_items_alone_are_no_reason_for_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embed.encode(["tea", None], "vowels", missing="zero")


def test_a_file_that_is_not_there_is_an_error_before_any_work(images, models, monkeypatch):
    monkeypatch.setattr("embed.forward.fleet.load_engines", None)  # would be called
    with pytest.raises(MissingVectorsError, match=r"item 1 of 2 .*can't be read: No such file"):
        embed.encode([images / "a.png", images / "nowhere.jpg"], str(models / "image"))


def test_a_file_that_changes_meanwhile_never_gets_a_vector_under_its_old_content(images, models, monkeypatch):
    load = encoding._models.loaded

    def change_then_load(*arguments):
        (images / "a.png").write_bytes(encoded(photo(9, 9), "PNG"))
        return load(*arguments)

    monkeypatch.setattr(encoding._models, "loaded", change_then_load)
    with pytest.raises(MissingVectorsError, match=r"item 0 .*it changed while it was being embedded"):
        embed.encode([images / "a.png"], str(models / "image"), cache=images / "cache")


@pytest.mark.parametrize(
    "items, encoder, error, words",
    [
        ("tea", "vowels", TypeError, "items is str 'tea': pass a list of items"),
        (b"tea", "vowels", TypeError, "items is bytes b'tea': pass a list"),
        (7, "vowels", TypeError, "items is int 7: pass a list"),
        (np.array([["a", "b"]]), "vowels", ValueError, r"items have the shape \(1, 2\): pass one column"),
        (["a", 7], "vowels", TypeError, "item 1 is int 7, not a text"),
        ([b"a"], "vowels", TypeError, "vowels takes texts, the items are images"),
        ([Path("a.jpg")], "vowels", TypeError, "vowels takes texts, the items are images"),
        (["a", "\ud800"], "vowels", ValueError, "item 1 can't be written in UTF-8"),
        (["a"], "vowels@name", ConfigError, "write 'vowels'"),
        (["a"], "vowel", EncoderError, "did you mean vowels"),
        ([1.5], "efficientnet-lite0", TypeError, "item 0 is float 1.5, not an image"),
    ],
)
def test_what_can_t_be_encoded_is_refused_with_the_reason(items, encoder, error, words):
    with pytest.raises(error, match=words):
        embed.encode(items, encoder)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"missing": "drop"}, "missing must be one of error, nan, zero, got 'drop'"),
        ({"precision": "int4"}, "precision must be one of auto, fp32, bf16, fp16, int8, got 'int4'"),
        ({"device": "cuda:63"}, "device 'cuda:63' can't be used here"),
    ],
)
def test_an_unknown_option_is_an_error_that_names_the_known_ones(options, words):
    with pytest.raises(ConfigError, match=words):
        embed.encode(["a"], "vowels", **options)


def test_of_a_model_with_two_towers_items_or_the_address_say_which(images, models):
    both = str(models / "both")
    with pytest.raises(ConfigError, match=r"strings may be either: write '.*both\.image' or '.*both\.text'"):
        embed.encode(["tea"], both)
    of_images = embed.encode([images / "a.png"], both)
    of_paths = embed.encode([str(images / "a.png")], f"{both}.image")
    np.testing.assert_array_equal(of_images, of_paths)
    assert embed.encode(["tea"], f"{both}.text").shape == (1, 16)


def test_a_model_is_loaded_once_and_the_last_two_stay(models, monkeypatch):
    loads = []
    load = letter_encoder.load
    monkeypatch.setattr(letter_encoder, "load", lambda found: loads.append(found[0].spec.name) or load(found))
    for name in ("vowels", "letters:a", "vowels", "letters:b", "vowels", "letters:a"):
        embed.encode(["tea"], name)
    assert loads == ["vowels", "letters:a", "letters:b", "letters:a"]


def test_without_a_cache_no_vector_stays_in_memory():
    memory = fsspec.filesystem("memory")
    embed.encode(["tea"], "vowels")
    before = set(memory.store)
    embed.encode(TEXTS, "vowels")
    assert set(memory.store) == before
    assert not any("part-" in path for path in before)


def test_calls_from_several_threads_each_get_their_own_rows():
    found: dict[int, np.ndarray] = {}
    texts = {i: [f"{'a' * i} {j} {'e' * j}" for j in range(30)] for i in range(4)}
    calls = [
        threading.Thread(target=lambda i=i: found.update({i: embed.encode(texts[i], "vowels")}))
        for i in range(4)
    ]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    for i, rows in texts.items():
        assert found[i].tolist() == [expected(text, "aeiou") for text in rows]


def test_a_few_items_are_not_worth_measuring_and_many_are_measured_once(models, tmp_path):
    encoder, workspace = str(models / "text"), Workspace(tmp_path)

    def measured():
        (folder,) = [name for name in workspace.names("vectors") if name.startswith("tmp")]
        return workspace.names(f"vectors/{folder}", "measured-")

    embed.encode(["tea", "oil"], encoder, cache=workspace)
    assert measured() == []
    embed.encode([f"coffee beans {i}" for i in range(1100)], encoder, cache=workspace)
    assert len(measured()) == 1
