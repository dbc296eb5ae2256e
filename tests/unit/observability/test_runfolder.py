"""The run folder's files. Not covered: checkpoints (tests/unit/loop/test_checkpoint.py), a whole run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlpost.config.load import from_dict, load
from rlpost.config.schema import RunConfig
from rlpost.errors import UserError
from rlpost.observability.runfolder import RunFolder
from rlpost.observability.transcripts import lines, write
from rlpost.trajectory import Group, Ticket, one_turn
from rlpost.types import Message, Prompt, SpanReward, Verdict


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
    one = one_turn((1,), (5, 6), "∀x", offsets=((0, 1), (1, 2)), version=3)
    two = one_turn((1,), (5,), "y", logprobs=(-0.25,), finish="length", version=3, index=1)
    said = {"axioms": ("a",)}
    verdict = Verdict("accepted", 1.0, "ok", assurance="elaborated", evidence=said, seconds=0.5, backend="lean/1")
    group = Group(
        Prompt("p", messages=(Message("user", "q"),)), (one, two), (verdict, None), ((SpanReward(0, 3, 1.0),), None)
    )
    folder = RunFolder(configured(tmp_path), resume=False)
    folder.create()
    write(folder.transcript(7), lines(group, Ticket(21, "p", (11, 12), 3), [0.5, None]))
    [file] = (tmp_path / "r/transcripts").iterdir()
    assert file.name == "step_000007.jsonl"
    first, second = map(json.loads, file.read_text("utf-8").splitlines())
    assert first == {
        "prompt_id": "p", "prompt": [["user", "q"]], "repairs": None, "member": 0, "completion": "∀x", "tokens": 2, "prompt_tokens": 1,
        "status": "done", "finish_reason": "stop", "policy_version": 3, "ticket": 21, "seed": 11,
        "outcome": "accepted", "reason": "ok", "assurance": "elaborated", "verifier": "lean/1",
        "evidence": {"axioms": ["a"]}, "seconds": 0.5,
        "reward": [[0, 3, 1.0, 0, "reward"]], "reward_total": 1.0, "reward_by_stage": {}, "extras": {},
        "advantage": 0.5,
        "segments": [
            {"origin": "prompt", "start": 0, "stop": 1, "turn": -1},
            {"origin": "policy", "start": 1, "stop": 3, "turn": 0, "text": "∀x", "finish": "stop", "reward": None},
        ],
        "versions": [[3, 1, 3]], "logprobs": None,
    }  # fmt: skip
    assert (second["outcome"], second["reward"], second["advantage"]) == (None, None, None)
    assert (second["status"], second["finish_reason"], second["seed"]) == ("length", "length", 12)
    assert second["logprobs"] == [-0.25]  # of the sampled token only


def test_a_transcript_is_there_once_all_of_it_is(tmp_path: Path) -> None:
    def broken() -> Iterator[dict]:
        yield {"prompt_id": "p"}
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write(str(tmp_path / "t.jsonl"), broken())
    assert not (tmp_path / "t.jsonl").exists()


def test_a_group_without_a_ticket_has_neither_number_nor_seeds() -> None:
    group = Group(Prompt("p", text="q"), (one_turn((1,), (), finish="abort"),), (None,), (None,))
    [row] = lines(group, None, [None])
    assert (row["prompt"], row["ticket"], row["seed"], row["policy_version"]) == ("q", None, None, None)
    assert (row["tokens"], row["completion"], row["status"]) == (0, "", "aborted")
