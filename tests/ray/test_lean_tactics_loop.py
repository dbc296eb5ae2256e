"""`configs/lean_tactics_cpu.yaml` at a small scale: every part must work. What it learns is in configs/README.md."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from support.processes import Command

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.deepspeed, pytest.mark.lean, pytest.mark.long]
CONFIG = Path(__file__).resolve().parents[2] / "configs" / "lean_tactics_cpu.yaml"
SMALL = [
    "run.steps=3", "run.name=small", "sft.train.count=60", "sft.epochs=3", "data.train.count=24", "data.eval.count=8",
    "rollout.prompts_per_step=4", "evaluation.samples=2", "evaluation.k=[1, 2]", "environment.workers=1",
]  # fmt: skip


def test_the_recipe_runs_and_an_actor_that_is_killed_takes_its_lean_along(tmp_path: Path) -> None:
    running = Command(["train", str(CONFIG), *SMALL], tmp_path).start()
    metrics = tmp_path / "runs" / "small" / "metrics.jsonl"
    running.until(lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= 1)
    actor = running.actor("EnvironmentWorker")
    children = actor.children(recursive=True)
    actor.kill()
    status, out, err = running.finish(400)
    assert status == 0, err
    assert "pass@1" in out
    assert children
    assert not [one for one in children if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert rows[-1]["recoveries/environment"] == 1
    for row in rows:
        assert row["undecided_share"] == 0
        assert row["turns_mean"] >= 1
        assert 0 <= row["failed_turns"] <= 1
    verifiers = json.loads((metrics.parent / "environment.json").read_text())["verifiers"]
    assert any("accepted 16 of 16 gold proofs and 0 of " in line for line in verifiers), verifiers
    for line in (metrics.parent / "transcripts" / "step_000000.jsonl").read_text().splitlines():
        row = json.loads(line)
        turns = [segment for segment in row["segments"] if segment["origin"] == "policy"]
        if row["status"] == "done":  # where none of a group ends, all are worth the floor, as wholes
            assert [index for *_, index, _ in row["reward"]][: len(turns)] == list(range(len(turns)))
