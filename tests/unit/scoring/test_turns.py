"""Returns of turns by hand, through to advantages and the scorer. Not covered: environments (tests/unit/rollout)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from rlpost.algorithms.advantages import AdvantageSettings, group_advantages, spread_over_tokens
from rlpost.config.schema import RewardSpec, ScoringSection
from rlpost.errors import UserError
from rlpost.scoring.score import Scorer, drop_empty_rewards
from rlpost.scoring.stages import run_stages
from rlpost.trajectory import Group, Segment, Status, Trajectory
from rlpost.types import Prompt, Reward, SpanReward, Verdict
from rlpost_rewards.outcome import Outcome
from rlpost_rewards.turns import TurnReturns, returns_to_go
from support.trajectories import receipt

RIGHT, WRONG = Verdict("accepted", 1.0, "won"), Verdict("rejected", 0.0, "lost")
PLAIN = AdvantageSettings(std=False)


def played(
    *rewards: float | None, index: int = 0, status: Status = "done", verdict: Verdict | None = None
) -> Trajectory:
    """A prompt of two tokens, then for each reward a turn of two tokens, with an observation of one between turns."""
    segments, stop = [Segment("prompt", 0, 2, -1)], 2
    for turn, reward in enumerate(rewards):
        if turn:
            segments.append(Segment("environment", stop, stop + 1, turn - 1, "?"))
            stop += 1
        segments.append(Segment("policy", stop, stop + 2, turn, "ab", finish="stop", reward=reward))
        stop += 2
    versions = tuple((0, one.start, one.stop) for one in segments if one.origin == "policy")
    ids = np.arange(stop, dtype=np.int32)
    return Trajectory(None, index, ids, None, versions, tuple(segments), status, verdict)


def group(*members: Trajectory, rewards: tuple[Reward | None, ...] | None = None) -> Group:
    verdicts = tuple(one.verdict for one in members)
    return Group(Prompt("p", text="x"), members, verdicts, ((),) * len(members) if rewards is None else rewards)


def spans(reward: Reward | None) -> list[tuple[int, int, float, int]]:
    assert reward is not None
    return [(s.start, s.stop, s.value, s.index) for s in reward]


def credited(stage: TurnReturns, members: Group) -> list[Reward | None]:
    return list(stage(members).rewards)


def test_returns_by_hand() -> None:
    # 3; 2 + 3/2; 1 + (2 + 3/2)/2
    assert returns_to_go([1.0, 2.0, 3.0], 0.5) == [2.75, 3.5, 3.0]
    assert returns_to_go([1.0, 2.0, 3.0], 1.0) == [6.0, 5.0, 3.0]
    assert returns_to_go([1.0, 2.0, 3.0], 0.0) == [1.0, 2.0, 3.0]
    assert returns_to_go([], 0.5) == []


def test_every_turn_is_a_span_worth_all_rewards_from_it_on() -> None:
    # tokens: prompt 0-1, turns 2-3, 5-6 and 8-9, observations 4 and 7; a turn without a reward earns 0
    [reward] = credited(TurnReturns(gamma=0.5), group(played(1.0, None, 3.0)))
    assert spans(reward) == [(2, 4, 1.75, 0), (5, 7, 1.5, 1), (8, 10, 3.0, 2)]
    assert [s.value for s in credited(TurnReturns(), group(played(1.0, None, 3.0)))[0] or ()] == [4.0, 3.0, 3.0]


def test_a_missing_turn_counts_as_zero_and_is_not_dropped() -> None:
    """Ending early must be compared with going on: otherwise the second turn would have nothing to be better than."""
    both = group(played(0.0, 1.0), played(1.0, index=1))
    rewards = credited(TurnReturns(), both)
    assert spans(rewards[1]) == [(2, 4, 1.0, 0), (4, 4, 0.0, 1)]
    # turn 0: returns 1 and 1; turn 1: 1 and 0 around 1/2
    advantages = group_advantages(rewards, PLAIN)
    assert advantages == [[0.0, 0.5], [0.0, -0.5]]
    long, short = (
        spread_over_tokens(reward or (), row or (), one.length)[0].tolist()
        for reward, row, one in zip(rewards, advantages, both.trajectories, strict=True)
    )
    assert long == [0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5]
    assert short == [0.0] * 4  # a turn that is not there has no token to train
    dropped = [tuple(span for span in reward or () if span.start < span.stop) for reward in rewards]
    assert group_advantages(dropped, PLAIN) == [[0.0, 0.0], [0.0]]


def test_going_on_to_lose_is_worse_than_not_going_on() -> None:
    rewards = credited(TurnReturns(), group(played(None, -1.0), played(0.0, index=1), played(0.0, index=2)))
    # turn 0: -1, 0, 0 around -1/3; turn 1: -1, and 0 for the two that ended, around -1/3
    expected = [[-2 / 3, -2 / 3], [1 / 3, 1 / 3], [1 / 3, 1 / 3]]
    assert group_advantages(rewards, PLAIN) == [pytest.approx(row) for row in expected]


def test_an_earlier_stages_outcome_is_a_reward_of_the_last_turn() -> None:
    both = group(played(None, None, None, verdict=RIGHT), played(0.5, None, index=1, verdict=WRONG))
    [found] = run_stages([both], [("outcome", Outcome(weight=2.0)), ("turns", TurnReturns(gamma=0.5))])
    assert spans(found.rewards[0]) == [(2, 4, 0.5, 0), (5, 7, 1.0, 1), (8, 10, 2.0, 2)]
    assert spans(found.rewards[1]) == [(2, 4, 0.5, 0), (5, 7, 0.0, 1), (7, 7, 0.0, 2)]
    # an outcome and the environment's own reward of the last turn add up, whatever part of the prompt is covered
    for start in (0, 1, 2):
        [reward] = credited(TurnReturns(), group(played(0.0, 0.25), rewards=((SpanReward(start, 7, 1.0),),)))
        assert [s.value for s in reward or ()] == [1.25, 1.25]


def test_where_nothing_gave_a_reward_there_is_none() -> None:
    both = group(played(None, None), played(None, 0.0, index=1))
    [found] = run_stages([both], [("turns", TurnReturns())])
    assert found.rewards[0] == ()
    assert spans(found.rewards[1]) == [(2, 4, 0.0, 0), (5, 7, 0.0, 1)]  # a reward of 0 is a reward
    assert drop_empty_rewards(receipt(found)).rewards[0] is None


def test_an_undecided_trajectory_stays_undecided() -> None:
    both = group(played(1.0, 1.0), played(1.0, 1.0, 1.0, index=1), rewards=((), None))
    first, second = credited(TurnReturns(), both)
    assert second is None
    assert [value for *_, value, _ in spans(first)][:2] == [2.0, 1.0]


@pytest.mark.parametrize(
    "span",
    [SpanReward(2, 4, 1.0), SpanReward(3, 7, 1.0), SpanReward(0, 6, 1.0), SpanReward(0, 7, 1.0, index=1)],
    ids=["one turn", "not from the start", "not to the end", "an index"],
)
def test_a_reward_of_a_part_is_refused(span: SpanReward) -> None:
    with pytest.raises(UserError, match="only rewards of whole trajectories can become returns of turns") as caught:
        credited(TurnReturns(), group(played(None, 1.0), rewards=((span,),)))
    assert f"tokens {span.start} to {span.stop} (index {span.index})" in str(caught.value)


def test_what_is_added_to_the_advantage_is_kept_as_it_is() -> None:
    extra = SpanReward(3, 4, -0.1, 5, "advantage")
    [reward] = credited(TurnReturns(), group(played(None, 1.0), rewards=((SpanReward(0, 7, 1.0), extra),)))
    assert reward == (SpanReward(2, 4, 2.0, 0), SpanReward(5, 7, 2.0, 1), extra)


@pytest.mark.parametrize("gamma", [-0.1, 1.1, float("nan")])
def test_a_discount_outside_zero_and_one_is_refused(gamma: float) -> None:
    with pytest.raises(UserError, match=f"turns: gamma is {gamma}; give a discount between 0 and 1"):
        TurnReturns(gamma=gamma)
    assert [TurnReturns(gamma=g).gamma for g in (0.0, 1.0)] == [0.0, 1.0]


@pytest.mark.parametrize("missing", ["drop", "", None])
def test_turns_that_are_missing_cannot_be_dropped(missing: Any) -> None:
    with pytest.raises(UserError, match="only zero is unbiased"):
        TurnReturns(missing=missing)
    assert TurnReturns(missing="zero").needs == ()


def scorer(*names: str, truncated: str = "reject") -> Scorer:
    """A scorer whose verdicts are the environment's."""
    rewards = tuple(RewardSpec(name=name) for name in names)
    return Scorer(ScoringSection(verifier=None, rewards=rewards, truncated=truncated), dialogues=True)  # type: ignore[arg-type]


