"""With shuffled prices, heads on tuned vectors show no skill out of fold."""

import dataclasses

import numpy as np
import pytest

from embed.finetune.run import FinetuneOutcome
from embed.finetune.training import FoldRun
from heads.features.inputs import Inputs, read_inputs
from heads.features.rows import Rows
from heads.folds.crossfit import crossfit
from heads.registry import make_head
from store.config import Config, EmbedConfig, FoldConfig, HeadConfig, save_config
from store.folds.assign import read_folds
from store.metric import smape_log
from store.vectors.folded import FoldedMatrix
from store.vectors.sets import VectorSet
from store.workspace import Workspace
from tests.fake_models import WORDS, save_tiny_bert
from tests.fakes import catalog_table, publish_catalog
from tests.finetune_runs import PARAMS, embedded, tiny_job, tune, with_one_thread

one_thread = pytest.fixture(scope="module", autouse=True)(with_one_thread)

N_ROWS = 96
HEADS = {
    "ridge": {"fields": False},
    "neighbours": {},
    "fusion": {**PARAMS["fusion"], "batch_rows": 8, "seeds": 4},
}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> tuple[Inputs, FinetuneOutcome]:
    """Rows whose words tell them apart and whose prices are noise, with vectors of an encoder tuned on them."""
    root = tmp_path_factory.mktemp("leaks")
    random = np.random.default_rng(5)
    texts = [" ".join(random.choice(WORDS, 8)) + f" {chr(97 + i % 26)} {i}" for i in range(N_ROWS)]
    rows = [
        {"sample_id": i, "text": text, "name": text, "price": float(price)}
        for i, (text, price) in enumerate(zip(texts, np.exp(random.normal(3, 1, N_ROWS)), strict=True))
    ]
    workspace = Workspace(root / "workspace")
    publish_catalog(workspace, catalog_table(rows))
    save_config(
        workspace,
        Config(embed=EmbedConfig(vectors=()), folds=FoldConfig(k=3), heads=HeadConfig(params=PARAMS)),
    )
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    encoder = f"{save_tiny_bert(root / 'text', **still)}@name"
    embedded(workspace, encoder)
    recipe = {
        "epochs": 25,
        "patience": 99,
        "aside": 24,
        "text_rate": 5e-3,
        "head_rate": 5e-3,
        "batch_rows": 8,
    }
    job = tiny_job(workspace, (encoder,), "leaky", **recipe)
    with pytest.MonkeyPatch.context() as patch:
        # The last state overfits its rows, so it leaks most; early stopping would hide that.
        patch.setattr(FoldRun, "_inner_smape", lambda self: None)
        outcome = tune(job)
    vectors = [VectorSet("finetuned:leaky.text", "name")]
    return read_inputs(workspace, vectors, ["name"], read_folds(workspace)), outcome


@pytest.fixture(scope="module")
def inputs(tuned) -> Inputs:
    return tuned[0]


def skill(inputs, predicted: np.ndarray) -> float:
    """How much less the error of out-of-fold log prices is than that of the median, as a share of the latter."""
    constant = np.empty_like(predicted)
    for k in np.unique(inputs.fold):
        constant[inputs.fold == k] = np.median(inputs.log_price[inputs.fold != k])
    return 1 - smape_log(inputs.log_price, predicted) / smape_log(inputs.log_price, constant)


def out_of_fold(inputs, head: str, train: Rows) -> np.ndarray:
    return crossfit(make_head(head, HEADS[head], 0), train, inputs.log_price, inputs.fold).oof


@pytest.mark.parametrize("head", HEADS)
def test_heads_on_fold_matched_vectors_have_no_skill_on_noise(inputs, head):
    assert skill(inputs, out_of_fold(inputs, head, inputs.train)) < 0.05


@pytest.mark.parametrize("head", HEADS)
def test_the_check_would_see_in_sample_vectors(inputs, head):
    """Each fold embedded by a model that did see it: the same check must then find skill."""
    (folded,) = inputs.train.folded
    swapped = FoldedMatrix(folded.name, {k: folded.for_fold((k + 1) % 3) for k in range(3)})
    assert (
        skill(inputs, out_of_fold(inputs, head, dataclasses.replace(inputs.train, folded=(swapped,)))) > 0.2
    )


def test_the_tuned_model_itself_has_no_skill_on_noise(tuned):
    inputs, outcome = tuned
    predicted = np.empty_like(inputs.log_price)
    for one in outcome.prices:
        predicted[inputs.fold == one.fold] = one.oof
    assert skill(inputs, predicted) < 0.05
