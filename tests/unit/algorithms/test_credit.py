"""From scored groups to samples. Not covered: the advantages themselves (algorithms/test_advantages.py), how a rank of
the learner fetches what it trains on (tests/unit/learner).
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Literal

import numpy as np
import pytest

from rlpost.algorithms.advantages import AdvantageSettings, group_advantages
from rlpost.algorithms.credit import Credit, assign, is_credited, train_samples, without_credit
from rlpost.learner.received import received
from rlpost.trajectory import FinishReason, Group, GroupReceipt, Segment, Trajectory, one_turn
from rlpost.types import Prompt, Reward, SpanReward, TrainSample, Verdict
from support.trajectories import receipt

PLAIN = partial(group_advantages, settings=AdvantageSettings(std=False))
NAN = np.float32(np.nan)


def member(index: int, size: int, reason: FinishReason = "stop", logprobs: bool = True) -> Trajectory:
    """An answer of so many tokens to a prompt of two."""
    values = [-0.5 - i for i in range(size)] if logprobs else None
    return one_turn((7, 8), range(10, 10 + size), logprobs=values, finish=reason, version=3, index=index)


def group(*members: tuple[Trajectory, float | None]) -> Group:
    rewards: tuple[Reward | None, ...] = tuple(
        None if value is None else (SpanReward(0, one.length, value),) for one, value in members
    )
    outcomes = {None: Verdict("undecided", None, "crashed"), 0.0: Verdict("rejected", 0.0, "no")}
    verdicts = tuple(outcomes.get(value, Verdict("accepted", 1.0, "yes")) for _, value in members)
    return Group(Prompt("p", text="x"), tuple(one for one, _ in members), verdicts, rewards)


def credited(*groups: Group, truncated: Literal["reject", "mask", "keep"] = "reject", filtered: bool = False) -> Credit:
    held = [receipt(one) for one in groups]
    return assign(held, PLAIN, step=4, group_filter="binary" if filtered else "off", truncated=truncated)


def made(found: Credit) -> list[TrainSample]:
    """The samples of a batch, as the learner makes them; handles are the things themselves."""
    return [train_samples(s.tokens[s.receipt.index], s.reward, s.advantages)[s.part] for s in found.batch.samples]


def test_a_sample_holds_what_was_sampled() -> None:
    found = credited(group((member(0, 2), 1.0), (member(1, 3), 0.0)))
    first, second = made(found)
    assert (found.batch.step, found.kept_groups, found.advantages) == (4, 1, [[0.5, -0.5]])
    assert first.token_ids.tolist() == [7, 8, 10, 11]
    assert second.token_ids.tolist() == [7, 8, 10, 11, 12]
    assert (first.prompt_tokens, second.prompt_tokens) == (2, 2)
    assert first.advantages.tolist() == [0.0, 0.0, 0.5, 0.5]
    assert second.advantages.tolist() == [0.0, 0.0, -0.5, -0.5, -0.5]
    assert first.rollout_logprobs is not None
    np.testing.assert_array_equal(first.rollout_logprobs, [NAN, NAN, -0.5, -1.5])
    assert (first.mask.tolist(), first.span_ids.tolist()) == ([False, False, True, True], [-1, -1, 0, 0])
    assert (first.versions.tolist(), first.part) == ([-1, -1, 3, 3], 0)
    dtypes = [a.dtype for a in (first.token_ids, first.mask, first.advantages, first.span_ids, first.versions)]
    assert dtypes == [np.int32, np.bool_, np.float32, np.int32, np.int32]


def test_undecided_completions_are_neither_trained_on_nor_counted() -> None:
    found = credited(group((member(0, 1), 1.0), (member(1, 1), None), (member(2, 1), 0.0)))
    # the mean is 1/2 over the two decided ones
    assert found.advantages == [[0.5, None, -0.5]]
    assert [sample.receipt.index for sample in found.batch.samples] == [0, 2]


def test_masked_truncated_completions_stay_in_the_baseline() -> None:
    cut = group((member(0, 1), 1.0), (member(1, 1, "length"), 0.0), (member(2, 1, "length"), 0.0))
    # mean 1/3 over all three
    assert credited(cut, truncated="mask").advantages == [[pytest.approx(2 / 3), None, None]]
    assert len(credited(cut, truncated="reject").batch.samples) == 3
    assert len(credited(cut, truncated="keep").batch.samples) == 3


def test_the_filter_drops_groups_and_says_how_many_are_left() -> None:
    same = group((member(0, 1), 1.0), (member(1, 1), 1.0))
    mixed = group((member(0, 1), 1.0), (member(1, 1), 0.0))
    found = credited(same, mixed, filtered=True)
    assert (found.kept_groups, found.advantages) == (1, [[None, None], [0.5, -0.5]])
    kept = credited(same, mixed)
    assert (kept.kept_groups, kept.advantages) == (2, [[0.0, 0.0], [0.5, -0.5]])


def test_a_completion_without_tokens_moves_nothing_but_counts() -> None:
    found = credited(group((member(0, 0), 0.0), (member(1, 1), 1.0)))
    assert found.advantages == [[None, 0.5]]


def test_without_engine_logprobs_a_sample_has_none() -> None:
    [sample] = made(credited(group((member(0, 1, logprobs=False), 1.0))))
    assert sample.rollout_logprobs is None


def test_nothing_decided_gives_no_batch() -> None:
    found = credited(group((member(0, 1), None)))
    assert (found.batch.samples, found.kept_groups, found.advantages) == ((), 0, [[None]])


def test_logprobs_computed_for_a_reward_stage_become_the_proximal_logprobs() -> None:
    """The learner has computed them already and should not do so twice."""
    one = group((member(0, 2), 1.0), (member(1, 1), 0.0))
    known = (np.float32([NAN, NAN, -1, -2]), np.float32([NAN, NAN, -3]))
    first, second = received(credited(dataclasses.replace(one, learner_logprobs=known)).batch, lambda handle: handle)
    assert first.proximal_logprobs is not None
    assert second.proximal_logprobs is not None
    np.testing.assert_array_equal(first.proximal_logprobs, known[0])
    np.testing.assert_array_equal(second.proximal_logprobs, known[1])
    without = received(credited(one).batch, lambda handle: handle)
    assert all(sample.proximal_logprobs is None for sample in without)


def dialogue(*parts: tuple[str, int], index: int = 0, **options: object) -> Trajectory:
    """A trajectory of segments with an origin and a number of tokens; the policy's tokens have log-probability -1."""
    segments, values, stop = [], list[float](), 0
    for origin, size in parts:
        start, stop = stop, stop + size
        segments.append(Segment(origin, start, stop, len(segments)))  # pyright: ignore[reportArgumentType]
        values += [-1.0 if origin == "policy" else NAN] * size
    policy = [segment for segment in segments if segment.origin == "policy"]
    versions = tuple((number, segment.start, segment.stop) for number, segment in enumerate(policy))
    one = Trajectory(
        None, index, np.arange(stop, dtype=np.int32), np.float32(values), versions, tuple(segments), status="done"
    )
    return dataclasses.replace(one, **options)  # pyright: ignore[reportArgumentType]


