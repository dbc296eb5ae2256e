"""The run folder's files. Not covered: checkpoints (tests/unit/loop/test_checkpoint.py), a whole run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlpost.config.load import from_dict, load
from rlpost.config.schema import RunConfig
from rlpost.errors import UserError
from rlpost.observability.runfolder import RunFolder
from rlpost.types import Completion, Group, Message, Prompt, SpanReward, Verdict


def configured(folder: Path) -> RunConfig:
    return from_dict(
        {"run": {"name": "r", "output_dir": str(folder)}, "model": {"path": "m"}, "scoring": {"verifier": "function"}}
    )


def test_the_resolved_configuration_is_written_with_the_run(tmp_path: Path) -> None:
    config = configured(tmp_path)
    folder = RunFolder(config, resume=False)
    folder.create()
    assert folder.path == tmp_path / "r"
    assert load(folder.path / "config.yaml").config == config
    assert json.loads((folder.path / "environment.json").read_text())["packages"]["torch"]


def test_a_run_is_not_written_over_and_not_resumed_from_nothing(tmp_path: Path) -> None:
    config = configured(tmp_path)
    with pytest.raises(UserError, match="holds no run; start it without --resume"):
        RunFolder(config, resume=True)
    RunFolder(config, resume=False).create()
    (tmp_path / "r" / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="already holds a run; add --resume"):
        RunFolder(config, resume=False)
    assert RunFolder(config, resume=True).path == tmp_path / "r"


def test_a_refused_resume_leaves_no_trace(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        RunFolder(configured(tmp_path), resume=True)
    assert not (tmp_path / "r").exists()


def test_a_transcript_records_every_completion_with_verdict_and_reward(tmp_path: Path) -> None:
    one = Completion("p", 0, (1,), (5, 6), ((0, 1), (1, 2)), None, "∀x", "stop", 3, 11)
    two = Completion("p", 1, (1,), (5,), ((0, 1),), None, "y", "length", 3, 12)
    verdict = Verdict("accepted", 1.0, "ok", evidence={"axioms": ("a",)}, seconds=0.5)
    group = Group(
        Prompt("p", messages=(Message("user", "q"),)), (one, two), (verdict, None), ((SpanReward(0, 2, 1.0),), None)
    )
    folder = RunFolder(configured(tmp_path), resume=False)
    folder.create()
    folder.transcript(7, [group], [[0.5, None]])
    first, second = map(json.loads, (tmp_path / "r/transcripts/step_000007.jsonl").read_text("utf-8").splitlines())
    assert first == {
        "prompt_id": "p", "prompt": [["user", "q"]], "member": 0, "completion": "∀x", "tokens": 2,
        "finish_reason": "stop", "policy_version": 3, "seed": 11, "outcome": "accepted", "reason": "ok",
        "evidence": {"axioms": ["a"]}, "seconds": 0.5, "reward": [[0, 2, 1.0, 0, "reward"]], "advantage": 0.5,
    }  # fmt: skip
    assert (second["outcome"], second["reward"], second["advantage"]) == (None, None, None)
