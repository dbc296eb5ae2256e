"""Measures of ranked lists against what was relevant.

Gains are what each place of a list is worth, 0 for a miss; ranks count from 1. Two protocols are in use for lists that
name items which cannot be recommended (seen, or in no catalog): ``strict`` keeps every place, ``released`` (Zhu et al.
2025, "Rank-GRPO", evaluation code) drops those places and moves up what follows, and measures against the ideal of a
list of the length that is left. Figures of the two are not comparable.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

Protocol = Literal["strict", "released"]


def dcg(gains: Sequence[float], k: int | None = None) -> float:
    r"""DCG@k = Σ_{r ≤ k} gain_r / log2(r + 1) (Järvelin and Kekäläinen 2002); without k, of the whole list.

    >>> round(dcg([0, 1, 0, 0, 1]), 4), round(dcg([0, 1, 0, 0, 1], 3), 4)
    (1.0178, 0.6309)
    """
    return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains[:k], 1))


def ndcg(gains: Sequence[float], relevant: Sequence[float], k: int, protocol: Protocol = "strict") -> float:
    """DCG@k over the DCG@k of the best list there could have been.

    Args:
        gains: of the list's places.
        relevant: worth of every relevant item, found or not.
        k: cut.
        protocol: ``strict``: the best list has as many places as k allows. ``released``: no more than this list has, so
            that a short list is measured against a shorter one.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: if nothing is relevant, or k is less than 1.
    """
    _check(relevant, k)
    places = k if protocol == "strict" else min(k, len(gains))
    ideal = dcg(sorted(relevant, reverse=True), places)
    return dcg(gains, k) / ideal if ideal else 0.0


def recall(gains: Sequence[float], relevant: Sequence[float], k: int) -> float:
    """Share of the relevant items that stand within the first k places.

    Raises:
        ValueError: as `ndcg`.
    """
    _check(relevant, k)
    return sum(gain > 0 for gain in gains[:k]) / len(relevant)


def coverage(recommended: Sequence[Sequence[str]], catalog: int) -> tuple[float, float]:
    """Share of a catalog's items that were recommended to somebody, and its standard error.

    The error is the jackknife's over lists: without list i the share falls by the items that only i names.

    Args:
        recommended: items of each list.
        catalog: how many items there are.

    >>> coverage([["a", "b"], ["b"]], 4)
    (0.5, 0.125)
    """
    lists = [set(row) for row in recommended]
    owners = Counter(item for row in lists for item in row)
    without = [(len(owners) - sum(owners[item] == 1 for item in row)) / catalog for row in lists]
    count = len(without)
    mean = math.fsum(without) / count
    return len(owners) / catalog, math.sqrt((count - 1) / count * math.fsum((share - mean) ** 2 for share in without))


def self_information(popularity: Sequence[float]) -> list[float]:
    """-log2 p of every item in bits, p its share of all interactions (Zhou et al. 2010, "Solving the apparent
    diversity-accuracy dilemma of recommender systems"): how surprising it is to be recommended it. The mean over a list
    is its novelty.

    Args:
        popularity: interactions with each item; those that nobody has interacted with count as if one had.

    >>> self_information([6.0, 2.0, 0.0])[1:]
    [2.0, 3.0]
    """
    total = math.fsum(popularity)
    return [-math.log2(max(count, 1.0) / max(total, 1.0)) for count in popularity]


def _check(relevant: Sequence[float], k: int) -> None:
    if not relevant:
        raise ValueError("nothing is relevant: the measure is undecided, not 0")
    if k < 1:
        raise ValueError(f"k is {k}; give 1 or more")
