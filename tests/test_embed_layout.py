import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embed.distributed.layout import WantedActors, lay_out
from store.errors import EngineError


def test_two_actors_on_two_cpus_leave_a_cpu_to_the_tasks():
    layout = lay_out([(2.0, 0.0)], WantedActors(actors=2))
    assert (layout.actors, layout.actor_cpus, layout.task_cpus, layout.threads) == (2, 0.5, 1.0, 1)


def test_every_gpu_gets_an_actor_unless_told_otherwise():
    layout = lay_out([(16.0, 4.0), (16.0, 4.0)], WantedActors())
    assert (layout.actors, layout.actor_gpus, layout.actor_cpus) == (8, 1.0, 1.0)
    assert lay_out([(16.0, 2.0)], WantedActors(num_gpus=0.5)).actors == 4


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 64), st.integers(0, 8)), min_size=1, max_size=5), st.integers(1, 40))
def test_actors_and_a_task_always_fit_or_the_run_is_refused(nodes, actors):
    nodes = [(float(c), float(g)) for c, g in nodes]
    try:
        layout = lay_out(nodes, WantedActors(actors=actors))
    except EngineError as error:
        assert "can't be scheduled" in str(error)  # noqa: PT017
        return
    assert layout.actor_cpus > 0
    assert layout.actors * layout.actor_cpus + layout.task_cpus <= sum(c for c, _ in nodes) + 1e-6
    assert layout.actors * layout.actor_gpus <= sum(g for _, g in nodes)


@pytest.mark.parametrize(
    ("nodes", "wanted", "told"),
    [
        ([], WantedActors(), "has no CPU"),
        ([(8.0, 1.0)], WantedActors(actors=2, num_gpus=1.0), "1 GPUs hold 1"),
        ([(8.0, 1.0)], WantedActors(num_gpus=2.0), "no machine of the Ray cluster has so many GPUs .most: 1"),
        ([(1.0, 0.0)], WantedActors(actors=200), "--actors 200 can't be scheduled"),
    ],
)
def test_what_does_not_fit_is_named(nodes, wanted, told):
    with pytest.raises(EngineError, match=told):
        lay_out(nodes, wanted)
