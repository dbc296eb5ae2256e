"""`rlpost prove` with a small model that was trained to write tactics: vLLM, Ray and the Lean kernel, for real."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

import rlpost
from rlpost.evaluation.proofs import read
from rlpost_verifiers.lean.theorems import rows
from support.processes import Command

pytestmark = [
    pytest.mark.ray,
    pytest.mark.vllm,
    pytest.mark.lean,
    pytest.mark.slow,
    pytest.mark.long,
]
QUICKSTART = str(Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml")
STYLE = ["sft.train.styles={tactic: 1.0}", "sft.train.count=1500", "sft.epochs=3", "rollout.max_tokens=48"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that writes tactics, and held-out theorems, one of which Lean cannot read."""
    folder = tmp_path_factory.mktemp("prove")
    status, _, err = Command(["sft", QUICKSTART, *STYLE, "--output", "model"], folder).start().finish(400)
    assert status == 0, err
    found: list[dict[str, Any]] = rows(24, seed=5, split="eval", max_tokens=9, max_statement_tokens=15)
    found.append({"id": "odd", "statement": "∀ p : Prop, p →"})
    (folder / "t.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found))
    return folder


def asked(method: str, output: str, *more: str) -> list[str]:
    return [
        *("prove", "t.jsonl", "--model", "model", "--config", QUICKSTART, "--method", method, "--output", output),
        *("--attempts", "32", "--json", "prove.width=4", *more, *STYLE),
    ]


def essence(path: Path) -> list[tuple[Any, ...]]:
    found = [(row.id, row.outcome, row.proof, row.model_calls, row.tokens, row.states) for row in read(path)]
    return sorted(found, key=lambda one: one[0])


@pytest.mark.parametrize("method", ["sampling", "best_first"])
def test_proofs_are_found_hold_and_are_found_again(work: Path, method: str) -> None:
    status, out, err = Command(asked(method, f"{method}.jsonl"), work).start().finish()
    assert status == 0, err
    figures = json.loads(out.strip().splitlines()[-1])
    assert (figures["theorems"], figures["unreadable"], figures["undecided"]) == (25, 1, 0)
    assert figures["proved"] >= 3
    proved = [row for row in read(work / f"{method}.jsonl") if row.outcome == "proved"]
    answers = [{"statement": row.statement, "text": row.proof} for row in proved]
    assert {verdict.outcome for verdict in rlpost.verify(answers, "lean.embedded")} == {"accepted"}

    # once more, ended in the middle and gone on with
    command = Command(asked(method, "again.jsonl"), work).start()
    command.until(lambda: (work / "again.jsonl").exists() and len(read(work / "again.jsonl")) > 1)
    command.process.send_signal(signal.SIGINT if method == "sampling" else signal.SIGTERM)
    assert command.finish()[0] in (0, 130)
    status, _, err = Command(asked(method, "again.jsonl"), work).start().finish()
    assert status == 0, err
    assert essence(work / "again.jsonl") == essence(work / f"{method}.jsonl")
    (work / "again.jsonl").unlink()
