"""DAPO's soft punishment by hand, alone and after other stages. Not covered: which settings go with it
(tests/unit/config/test_checks.py).
"""

from __future__ import annotations

import dataclasses

import pytest

from rlpost.algorithms.advantages import AdvantageSettings, group_advantages
from rlpost.config.schema import RewardSpec
from rlpost.errors import UserError
from rlpost.plugins.build import build_stage
from rlpost.trajectory import Group, one_turn
from rlpost.types import Prompt, Reward, SpanReward, Verdict
from rlpost_rewards.outcome import Outcome
from rlpost_rewards.overlong import Overlong, punishment

RIGHT, WRONG = Verdict("accepted", 1.0, "yes"), Verdict("rejected", 0.0, "no")
LOST = Verdict("undecided", None, "crashed")


def answered(*lengths: int, verdicts: tuple[Verdict, ...] = (), rewards: tuple[Reward | None, ...] = ()) -> Group:
    """Answers of so many tokens to a prompt of three; the longest ones were cut."""
    members = tuple(
        one_turn((1, 2, 3), (5,) * n, index=i, finish="length" if n >= 20 else "stop") for i, n in enumerate(lengths)
    )
    return Group(Prompt("p", text="p"), members, verdicts or (WRONG,) * len(lengths), rewards or ((),) * len(lengths))


def values(rewards: list[Reward | None]) -> list[float | None]:
    return [None if r is None else sum(span.value for span in r) for r in rewards]


@pytest.mark.parametrize(
    ("length", "expected"),
    # L_max 20, L_cache 4: nothing up to 16, a quarter for each further token, never more than 1
    [(1, 0.0), (16, 0.0), (17, -0.25), (18, -0.5), (19, -0.75), (20, -1.0), (21, -1.0), (500, -1.0)],
)
def test_the_punishment_by_hand(length: int, expected: float) -> None:
    assert punishment(length, 20, 4) == expected


def test_a_buffer_as_long_as_the_limit_punishes_every_token() -> None:
    assert [punishment(n, 4, 4) for n in (1, 2, 4)] == [-0.25, -0.5, -1.0]


def test_the_prompt_does_not_count_and_undecided_answers_stay_undecided() -> None:
    found = list(Overlong(max_tokens=20, buffer=4, weight=2.0)(answered(16, 18, 20, rewards=((), (), None))))
    assert values(found) == [0.0, -1.0, None]
    assert found[1] == (SpanReward(0, 21, -1.0),)


def test_it_adds_to_what_the_verdict_paid_and_is_normalised_with_it() -> None:
    group = answered(16, 18, 20, 3, verdicts=(RIGHT, RIGHT, WRONG, LOST))
    paid = Outcome()(group)
    group = dataclasses.replace(group, rewards=tuple(paid))
    found = list(Overlong(max_tokens=20, buffer=4)(group))
    assert values(found) == [1.0, 0.5, -1.0, None]
    rows = group_advantages(found, AdvantageSettings(std=False))
    # one reward for the whole answer: mean 1/6
    assert [row and [round(v, 6) for v in row] for row in rows] == [[0.833333], [0.333333], [-1.166667], None]


def test_it_is_built_from_a_configuration() -> None:
    stage = build_stage(RewardSpec.model_validate({"name": "overlong", "max_tokens": 20, "buffer": 4}))
    assert values(list(stage(answered(19)))) == [-0.75]  # type: ignore[arg-type]
    with pytest.raises(UserError, match="overlong"):
        build_stage(RewardSpec(name="overlong"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_tokens": 20, "buffer": 0}, "buffer is 0"),
        ({"max_tokens": 20, "buffer": 21}, "buffer is 21, max_tokens 20"),
        ({"max_tokens": 20, "buffer": 4, "weight": -1.0}, "weight is -1.0"),
        ({"max_tokens": 20, "buffer": 4, "weight": float("nan")}, "weight is nan"),
    ],
)
def test_settings_that_cannot_punish_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Overlong(**arguments)
