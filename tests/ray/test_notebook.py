"""`plan`, `train`, `evaluate` and `verify` as a notebook uses them: one Python process, dictionaries, a callback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.deepspeed, pytest.mark.slow]
JUDGE = Path(__file__).resolve().parents[1] / "support" / "judge.py"

NOTEBOOK = """
import json, sys
import rlpost

model, judge = sys.argv[1:]
longest = 50

async def brevity(completions, log_extra, log_metric, trainer_state, **columns):
    log_extra("length", [len(text) for text in completions])
    log_metric("steps", trainer_state.max_steps)
    return [-len(text) / longest for text in completions]

config = {
    "run": {"name": "notebook", "steps": 50},
    "model": {"path": model, "dtype": "float32"},
    "data": {"source": "jsonl", "train": "prompts.jsonl", "eval": "prompts.jsonl", "contamination": "allow"},
    "rollout": {"group_size": 4, "prompts_per_step": 2, "max_tokens": 8, "kv_cache_mb": 64},
    "scoring": {"verifier": "function", "verifier_args": {"function": judge}, "truncated": "keep",
                "rewards": [{"name": "outcome"}, {"name": brevity, "weight": 0.1}]},
    "evaluation": {"before": False, "after": False, "samples": 2, "k": [1, 2]},
}
seen = []
def watch(step):
    seen.append((step.number, len(step.groups), step.metrics["policy_version"]))
    return step.number < 1

plan = rlpost.plan(config)
result = rlpost.train(config, on_step=watch)
figures = rlpost.evaluate(config, f"{result.folder}/model")
verdicts = rlpost.verify([{"text": " h1"}, {"text": "nothing"}], "function", function=judge)
print(json.dumps({
    "plan": [placement.name for placement in plan.placements], "missing": plan.missing, "seen": seen, "steps": result.steps,
    "folder": str(result.folder), "logged": result.metrics["reward/brevity/steps"],
    "interrupted": result.interrupted, "figures": figures, "verdicts": [v.outcome for v in verdicts],
}))
"""


def test_plan_train_evaluate_verify_in_one_process(tmp_path: Path, tiny_model: str) -> None:
    rows = [{"id": f"t{i}", "prompt": f"∀ p q : Prop, p {c} q :="} for i, c in enumerate("→∧∨↔")]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK, tiny_model, f"{JUDGE}:names_a_hypothesis"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["plan"] == ["rollout0", "learner0", "scoring0"]
    assert not found["missing"]
    row = json.loads((tmp_path / found["folder"] / "transcripts/step_000000.jsonl").read_text().splitlines()[0])
    assert row["extras"] == {"brevity/length": len(row["completion"])}
    assert row["reward_by_stage"]["brevity"] == pytest.approx(-0.1 * len(row["completion"]) / 50)
    assert found["logged"] == 50
    # the callback ended the run after its second step, with a model that can be evaluated
    assert found["seen"] == [[0, 2, 1.0], [1, 2, 2.0]]
    assert (found["steps"], found["interrupted"]) == (2, True)
    assert found["figures"]["prompts"] == 4
    assert found["verdicts"] == ["accepted", "rejected"]
