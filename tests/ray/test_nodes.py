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
import yaml

from support.processes import Command

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.deepspeed, pytest.mark.slow]
JUDGE = Path(__file__).resolve().parents[1] / "support" / "judge.py"
STORE = 200 * 2**20


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """A head without cores; nodes are added by the tests."""
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
    folder = tmp_path_factory.mktemp("cluster")
    rows = [{"id": f"t{i}", "prompt": f"∀ p q : Prop, p {c} q :="} for i, c in enumerate("→∧∨↔→∧")]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "run": {"name": "alone", "steps": 6, "seed": 5},
        "model": {"path": tiny_model, "dtype": "float32"},
        "data": {"source": "jsonl", "train": "prompts.jsonl"},
        "rollout": {"group_size": 4, "prompts_per_step": 4, "max_tokens": 12, "kv_cache_mb": 64},
        "scoring": {
            "verifier": "function",
            "verifier_args": {"function": f"{JUDGE}:takes_its_time"},
            "truncated": "keep",
        },
        "optimizer": {"lr": 1e-3},
        "learner": {"micro_tokens": 256},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def rewards(work: Path, name: str) -> list[float]:
    file = work / "runs" / name / "metrics.jsonl"
    return [json.loads(line)["reward_mean"] for line in file.read_text().splitlines()] if file.exists() else []


def weights(work: Path, name: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(work / "runs" / name / "model" / "model.safetensors")


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
    running.until_said("waiting up to 300 s for nodes: rollout.workers: 2 actors need as many cores, 1 there")
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
