"""How reward functions are called: event loops, decorators, what they change, how they end. Not covered: what they
return (test_reward_functions.py)."""

from __future__ import annotations

import asyncio
import functools
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rlpost.actors.remote import check_objects
from rlpost.config.schema import RewardSpec, ScoringSection
from rlpost.errors import InfrastructureError, UserError
from rlpost.plugins import objects
from rlpost.scoring.score import Scorer
from rlpost.trajectory import Group
from rlpost.types import Message, Prompt
from rlpost_rewards.trl_adapter import TrlReward
from support.trajectories import answer


def group(*texts: str, name: str = "p", messages: Any = None, **columns: Any) -> Group:
    prompt = Prompt(name, text=None if messages else "x", messages=messages, columns=columns)
    return Group(prompt, tuple(answer(text, i) for i, text in enumerate(texts)))


def scored(function: Any, *groups: Group, **options: Any) -> list[Group]:
    objects.adopt({"object:tried": function})
    return Scorer(ScoringSection(rewards=(RewardSpec(name="object:tried"),), **options)).score(groups)


def paid(found: Group) -> list[float | None]:
    return [sum(s.value for s in r) if r else None for r in found.rewards]


def test_what_is_made_at_the_first_call_is_of_use_at_the_next() -> None:
    made: list[Any] = []

    async def judged(completions: list[str], **_: Any) -> list[float]:
        if not made:  # as a client is made once
            made.append((asyncio.get_running_loop(), asyncio.Semaphore(1)))
        loop, semaphore = made[0]
        assert loop is asyncio.get_running_loop()

        async def one(text: str) -> float:
            async with semaphore:
                await asyncio.sleep(0.001)
                return float(len(text))

        return list(await asyncio.gather(*map(one, completions)))

    for _ in range(2):
        assert [paid(g) for g in scored(judged, group("a", "bb"), group("ccc", name="q"))] == [[1.0, 2.0], [3.0]]


def test_a_decorator_may_hide_that_a_function_waits() -> None:
    def logged(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(**columns: Any) -> Any:
            return function(**columns)

        return wrapper

    @logged
    async def slow(completions: list[str], **_: Any) -> list[float]:
        await asyncio.sleep(0.2)
        return [1.0] * len(completions)

    started = time.perf_counter()
    scored(slow, *(group("a", "b", name=str(i)) for i in range(5)))
    assert time.perf_counter() - started < 0.6


def test_answers_that_are_asked_for_alone_wait_together_and_keep_their_notes() -> None:
    async def slow(completions: list[str], log_metric: Any, log_extra: Any, **_: Any) -> list[float]:
        await asyncio.sleep(0.2)
        if "bb" in completions:
            raise ValueError("unreadable")
        log_metric("length", len(completions[0]))
        log_extra("text", completions)
        return [1.0] * len(completions)

    started = time.perf_counter()
    [found] = scored(slow, group("a", "bb", "ccc", "d", "e"), reward_errors="undecided")
    assert time.perf_counter() - started < 0.8
    assert paid(found) == [1.0, None, 1.0, 1.0, 1.0]
    assert found.metrics == {"tried/length": pytest.approx(6 / 4)}
    assert found.extras == {"tried/text": ("a", None, "ccc", "d", "e")}


def _exits(**_: Any) -> Any:
    sys.exit("over")


async def _exits_later(**_: Any) -> Any:
    await asyncio.sleep(0)
    sys.exit(3)


async def _a_part_exits(**_: Any) -> Any:
    await asyncio.gather(asyncio.create_task(_exits_later()))


async def _cancelled(**_: Any) -> Any:
    raise asyncio.CancelledError


def _stops(**_: Any) -> Any:
    return next(iter(()))


def _stops_on_the_way(completions: list[str], **_: Any) -> Iterator[float]:
    for text in completions:
        if text == "b":
            raise KeyError(text)
        yield 1.0


@pytest.mark.parametrize(("function", "said"), [
    (_exits, "SystemExit: over"), (_exits_later, "SystemExit: 3"), (_a_part_exits, "SystemExit: 3"),
    (_cancelled, "CancelledError"), (_stops, "StopIteration"), (_stops_on_the_way, "KeyError: 'b'"),
])  # fmt: skip
def test_whatever_ends_a_function_is_one_line_or_undecided(function: Any, said: str) -> None:
    with pytest.raises(InfrastructureError, match=f"fails on prompt 'p' at .*{said}"):
        scored(function, group("a", "b"))
    [found] = scored(function, group("a", "b"), reward_errors="undecided")
    assert found.rewards[1] is None
    # and the loop is there for the next function
    assert paid(scored(_fine, group("a"))[0]) == [1.0]


async def _fine(completions: list[str], **_: Any) -> list[float]:
    return [1.0] * len(completions)


def test_what_a_function_changes_is_its_own() -> None:
    def greedy(prompts: Any, completions: Any, cases: Any, **_: Any) -> list[float]:
        found = [float(len(p.pop()["content"]) + case.pop()) for p, case in zip(prompts, cases, strict=True)]
        completions.clear()
        return found

    one = group("a", "b", messages=(Message("system", "s"), Message("user", "four")), cases=[1, 2])
    for _ in range(2):
        assert paid(scored(greedy, one)[0]) == [6.0, 6.0]
    assert one.prompt.columns["cases"] == [1, 2]


@pytest.mark.parametrize("values", [
    np.ma.array([1.0, 2.0], mask=[False, True]), pd.Series([1.0, None], dtype="Float64"), [np.float16(1), pd.NA],
    np.array([1, None], dtype=object),
])  # fmt: skip
def test_missing_values_are_not_0(values: Any) -> None:
    assert paid(scored(lambda completions, **_: values, group("a", "b"))[0]) == [1.0, None]


def test_a_number_beyond_floats_is_one_line() -> None:
    with pytest.raises(UserError, match="numbers or None are needed"):
        scored(lambda completions, **_: [10**400], group("a"))


def test_notes_can_be_written_to_a_file() -> None:
    def noting(completions: list[str], log_extra: Any, **_: Any) -> list[float]:
        log_extra("n", ["\ud83d", np.float32(0.5), torch.tensor(2)])
        return [0.0] * 3

    [found] = scored(noting, group("a", "b", "c"))
    assert found.extras["tried/n"] == ("\\ud83d", 0.5, 2)


def test_a_partial_is_called_by_the_name_of_its_function() -> None:
    def judged(completions: list[str], scale: float) -> list[float]:
        return [scale] * len(completions)

    assert TrlReward(functools.partial(functools.partial(judged), scale=2.0)).name == "judged"


def test_what_cannot_be_sent_is_one_line() -> None:
    import threading

    lock = threading.Lock()

    def locked(completions: list[str], **_: Any) -> list[float]:
        with lock:
            return [0.0] * len(completions)

    check_objects({"object:fine": lambda completions: [1.0]})
    with pytest.raises(
        UserError, match=r"'locked' cannot be sent to the actors \(TypeError: .*lock.*path.py:attribute"
    ):
        check_objects({"object:locked": locked})
