import pickle
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import joblib
import numpy as np
import pandas
import polars
import pytest
import skrub
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from embed import ImageEncoder, TextEncoder
from embed.encoders import registry
from store.errors import ConfigError, EncoderError, MissingVectorsError
from tests import letter_encoder
from tests.fake_images import broken_images, encoded, photo
from tests.fake_models import save_tiny_clip, save_tiny_timm
from tests.letter_encoder import expected

ROOT = Path(__file__).parent.parent
TEXTS = ["green tea, 20 bags", "olive oil", "aioli", "Aubergine in brine"]
VECTORS = np.array([expected(text, "aeiou") for text in TEXTS], np.float32)


@pytest.fixture(autouse=True)
def letters(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {"letters": letter_encoder})


@pytest.fixture
def table():
    index = pandas.Index(["p", "q", "r", "s"])
    return pandas.DataFrame({"description": TEXTS, "weight": [1.0, 2.0, 3.0, 4.0]}, index=index)


@pytest.mark.parametrize(
    "column",
    [
        lambda table: table["description"],
        lambda table: table[["description"]],
        lambda table: table["description"].to_list(),
        lambda table: table[["description"]].to_numpy(),
        lambda table: polars.from_pandas(table)["description"],
        lambda table: polars.from_pandas(table)[["description"]],
    ],
    ids=["Series", "DataFrame", "list", "array", "polars.Series", "polars.DataFrame"],
)
def test_a_column_or_a_table_of_one_column_becomes_vectors(table, column):
    X = TextEncoder("vowels").fit_transform(column(table))
    assert X.dtype == np.float32
    np.testing.assert_array_equal(X, VECTORS)


def test_a_table_of_two_columns_is_refused(table):
    with pytest.raises(ValueError, match="one column is encoded at a time, got 2: put an encoder for each"):
        TextEncoder("vowels").fit(table)


def test_nothing_is_fitted_and_fit_loads_no_model(table, monkeypatch):
    unfitted = TextEncoder("vowels").transform(table["description"])
    np.testing.assert_array_equal(unfitted, VECTORS)
    monkeypatch.setattr(letter_encoder, "load", None)  # would be called
    TextEncoder("vowels", cache=None).fit(table["description"])


@pytest.mark.parametrize("columns", ["description", ["description"]])
def test_set_output_gives_a_table_with_the_index_and_names_after_the_column(table, columns):
    encoder = TextEncoder("vowels").set_output(transform="pandas")
    framed = encoder.fit_transform(table[columns])
    assert framed.index.equals(table.index)
    assert list(framed.columns) == [f"description_{i}" for i in range(5)]
    np.testing.assert_array_equal(framed.to_numpy(), VECTORS)
    framed = clone(encoder).set_output(transform="polars").fit_transform(polars.from_pandas(table)[columns])
    assert framed.columns == [f"description_{i}" for i in range(5)]


def test_names_of_features_without_a_column_s_name_are_the_encoder_s():
    encoder = TextEncoder("letters:abcdefghijkl").fit(TEXTS)
    assert encoder.get_feature_names_out()[:2].tolist() == [
        "letters-abcdefghijkl_00",
        "letters-abcdefghijkl_01",
    ]
    assert encoder.get_feature_names_out(["text"])[-1] == "text_11"


@pytest.mark.parametrize("columns", ["description", ["description"]])
def test_in_a_column_transformer_within_a_pipeline(table, columns):
    columns = make_column_transformer((TextEncoder("vowels"), columns), ("passthrough", ["weight"]))
    model = make_pipeline(columns, Ridge())
    predicted = cross_val_predict(model, table, [1.0, 2.0, 3.0, 4.0], cv=2)
    assert predicted.shape == (4,)
    names = model.fit(table, [1.0, 2.0, 3.0, 4.0])[0].get_feature_names_out()
    assert names[0] == "textencoder__description_0"
    assert names[-1] == "passthrough__weight"


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_in_a_table_vectorizer_of_skrub(library):
    names, notes = [f"tea {i} aei" for i in range(60)], [f"oil {i} ou" for i in range(60)]
    table = import_module(library).DataFrame({"name": names, "note": notes, "weight": range(60)})
    vectorizer = skrub.TableVectorizer(high_cardinality=TextEncoder("vowels"))
    framed = vectorizer.fit_transform(table)
    assert list(framed.columns)[:6] == [*(f"name_{i}" for i in range(5)), "note_0"]
    np.testing.assert_array_equal(framed.to_numpy()[:, :5], [expected(text, "aeiou") for text in names])
    np.testing.assert_array_equal(vectorizer.transform(table[:3]).to_numpy(), framed.to_numpy()[:3])


