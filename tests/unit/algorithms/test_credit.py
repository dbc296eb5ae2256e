"""From scored groups to samples. Not covered: the advantages themselves (algorithms/test_advantages.py)."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Literal

import numpy as np
import pytest

from rlpost.algorithms.advantages import AdvantageSettings, group_advantages
from rlpost.algorithms.credit import Credit, assign
from rlpost.types import Completion, FinishReason, Group, Prompt, Reward, SpanReward, Verdict

PLAIN = partial(group_advantages, settings=AdvantageSettings(std=False))


def completion(index: int, size: int, reason: FinishReason = "stop", logprobs: bool = True) -> Completion:
    values = tuple(-0.5 - i for i in range(size)) if logprobs else None
    return Completion("p", index, (7, 8), tuple(range(10, 10 + size)), ((0, 0),) * size, values, "", reason, 3, index)


def group(*members: tuple[Completion, float | None]) -> Group:
    rewards: tuple[Reward | None, ...] = tuple(
        None if value is None else (SpanReward(0, len(c.token_ids), value),) for c, value in members
    )
    outcomes = {None: Verdict("undecided", None, "crashed"), 0.0: Verdict("rejected", 0.0, "no")}
    verdicts = tuple(outcomes.get(value, Verdict("accepted", 1.0, "yes")) for _, value in members)
    return Group(Prompt("p", text="x"), tuple(c for c, _ in members), verdicts, rewards)


def credited(*groups: Group, truncated: Literal["reject", "mask", "keep"] = "reject", filtered: bool = False) -> Credit:
    return assign(groups, PLAIN, step=4, group_filter="binary" if filtered else "off", truncated=truncated)


def test_a_sample_holds_what_was_sampled() -> None:
    found = credited(group((completion(0, 2), 1.0), (completion(1, 3), 0.0)))
    first, second = found.batch.samples
    assert (found.batch.step, found.kept_groups, found.advantages) == (4, 1, [[0.5, -0.5]])
    assert (first.prompt_ids.tolist(), first.completion_ids.tolist()) == ([7, 8], [10, 11])
    assert second.completion_ids.tolist() == [10, 11, 12]
    assert (first.advantages.tolist(), second.advantages.tolist()) == ([0.5] * 2, [-0.5] * 3)
    assert first.rollout_logprobs is not None
    assert first.rollout_logprobs.tolist() == [-0.5, -1.5]
    assert (first.mask.tolist(), first.span_ids.tolist(), first.policy_version) == ([True, True], [0, 0], 3)
    dtypes = [a.dtype for a in (first.prompt_ids, first.completion_ids, first.advantages, first.span_ids, first.mask)]
    assert dtypes == [np.int64, np.int64, np.float32, np.int64, np.bool_]


def test_undecided_completions_are_neither_trained_on_nor_counted() -> None:
    found = credited(group((completion(0, 1), 1.0), (completion(1, 1), None), (completion(2, 1), 0.0)))
    # the mean is 1/2 over the two decided ones
    assert found.advantages == [[0.5, None, -0.5]]
    assert len(found.batch.samples) == 2


def test_masked_truncated_completions_stay_in_the_baseline() -> None:
    cut = group((completion(0, 1), 1.0), (completion(1, 1, "length"), 0.0), (completion(2, 1, "length"), 0.0))
    # mean 1/3 over all three
    assert credited(cut, truncated="mask").advantages == [[pytest.approx(2 / 3), None, None]]
    assert len(credited(cut, truncated="reject").batch.samples) == 3
    assert len(credited(cut, truncated="keep").batch.samples) == 3


def test_the_filter_drops_groups_and_says_how_many_are_left() -> None:
    same = group((completion(0, 1), 1.0), (completion(1, 1), 1.0))
    mixed = group((completion(0, 1), 1.0), (completion(1, 1), 0.0))
    found = credited(same, mixed, filtered=True)
    assert (found.kept_groups, found.advantages) == (1, [[None, None], [0.5, -0.5]])
    kept = credited(same, mixed)
    assert (kept.kept_groups, kept.advantages) == (2, [[0.0, 0.0], [0.5, -0.5]])


def test_a_completion_without_tokens_moves_nothing_but_counts() -> None:
    found = credited(group((completion(0, 0), 0.0), (completion(1, 1), 1.0)))
    assert found.advantages == [[None, 0.5]]


def test_without_engine_logprobs_a_sample_has_none() -> None:
    [sample] = credited(group((completion(0, 1, logprobs=False), 1.0))).batch.samples
    assert sample.rollout_logprobs is None


def test_nothing_decided_gives_no_batch() -> None:
    found = credited(group((completion(0, 1), None)))
    assert (found.batch.samples, found.kept_groups, found.advantages) == ((), 0, [[None]])


def test_logprobs_computed_for_a_reward_stage_become_the_proximal_logprobs() -> None:
    """The learner has computed them already and should not do so twice."""
    one = group((completion(0, 2), 1.0), (completion(1, 1), 0.0))
    scored = dataclasses.replace(one, learner_logprobs=(np.float32([-1, -2]), np.float32([-3])))
    first, second = credited(scored).batch.samples
    assert first.proximal_logprobs is not None
    assert second.proximal_logprobs is not None
    assert (first.proximal_logprobs.tolist(), second.proximal_logprobs.tolist()) == ([-1.0, -2.0], [-3.0])
    assert all(sample.proximal_logprobs is None for sample in credited(one).batch.samples)
