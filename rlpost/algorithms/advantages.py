"""Group-relative advantages of span-shaped rewards.

A group is the set of completions sampled for one prompt. Values are compared only with values of the same reward stage
and span index (rank in a list, number of a tactic; 0 for the whole completion), so that one function serves sequence,
rank and process rewards, and one stage's ranks are not measured against another's whole answers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlpost.types import Reward

Baseline = Literal["mean", "leave_one_out", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvantageSettings:
    """How rewards become advantages.

    Attributes:
        baseline: ``mean`` of the group (GRPO), ``leave_one_out`` mean of the others (RLOO), or ``none``.
        std: divide by the group's standard deviation (GRPO) or not (Dr. GRPO).
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
        values: rewards of the decided members of one group at one span index.
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
    if n <= settings.ddof or max(values) == min(values):
        return centred  # no spread: dividing by ε alone would multiply by a million
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - settings.ddof))
    return [c / (deviation + settings.eps) for c in centred]


def group_advantages(rewards: Sequence[Reward | None], settings: AdvantageSettings) -> list[list[float] | None]:
    """Advantages of every span of every member of one group.

    Args:
        rewards: one per completion; None for an undecided member, which takes no part in any baseline.
        settings: baseline, and whether and how to divide by the standard deviation.

    Returns:
        The advantages of each completion, parallel to its spans; None where the reward is None. Values of the channel
        ``advantage`` are returned unchanged.
    """
    by_part: dict[tuple[str, int], list[tuple[int, int, float]]] = defaultdict(list)
    result: list[list[float] | None] = [None if reward is None else [0.0] * len(reward) for reward in rewards]
    for member, reward in enumerate(rewards):
        for position, span in enumerate(reward or ()):
            if span.channel == "reward":
                by_part[span.stage, span.index].append((member, position, span.value))
            else:
                _row(result, member)[position] = span.value
    for entries in by_part.values():
        for (member, position, _), advantage in zip(
            entries, normalise([v for _, _, v in entries], settings), strict=True
        ):
            _row(result, member)[position] = advantage
    return result


def spread_over_tokens(reward: Reward, advantages: Sequence[float], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Lay span advantages over tokens.

    Args:
        reward: the spans of one trajectory.
        advantages: one advantage per span, parallel to ``reward``.
        length: number L of the trajectory's tokens.

    Returns:
        ``advantages [L]`` float32 (the sum where spans overlap) and ``span_ids [L]`` int32: the position among the
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
        tokens[span.start : span.stop] += np.float32(value)
        if span.channel == "reward" and span.stop > span.start and (span.start, span.stop) not in seen:
            span_ids[span.start : span.stop] = len(seen)
            seen.append((span.start, span.stop))
    return tokens, span_ids


def _row(result: list[list[float] | None], member: int) -> list[float]:
    row = result[member]
    assert row is not None
    return row
