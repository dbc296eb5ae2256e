"""From scored groups to training samples: filters, advantages, masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlpost.algorithms.advantages import spread_over_tokens
from rlpost.algorithms.groups import GroupFilter, keep
from rlpost.types import Completion, Group, Reward, TrainBatch, TrainSample


@dataclass(frozen=True, slots=True)
class Credit:
    """A training batch, and which completions it was made from.

    Attributes:
        batch: the samples that are trained on.
        kept_groups: number of groups that passed the filter.
        advantages: mean advantage over the tokens of each completion, by group; None where it is not trained on.
    """

    batch: TrainBatch
    kept_groups: int
    advantages: list[list[float | None]]


def assign(
    groups: Sequence[Group],
    advantages: Callable[[Sequence[Reward | None]], list[list[float] | None]],
    *,
    step: int,
    group_filter: GroupFilter = "off",
    truncated: Literal["reject", "mask", "keep"] = "reject",
) -> Credit:
    """Training samples with advantages for every decided completion of every kept group.

    Args:
        groups: scored groups; a reward of None marks an undecided completion, which takes no part.
        advantages: function from a group's rewards to the advantages of each completion, parallel to its spans.
        step: number of the rollout batch, 0-based.
        group_filter: rule that selects groups; see `rlpost.algorithms.groups.keep`.
        truncated: ``mask`` takes completions cut at the token limit out of the loss (they stay in the baseline); the
            other two change nothing here.

    Returns:
        The samples in group order.
    """
    samples: list[TrainSample] = []
    table: list[list[float | None]] = []
    kept = 0
    for group in groups:
        row: list[float | None] = [None] * len(group.completions)
        if keep(group, group_filter):
            kept += 1
            for member, values in enumerate(advantages(group.rewards)):
                sample = _sample(group, member, values, truncated)
                if sample is not None:
                    samples.append(sample)
                    row[member] = float(sample.advantages.mean())
        table.append(row)
    return Credit(TrainBatch(tuple(samples), step), kept, table)


def as_samples(completions: Sequence[Completion]) -> list[TrainSample]:
    """Completions as samples without advantages, for the learner to compute log-probabilities of."""
    return [
        TrainSample(
            prompt_ids=np.asarray(c.prompt_ids, np.int64),
            completion_ids=np.asarray(c.token_ids, np.int64),
            advantages=np.zeros(len(c.token_ids), np.float32),
            span_ids=np.zeros(len(c.token_ids), np.int64),
            mask=np.ones(len(c.token_ids), bool),
            rollout_logprobs=None,
            policy_version=c.policy_version,
        )
        for c in completions
    ]


def _sample(
    group: Group, member: int, advantages: Sequence[float] | None, truncated: Literal["reject", "mask", "keep"]
) -> TrainSample | None:
    completion, reward = group.completions[member], group.rewards[member]
    size = len(completion.token_ids)
    if reward is None or advantages is None or not size:
        return None
    if truncated == "mask" and completion.finish_reason == "length":
        return None
    per_token, span_ids = spread_over_tokens(reward, advantages, size)
    logprobs = completion.logprobs
    return TrainSample(
        prompt_ids=np.asarray(completion.prompt_ids, np.int64),
        completion_ids=np.asarray(completion.token_ids, np.int64),
        advantages=per_token,
        span_ids=span_ids,
        mask=np.ones(size, bool),
        rollout_logprobs=None if logprobs is None else np.asarray(logprobs, np.float32),
        policy_version=completion.policy_version,
        old_logprobs=group.learner_logprobs[member] if group.learner_logprobs else None,
    )