def cut(status: Status) -> Group:
    """One that won in three turns, and one that was cut in its second, with a reward for the first."""
    return group(played(None, None, None, verdict=RIGHT), played(5.0, None, index=1, status=status))


@pytest.mark.parametrize("status", ["length", "turns"])
def test_a_truncated_trajectory_that_counts_as_wrong_gets_zero_for_every_turn(status: Status) -> None:
    [found] = scorer("outcome", "turns").score([cut(status)])
    assert spans(found.rewards[0]) == [(2, 4, 1.0, 0), (5, 7, 1.0, 1), (8, 10, 1.0, 2)]
    assert spans(found.rewards[1]) == [(2, 4, 0.0, 0), (5, 7, 0.0, 1), (7, 7, 0.0, 2)]
    assert found.verdicts[1] is not None
    assert (found.verdicts[1].outcome, found.verdicts[1].reason) == ("rejected", "truncated")
    # it is part of the baseline of each turn
    assert group_advantages(found.rewards, PLAIN) == [[0.5] * 3, [-0.5] * 3]


def test_a_truncated_trajectory_that_is_kept_earns_what_it_has_earned() -> None:
    kept = dataclasses.replace(played(5.0, None, index=1, status="turns"), verdict=WRONG)
    [found] = scorer("outcome", "turns", truncated="keep").score([group(played(None, verdict=RIGHT), kept)])
    assert spans(found.rewards[1]) == [(2, 4, 5.0, 0), (5, 7, 0.0, 1)]


