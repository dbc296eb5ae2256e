"""The whole loop from the command line: real Ray, vLLM and DeepSpeed on a tiny untrained model.

A plain function is the verifier, so that the tests here are about the loop; Lean is in test_lean_loop.py, lost actors
in test_supervision.py. Not covered: GPUs.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch

from support.processes import Command
from support.tiny_run import lines, prepare, weights

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.deepspeed, pytest.mark.slow]


@pytest.fixture(scope="module")
def work(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(
        tmp_path_factory.mktemp("loop"),
        tiny_model,
        {"name": "straight", "steps": 4, "checkpoint_every": 2},
        "names_a_hypothesis",
        data={"source": "jsonl", "train": "prompts.jsonl", "eval": "prompts.jsonl", "contamination": "allow"},
        algorithm={"epochs": 2, "minibatches": 2, "kl": {"coef": 0.01}},
        evaluation={"samples": 4, "k": [1, 4]},
        logging={"tensorboard": True, "changes_every": 1},
    )


def run(work: Path, *arguments: str) -> tuple[int, str, str]:
    return Command(["train", "config.yaml", *arguments], work).start().finish()


@pytest.fixture(scope="module")
def straight(work: Path) -> Path:
    status, out, err = run(work)
    assert status == 0, err
    assert "pass@1" in out
    return work / "runs" / "straight"


def test_a_run_writes_what_it_promises(straight: Path, work: Path) -> None:
    rows = lines(work, "straight")
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert [row["policy_version"] for row in rows] == [1, 2, 3, 4]
    assert all(row["canary/probe_max"] < 1e-4 for row in rows)
    assert all(row["canary/changed_tensors"] == row["canary/tensors"] for row in rows)
    assert all(row["undecided_share"] == 0 and row["updates"] == 4 for row in rows)
    assert sorted(p.name for p in (straight / "checkpoints").iterdir()) == ["step_000002", "step_000004"]
    transcript = [
        json.loads(line) for line in (straight / "transcripts" / "step_000000.jsonl").read_text().splitlines()
    ]
    assert len(transcript) == 16
    assert {row["outcome"] for row in transcript} == {"accepted", "rejected"}
    assert list((straight / "tensorboard").iterdir())
    evaluations = [json.loads(line) for line in (straight / "evaluations.jsonl").read_text().splitlines()]
    assert [row["when"] for row in evaluations] == ["before", "after"]


def test_tracked_changes_agree_with_comparing_the_checkpoints(straight: Path, work: Path, tiny_model: str) -> None:
    from rlpost.sparsity.analysis import sparsity

    last = lines(work, "straight")[-1]
    assert 0 < last["changes/changed_share"] <= 1
    figures = sparsity(tiny_model, straight / "model", matrices=0).whole.figures
    assert last["changes/changed_share"] == pytest.approx(1 - (figures["unchanged"].value or 0))
    assert last["changes/stored_changed_share"] == pytest.approx(1 - (figures["stored_unchanged"].value or 0))
    assert last["changes/norm"] == pytest.approx(figures["norm"].value)
    tensors = json.loads((straight / "changes" / "step_000003.json").read_text())["tensors"]
    assert sum(one["changed"] for one in tensors.values()) > 0
    assert (straight / "plots" / "changes.svg").is_file()


def test_the_final_model_loads_and_differs_from_the_start(straight: Path, tiny_model: str) -> None:
    from transformers import AutoModelForCausalLM

    before = dict(AutoModelForCausalLM.from_pretrained(tiny_model).named_parameters())
    after = dict(AutoModelForCausalLM.from_pretrained(straight / "model").named_parameters())
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_resumed_run_is_the_uninterrupted_run(straight: Path, work: Path) -> None:
    assert run(work, "run.name=resumed", "run.steps=2", "evaluation.before=false", "evaluation.after=false")[0] == 0
    status, _, err = run(work, "--resume", "run.name=resumed", "evaluation.after=false")
    assert status == 0, err
    for first, second in zip(lines(work, "straight"), lines(work, "resumed"), strict=True):
        changes = [name for name in first if name.startswith("changes/")]
        assert changes
        for name in ("reward_mean", "loss", "grad_norm", "kl", "length_mean", "policy_version", *changes):
            assert first[name] == second[name], name
    one, two = weights(work, "straight"), weights(work, "resumed")
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_one_signal_finishes_the_step_checkpoints_and_leaves(work: Path, number: int) -> None:
    name = signal.Signals(number).name
    command = Command(["train", "config.yaml", f"run.name={name}", "run.steps=500", "evaluation.before=false"], work)
    command.start().until(lambda: len(lines(work, name)) >= 2)
    if number == signal.SIGINT:
        command.interrupt()
    else:
        command.process.send_signal(number)
    status, out, err = command.finish()
    assert status == 0, err
    done = len(lines(work, name))
    assert f"stopped after step {done}" in out
    assert (work / "runs" / name / "checkpoints" / f"step_{done:06d}").is_dir()
    assert (work / "runs" / name / "model" / "config.json").is_file()


def test_a_killed_driver_leaves_nothing_behind(work: Path) -> None:
    command = Command(["train", "config.yaml", "run.name=orphans", "run.steps=500", "evaluation.before=false"], work)
    command.start().until(lambda: len(lines(work, "orphans")) >= 1)
    command.process.kill()
    assert command.finish()[0] == -9


def test_several_actors_of_each_kind(straight: Path, work: Path) -> None:
    status, _, err = run(
        work, "run.name=several", "run.steps=2", "rollout.workers=2", "scoring.workers=2", "learner.workers=2",
        "learner.zero_stage=2", "evaluation.before=false", "evaluation.after=false",
    )  # fmt: skip
    assert status == 0, err
    one, two = lines(work, "straight"), lines(work, "several")
    # the same seeds draw the same completions on one engine and on two, and two ranks compute the same update
    assert two[0]["reward_mean"] == one[0]["reward_mean"]
    assert two[0]["grad_norm"] == pytest.approx(one[0]["grad_norm"], rel=1e-3)
