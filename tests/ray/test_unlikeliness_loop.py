"""The unlikeliness reward in a real run, and the files that an evaluation writes into the run folder. Not covered:
whether it helps, which scripts/experiments/unlikeliness.py measures.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlpost.evaluation.outcomes import read
from support.processes import Command
from support.tiny_run import lines, prepare

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.deepspeed, pytest.mark.slow]

SECTIONS = {
    "data": {"source": "jsonl", "train": "prompts.jsonl", "eval": "prompts.jsonl", "contamination": "allow"},
    "algorithm": {"filter": "shaped", "kl": {"coef": 0.1}, "epochs": 2, "minibatch_size": 8},
    "evaluation": {
        "samples": 4, "k": "powers", "every": 2, "during_prompts": 2, "during_samples": 2, "uplift_prompts": 6,
        "max_prompts": 6,
    },
}  # fmt: skip


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_run_with_late_rewards_and_everything_an_evaluation_writes(tmp_path: Path, tiny_model: str) -> None:
    prepare(tmp_path, tiny_model, {"name": "rare", "steps": 3}, "names_a_hypothesis", **SECTIONS)
    both = "{name: unlikeliness, source: engine, beta: 0.2}, {name: unlikeliness, beta: 0.5}"
    rewards = f"scoring.rewards=[{{name: outcome}}, {both}]"
    status, _, err = Command(["train", "config.yaml", rewards, "logging.progress=false"], tmp_path).start().finish()
    assert status == 0, err
    folder = tmp_path / "runs" / "rare"

    seen = [row for file in sorted((folder / "transcripts").iterdir()) for row in rows(file)]
    paid = {sum(span[2] for span in row["reward"]) for row in seen if row["outcome"] == "accepted"}
    # G = 4: from (1 - 0.2 · 3/4) (1 - 0.5 · 3/4) to 1
    assert paid
    assert all(0.85 * 0.625 <= value <= 1.0 for value in paid)
    assert len(paid) > 1
    assert all(sum(span[2] for span in row["reward"]) == 0.0 for row in seen if row["outcome"] == "rejected")

    steps = lines(tmp_path, "rare")
    trained = next(row for row in steps if row.get("updates", 0) > 0)
    assert {"clip_frac/high/epoch_0", "clip_frac/high/epoch_1", "kl", "seconds/prepass"} <= set(trained)

    evaluations = rows(folder / "evaluations.jsonl")
    assert [row["when"] for row in evaluations] == ["before", "step 2", "after"]
    before, during, after = evaluations
    assert {"pass@1", "pass@2", "pass@4", "pass@4_low", "distinct"} <= set(before)
    assert "negative_flips" not in before
    assert ("pass@4" in during, during["prompts"]) == (False, 2.0)
    assert {"negative_flips", "positive_flips", "uplift"} <= set(after)
    outcomes = read(folder / "evaluations" / "after.jsonl")
    assert [len(outcome.samples) for outcome in outcomes] == [4] * 6
    assert after["pass@1"] == pytest.approx(sum(o.accepted / 4 for o in outcomes) / 6)

    followed = rows(folder / "evaluations" / "followed.jsonl")
    assert {row["rank"] for row in followed} <= {0, 1, 2, 3}
    last = rows(folder / "evaluations" / "uplift.jsonl")[-1]
    assert sum(count for _, count, _, _ in last["by_rank"]) == len(followed)
    report = (folder / "report.html").read_text()
    assert {file.name for file in (folder / "plots").iterdir()} == {"pass_at_n.svg", "uplift.svg"}
    assert report.count("<svg") >= 2


def test_figures_that_engines_are_told_not_to_report_cannot_be_read(tmp_path: Path, tiny_model: str) -> None:
    prepare(tmp_path, tiny_model, {"name": "engine", "steps": 1}, "names_a_hypothesis")
    rewards = "scoring.rewards=[{name: outcome}, {name: unlikeliness, source: engine}]"
    status, _, err = Command(["train", "config.yaml", rewards, "rollout.logprobs=never"], tmp_path).start().finish()
    assert status == 2
    assert "rollout.logprobs: never, but the reward 'unlikeliness' reads the engine's log-probabilities" in err
