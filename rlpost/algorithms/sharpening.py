"""What training did to a policy besides raising its mean reward: which answers became likelier, and which were lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Rank:
    """Correct answers that had the same likelihood rank in their group.

    Attributes:
        rank: rank by probability at the start, 0 for the likeliest of the group.
        count: number of correct answers with that rank.
        rose: number of them that are likelier now.
        change: mean change of their log-probability in nats per answer.
    """

    rank: int
    count: int
    rose: int
    change: float


def likelihood_ranks(logprobs: Sequence[float]) -> list[int]:
    """Rank of each answer in its group by log-probability, 0 for the likeliest; ties keep their order.

    >>> likelihood_ranks([-3.0, -1.0, -2.0])
    [2, 0, 1]
    """
    order = np.argsort(-np.asarray(logprobs, np.float64), kind="stable")
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return places.tolist()


def uplift_by_rank(ranks: Sequence[int], before: Sequence[float], now: Sequence[float]) -> list[Rank]:
    """Share of correct answers that became likelier, by their rank ("Rewarding the Unlikely", section 3).

    A policy that only sharpens lifts rank 0 and lowers the rest; one that learns to find rare answers lifts high ranks.

    Args:
        ranks: rank of each correct answer in its group at the start (`likelihood_ranks` over the whole group, wrong
            answers included).
        before: log-probability of each answer at the start, summed over tokens.
        now: log-probability of each answer under the current policy, summed over tokens.

    Returns:
        One entry per rank that occurs, in order.

    Raises:
        ValueError: if the three differ in length.
    """
    if not len(ranks) == len(before) == len(now):
        raise ValueError(f"{len(ranks)} ranks, {len(before)} and {len(now)} log-probabilities")
    change = np.asarray(now, np.float64) - np.asarray(before, np.float64)
    places = np.asarray(ranks, np.int64)
    return [
        Rank(int(rank), int(here.sum()), int((change[here] > 0).sum()), float(change[here].mean()))
        for rank in np.unique(places)
        for here in [places == rank]
    ]


def flips(before: Sequence[bool], after: Sequence[bool]) -> tuple[float, float]:
    """Shares of problems that were solved before and are not now (negative flips), and the other way round.

    Raises:
        ValueError: if the two differ in length or are empty.
    """
    if len(before) != len(after) or not before:
        raise ValueError(f"{len(before)} problems against {len(after)}; the same ones are needed")
    lost = sum(b and not a for b, a in zip(before, after, strict=True))
    won = sum(a and not b for b, a in zip(before, after, strict=True))
    return lost / len(before), won / len(before)
