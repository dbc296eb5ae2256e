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
config = {
    "run": {"name": "notebook", "steps": 50},
    "model": {"path": model, "dtype": "float32"},
    "data": {"source": "jsonl", "train": "prompts.jsonl", "eval": "prompts.jsonl", "contamination": "allow"},
    "rollout": {"group_size": 4, "prompts_per_step": 2, "max_tokens": 8, "kv_cache_mb": 64},
    "scoring": {"verifier": "function", "verifier_args": {"function": judge}, "truncated": "keep"},
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
    # the callback ended the run after its second step, with a model that can be evaluated
    assert found["seen"] == [[0, 2, 1.0], [1, 2, 2.0]]
    assert (found["steps"], found["interrupted"]) == (2, True)
    assert found["figures"]["prompts"] == 4
    assert found["verdicts"] == ["accepted", "rejected"]