TWO_TURNS = (("prompt", 1), ("policy", 2), ("environment", 2), ("policy", 1))
TWO_SEQUENCES = (("prompt", 1), ("policy", 2), ("prompt", 3), ("environment", 1), ("policy", 1))


def test_an_environments_tokens_are_in_the_sample_and_never_trained_on() -> None:
    found = credited(group((dialogue(*TWO_TURNS), 1.0), (member(1, 1), 0.0)))
    first, _ = made(found)
    assert first.token_ids.tolist() == list(range(6))
    assert first.mask.tolist() == [False, True, True, False, False, True]
    # the reward's span covers all six tokens
    assert first.advantages.tolist() == [0.0, 0.5, 0.5, 0.0, 0.0, 0.5]
    assert first.span_ids.tolist() == [-1, 0, 0, -1, -1, 0]
    assert first.versions.tolist() == [-1, 0, 0, -1, -1, 1]
    assert found.advantages == [[0.5, -0.5]]


def test_a_trajectory_of_several_sequences_has_a_sample_for_each() -> None:
    found = credited(group((dialogue(*TWO_SEQUENCES), 1.0), (member(1, 1), 0.0)))
    first, second, _ = made(found)
    assert (first.token_ids.tolist(), second.token_ids.tolist()) == ([0, 1, 2], [3, 4, 5, 6, 7])
    assert (first.advantages.tolist(), second.advantages.tolist()) == ([0.0, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0, 0.5])
    assert (first.part, second.part) == (0, 1)
    assert (first.prompt_tokens, second.prompt_tokens) == (1, 4)
    assert found.advantages == [[0.5, -0.5]]


def test_the_mean_advantage_is_one_over_sampled_tokens() -> None:
    scored = group((dialogue(*TWO_TURNS), 0.0), (member(1, 1), 0.0))
    spans = (SpanReward(0, 3, 3.0), SpanReward(3, 6, 9.0, index=1))
    scored = dataclasses.replace(scored, rewards=(spans, scored.rewards[1]))
    # index 0: 3 and 0 around 1.5; index 1 has one member; two of the three sampled tokens are in the first span
    assert credited(scored).advantages == [[1.0, -1.5]]


