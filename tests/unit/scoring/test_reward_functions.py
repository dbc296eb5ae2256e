"""Rewards as people write them: what they return, what they ask for, how they fail."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlpost.config.schema import RewardSpec, ScoringSection
from rlpost.errors import InfrastructureError, UserError
from rlpost.loop.sync import check_undecided
from rlpost.observability.metrics import undecided_of
from rlpost.scoring.score import Scorer, drop_empty_rewards
from rlpost.trajectory import Group
from rlpost.types import Message, Prompt, RewardOutput
from rlpost_rewards.trl_adapter import TrlReward
from support.trajectories import answer, receipt

EXAMPLE = Path(__file__).resolve().parents[3] / "configs/examples/brevity.py"


def group(*texts: str, **columns: Any) -> Group:
    members = tuple(answer(text, i) for i, text in enumerate(texts))
    return Group(Prompt("asked", text="2+2", columns=columns), members, (None,) * len(texts), ((),) * len(texts))


def paid(answer: Any, count: int = 2) -> list[float | None]:
    found = TrlReward(lambda completions: answer)(group(*"ab"[:count]))
    rewards = found.rewards if isinstance(found, RewardOutput) else found
    return [sum(s.value for s in r) if r else None for r in rewards]


@pytest.mark.parametrize("answer", [
    [1, 2], (1.0, 2.0), np.array([1.0, 2.0]), np.array([1, 2], np.int8), torch.tensor([1.0, 2.0]), [np.float32(1), np.float64(2)],
    [torch.tensor(1.0), torch.tensor([2.0])], [True, 2], [Decimal(1), Fraction(2)], iter([1.0, 2.0]),
    torch.tensor([1.0, 2.0], dtype=torch.bfloat16), torch.tensor([1.0, 2.0], requires_grad=True), range(1, 3),
    [np.array(1.0), np.array([2.0])], {"a": 1.0, "b": 2.0}.values(),
])  # fmt: skip
def test_numbers_in_any_usual_form(answer: Any) -> None:
    assert paid(answer) == [1.0, 2.0]


@pytest.mark.parametrize("nothing", [None, float("nan"), np.nan, torch.tensor(float("nan")), np.float32("nan")])
def test_what_does_not_apply(nothing: Any) -> None:
    assert paid([nothing, 1.0]) == [None, 1.0]


@pytest.mark.parametrize(("answer", "said"), [
    ({0: 1.0, 1: 0.5}, "list with one number or None per completion"),
    ({"score": [1.0, 0.5]}, "list with one number or None per completion"),
    ([{"score": 1.0}, {"score": 0.5}], "return the value itself, such as its 'score'"),
    ("10", "list with one number or None per completion"),
    (b"10", "list with one number"), ({1.0, 2.0}, "list with one number"),
    (1.0, "list with one number"), (np.array(1.0), "list with one number"), (None, "list with one number"),
    (torch.tensor(1.0), "list with one number"),
    (["1", "0"], "numbers or None are needed"), ([1.0], "1 values for 2 completions"),
    ([1.0, 2.0, 3.0], "3 values for 2 completions"), ([[1.0], [2.0, 3.0]], "numbers or None are needed"),
    ([1.0, float("inf")], "finite numbers"), ([-np.inf, 1.0], "finite numbers"), ([1j, 1.0], "numbers or None"),
    (np.ones((2, 2)), "numbers or None are needed"), (torch.ones(2, 3), "numbers or None are needed"),
])  # fmt: skip
def test_anything_else_is_one_line(answer: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        paid(answer)
    assert "\n" not in str(caught.value)


def test_what_trl_passes() -> None:
    seen: dict[str, Any] = {}

    def reward(
        completions: list[str], trainer_state: Any, log_metric: Any, log_extra: Any, **columns: Any
    ) -> list[float]:
        seen.update(columns, step=trainer_state.global_step)
        log_metric("length", sum(map(len, completions)))
        log_metric("length", 0.0)
        log_extra("first", [text[:1] for text in completions])
        return [1.0] * len(completions)

    one = group("ab", "c", answer="4", completion="x", prompt="y", completion_ids=[1])
    found = TrlReward(reward)(one)
    assert isinstance(found, RewardOutput)
    assert found.metrics == {"length": 1.5}
    assert found.extras == {"first": ["a", "c"]}
    assert seen == {
        "answer": ["4", "4"],
        "prompts": ["2+2", "2+2"],
        "completion_ids": [[97, 98], [99]],
        "step": 0,
    }


def test_a_note_of_the_wrong_length_is_named() -> None:
    def reward(completions: list[str], log_extra: Any) -> list[float]:
        log_extra("first", ["a"])
        return [1.0] * len(completions)

    with pytest.raises(UserError, match=r"log_extra\('first'\) got 1 values for 2 completions"):
        TrlReward(reward)(group("a", "b"))


def scorer(tmp_path: Path, source: str, **section: Any) -> Scorer:
    file = tmp_path / "mine.py"
    file.write_text(source)
    return Scorer(ScoringSection(rewards=(RewardSpec(name=f"{file}:reward"),), **section))


def test_rewards_that_wait_are_asked_for_all_groups_at_once(tmp_path: Path) -> None:
    source = """
