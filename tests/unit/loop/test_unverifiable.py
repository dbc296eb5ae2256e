"""Prompts that a verifier cannot verify, dropped before a run. Not covered: the run itself (tests/ray)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlpost.config.load import from_dict
from rlpost.errors import DataError, UserError
from rlpost.loop.unverifiable import Dropped, drop
from rlpost.observability.runfolder import RunFolder
from rlpost.scoring.score import Scorer
from rlpost.trajectory import TokenizedPrompt
from rlpost.types import Prompt


def tokenized(count: int) -> list[TokenizedPrompt]:
    return [TokenizedPrompt(Prompt(f"p{n}", text="x"), np.array([1], np.int32)) for n in range(count)]


def test_what_cannot_be_verified_is_left_out_and_said() -> None:
    prompts, said = tokenized(10), []
    problems: list[str | None] = [None] * 10
    problems[3] = "unknown\nidentifier"
    kept, dropped = drop(prompts, problems, "train", 0.1, said.append)
    assert kept == [*prompts[:3], *prompts[4:]]
    assert dropped == [Dropped("train", "p3", "unknown identifier")]
    assert said == [
        "data.train: 1 of 10 prompts have answers that cannot be verified and were dropped (dropped_prompts.jsonl of the "
        "run folder lists them); first, prompt 'p3': unknown identifier"
    ]
    assert drop(prompts, [None] * 10, "train", 0.0, said.append) == (prompts, [])
    assert drop([], [], "eval", 0.1, said.append) == ([], [])
    assert len(said) == 1


@pytest.mark.parametrize(("bad", "limit"), [(2, 0.1), (10, 1.0), (1, 0.0)])
def test_too_many_or_all_are_refused(bad: int, limit: float) -> None:
    problems = ["broken"] * bad + [None] * (10 - bad)
    with pytest.raises(DataError, match=rf"data\.eval: {bad} of 10 .*unverifiable_limit .*prompt 'p0': broken"):
        drop(tokenized(10), problems, "eval", limit, lambda _: None)


class Sifting:
    """A verifier that cannot verify prompts called bad."""

    fingerprint = "sifting/1"

    def __init__(self, replies: int = 1):
        self.replies = replies

    def unverifiable(self, prompts: Any) -> list[str | None]:
        return ["bad" if prompt.id == "bad" else None for prompt in prompts] * self.replies


def asked(verifier: Any) -> list[str | None]:
    config = from_dict({"model": {"path": "m"}, "scoring": {"rewards": ["outcome"], "verifier": "function"}})
    scorer = Scorer.__new__(Scorer)
    scorer.section, scorer.verifier = config.scoring, verifier
    return scorer.unverifiable([Prompt("good", text="x"), Prompt("bad", text="x")])


def test_the_verifier_is_asked_and_must_be_able_to_tell() -> None:
    assert asked(Sifting()) == [None, "bad"]
    with pytest.raises(UserError, match=r"unverifiable gave 4 replies for 2 prompts"):
        asked(Sifting(2))
    with pytest.raises(UserError, match=r"data\.unverifiable: drop, but scoring\.verifier 'function' has no method"):
        asked(object())


def test_the_run_folder_lists_them(tmp_path: Path) -> None:
    config = from_dict(
        {"model": {"path": "m"}, "scoring": {"verifier": "function"}, "run": {"output_dir": str(tmp_path)}}
    )
    folder = RunFolder(config, resume=False)
    folder.create()
    folder.record_dropped([])
    assert not (folder.path / "dropped_prompts.jsonl").exists()
    folder.record_dropped([{"split": "train", "id": "p3", "reason": "unknown identifier"}])
    [line] = (folder.path / "dropped_prompts.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["id"] == "p3"
