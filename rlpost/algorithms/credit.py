"""From scored groups to training samples: filters and advantages on the driver, masks and tokens at the learner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlpost.algorithms.advantages import (
    AdvantageSettings,
    divide_by_batch_std,
    focal_weight,
    spread_over_tokens,
    weigh,
)
from rlpost.algorithms.groups import GroupFilter, correct, keep
from rlpost.trajectory import BatchReceipt, GroupReceipt, SampleReceipt, Trajectory
from rlpost.types import Reward, TrainSample


@dataclass(frozen=True, slots=True)
class Credit:
    """A training batch, and which trajectories it was made from.

    Attributes:
        batch: the samples that are trained on.
        kept_groups: number of groups that passed the filter.
        advantages: mean advantage over the sampled tokens of each trajectory, by group; None where it is not trained
            on.
    """

    batch: BatchReceipt
    kept_groups: int
    advantages: list[list[float | None]]


def assign(
    groups: Sequence[GroupReceipt],
    advantages: Callable[[Sequence[Reward | None]], list[list[float] | None]],
    *,
    step: int,
    group_filter: GroupFilter = "off",
    truncated: Literal["reject", "mask", "keep"] = "reject",
    batch_std: AdvantageSettings | None = None,
    focal_gamma: float = 0.0,
) -> Credit:
    """Training samples with advantages for every decided trajectory of every kept group.

    Args:
        groups: scored groups; a reward of None marks an undecided trajectory, which takes no part.
        advantages: function from a group's rewards to the advantages of each trajectory, parallel to its spans.
        step: number of the rollout batch, 0-based.
        group_filter: rule that selects groups; see `rlpost.algorithms.groups.keep`.
        truncated: ``mask`` takes trajectories cut at a limit out of the loss (they stay in the baseline); the other
            two change nothing here.
        batch_std: divide by the standard deviation over all kept groups, by the ``ddof`` and ``eps`` of these
            settings; None: the advantages are as the function gives them.
        focal_gamma: exponent γ ≥ 0 of the weight of a group by its share of correct members; see `focal_weight`.

    Returns:
        The samples in group order; a trajectory of several sequences has a sample for each.

    Raises:
        ValueError: if a span ends beyond its trajectory.
    """
    kept = {number: group for number, group in enumerate(groups) if keep(group, group_filter)}
    found = [advantages(group.rewards) for group in kept.values()]
    if batch_std is not None:
        found = divide_by_batch_std([group.rewards for group in kept.values()], found, batch_std.ddof, batch_std.eps)
    if focal_gamma:
        found = [_weighed(group, rows, focal_gamma) for group, rows in zip(kept.values(), found, strict=True)]
    samples: list[SampleReceipt] = []
    table: list[list[float | None]] = [[None] * len(group.trajectories) for group in groups]
    for (number, group), rows in zip(kept.items(), found, strict=True):
        for member, values in enumerate(rows):
            made = _samples(group, member, values, truncated)
            if made:
                samples += made
                table[number][member] = _mean(made)
    return Credit(BatchReceipt(tuple(samples), step), len(kept), table)


def _weighed(group: GroupReceipt, rows: Sequence[Sequence[float] | None], gamma: float) -> list[list[float] | None]:
    """A group's advantages, weighed by how many of its members are correct."""
    factor = focal_weight([correct(group, member) for member in range(len(group.rewards))], gamma)
    return [
        None if row is None or reward is None else weigh(reward, row, factor)
        for reward, row in zip(group.rewards, rows, strict=True)
    ]


def without_credit(groups: Sequence[GroupReceipt]) -> list[list[list[SampleReceipt]]]:
    """Samples without advantages of each trajectory of each group, to compute log-probabilities of."""
    return [[_sequences(group, member, (), ()) for member in range(len(group.trajectories))] for group in groups]


def train_samples(trajectory: Trajectory, reward: Reward = (), advantages: Sequence[float] = ()) -> list[TrainSample]:
    """A trajectory's sequences as samples: tokens, masks from the segments' origin, and advantages by token.

    Args:
        trajectory: the trajectory.
        reward: its spans.
        advantages: one advantage per span.

    Raises:
        ValueError: if a span ends beyond the trajectory.
    """
    mask, length = trajectory.mask, trajectory.length
    per_token, span_ids = spread_over_tokens(reward, advantages, length)
    per_token[~mask], span_ids[~mask] = 0.0, -1
    versions = np.full(length, -1, np.int32)
    for version, start, stop in trajectory.versions:
        versions[start:stop] = version
    logprobs, last = trajectory.logprobs, len(trajectory.sequences) - 1
    return [
        TrainSample(
            token_ids=trajectory.token_ids[start:stop],
            mask=mask[start:stop],
            advantages=per_token[start:stop],
            span_ids=span_ids[start:stop],
            versions=versions[start:stop],
            rollout_logprobs=None if logprobs is None else logprobs[start:stop],
            part=part,
            ended=part == last and trajectory.status == "done",
        )
        for part, (start, stop) in enumerate(trajectory.sequences)
    ]


def _samples(
    group: GroupReceipt, member: int, advantages: Sequence[float] | None, truncated: Literal["reject", "mask", "keep"]
) -> list[SampleReceipt]:
    receipt, reward = group.trajectories[member], group.rewards[member]
    if reward is None or advantages is None:
        return []
    if truncated == "mask" and receipt.status in ("length", "turns"):
        return []
    return _sequences(group, member, reward, tuple(advantages))


def _sequences(group: GroupReceipt, member: int, reward: Reward, advantages: tuple[float, ...]) -> list[SampleReceipt]:
    receipt = group.trajectories[member]
    found = [
        SampleReceipt(receipt, group.tokens, part, reward, advantages, group.proximal)
        for part in range(len(receipt.sequences))
    ]
    return [sample for sample in found if sample.sampled]


def _mean(samples: Sequence[SampleReceipt]) -> float:
    """Mean advantage over the sampled tokens of a trajectory."""
    receipt, reward, advantages = samples[0].receipt, samples[0].reward, samples[0].advantages
    per_token, _ = spread_over_tokens(reward, advantages, receipt.length)
    return float(np.concatenate([per_token[start:stop] for start, stop in receipt.turns]).mean())


def is_credited(sample: SampleReceipt) -> bool:
    """Whether a sample has a nonzero advantage on a sampled token."""
    covered = [(span.start, span.stop) for span, value in zip(sample.reward, sample.advantages, strict=True) if value]
    return any(start < turn[1] and turn[0] < stop for start, stop in covered for turn in sample.turns if start < stop)