def test_a_truncated_trajectory_gets_zero_for_every_turn_also_after_a_stage_that_needs_the_learner() -> None:
    late = scorer("outcome", "unlikeliness", "turns")
    [scored] = late.score([cut("length")])
    logprobs = tuple(np.where(one.mask, -1.0, np.nan).astype(np.float32) for one in scored.trajectories)
    [found] = late.finish([dataclasses.replace(scored, learner_logprobs=logprobs)])
    assert [index for *_, index in spans(found.rewards[0])] == [0, 1, 2]
    assert spans(found.rewards[1]) == [(2, 4, 0.0, 0), (5, 7, 0.0, 1), (7, 7, 0.0, 2)]


def test_the_mean_return_and_number_of_turns_are_logged() -> None:
    figures = TurnReturns()(group(played(1.0, 2.0), played(0.5), rewards=((), ()))).metrics
    assert figures == {"return": (3.0 + 0.5) / 2, "turns": 1.5}


def test_a_trajectory_cut_at_a_limit_has_earned_what_it_has_earned() -> None:
    cut = played(None, status="length"), played(1.0, None, status="length")
    assert [[s.value for s in reward or ()] for reward in credited(TurnReturns(), group(*cut))] == [
        [0.0, 0.0],
        [1.0, 0.0],
    ]
