"""Demonstrations that are given as chat messages, as TRL's data sets hold them. Not covered: training on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlpost.commands.sft import Target, read_pairs
from rlpost.config.schema import RunConfig
from rlpost.errors import DataError


def target_of(folder: Path, completion: Any) -> Target:
    file = folder / "rows.jsonl"
    file.write_text(json.dumps({"prompt": [{"role": "user", "content": "x"}], "completion": completion}) + "\n")
    section = {"train": str(file), "completion_key": "completion"}
    config = RunConfig.model_validate({"model": {"path": "m"}, "data": {"train": str(file)}, "sft": section})
    assert config.sft is not None
    [(_, target)] = read_pairs(config, config.sft)
    return target


def said(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in turns]


def test_messages_are_the_texts_of_policy_and_environment_in_turn(tmp_path: Path) -> None:
    assert target_of(tmp_path, said(("assistant", "Up (2009)"))) == ("Up (2009)",)
    turns = said(("assistant", "a"), ("user", "b"), ("assistant", "c"))
    assert target_of(tmp_path, turns) == ("a", "b", "c")
    assert target_of(tmp_path, [{"from": "gpt", "value": "Up (2009)"}]) == ("Up (2009)",)


@pytest.mark.parametrize(
    ("completion", "message"),
    [
        (said(("user", "a"), ("assistant", "b")), "message 0: role 'user'.*put what comes before"),
        (said(("assistant", "a"), ("assistant", "b")), "message 1: role 'assistant'"),
        (said(("assistant", "a"), ("user", "b")), "begins and ends with the policy"),
        ([], "expected text"),
        ([{"role": "assistant"}], "column 'completion'"),
    ],
)
def test_messages_in_another_order_are_refused(tmp_path: Path, completion: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"sft.train, row 0.*{message}"):
        target_of(tmp_path, completion)
