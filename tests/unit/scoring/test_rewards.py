"""Reward stages: outcome, TRL functions, combining. Not covered: the pipeline around them (test_score.py)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rlpost.errors import UserError
from rlpost.trajectory import Group
from rlpost.types import Message, Prompt, Reward, SpanReward, Verdict
from rlpost_rewards.combine import add, reduce
from rlpost_rewards.outcome import Outcome
from rlpost_rewards.trl_adapter import TrlReward
from support.trajectories import answer


def group(texts: list[str], rewards: list[Reward | None], chat: bool = False, verdicts: tuple[Any, ...] = ()) -> Group:
    members = tuple(answer(text, i) for i, text in enumerate(texts))
    columns = {"answer": "4", "prompt": "2+2", "level": 3}
    prompt = (
        Prompt("p", messages=(Message("system", "s"), Message("user", "2+2")), columns=columns)
        if chat
        else Prompt("p", text="2+2=", columns=columns)
    )
    return Group(prompt, members, verdicts or (None,) * len(texts), tuple(rewards))


def value(reward: Reward | None) -> float | None:
    return None if reward is None else sum(s.value for s in reward)


def test_the_outcome_weighs_the_score_and_keeps_what_is_there() -> None:
    verdicts = (Verdict("accepted", 0.5, "x"), Verdict("rejected", 0.0, "x"), Verdict("undecided", None, "crashed"))
    before: list[Reward | None] = [(SpanReward(0, 3, 1.0),), (), None]
    found = Outcome(weight=4.0)(group(["ab", "c", "d"], before, verdicts=verdicts))
    assert list(found) == [(SpanReward(0, 3, 3.0),), (SpanReward(0, 2, 0.0),), None]


def test_a_completion_without_a_verdict_has_no_outcome() -> None:
    assert list(Outcome()(group(["ab"], [()]))) == [None]


def test_a_function_with_kwargs_gets_prompts_completions_and_every_column() -> None:
    seen: dict[str, Any] = {}

    def reward(prompts: list, completions: list, **kwargs: Any) -> list[float]:
        seen.update(kwargs, prompts=prompts, completions=completions)
        return [0.25, 1.0]

    found = TrlReward(reward, weight=2.0)(group(["ab", "c"], [(), ()]))
    assert [value(r) for r in found] == [0.5, 2.0]
    state = seen.pop("trainer_state")
    assert (state.global_step, state.max_steps) == (0, 0)
    assert {callable(seen.pop(name)) for name in ("log_metric", "log_extra")} == {True}
    assert seen == {
        "prompts": ["2+2="] * 2,
        "completions": ["ab", "c"],
        "completion_ids": [[97, 98], [99]],
        "answer": ["4", "4"],
        "level": [3, 3],
    }


def test_a_function_without_kwargs_gets_what_it_names() -> None:
    def reward(completions: list[str], answer: list[str]) -> list[float]:
        return [float(c == a) for c, a in zip(completions, answer, strict=True)]

    assert [value(r) for r in TrlReward(reward)(group(["4", "5"], [(), ()]))] == [1.0, 0.0]


def test_a_chat_arrives_as_messages() -> None:
    def reward(prompts: list, completions: list) -> list[float]:
        assert prompts == [[{"role": "system", "content": "s"}, {"role": "user", "content": "2+2"}]]
        assert completions == [[{"role": "assistant", "content": "ab"}]]
        return [1]

    assert [value(r) for r in TrlReward(reward)(group(["ab"], [()], chat=True))] == [1.0]


def test_a_coroutine_function_is_awaited() -> None:
    async def reward(completions: list[str]) -> list[float]:
        return [3.0 for _ in completions]

    assert [value(r) for r in TrlReward(reward)(group(["a"], [()]))] == [3.0]


@pytest.mark.parametrize("nothing", [None, math.nan, np.float32("nan")])
def test_does_not_apply_leaves_the_completion_as_it_was(nothing: Any) -> None:
    before: list[Reward | None] = [(), (SpanReward(0, 1, 5.0),)]
    assert list(TrlReward(lambda completions: [nothing, nothing])(group(["a", "b"], before))) == before


def test_undecided_members_are_not_shown_to_the_function_and_stay_undecided() -> None:
    shown: list[str] = []

    def reward(completions: list[str]) -> list[float]:
        shown.extend(completions)
        return [1.0] * len(completions)

    assert [value(r) for r in TrlReward(reward)(group(["a", "b", "c"], [(), None, ()]))] == [1.0, None, 1.0]
    assert shown == ["a", "c"]
    assert list(TrlReward(reward)(group(["a"], [None]))) == [None]
    assert shown == ["a", "c"]


def test_arrays_and_booleans_are_numbers() -> None:
    assert [value(r) for r in TrlReward(lambda completions: np.array([0.5, 2]))(group(["a", "b"], [(), ()]))] == [
        0.5,
        2,
    ]
    assert [value(r) for r in TrlReward(lambda completions: [True, False])(group(["a", "b"], [(), ()]))] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([1.0], "answered 1 values for 2 completions"),
        ([1.0, 2.0, 3.0], "answered 3 values for 2 completions"),
        ([1.0, math.inf], "answered inf; finite numbers or None are needed"),
        ([1.0, "high"], "answered 'high'; numbers or None are needed"),
        ([1.0, [2.0]], r"answered \[2.0\]; numbers or None are needed"),
        (None, "answered None"),
        (1.0, "answered 1.0"),
    ],
)
def test_the_wrong_number_or_kind_of_values_is_the_users_mistake(answer: Any, message: str) -> None:
    def mine(completions: list[str]) -> Any:
        return answer

    with pytest.raises(UserError, match=f"reward 'mine' {message}"):
        TrlReward(mine)(group(["a", "b"], [(), ()]))


def test_a_column_the_data_lacks_is_the_users_mistake() -> None:
    def mine(completions: list[str], solution: list[str]) -> list[float]:
        return [1.0]

    with pytest.raises(UserError, match="solution"):
        TrlReward(mine)(group(["a"], [()]))


def test_add_merges_spans_of_the_same_place_and_kind_only() -> None:
    base = (SpanReward(0, 4, 1.0),)
    assert add(base, SpanReward(0, 4, 0.5)) == (SpanReward(0, 4, 1.5),)
    others: list[SpanReward] = [
        SpanReward(0, 3, 0.5), SpanReward(0, 4, 0.5, index=1), SpanReward(0, 4, 0.5, channel="advantage"),
    ]  # fmt: skip
    for other in others:
        assert add(base, other) == (*base, other)
    assert base == (SpanReward(0, 4, 1.0),)


def test_scale_leaves_the_advantage_channel_alone() -> None:
    spans = (SpanReward(0, 4, 2.0), SpanReward(0, 4, 3.0, channel="advantage"))
    assert reduce(spans, 0.25) == (SpanReward(0, 4, 0.5), spans[1])


@pytest.mark.parametrize("function", [len, math.sqrt])
def test_a_stage_needs_nothing_from_the_learner(function: Callable[..., Any]) -> None:
    assert TrlReward(function).needs == ()
    assert Outcome().needs == ()
