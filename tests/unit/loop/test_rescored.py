"""Scoring again in another order, with scorers that mix up answers and scorers that waver.

Not covered: what counts as mixed up (tests/unit/selfcheck/test_samples.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rlpost.config.load import from_dict
from rlpost.errors import SelfCheckError
from rlpost.loop.checks import StepChecks
from rlpost.trajectory import Group, GroupReceipt
from rlpost.types import Prompt, SpanReward
from support.trajectories import answer, receipt

Judge = Callable[[Sequence[str]], Sequence[float]]


def scored(group: GroupReceipt, judge: Judge) -> GroupReceipt:
    values = judge([one.text for one in group.tokens])
    spans = tuple((SpanReward(0, one.length, v),) for one, v in zip(group.tokens, values, strict=True))
    return dataclasses.replace(group, verdicts=(None,) * len(values), rewards=spans)


def said_of(judge: Judge, size: int, step: int) -> list[str]:
    """What the user is told of a scorer at a step."""
    said: list[str] = []
    found = tuple(answer("abcdefgh"[i] * (i + 1), i) for i in range(size))
    group = scored(receipt(Group(Prompt("p", text="x"), found)), judge)
    scoring: Any = SimpleNamespace(score=lambda groups: [scored(one, judge) for one in groups])
    supervision: Any = SimpleNamespace(log=said.append)
    checks = StepChecks(from_dict({"model": {"path": "m"}, "scoring": {"verifier": "function"}}))
    checks.rescored([group], step, scoring, lambda tokens: tokens, supervision)
    return said


def by_length(texts: Sequence[str]) -> list[float]:
    return [float(len(text)) for text in texts]


@pytest.mark.parametrize("size", [2, 3, 8])
def test_a_scorer_that_mixes_up_answers_ends_the_run_and_one_that_does_not_is_not_mentioned(size: int) -> None:
    for step in range(5):
        assert said_of(by_length, size, step) == []
        with pytest.raises(SelfCheckError, match="mix up the answers of a group"):
            said_of(lambda texts: by_length(texts)[::-1], size, step)


@pytest.mark.parametrize("wavering", [0.05, 0.5])
def test_a_judge_that_wavers_never_ends_a_run(wavering: float) -> None:
    rng = np.random.default_rng(0)

    def judge(texts: Sequence[str]) -> list[float]:
        """One answer in two is right, and the judge is wrong now and then about two of them."""
        return [float((len(text) % 2 == 0) ^ (len(text) < 3 and rng.random() < wavering)) for text in texts]

    lines = [line for step in range(300) for line in said_of(judge, 8, step)]
    assert lines
    assert all("do not judge the same answer alike" in line for line in lines)
