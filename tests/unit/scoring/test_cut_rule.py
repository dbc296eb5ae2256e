"""No cut answer is worth more than the worst finished one, over random groups and for stages as users write them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest

from rlpost.algorithms.advantages import AdvantageSettings, compared_by, group_advantages, spread_over_tokens
from rlpost.algorithms.groups import total
from rlpost.config.schema import RewardSpec, ScoringSection
from rlpost.errors import InfrastructureError
from rlpost.plugins import objects
from rlpost.scoring.score import Scorer
from rlpost.selfcheck.endings import check_rejected
from rlpost.trajectory import Group
from rlpost.types import Prompt, Reward, SpanReward
from support.trajectories import answer, receipt

SCALES = ((0.0, 1.0), (-1.0, 1.0), (-3.0, -2.5, -1.0), (0.2, 0.7, 0.9), (-1.0,), (1.0,))


class Appends:
    """Pays the whole with a span of its own, as stages do that know nothing of earlier ones."""

    needs: tuple[str, ...] = ()
    place = 0

    def __call__(self, group: Group) -> list[Reward | None]:
        return [
            None if r is None else (*r, SpanReward(0, t.length, group.prompt.columns["paid"][i][self.place]))
            for i, (t, r) in enumerate(zip(group.trajectories, group.rewards, strict=True))
        ]


class Second(Appends):
    place = 1


class Letters:
    """Pays each letter; fails where the answer holds ``!``."""

    needs: tuple[str, ...] = ()

    def __call__(self, group: Group) -> list[Reward | None]:
        return [
            None if r is None else (*r, *self.spans(t.text, group.prompt.columns["paid"][i]))
            for i, (t, r) in enumerate(zip(group.trajectories, group.rewards, strict=True))
        ]

    def spans(self, text: str, paid: Sequence[float]) -> list[SpanReward]:
        if "!" in text:
            raise ValueError("no letter")
        return [SpanReward(1 + i, 2 + i, paid[i], i) for i, letter in enumerate(text) if letter != "."]


@pytest.fixture(autouse=True)
def stages(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"object:first": Appends, "object:second": Second, "object:letters": Letters}
    monkeypatch.setattr(objects, "_OBJECTS", known)


def group(texts: Sequence[str], cut: Sequence[bool], paid: Sequence[Sequence[float]]) -> Group:
    members = tuple(
        answer(text, i, finish="length" if was_cut else "stop")
        for i, (text, was_cut) in enumerate(zip(texts, cut, strict=True))
    )
    return Group(Prompt("p", text="x", columns={"paid": paid}), members)


def scored(one: Group, *names: str, **options: Any) -> Group:
    specs = tuple(RewardSpec(name=f"object:{name}") for name in names)
    [found] = Scorer(ScoringSection(rewards=specs, truncated="reject", **options)).score([one])
    return found


@pytest.mark.parametrize("names", [("first",), ("first", "second"), ("letters",), ("first", "letters", "second")])
def test_the_rule_over_random_groups(names: tuple[str, ...]) -> None:
    draw = random.Random(str(names))
    for _ in range(150):
        size, scale = draw.choice([2, 3, 5]), draw.choice(SCALES)
        texts = [draw.choice(["a", "b.", "cdc", "....", "e" * 6]) for _ in range(size)]
        cut = [draw.random() < 0.5 for _ in range(size)]
        found = scored(group(texts, cut, [[draw.choice(scale) for _ in range(6)] for _ in range(size)]), *names)
        check_rejected([receipt(found)])
        both = [[i for i in range(size) if cut[i] == kind and found.rewards[i]] for kind in (True, False)]
        if all(both):
            _check(found, *both, whole=names[0] == "first" and "letters" not in names)


def _check(found: Group, cut: list[int], finished: list[int], whole: bool) -> None:
    for baseline, std in itertools.product(("mean", "leave_one_out", "none"), (True, False)):
        advantages = group_advantages(found.rewards, AdvantageSettings(baseline=baseline, std=std))
        by_part: dict[Any, list[tuple[bool, float]]] = {}
        means: dict[int, float] = {}
        for i in (*cut, *finished):
            reward, row, one = found.rewards[i], advantages[i], found.trajectories[i]
            assert reward is not None
            assert row is not None
            for span, value in zip(reward, row, strict=True):
                by_part.setdefault(compared_by(span), []).append((i in cut, value))
            means[i] = float(spread_over_tokens(reward, row, one.length)[0][one.mask].mean())
        for values in by_part.values():
            theirs = [value for was_cut, value in values if not was_cut]
            assert all(value <= min(theirs) + 1e-9 for was_cut, value in values if was_cut and theirs)
        if whole:
            totals = {i: total(found, i) or 0.0 for i in means}
            assert max(totals[i] for i in cut) <= min(totals[i] for i in finished)
            assert max(means[i] for i in cut) <= min(means[i] for i in finished) + 1e-5


def test_spans_that_stages_append_for_the_whole_are_one_reward() -> None:
    found = scored(
        group(["a", "b", "c"], [False, False, True], [[1.0, -2.0], [1.0, 1.0], [9.0, 9.0]]), "first", "second"
    )
    assert [[s.value for s in r or ()] for r in found.rewards] == [[-1.0], [2.0], [-1.0]]
    check_rejected([receipt(found)])  # the worst single span was -2
    assert found.stage_rewards["second"] == (-2.0, 1.0, None)


def test_tokens_after_the_last_part_of_a_cut_answer_belong_to_the_part_that_is_missing() -> None:
    found = scored(group(["ab", "cd", "...."], [False, False, True], [[-1.0, -0.5], [-0.5, -1.0], []]), "letters")
    assert [(s.start, s.stop, s.value) for s in found.rewards[2] or ()] == [(1, 5, -1.0), (5, 5, -1.0)]


def test_of_all_cut_answers_the_least_of_a_part_counts() -> None:
    paid = [[-1.0, -1.0], [-5.0, -0.5], [-0.5, -0.5]]
    found = scored(group(["ab", "cd", "ef"], [False, True, True], paid), "letters")
    assert [[s.value for s in r or ()] for r in found.rewards] == [[-1.0, -1.0], [-5.0, -1.0], [-5.0, -1.0]]


def test_a_stage_of_parts_that_fails_on_a_cut_answer_leaves_it_its_floor() -> None:
    one = group(["ab", "cd", "ef!"], [False, False, True], [[-1.0, -1.0], [0.0, -0.5], [0.0] * 3])
    found = scored(one, "letters", reward_errors="undecided")
    assert [s.value for s in found.rewards[2] or ()] == [-1.0, -1.0]
    assert found.verdicts == (None, None, None)
    with pytest.raises(InfrastructureError, match=r"'Letters' fails on prompt 'p'.*no letter"):
        scored(one, "letters")


@pytest.mark.parametrize("threshold", [0.0, -1.0])
def test_a_cut_answer_never_passes(threshold: float) -> None:
    found = scored(group(["a", "b"], [False, True], [[1.0], [1.0]]), "first", pass_threshold=threshold)
    assert [v.outcome if v else None for v in found.verdicts] == ["accepted", "rejected"]
    assert found.verdicts[1] is not None
    assert found.verdicts[1].reason == "truncated"
