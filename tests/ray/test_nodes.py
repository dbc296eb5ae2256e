"""Several Ray nodes on one machine: a node that joins late, one that is taken away during a run, the same results.

Not covered: several machines (the nodes here share an address and a disk), GPUs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from support.processes import Command
from support.tiny_run import lines, prepare, weights

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.deepspeed, pytest.mark.slow]
STORE = 200 * 2**20


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """A head node without cores; the tests add nodes."""
    from ray.cluster_utils import Cluster

    monkeypatch.setitem(os.environ, "RAY_worker_niceness", "0")
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False}
    )
    try:
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def work(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = {"name": "alone", "steps": 6}
    return prepare(tmp_path_factory.mktemp("cluster"), tiny_model, run, "takes_its_time")


def rewards(work: Path, name: str) -> list[float]:
    return [row["reward_mean"] for row in lines(work, name)]


def completions(work: Path, name: str) -> list[tuple]:
    found = []
    for file in sorted((work / "runs" / name / "transcripts").iterdir()):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        found += [(row["prompt_id"], row["member"], row["seed"], row["completion"]) for row in rows]
    return found


def test_a_node_that_joins_late_and_one_that_leaves(work: Path, nodes) -> None:
    status, _, err = Command(["train", "config.yaml"], work).start().finish()
    assert status == 0, err

    nodes.add_node(num_cpus=1, object_store_memory=STORE)
    spread = ["run.name=spread", "rollout.workers=2", "scoring.workers=2", f"cluster.address={nodes.address}"]
    plan = Command(["plan", "config.yaml", *spread], work).start()
    status, out, err = plan.finish()
    assert status == 1
    assert "missing: rollout.workers: 2 actors need as many cores, 1 there" in out

    running = Command(["train", "config.yaml", *spread], work).start()
    running.until_said(" s for nodes: rollout.workers: 2 actors need as many cores, 1 there")
    leaving = nodes.add_node(num_cpus=1, object_store_memory=STORE)
    running.until(lambda: len(rewards(work, "spread")) >= 2)
    nodes.remove_node(leaving, allow_graceful=False)
    nodes.add_node(num_cpus=1, object_store_memory=STORE)
    status, out, err = running.finish()
    assert status == 0, err
    assert "replaced in" in out
    # two engines on two nodes, one of them lost on the way: the same completions, rewards and weights as one engine
    assert rewards(work, "spread") == rewards(work, "alone")
    assert completions(work, "spread") == completions(work, "alone")
    one, two = weights(work, "alone"), weights(work, "spread")
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