def test_a_sequence_in_which_nothing_was_sampled_has_no_sample() -> None:
    ended = dialogue(("prompt", 1), ("policy", 2), ("prompt", 3), ("policy", 0))
    samples = credited(group((ended, 1.0), (member(1, 1), 0.0))).batch.samples
    assert [(sample.receipt.index, sample.part) for sample in samples] == [(0, 0), (1, 0)]
    assert [[s.part for s in row] for row in without_credit([receipt(group((ended, 1.0)))])[0]] == [[0]]


def test_trajectories_cut_at_the_limit_on_turns_are_masked_like_those_cut_at_one_on_tokens() -> None:
    cut = group((dialogue(*TWO_TURNS, status="turns"), 1.0), (member(1, 1), 0.0))
    assert credited(cut, truncated="mask").advantages == [[None, -0.5]]
    assert credited(cut, truncated="keep").advantages == [[0.5, -0.5]]


def test_a_sample_is_credited_if_an_advantage_reaches_a_sampled_token_of_its_sequence() -> None:
    one = dialogue(*TWO_SEQUENCES)

    def flags(start: int, stop: int, value: float = 1.0) -> list[bool]:
        held: GroupReceipt = receipt(dataclasses.replace(group((one, 1.0)), rewards=((SpanReward(start, stop, 1.0),),)))
        samples = assign([held], lambda rewards: [[value]], step=0).batch.samples
        found = [is_credited(sample) for sample in samples]
        # the same by looking at the tokens
        assert found == [bool(np.any(s.advantages)) for s in train_samples(one, held.rewards[0] or (), [value])]
        return found

    assert flags(0, 8) == [True, True]
    assert flags(0, 8, 0.0) == [False, False]
    assert flags(2, 7) == [True, False]
    assert flags(7, 8) == [False, True]
    assert flags(3, 7) == [False, False]  # the second prompt and an observation
    assert flags(2, 2) == [False, False]


def test_a_span_that_ends_beyond_its_trajectory_is_refused() -> None:
    scored = dataclasses.replace(group((member(0, 1), 1.0)), rewards=((SpanReward(0, 4, 1.0),),))
    with pytest.raises(ValueError, match=r"\[0, 4\) ends beyond a trajectory of 3 tokens"):
        credited(scored)
    with pytest.raises(ValueError, match=r"\[0, 4\) ends beyond a trajectory of 3 tokens"):
        train_samples(scored.trajectories[0], (SpanReward(0, 4, 1.0),), [0.0])


def test_the_batchs_deviation_is_that_of_the_groups_that_are_trained_on() -> None:
    mixed, far = group((member(0, 2), 1.0), (member(1, 2), 0.0)), group((member(0, 2), 9.0), (member(1, 2), 9.0))
    settings = AdvantageSettings(eps=1e-9)
    held = [receipt(mixed), receipt(far)]
    # 1, 0, 9, 9: mean 4.75, squares 14.0625 + 22.5625 + 2 · 18.0625 = 72.75, over 3
    every = assign(held, PLAIN, step=0, batch_std=settings)
    scale = (72.75 / 3) ** 0.5
    assert every.advantages == [[pytest.approx(0.5 / scale), pytest.approx(-0.5 / scale)], [0.0, 0.0]]
    # the second group is filtered out, and is no part of the deviation: 0.5 over √0.5
    kept = assign(held, PLAIN, step=0, batch_std=settings, group_filter="binary")
    assert kept.advantages == [[pytest.approx(0.5**0.5), pytest.approx(-(0.5**0.5))], [None, None]]
    assert kept.kept_groups == 1


def test_groups_that_are_mostly_right_weigh_less_with_a_focal_exponent() -> None:
    # two of three decided members are accepted: (1/3)^1; one of two: 1/2; the undecided member is not counted
    easy = group((member(0, 2), 1.0), (member(1, 2), 1.0), (member(2, 2), 0.0), (member(3, 2), None))
    even = group((member(0, 2), 1.0), (member(1, 2), 0.0))
    found = assign([receipt(easy), receipt(even)], PLAIN, step=0, focal_gamma=1.0)
    ninth = pytest.approx(1 / 9)
    assert found.advantages == [[ninth, ninth, pytest.approx(-2 / 9), None], [0.25, -0.25]]
    plain = assign([receipt(easy), receipt(even)], PLAIN, step=0)
    assert plain.advantages[1] == [0.5, -0.5]


def test_without_a_verifier_a_positive_reward_counts_as_correct_for_the_focal_weight() -> None:
    given = dataclasses.replace(group((member(0, 2), 2.0), (member(1, 2), -1.0)), verdicts=(None, None))
    found = assign([receipt(given)], PLAIN, step=0, focal_gamma=2.0)
    assert found.advantages == [[pytest.approx(1.5 / 4), pytest.approx(-1.5 / 4)]]
