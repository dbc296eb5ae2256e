"""Placements worked out by hand. Nodes are named by letters. Not covered: real clusters (tests/ray)."""

from __future__ import annotations

from typing import Any

import pytest

from rlpost.actors.placement import Node, Placement, place, place_again
from rlpost.config.load import from_dict
from rlpost.config.schema import RunConfig


def config(**sections: dict[str, Any]) -> RunConfig:
    base: dict[str, Any] = {
        "model": {"path": "m"},
        "scoring": {"rewards": [{"name": "f.py:f"}]},
    }
    return from_dict({**base, **sections})


def node(name: str, cpus: int = 2, gpus: int = 0, memory: float = 24.0) -> Node:
    return Node(name, name, cpus, gpus, memory)


def placements(plan: Any) -> dict[str, tuple[str, int, float]]:
    return {placement.name: (placement.node.id, placement.threads, placement.gpus) for placement in plan.placements}


def test_on_one_machine_without_gpus_every_kind_has_all_cores() -> None:
    found = place(config(), [node("a")])
    assert placements(found) == {"rollout0": ("a", 2, 0.0), "learner0": ("a", 2, 0.0), "scoring0": ("a", 1, 0.0)}
    assert not found.missing


def test_actors_of_a_kind_share_cores_and_spread_over_nodes() -> None:
    several = config(
        rollout={"workers": 3}, learner={"workers": 2}, scoring={**config().scoring.model_dump(), "workers": 2}
    )
    found = placements(place(several, [node("a", 2), node("b", 4), node("head", 0)]))
    assert {name: where for name, (where, *_) in found.items() if name.startswith("rollout")} == {
        "rollout0": "b", "rollout1": "b", "rollout2": "a",
    }  # fmt: skip
    assert found["rollout0"][1:] == (2, 0.0)
    assert {found["learner0"][0], found["learner1"][0]} == {"b"}
    assert "head" not in {where for where, *_ in found.values()}


def test_more_actors_than_cores_are_missing_cores_unless_threads_are_given() -> None:
    plan = place(config(rollout={"workers": 3}), [node("a")])
    assert plan.missing == ("rollout.workers: 3 actors need as many cores, 2 there",)
    assert not place(config(rollout={"workers": 3, "threads": 1}), [node("a")]).missing


def test_whole_gpus_go_first_to_engines_that_need_several() -> None:
    wanted = config(rollout={"workers": 1, "tensor_parallel": 2}, learner={"workers": 2})
    found = placements(place(wanted, [node("a", 16, 2), node("b", 16, 2), node("c", 32)]))
    assert found["rollout0"] == ("a", 8, 2.0)
    assert found["learner0"] == found["learner1"] == ("b", 8, 1.0)
    assert found["scoring0"][0] == "c"


@pytest.mark.parametrize(("workers", "gpus", "share"), [(1, 1, 0.5), (2, 2, 0.5), (3, 1, 0.25)])
def test_engines_and_a_single_rank_share_gpus_where_there_are_too_few(workers: int, gpus: int, share: float) -> None:
    plan = place(config(rollout={"workers": workers}), [node("a", 16, gpus)])
    assert not plan.missing
    given = [placement.gpus for placement in plan.placements if placement.kind != "scoring"]
    assert given == [share] * (workers + 1)
    assert {placement.threads for placement in plan.placements if placement.kind != "scoring"} == {16 // (workers + 1)}
    # Ray packs fractions into single GPUs, so their sum must fit
    assert sum(given) <= gpus


def test_ranks_do_not_share_and_what_is_missing_is_said_in_numbers() -> None:
    plan = place(config(rollout={"workers": 2}, learner={"workers": 4}), [node("a", 16, 4)])
    assert plan.missing == ("6 GPUs needed (2 engines × 1 + 4 learner ranks, which cannot share), 4 there",)
    split = place(config(rollout={"tensor_parallel": 2}), [node("a", 8, 1), node("b", 8, 2 - 1), node("c", 8, 1)])
    assert split.missing == ("rollout0: 2 GPUs on one node needed, at most 1 free",)


def test_memory_is_counted_per_node() -> None:
    bf16 = config(model={"path": "m", "dtype": "bfloat16"}, rollout={"packed_weights": True, "kv_cache_mb": 1024})
    plan = place(bf16, [node("a", 2, memory=8.0)], shapes={"w": (2**15, 2**15)})
    memory = {placement.name: placement.memory_gb for placement in plan.placements}
    # engine: base 1, weights 2 bytes twice, cache 1; learner: base 0.7, weights 2, gradients 4, masters and moments 12
    assert memory == {"rollout0": pytest.approx(6.0), "learner0": pytest.approx(18.7), "scoring0": 0.2}
    assert plan.missing == ("node a: 24.9 GB needed (rollout0, learner0, scoring0), 8.0 GB there",)
    assert place(bf16, [node("a")]).placements[0].memory_gb is None


def test_no_node_at_all() -> None:
    assert place(config(), []).missing == ("no node is alive",)


def test_a_lost_actor_goes_back_to_its_node_or_to_the_least_crowded_one() -> None:
    a, b, c, head = node("a"), node("b"), node("c", 8), node("head", 0)
    lost = Placement("rollout", 0, a, 2, 0.0, None)
    others = [Placement("rollout", 1, b, 2, 0.0, None), Placement("rollout", 2, c, 2, 0.0, None)]
    assert place_again(lost, others, [a, b, c]) == lost
    moved = place_again(lost, others, [head, b, c])
    assert moved is not None
    assert moved.node == c
    assert place_again(lost, others, [head]) is None


def test_a_lost_actor_with_a_gpu_needs_a_free_one() -> None:
    a, b = node("a", 8, 1), node("b", 8, 2)
    lost = Placement("learner", 0, a, 1, 1.0, None)
    taken = [Placement("rollout", i, b, 1, 1.0, None) for i in range(2)]
    assert place_again(lost, taken, [b]) is None
    moved = place_again(lost, taken[:1], [b])
    assert moved is not None
    assert moved.node == b
