"""Group-relative advantages of span-shaped rewards.

A group is the set of completions sampled for one prompt. Values are compared only with values of the same reward stage
and span index (rank in a list, number of a tactic; 0 for the whole completion), so that one function serves sequence,
rank and process rewards, and one stage's ranks are not measured against another's whole answers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlpost.types import Reward, SpanReward

Baseline = Literal["mean", "leave_one_out", "none"]
Key = tuple[str, int]
"""What `compared_by` returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvantageSettings:
    """How rewards become advantages.

    Attributes:
        baseline: ``mean`` of the group (GRPO), ``leave_one_out`` mean of the others (RLOO), or ``none``.
        std: divide by the group's standard deviation (GRPO) or not (Dr. GRPO, and where the batch's is divided by
            afterwards).
        ddof: 1 for the sample standard deviation (TRL, verl), 0 for the population's.
        eps: ε > 0, added to the standard deviation.
    """

    baseline: Baseline = "mean"
    std: bool = True
    ddof: int = 1
    eps: float = 1e-6


def normalise(values: Sequence[float], settings: AdvantageSettings) -> list[float]:
    r"""A_i = (r_i - b_i) / (σ + ε).

    b_i is mean_j r_j (Shao et al. 2024, "DeepSeekMath", section 4.1.2) or mean_{j≠i} r_j (Ahmadian et al. 2024, "Back
    to Basics", eq. 7); σ² = Σ (r_j - mean)² / (n - ddof), or σ + ε := 1 without ``std`` (Liu et al. 2025,
    "Understanding R1-Zero-like training").

    Args:
        values: rewards of the decided members of one group for one part.
        settings: baseline, and whether and how to divide by the standard deviation.

    Returns:
        One advantage per value. A group of one, or of equal values, gets exactly 0 (1/ε would otherwise amplify
        rounding in the mean), unless ``baseline`` is ``none``.
    """
    n = len(values)
    if settings.baseline == "none":
        centred = [float(v) for v in values]
    elif n < 2 or max(values) == min(values):
        return [0.0] * n
    else:
        total = math.fsum(values)
        others = settings.baseline == "leave_one_out"
        centred = [v - ((total - v) / (n - 1) if others else total / n) for v in values]
    if not settings.std:
        return centred
    scale = _scale(values, settings.ddof, settings.eps)
    return [c / scale for c in centred]


def divide_by_mean(values: Sequence[float], settings: AdvantageSettings) -> list[float]:
    r"""A_i = (r_i - mean) / mean, 0 for all where the mean is 0.

    MaxRL (Tajwar et al. 2026, "Maximum likelihood reinforcement learning", arXiv 2602.02710): with rewards of 0 and 1
    this estimates the gradient of log P(correct), to the order that the size of the group allows, instead of that of
    P(correct). A group with one right answer of n gives it n - 1, a group without any gives nothing.

    Args:
        values: rewards of the decided members of one group for one part, none of them negative.
        settings: not read: the formula has no choices.

    Raises:
        ValueError: for a negative reward: a small or negative mean would blow advantages up, or turn them round.

    >>> divide_by_mean([1.0, 0.0, 0.0, 0.0], AdvantageSettings())
    [3.0, -1.0, -1.0, -1.0]
    """
    if not values or max(values) == min(values) >= 0:
        return [0.0] * len(values)
    if min(values) < 0:
        raise ValueError(
            f"maxrl divides by the mean reward of a group, and a reward is {min(values):.6g}; give rewards of 0 or more"
        )
    mean = math.fsum(values) / len(values)
    return [(v - mean) / mean for v in values]


def group_advantages(
    rewards: Sequence[Reward | None],
    settings: AdvantageSettings,
    rule: Callable[[Sequence[float], AdvantageSettings], list[float]] = normalise,
) -> list[list[float] | None]:
    """Advantages of every span of every member of one group.

    Args:
        rewards: one per completion; None for an undecided member, which takes no part in any baseline.
        settings: baseline, and whether and how to divide by the standard deviation.
        rule: what makes advantages of the rewards that are compared with each other.

    Returns:
        The advantages of each completion, parallel to its spans; None where the reward is None. Values of the channels
        ``advantage`` and ``exempt`` are returned unchanged.
    """
    by_key: dict[Key, list[tuple[int, int, float]]] = defaultdict(list)
    result: list[list[float] | None] = [None if reward is None else [0.0] * len(reward) for reward in rewards]
    for member, reward in enumerate(rewards):
        for position, span in enumerate(reward or ()):
            if span.channel == "reward":
                by_key[compared_by(span)].append((member, position, span.value))
            else:
                _row(result, member)[position] = span.value
    for entries in by_key.values():
        for (member, position, _), advantage in zip(entries, rule([v for _, _, v in entries], settings), strict=True):
            _row(result, member)[position] = advantage
    return result


def maxrl_advantages(rewards: Sequence[Reward | None], settings: AdvantageSettings) -> list[list[float] | None]:
    """Advantages of one group by MaxRL; see `divide_by_mean` and `group_advantages`."""
    return group_advantages(rewards, settings, divide_by_mean)


