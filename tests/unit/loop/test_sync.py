"""When a run stops because its verifier does not decide. The loop itself is run for real in tests/ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from rlpost.config.load import from_dict
from rlpost.errors import InfrastructureError
from rlpost.loop.sync import StageTimer, check_undecided, shape
from rlpost.types import Completion, Group, Prompt, SpanReward, Verdict

LOST = Verdict("undecided", None, "crashed")
WRONG = Verdict("rejected", 0.0, "failed")


def batch(lost: int, decided: int) -> list[Group]:
    total = lost + decided
    completions = tuple(Completion("p", i, (1,), (2,), ((0, 1),), None, "x", "stop", 0, i) for i in range(total))
    verdicts = (LOST,) * lost + (WRONG,) * decided
    rewards = (None,) * lost + ((SpanReward(0, 1, 0.0),),) * decided
    return [Group(Prompt("p", text="p"), completions, verdicts, rewards)]


def test_a_batch_that_is_lost_is_forgiven_by_those_around_it() -> None:
    check_undecided([batch(0, 8), batch(6, 2), batch(0, 8)], limit=0.25)


def test_the_share_over_the_window_stops_the_run_with_the_commonest_reason() -> None:
    with pytest.raises(
        InfrastructureError, match=r"38% of the last 2 batches stayed undecided \(limit 25%\).*'crashed'"
    ):
        check_undecided([batch(0, 8), batch(6, 2)], limit=0.25)


def test_the_first_batch_stands_alone() -> None:
    with pytest.raises(InfrastructureError, match="100% of the last 1 batches"):
        check_undecided([batch(4, 0)], limit=0.5)


class Stage:
    """Pays each completion the sum of the learner's figures."""

    needs = ("learner_logprobs",)

    def __call__(self, group: Group) -> list:
        return [
            None if r is None else (SpanReward(0, 1, float(values.sum())),)
            for r, values in zip(group.rewards, group.learner_logprobs, strict=True)
        ]


class Scored:
    """Stands for a session whose learner gives completion ``i`` of a call the figure ``-i``."""

    def __init__(self, **algorithm: str):
        self.config = from_dict({"model": {"path": "m"}, "scoring": {"verifier": "function"}, "algorithm": algorithm})
        self.asked: list[int] = []

    def score(self, completions: Sequence[Completion]) -> Iterator[np.ndarray]:
        self.asked.append(len(completions))
        return (np.full(1, -float(i), np.float32) for i in range(len(completions)))


RIGHT = Verdict("accepted", 1.0, "ok")


def judged(*verdicts: Verdict) -> Group:
    completions = tuple(
        Completion("p", i, (1,), (2,), ((0, 1),), None, "x", "stop", 0, i) for i in range(len(verdicts))
    )
    return Group(
        Prompt("p", text="p"), completions, verdicts, tuple((SpanReward(0, 1, float(v.score or 0)),) for v in verdicts)
    )


def test_late_stages_see_the_learners_figures_of_the_groups_that_will_be_trained_on() -> None:
    session = Scored(filter="binary")
    groups = shape(session, [judged(RIGHT, RIGHT), judged(RIGHT, WRONG)], [Stage()], StageTimer())  # type: ignore[arg-type]
    assert session.asked == [2]
    assert [len(group.learner_logprobs) for group in groups] == [0, 2]
    assert [[span.value for span in reward or ()] for reward in groups[1].rewards] == [[-0.0], [-1.0]]
    assert [[span.value for span in reward or ()] for reward in groups[0].rewards] == [[1.0], [1.0]]


def test_every_group_is_scored_where_shaping_decides() -> None:
    session = Scored(filter="shaped")
    shape(session, [judged(RIGHT, RIGHT), judged(RIGHT, WRONG)], [Stage()], StageTimer())  # type: ignore[arg-type]
    assert session.asked == [4]


def test_without_late_stages_the_learner_is_not_asked() -> None:
    session = Scored()
    shape(session, [judged(RIGHT, WRONG)], [], StageTimer())  # type: ignore[arg-type]
    assert session.asked == []
