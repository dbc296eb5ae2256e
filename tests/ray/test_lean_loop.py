"""The quickstart at a small scale: warm start by TRL, rollouts by vLLM, verdicts by the Lean kernel, updates by DeepSpeed.

`scripts/quickstart` measures whether it learns; here every part must work.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from support.processes import Command

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.deepspeed, pytest.mark.lean, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]


def test_the_quickstart_runs_from_warm_start_to_table(tmp_path: Path) -> None:
    small = [
        "run.steps=2", "run.name=small", "sft.train.count=300", "sft.epochs=2", "data.train.count=50",
        "rollout.prompts_per_step=4", "evaluation.max_prompts=4",
    ]  # fmt: skip
    status, out, err = (
        Command(["train", str(ROOT / "configs" / "quickstart.yaml"), *small], tmp_path).start().finish(400)
    )
    assert status == 0, err
    assert "warm start" in out
    assert "pass@8" in out
    folder = tmp_path / "runs" / "small"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    [verifier] = json.loads((folder / "environment.json").read_text())["verifiers"]
    assert "accepted 16 of 16 gold proofs and 0 of " in verifier
    assert "accepted kernel_replayed" in out or "pass@1 0.000" in out
    assert all(row["undecided_share"] == 0 for row in rows)
    transcript = [json.loads(line) for line in (folder / "transcripts" / "step_000000.jsonl").read_text().splitlines()]
    assert {row["reason"] for row in transcript} <= {"proved", "failed", "filtered", "truncated"}
    assert all(row["evidence"]["messages"] for row in transcript if row["reason"] == "failed")

    asked = [
        "evaluate",
        str(folder / "config.yaml"),
        "--model",
        str(folder / "model"),
        "--json",
        "--output",
        "out.jsonl",
    ]
    status, out, err = Command(asked, tmp_path).start().finish()
    assert status == 0, err
    figures = json.loads(out.strip().splitlines()[-1])
    last = json.loads((folder / "evaluations.jsonl").read_text().splitlines()[-1])
    # the saved model, loaded again, answers exactly as the engine did at the end of the run
    assert {k: figures[k] for k in ("pass@1", "pass@8", "greedy")} == {
        k: last[k] for k in ("pass@1", "pass@8", "greedy")
    }
    assert (tmp_path / "out.jsonl").read_text() == (folder / "evaluations" / "after.jsonl").read_text()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_a_warm_start_ends_with_its_run(tmp_path: Path, number: int, status: int) -> None:
    command = Command(["train", str(ROOT / "configs" / "quickstart.yaml"), "run.name=ended"], tmp_path).start()
    command.until(lambda: any("sft" in process.cmdline() for process in command.marked()))
    command.process.send_signal(number)
    assert command.finish()[0] == status
    assert not (tmp_path / "runs" / "ended" / "sft").exists()


def test_a_statement_that_lean_cannot_read_ends_the_run_before_it_begins(tmp_path: Path, tiny_model: str) -> None:
    rows = [{"id": f"t{i}", "prompt": "p", "statement": text} for i, text in enumerate(["True", "∀ n : Nat, n = m"])]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    wanted = [
        "run.name=bad", "run.steps=1", f"model.path={tiny_model}", "model.scratch=null", "sft=null", "data.eval=null",
        "data.source=jsonl", "data.train=train.jsonl", "data.template=null", "evaluation.before=false",
        "evaluation.after=false", "evaluation.every=0", "rollout.prompts_per_step=2",
    ]  # fmt: skip
    status, _, err = Command(["train", str(ROOT / "configs" / "quickstart.yaml"), *wanted], tmp_path).start().finish()
    assert status == 2, err
    assert "1 of 2 statements cannot be read; first, prompt 't1': Lean cannot read the statement" in err
    assert "Unknown identifier `m`" in err
    assert not (tmp_path / "runs" / "bad" / "metrics.jsonl").exists()
