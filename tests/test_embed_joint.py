"""Images and texts in one vector, the whole way: catalogue, cache, heads, fine-tuning."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from embed import encode
from store.cli import main
from store.config import load_config, save_config
from store.errors import EncoderError
from store.vectors.content import image_keys, joint_keys, text_keys
from store.vectors.folded import load_any
from store.vectors.matrix import load_matrix
from store.vectors.sets import VectorSet
from tests import family_models as of
from tests.fake_images import encoded, photo
from tests.finetune_runs import demo_workspace, tiny_job, tune, with_one_thread

one_thread = pytest.fixture(autouse=True, scope="module")(with_one_thread)
SHA = ["ab" * 32, None, "cd" * 32, None]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return of.as_sentence_model(of.qwen_vl(root / "parts"), root / "vl", "lasttoken", max_tokens=None)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, model):
    made = demo_workspace(tmp_path_factory.mktemp("demo"), train=90, test=8)
    for name in ("@joint-name", "@image", "@name"):
        told(
            made,
            "embed",
            "run",
            "--offline",
            "--devices",
            "cpu",
            "--precision",
            "fp32",
            "-e",
            f"{model}{name}",
        )
    return made


def told(workspace, *command):
    result = CliRunner().invoke(main, [*command, "-w", workspace.root], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_key_of_a_row_is_a_digest_of_image_and_text_together():
    images, texts = pa.array(SHA, pa.string()), pa.array(["red", "red", "", None])
    keys = joint_keys(images, texts).to_pylist()
    assert keys[3] is None
    assert len({*keys[:3], text_keys(texts).to_pylist()[0], image_keys(images).to_pylist()[0]}) == 5
    assert joint_keys(images.take([0]), pa.array(["blue"])).to_pylist() != keys[:1]
    assert joint_keys(images.take([2]), pa.array(["red"])).to_pylist() != keys[:1]


@pytest.mark.parametrize(
    "name, has_image, text",
    [
        ("vl@joint", True, "structured"),
        ("vl@joint-full", True, "full"),
        ("vl@joint-name", True, "name"),
        ("vl@image", True, None),
        ("vl@name", False, "name"),
        ("vl", True, "structured"),
    ],
)
def test_a_set_says_what_of_a_row_enters(name, has_image, text):
    vector_set = VectorSet.parse(name, "joint")
    assert (vector_set.has_image, vector_set.text) == (has_image, text)


def test_one_cache_folder_holds_vectors_of_both_and_of_each(workspace, model):
    found = {
        name: load_matrix(workspace, VectorSet.parse(f"{model}@{name}", "joint"), "train")
        for name in ("joint-name", "image", "name")
    }
    assert found["joint-name"].valid.all()
    assert not np.allclose(found["joint-name"].X, found["name"].X)
    without = ~found["image"].valid
    assert without.any(), "every row of the demo has an image, so that this test shows less than it says"
    np.testing.assert_allclose(found["joint-name"].X[without], found["name"].X[without], atol=2e-3)


def test_lists_of_texts_and_of_images_are_encoded_by_the_same_model(model, workspace):
    texts = encode(["red shirt", "blue"], str(model), device="cpu", precision="fp32", offline=True)
    images = encode([encoded(photo(40, 50), "PNG")], str(model), device="cpu", precision="fp32", offline=True)
    assert texts.shape == (2, 32)
    assert images.shape == (1, 32)


def test_fewer_tokens_than_a_small_image_has_are_refused(model):
    with pytest.raises(
        EncoderError, match=r"6 tokens can't hold a message with one small image .*larger max_tokens"
    ):
        encode(["red shirt"], f"{model}?max_tokens=6", device="cpu", precision="fp32", offline=True)


def test_heads_train_on_a_joint_set_as_on_any_other(workspace, model):
    config = load_config(workspace)
    heads = dataclasses.replace(config.heads, vectors=(f"{model}@joint-name",), run=("ridge",))
    save_config(workspace, dataclasses.replace(config, heads=heads))
    told(workspace, "heads", "run")
    status = json.loads(told(workspace, "status", "--json"))
    assert [head["head"] for head in status["heads"]] == ["ridge"]
    assert any(one["name"] == f"{model}@joint-name" for one in status["vectors"])


def test_a_joint_set_is_tuned_with_adapters_and_its_tuned_vectors_are_cached(workspace, model):
    job = tiny_job(
        workspace,
        (f"{model}@joint-name",),
        "joint",
        lora=2,
        last_blocks=1,
        head="mlp-layernorm",
        checkpointing=True,
        text_rate=0.03,
    )
    tune(job)
    tuned = load_any(workspace, VectorSet("finetuned:joint.joint", "joint-name"), "train", job.folds.hash)
    frozen = load_matrix(workspace, VectorSet.parse(f"{model}@joint-name", "joint"), "train")
    assert tuned.for_fold(0).valid.all()
    assert not np.allclose(tuned.for_fold(0).X, frozen.X, atol=1e-3)
