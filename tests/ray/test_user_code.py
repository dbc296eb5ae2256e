"""A user's own rewards, verifiers, losses and engines from a folder outside the repository: used by real actors, or
refused at start.

Not covered: several machines; that shipped source runs where the files do not exist (tests/unit/plugins/test_ship.py).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from support.processes import Command

pytestmark = [pytest.mark.ray, pytest.mark.slow]
EXAMPLES = Path(__file__).resolve().parents[2] / "configs" / "examples"

GOOD: dict = {
    "run": {"name": "r", "steps": 1, "seed": 3},
    "data": {"source": "jsonl", "train": "prompts.jsonl"},
    "rollout": {"group_size": 2, "prompts_per_step": 2, "max_tokens": 4, "kv_cache_mb": 64},
    "learner": {"engine": "torch"},
    "evaluation": {"before": False, "after": False},
}


@pytest.fixture
def work(tmp_path: Path, tiny_model: str) -> Path:
    """A user's folder with a configuration, data, and copies of the examples."""
    rows = [{"id": f"row{i}", "prompt": "∀ p q : Prop, p → q :=", "parity": "even", "answer": "4"} for i in range(4)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {**GOOD, "model": {"path": tiny_model, "dtype": "float32"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "mine").mkdir()
    for name in ("brevity.py", "cispo.py", "parity_verifier.py", "transformers_engine.py"):
        shutil.copy(EXAMPLES / name, tmp_path / "mine" / name)
    return tmp_path


def run(work: Path, *overrides: str) -> tuple[int, str, str]:
    return Command(["train", "config.yaml", *overrides], work).start().finish(400)


def refused(work: Path, *overrides: str) -> str:
    status, _, err = run(work, *overrides)
    lines = [line for line in err.splitlines() if line.strip()]
    assert status == 2, err
    assert lines[-1].startswith("rlpost: ")
    assert "Traceback" not in err
    assert not (work / "runs" / "r" / "metrics.jsonl").exists()
    return lines[-1]


@pytest.mark.vllm
def test_a_verifier_class_and_a_trl_reward_of_ones_own_score_a_run(work: Path) -> None:
    status, _, err = run(
        work,
        "scoring.verifier=./mine/parity_verifier.py:ParityVerifier",
        "scoring.verifier_args={largest: 50}",
        "scoring.rewards=[{name: outcome}, {name: 'mine/brevity.py:brevity', weight: 0.5}]",
        "scoring.truncated=keep",
    )
    assert status == 0, err
    folder = work / "runs" / "r"
    [said] = json.loads((folder / "environment.json").read_text())["verifiers"]
    assert said.startswith("parity: 0 of 9 known answers judged wrong; tried verifier './mine/parity_verifier.py")
    assert "tried reward 'mine/brevity.py:brevity' in " in said
    rows = [json.loads(line) for line in (folder / "transcripts" / "step_000000.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    assert {row["reason"] for row in rows} <= {"no_number", "wrong_parity", "right_parity"}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        # the other clauses of the contract are tested in tests/unit/plugins/test_trial_call.py
        ("def mine(completions, **_):\n    return [c.score for c in completions]\n", ["mine.py:2", "AttributeError"]),
        ("def mine(completions):\n    retrun 1\n", ["mine.py:2", "SyntaxError"]),
        ("def mein(completions): ...\n", ["has no 'mine'; did you mean mein?"]),
    ],
)
def test_a_broken_reward_is_refused(work: Path, text: str, parts: list[str]) -> None:
    (work / "mine.py").write_text(text)
    said = refused(work, "scoring.rewards=[{name: 'mine.py:mine'}]")
    for part in parts:
        assert part in said, said


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (('Verdict("rejected", 0.0, "no_number"', 'Verdict("rejected", "no_number"'), ["parity_verifier.py:", "Error"]),
    ],
)
def test_a_broken_verifier_is_refused(work: Path, change: tuple[str, str], parts: list[str]) -> None:
    file = work / "mine" / "parity_verifier.py"
    assert change[0] in file.read_text()
    file.write_text(file.read_text().replace(*change))
    overrides = ["scoring.verifier=mine/parity_verifier.py:ParityVerifier", "selfcheck.conformance=false"]
    said = refused(work, *overrides)
    for part in ["mine/parity_verifier.py:ParityVerifier", *parts]:
        assert part in said, said


def test_data_that_the_verifier_cannot_check_is_refused(work: Path) -> None:
    (work / "prompts.jsonl").write_text('{"prompt": "p :=", "parity": "prime"}\n')
    said = refused(work, "scoring.verifier=mine/parity_verifier.py:ParityVerifier")
    assert "column 'parity' is 'prime'; even or odd" in said


def test_a_loss_and_an_engine_of_ones_own_run_a_step(work: Path) -> None:
    """Neither actor has the file's folder on its path; canary, parity and gradient check apply as to built-in ones."""
    status, _, err = run(
        work,
        "scoring.rewards=[{name: mine/brevity.py:brevity}]",
        "scoring.truncated=keep",
        "rollout.engine=mine/transformers_engine.py:TransformersEngine",
        "algorithm.loss=mine/cispo.py:cispo",
        "algorithm.loss_args={ceiling: 3.0}",
        "algorithm.kl.coef=0.1",
        "run.steps=2",
        "selfcheck.parity_every=1",
        "optimizer.lr=1.0e-3",
    )
    assert status == 0, err
    rows = [json.loads(line) for line in (work / "runs" / "r" / "metrics.jsonl").read_text().splitlines()]
    assert [row["policy_version"] for row in rows] == [1, 2]
    for row in rows:
        assert row["parity/total"] < 1e-4
        assert row["canary/probe_max"] < 1e-4
        assert row["loss/capped"] == 0.0
        assert row["reward/brevity/mean"] == row["reward_mean"]
    assert rows[0]["invariance/reference"] < 1e-4
    assert rows[1]["canary/changed_tensors"] > 0


def test_a_loss_that_divides_by_its_micro_batch_is_refused_before_anything_starts(work: Path) -> None:
    (work / "mean.py").write_text(
        "def mean(inputs, settings, counts):\n"
        "    return -(inputs.logprobs * inputs.advantages * inputs.mask).sum() / inputs.mask.sum()\n"
    )
    line = refused(work, "scoring.rewards=[{name: mine/brevity.py:brevity}]", "algorithm.loss=mean.py:mean")
    assert "algorithm.loss 'mean.py:mean', tried on four completions: 4 micro-batches make" in line


@pytest.mark.long
def test_an_engine_without_its_verbs_is_refused(work: Path) -> None:
    (work / "engine.py").write_text(
        "class Half:\n    def __init__(self, config, spec): ...\n    def submit(self): ...\n"
    )
    line = refused(work, "scoring.rewards=[{name: mine/brevity.py:brevity}]", "rollout.engine=engine.py:Half")
    assert "rollout.engine 'engine.py:Half' has no step, abort, apply, probe, parity, close" in line