def test_a_clone_has_the_same_parameters_and_they_can_be_set(tmp_path):
    encoder = TextEncoder("vowels", cache=tmp_path, missing="nan", device="cpu")
    assert clone(encoder).get_params() == encoder.get_params()
    assert encoder.set_params(encoder="minilm").encoder == "minilm"


def test_a_pickle_holds_options_alone_and_works_in_another_process(tmp_path, table):
    encoder = TextEncoder("vowels").fit(table["description"])
    encoder.transform(table["description"])  # the model is loaded here
    assert len(pickle.dumps(encoder)) < 1000
    joblib.dump(encoder, tmp_path / "encoder.joblib")
    code = (
        "import sys, joblib; from tests import letter_encoder; from embed import register_encoder; "
        "register_encoder(letter_encoder); print(joblib.load(sys.argv[1]).transform(['aioli']).tolist())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "encoder.joblib")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[[1.0, 0.0, 2.0, 1.0, 0.0]]\n"


def test_what_is_missing_is_a_row_of_zeros_unless_asked_otherwise():
    column = pandas.Series(["tea", None, "", np.nan], dtype=object)
    zeros, nan = (TextEncoder("vowels", missing=m).fit_transform(column) for m in ("zero", "nan"))
    np.testing.assert_array_equal(TextEncoder("vowels").fit_transform(column), zeros)
    assert zeros[0].tolist() == nan[0].tolist() == expected("tea", "aeiou")
    assert not zeros[1:].any()
    assert np.isnan(nan[1:]).all()
    with pytest.raises(MissingVectorsError, match="item 1 of 4"):
        TextEncoder("vowels", missing="error").fit_transform(column)


@pytest.mark.parametrize(
    "encoder, error, words",
    [
        (TextEncoder("vowel"), EncoderError, "did you mean vowels"),
        (TextEncoder("vowels", missing="drop"), ConfigError, "missing must be one of error, nan, zero"),
        (
            TextEncoder("efficientnet-lite0"),
            TypeError,
            "efficientnet-lite0 takes images, the items are texts",
        ),
        (ImageEncoder("vowels"), TypeError, "vowels takes texts, the items are images"),
    ],
)
def test_fit_refuses_what_can_t_work(encoder, error, words):
    with pytest.raises(error, match=words):
        encoder.fit(["a.jpg"])


def test_images_by_path_bytes_or_pillow(tmp_path):
    model = save_tiny_timm(tmp_path / "model")
    content = encoded(photo(40, 30), "PNG")
    (tmp_path / "a.png").write_bytes(content)
    column = pandas.Series([tmp_path / "a.png", content, None, photo(40, 30)], name="image", dtype=object)
    X = ImageEncoder(str(model)).fit_transform(column)
    assert X.shape == (4, 512)
    np.testing.assert_array_equal(X[0], X[1])
    np.testing.assert_allclose(X[3], X[0], atol=2e-3)
    assert not X[2].any()
    with pytest.warns(UserWarning, match="1 of 1 items have no vector"):
        ImageEncoder(str(model)).transform([broken_images()["truncated JPEG"]])


def test_of_a_model_with_two_towers_each_takes_its_own(tmp_path):
    both = str(save_tiny_clip(tmp_path / "both"))
    (tmp_path / "a.png").write_bytes(encoded(photo(40, 30), "PNG"))
    text, image = TextEncoder(both), ImageEncoder(both)
    assert (
        text.fit_transform(["tea"]).shape == image.fit_transform([str(tmp_path / "a.png")]).shape == (1, 16)
    )
    assert text.get_feature_names_out(["name"])[0] == "name_00"


@pytest.mark.parametrize("encoder", [TextEncoder("vowels"), ImageEncoder("efficientnet-lite0")])
def test_scikit_learn_s_checks_of_an_estimator_pass(encoder):
    done = check_estimator(encoder, on_skip=None)
    assert any(check["status"] == "passed" for check in done)