import asyncio
running = most = 0
async def reward(completions):
    global running, most
    running += 1
    most = max(most, running)
    await asyncio.sleep(0.05)
    running -= 1
    return [float(most)] * len(completions)
"""
    found = scorer(tmp_path, source).score([group("a", "b") for _ in range(4)])
    assert [g.rewards[0][0].value for g in found if g.rewards[0]] == [4.0] * 4


def test_an_object_that_is_called_like_a_coroutine_function_waits_too() -> None:
    class Judge:
        async def __call__(self, completions: list[str]) -> list[float]:
            await asyncio.sleep(0)
            return [1.0] * len(completions)

    stage = TrlReward(Judge())
    assert stage.concurrent
    assert [bool(r) for r in stage(group("a"))] == [True]  # pyright: ignore[reportGeneralTypeIssues]
    begun = time.perf_counter()
    assert len(stage.answers([group("a"), group("b")])) == 2
    assert time.perf_counter() - begun < 30


FRAGILE = """
def reward(completions):
    return [1 / (len(text) - 1) for text in completions]
"""
WAITING = FRAGILE.replace("def", "async def")


@pytest.mark.parametrize("source", [FRAGILE, WAITING])
def test_a_failure_names_the_prompt_and_the_line(tmp_path: Path, source: str) -> None:
    with pytest.raises(InfrastructureError, match=r"reward 'reward' fails on prompt 'asked' at .*mine.py:3 \(ZeroDiv"):
        scorer(tmp_path, source).score([group("aa", "b")])


@pytest.mark.parametrize("source", [FRAGILE, WAITING])
def test_a_failure_can_leave_its_answer_undecided(tmp_path: Path, source: str) -> None:
    [found] = scorer(tmp_path, source, reward_errors="undecided").score([group("aa", "b", "ccc")])
    assert [None if r is None else r[0].value for r in found.rewards] == [1.0, None, 0.5]
    failed = found.verdicts[1]
    assert failed is not None
    assert (failed.outcome, failed.reason) == ("undecided", "reward_failed")
    assert "ZeroDivisionError" in failed.evidence["messages"][0]
    assert found.verdicts[0] is None


def test_a_wrong_number_of_values_is_no_matter_of_one_answer(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 values for 2"):
        scorer(tmp_path, "def reward(completions):\n    return [1.0]\n", reward_errors="undecided").score(
            [group("a", "b")]
        )


def test_none_for_half_of_the_answers_is_said_as_that(tmp_path: Path) -> None:
    source = "def reward(completions):\n    return [None if text == 'a' else 1.0 for text in completions]\n"
    [found] = scorer(tmp_path, source).score([group("a", "b")])
    open_ = undecided_of(drop_empty_rewards(receipt(found)))
    assert (open_.open, open_.unrewarded, open_.reasons) == (1, 1, ())
    with pytest.raises(InfrastructureError, match=r"50% of the answers .* all rewards gave None for 1 of them"):
        check_undecided([[open_]], 0.2)


def test_the_example_works_on_chats_too() -> None:
    chat = Group(
        Prompt("p", messages=(Message("user", "hi"),)), (answer("a" * 50), answer(" ", 1)), (None,) * 2, ((), ())
    )
    namespace: dict[str, Any] = {}
    exec(EXAMPLE.read_text(), namespace)
    found = TrlReward(namespace["brevity"])(chat)
    assert [r[0].value if r else None for r in found] == [0.5, None]  # pyright: ignore[reportGeneralTypeIssues]
