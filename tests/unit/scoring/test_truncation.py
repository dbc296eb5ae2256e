"""What a trajectory that was cut is worth. Not covered: how it ends (test_episode.py), its loss (test_credit.py)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlpost.algorithms.advantages import AdvantageSettings, group_advantages
from rlpost.config.schema import RewardSpec, ScoringSection
from rlpost.errors import SelfCheckError, UserError
from rlpost.scoring.score import Scorer
from rlpost.scoring.truncation import amounts
from rlpost.selfcheck.endings import check_rejected
from rlpost.trajectory import FinishReason, Group
from rlpost.types import Prompt, SpanReward
from support.trajectories import answer, receipt

REWARDS = """
from rlpost.types import SpanReward

def right(text, columns):
    return text == columns["answer"]

def plus_minus(text, columns):
    return 1.0 if text == columns["answer"] else -1.0

def cost(completions, **columns):
    return [-len(text) / 10 for text in completions]

def shifted(completions, **columns):
    return [5.0 - len(text) for text in completions]

def signs(completions, **columns):
    return [1.0 if text.startswith("4") else -1.0 for text in completions]

def logit(completions, **columns):
    return [-3.0 + text.count("4") for text in completions]

def bonus(completions, **columns):
    return [3.0 for text in completions]

class Letters:
    "Pays for each letter, without saying beforehand that it pays for parts."
    needs = ()
    def __call__(self, group):
        return [
            None if r is None else (*r, *(
                SpanReward(1 + i, 2 + i, {"4": 0.0, "5": -1.0}.get(letter, -0.5), i) for i, letter in enumerate(t.text)
            ))
            for t, r in zip(group.trajectories, group.rewards)
        ]

class Late:
    "Pays everybody 3 once the learner's log-probabilities are there."
    needs = ("learner_logprobs",)
    def __call__(self, group):
        return [
            None if r is None else (SpanReward(0, t.length, 3.0 + sum(s.value for s in r)),)
            for t, r in zip(group.trajectories, group.rewards)
        ]

class Lists:
    "Every letter is an item: 4 is liked, 5 is disliked, anything else does not count."
    fingerprint = "lists"
    asked = []
    def verify_batch(self, items):
        from rlpost.types import ItemVerdict, Verdict
        found = []
        for item in items:
            self.asked.append(item.text)
            scores = [{"4": 1.0, "5": -1.0}.get(letter, 0.0) for letter in item.text]
            verdicts = tuple(ItemVerdict(i, i + 1, "accepted", s, "hit", i) for i, s in enumerate(scores))
            found.append(Verdict("accepted", sum(scores), "list", verdicts, evidence={"relevant": 1}))
        return found
    def close(self):
        pass
