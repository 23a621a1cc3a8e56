import threading

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embed.job.limits import FailureLimits
from embed.job.run import EmbedOptions, run
from embed.job.share import Share
from store.errors import ConfigError
from store.vectors.keys import key_array
from store.vectors.matrix import load_matrix
from store.vectors.sets import VectorSet
from store.vectors.shard import read_failures, read_keys
from store.workspace import Workspace
from tests.fake_encoders import fake_loader, fake_request, fake_resolved
from tests.fakes import catalog_table, publish_catalog

SILENT = lambda line: None  # noqa: E731


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path / "workspace")
    rows = [{"sample_id": i, "name": f"product {i}", "price": 1.0} for i in range(200)]
    publish_catalog(workspace, catalog_table(rows))
    return workspace


def embed(workspace, share=None, say=SILENT, options=None, **loader):
    options = options or EmbedOptions(share=Share.parse(share) if share else None)
    return run(workspace, [fake_request(workspace, "fake@name")], options, fake_loader(**loader), say)[0]


@settings(deadline=None)
@given(st.sets(st.binary(min_size=16, max_size=16)), st.integers(1, 9))
def test_every_key_falls_to_exactly_one_share(keys, n):
    held = key_array(pa.array(sorted(keys), pa.binary(16)))
    shares = [Share(i, n).of(held) for i in range(1, n + 1)]
    assert np.concatenate(shares).tolist() == held.tolist()


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/4", ""])
def test_a_share_that_cannot_be_names_the_rule(text):
    with pytest.raises(ConfigError, match=r"--shard is i/n with i from 1 to n"):
        Share.parse(text)


def test_shares_run_at_once_do_the_work_once_and_none_waits_for_another(workspace):
    said = []
    runs = [
        threading.Thread(
            target=embed, args=(workspace, f"{i}/3"), kwargs={"say": said.append, "seconds": 0.005}
        )
        for i in (1, 2, 3)
    ]
    for one in runs:
        one.start()
    for one in runs:
        one.join()
    assert not any("waiting" in line for line in said)
    assert len([line for line in said if "share" in line and "of 200" in line]) == 3
    keys = read_keys(workspace, fake_resolved().spec.folder).to_pylist()
    assert len(keys) == len(set(keys)) == 200
    assert load_matrix(workspace, VectorSet("fake", "name"), "train").valid.all()


def test_a_share_that_was_never_run_is_what_is_left_to_a_run_without(workspace):
    outcomes = [embed(workspace, f"{i}/4") for i in (1, 3, 4)]
    assert all(30 < one.n_embedded < 70 for one in outcomes)
    assert outcomes[-1].plan.n_hits + len(outcomes[-1].plan.missing) == 200
    assert embed(workspace).n_embedded == 200 - sum(one.n_embedded for one in outcomes)


def test_a_share_with_nothing_left_loads_no_model(workspace):
    embed(workspace, "2/2")
    loads = []
    assert embed(workspace, "2/2", loads=loads).n_embedded == 0
    assert loads == []


def test_trying_failures_again_in_shares_forgets_none(workspace):
    def lenient(share=None):
        return EmbedOptions(
            FailureLimits(max_failures=1.0), retry_failed=True, share=Share.parse(share) if share else None
        )

    embed(workspace, options=lenient(), fails=lambda content: content.endswith("7"))
    folder = fake_resolved().spec.folder
    assert len(read_failures(workspace, folder)) == 20
    first = embed(workspace, options=lenient("1/2"))
    assert 0 < first.n_embedded < 20
    assert first.plan.n_failed == 20 - first.n_embedded
    second = embed(workspace, options=lenient("2/2"))
    assert first.n_embedded + second.n_embedded == 20
    assert second.plan.n_failed == 0