def divide_by_batch_std(
    groups: Sequence[Sequence[Reward | None]],
    advantages: Sequence[Sequence[Sequence[float] | None]],
    ddof: int = 1,
    eps: float = 1e-6,
) -> list[list[list[float] | None]]:
    r"""A_i / (σ + ε), with σ the standard deviation of the rewards that all groups of a batch got for one part.

    TRL's ``scale_rewards: batch`` (Liu, Yang et al. 2025, "Part I: Tricks or traps?", arXiv 2508.08221: mean of the
    group, deviation of the batch). REINFORCE++ with a baseline (Hu et al. 2025, arXiv 2501.03262) and verl's form of it
    take the deviation of the *centred* rewards, over tokens, and subtract their mean once more.

    Args:
        groups: rewards of the members of each group.
        advantages: advantages without a division, parallel to the groups' spans.
        ddof: 1 for the sample standard deviation (TRL), 0 for the population's.
        eps: ε > 0, added to the standard deviation (TRL: 1e-4).

    Returns:
        The divided advantages. Values of the channel ``advantage`` are unchanged, and so are those of an index at which
        all rewards are equal or too few: there is no spread to divide by.
    """
    values: dict[Key, list[float]] = defaultdict(list)
    for span in (span for rewards in groups for reward in rewards for span in reward or ()):
        if span.channel == "reward":
            values[compared_by(span)].append(span.value)
    scales = {key: _scale(found, ddof, eps) for key, found in values.items()}
    return [
        [
            None if row is None or reward is None else _divided(reward, row, scales)
            for reward, row in zip(rewards, rows, strict=True)
        ]
        for rewards, rows in zip(groups, advantages, strict=True)
    ]


def weigh(reward: Reward, advantages: Sequence[float], factor: float) -> list[float]:
    """Multiply the advantages that come from rewards; values of the channel ``advantage`` stay as they are."""
    return [a * factor if span.channel == "reward" else a for span, a in zip(reward, advantages, strict=True)]


def focal_weight(correct: Sequence[bool | None], gamma: float) -> float:
    r"""g = (1 - μ)^γ, with μ the share of correct members among the decided ones.

    F-GRPO (Plyusov et al. 2026, "Don't let your policy learn the obvious and forget the rare", arXiv 2602.06717):
    multiplies all advantages of a group, so that groups which are mostly right move the policy less.

    Args:
        correct: whether each member of the group is correct; None: undecided.
        gamma: γ ≥ 0; 0 leaves every group its full weight.

    Returns:
        A weight in [0, 1]; 1 if nobody is decided.

    >>> focal_weight([True, False, None, True, True], 0.5)
    0.5
    """
    decided = [one for one in correct if one is not None]
    return (1 - sum(decided) / len(decided)) ** gamma if decided else 1.0


def spread_over_tokens(reward: Reward, advantages: Sequence[float], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Lay span advantages over tokens.

    Args:
        reward: the spans of one trajectory.
        advantages: one advantage per span, parallel to ``reward``.
        length: number L of the trajectory's tokens.

    Returns:
        ``advantages [L]`` float32 (the sum where spans overlap, and no less than 0 where one of them is of the channel
        ``exempt``) and ``span_ids [L]`` int32: the position among the
        distinct ``reward``-channel spans with tokens, in order of their start, outer before inner. Where spans overlap,
        a token belongs to the innermost; tokens outside all of them have -1.

    Raises:
        ValueError: if a span ends beyond the trajectory.
    """
    tokens = np.zeros(length, np.float32)
    span_ids = np.full(length, -1, np.int32)
    seen: list[tuple[int, int]] = []
    for span, value in sorted(zip(reward, advantages, strict=True), key=lambda pair: (pair[0].start, -pair[0].stop)):
        if span.stop > length:
            raise ValueError(f"span [{span.start}, {span.stop}) ends beyond a trajectory of {length} tokens")
        if span.channel != "exempt":  # an advantage function of a user's own may have given it a value
            tokens[span.start : span.stop] += np.float32(value)
        if span.channel == "reward" and span.stop > span.start and (span.start, span.stop) not in seen:
            span_ids[span.start : span.stop] = len(seen)
            seen.append((span.start, span.stop))
    for span in reward:
        if span.channel == "exempt":
            tokens[span.start : span.stop] = np.maximum(tokens[span.start : span.stop], 0)
    return tokens, span_ids


def compared_by(span: SpanReward) -> Key:
    """What the spans have in common whose rewards are compared with each other."""
    return span.stage, span.index


def _scale(values: Sequence[float], ddof: int, eps: float) -> float:
    """σ + ε, or 1 where there is no spread: dividing by ε alone would multiply by a million."""
    n = len(values)
    if n <= ddof or max(values) == min(values):
        return 1.0
    mean = math.fsum(values) / n
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - ddof)) + eps


def _divided(reward: Reward, row: Sequence[float], scales: Mapping[Key, float]) -> list[float]:
    return [
        a / scales[compared_by(span)] if span.channel == "reward" else a for span, a in zip(reward, row, strict=True)
    ]


def _row(result: list[list[float] | None], member: int) -> list[float]:
    row = result[member]
    assert row is not None
    return row