"""
PLAIN = AdvantageSettings(std=False)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "rewards.py"
    path.write_text(REWARDS)
    return str(path)


def group(*texts: str, cut: Sequence[int] = (), right: str = "4") -> Group:
    ends: list[FinishReason] = ["length" if i in cut else "stop" for i in range(len(texts))]
    members = tuple(answer(text, i, finish=end) for i, (text, end) in enumerate(zip(texts, ends, strict=True)))
    return Group(Prompt("p", text="2+2", columns={"answer": right}), members)


def scored(one: Group, *rewards: dict[str, Any], **section: Any) -> Group:
    specs = tuple(RewardSpec(**reward) for reward in rewards)
    options: dict[str, Any] = {"truncated": "reject", **section}
    scorer = Scorer(ScoringSection(rewards=specs, **options))
    [found] = scorer.score([one])
    if scorer.late:
        logprobs = tuple(np.zeros(t.length, np.float32) for t in one.trajectories)
        [found] = scorer.finish([dataclasses.replace(found, learner_logprobs=logprobs)])
    return found


def totals(found: Group) -> list[float | None]:
    return [None if r is None else sum(s.value for s in r if s.channel == "reward") for r in found.rewards]


def worst_is_cut(found: Group, cut: int) -> None:
    """The cut member has no larger total and no larger mean advantage than any finished one."""
    paid = totals(found)
    assert paid[cut] is not None
    assert all(paid[cut] <= other for i, other in enumerate(paid) if i != cut and other is not None)
    check_rejected([receipt(found)])


@pytest.mark.parametrize(("reward", "texts", "expected"), [
    ("cost", ("4", "444", "x" * 9), [-0.1, -0.3, -0.3]),  # cost of length
    ("signs", ("4", "5", "x"), [1.0, -1.0, -1.0]),
    ("signs", ("5", "5", "x"), [-1.0, -1.0, -1.0]),
    ("signs", ("4", "4", "x"), [1.0, 1.0, 0.0]),
    ("shifted", ("4", "44", "x"), [4.0, 3.0, 0.0]),
    ("logit", ("4", "x", "444444444"), [-2.0, -3.0, -3.0]),
])  # fmt: skip
def test_a_cut_answer_is_worth_no_more_than_the_worst_finished_one(
    file: str, reward: str, texts: tuple[str, ...], expected: list[float]
) -> None:
    found = scored(group(*texts, cut=[2]), {"name": f"{file}:{reward}"})
    assert totals(found) == pytest.approx(expected)
    worst_is_cut(found, 2)


def test_a_floor_that_a_reward_declares_is_what_a_cut_answer_gets(file: str) -> None:
    found = scored(group("4", "4", "x", cut=[2]), {"name": f"{file}:signs", "floor": -1.0, "weight": 2.0})
    assert totals(found) == [2.0, 2.0, -2.0]


def test_floors_of_all_stages_add_up(file: str) -> None:
    stages = {"name": "outcome"}, {"name": "overlong", "max_tokens": 8, "buffer": 4, "weight": 0.5}
    found = scored(group("4", "4", "xxxxxxxx", cut=[2]), *stages, verifier="function",
                   verifier_args={"function": f"{file}:right"})  # fmt: skip
    assert totals(found) == [1.0, 1.0, -0.5]


@pytest.mark.parametrize("floor", [float("nan"), float("inf"), "low"])
def test_a_floor_that_is_no_number_is_refused(file: str, floor: Any) -> None:
    with pytest.raises((UserError, ValueError), match=r"floor|finite|number"):
        scored(group("4"), {"name": f"{file}:signs", "floor": floor})


def test_grades_of_a_verifier_below_zero(file: str) -> None:
    judged = {"verifier": "function", "verifier_args": {"function": f"{file}:plus_minus"}}
    assert totals(scored(group("4", "5", "44", cut=[2]), {"name": "outcome"}, **judged)) == [1.0, -1.0, -1.0]
    assert totals(scored(group("5", "6", "44", cut=[2]), {"name": "outcome"}, **judged)) == [-1.0, -1.0, -1.0]


def test_a_cut_answer_stays_the_worst_after_stages_that_wait_for_the_learner(file: str) -> None:
    judged = {"verifier": "function", "verifier_args": {"function": f"{file}:right"}}
    stages = {"name": "outcome"}, {"name": f"{file}:Late"}, {"name": f"{file}:bonus"}, {"name": f"{file}:cost"}
    found = scored(group("4", "5", "44", cut=[2]), *stages, **judged)
    # 1 + 3 + 3 - 0.1; 0 + 3 + 3 - 0.1; a wrong answer that was cut: 0, below both
    assert totals(found) == pytest.approx([6.9, 5.9, 0.0])
    worst_is_cut(found, 2)


def test_unlikeliness_lowers_a_negative_reward_too(file: str) -> None:
    judged = {"verifier": "function", "verifier_args": {"function": f"{file}:right"}}
    one = group("4", "4", "5")
    members = tuple(
        dataclasses.replace(t, logprobs=np.array([np.nan, value], np.float32))
        for t, value in zip(one.trajectories, (-0.1, -3.0, -1.0), strict=True)
    )
    one = dataclasses.replace(one, trajectories=members)
    stages = {"name": "outcome"}, {"name": f"{file}:cost", "weight": 20.0}, {
        "name": "unlikeliness", "source": "rollout", "beta": 0.5, "ties": "order"
    }  # fmt: skip
    likely, rare, _ = totals(scored(one, *stages, **judged))
    assert likely is not None
    assert rare is not None
    assert likely < rare == -1.0


def test_parts_of_a_cut_answer_are_worth_what_the_worst_part_of_a_finished_one_is(file: str) -> None:
    found = scored(group("45", "54", "4xx", cut=[2]), {"name": f"{file}:Letters"})
    assert found.rewards[2] == (
        SpanReward(1, 2, -1.0, 0, stage="Letters"),
        SpanReward(2, 3, -1.0, 1, stage="Letters"),
        SpanReward(3, 4, 0.0, 2, stage="Letters"),  # nobody else has a third
    )
    check_rejected([receipt(found)])


def test_parts_that_a_cut_answer_lacks_count_in_the_baseline(file: str) -> None:
    found = scored(group("44", "45", "x", cut=[2]), {"name": f"{file}:Letters"})
    assert found.rewards[2] == (
        SpanReward(1, 2, -0.5, 0, stage="Letters"),  # its own, and below the worst finished one's
        SpanReward(2, 2, -1.0, 1, stage="Letters"),
    )


def test_a_cut_list_is_pushed_down_at_each_of_its_ranks(file: str) -> None:
    lists = {"verifier": f"{file}:Lists", "truncated": "reject"}
    found = scored(group("4xx4", "x4xx", "444", cut=[2]), {"name": "ranking", "size": 4, "early": 0.0}, **lists)
    ranks = [(s.start, s.stop, s.value, s.index) for s in found.rewards[2] or () if s.stage and s.index >= 0]
    assert ranks == [(1, 2, 0.0, 0), (2, 3, 0.0, 1), (3, 4, 0.0, 2), (4, 4, 0.0, 3)]
    advantages = group_advantages(found.rewards, PLAIN)
    lowest = [min(a[k] for a in advantages if a is not None) for k in range(4)]
    assert advantages[2] is not None
    assert advantages[2][:4] == pytest.approx(lowest)
    assert found.verdicts[2] is not None
    assert (found.verdicts[2].outcome, found.verdicts[2].score, len(found.verdicts[2].items)) == ("rejected", 0.0, 3)


def test_a_list_with_dislikes_does_not_gain_by_ending_early(file: str) -> None:
    lists = {"verifier": f"{file}:Lists", "truncated": "keep"}
    found = scored(group("45", "4"), {"name": "ranking", "size": 2, "early": 0.0}, **lists)
    values = [[s.value for s in reward or () if s.index >= 0] for reward in found.rewards]
    assert values == [[1.0, -1.0], [1.0, -1.0]]


def test_only_cut_answers_have_no_contrast(file: str) -> None:
    found = scored(group("4", "44", cut=[0, 1]), {"name": f"{file}:cost"})
    assert totals(found) == [0.0, 0.0]


def test_without_a_verifier_cut_answers_are_kept_by_default(file: str) -> None:
    kept = scored(group("4", "444", cut=[1]), {"name": f"{file}:cost"}, truncated="auto")
    assert totals(kept) == pytest.approx([-0.1, -0.3])
    judged = {"verifier": "function", "verifier_args": {"function": f"{file}:right"}, "truncated": "auto"}
    assert totals(scored(group("4", "4", cut=[1]), {"name": "outcome"}, **judged)) == [1.0, 0.0]


@pytest.mark.parametrize(("truncated", "verifier", "dialogues", "expected"), [
    ("auto", None, False, "keep"), ("auto", "math", False, "reject"), ("auto", None, True, "reject"),
    ("mask", None, False, "mask"), ("reject", None, False, "reject"), ("keep", "math", True, "keep"),
])  # fmt: skip
def test_what_auto_means(truncated: Any, verifier: str | None, dialogues: bool, expected: str) -> None:
    assert ScoringSection(truncated=truncated, verifier=verifier).truncation(dialogues) == expected


def test_the_selfcheck_sees_a_cut_answer_that_is_paid_best() -> None:
    paid = dataclasses.replace(
        group("4", "x", cut=[1]),
        verdicts=(None, None),
        rewards=((SpanReward(0, 2, -0.5),), (SpanReward(0, 2, 0.0),)),
    )
    with pytest.raises(SelfCheckError, match=r"answer 1 .* was cut and got the reward 0 .*worst finished one \(-0.5\)"):
        check_rejected([receipt(paid)])


def test_what_stages_pay_for_the_whole_adds_up_and_parts_do_not() -> None:
    reward = (
        SpanReward(0, 9, 1.0),
        SpanReward(0, 9, -3.0),
        SpanReward(1, 2, 1.0, stage="a"),
        SpanReward(2, 3, 0.0, stage="a"),
    )
    assert amounts(reward) == {("", 0): -2.0, ("a", 0): 0.0}
