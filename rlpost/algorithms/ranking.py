"""Metrics of ranked lists against the relevant items.

A gain is the relevance found at one place of a list, 0 for a miss; ranks count from 1. Two protocols exist for lists
that name items which cannot be recommended (seen, or in no catalog): ``strict`` keeps every place; ``released`` (Zhu et
al. 2025, "Rank-GRPO", evaluation code) drops those places, moves up what follows, and uses the ideal of a list of the
remaining length. Values of the two are not comparable.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

Protocol = Literal["strict", "released"]


def dcg(gains: Sequence[float], k: int | None = None) -> float:
    r"""DCG@k = Σ_{r ≤ k} gain_r / log2(r + 1) (Järvelin and Kekäläinen 2002); k None: the whole list.

    >>> round(dcg([0, 1, 0, 0, 1]), 4), round(dcg([0, 1, 0, 0, 1], 3), 4)
    (1.0178, 0.6309)
    """
    return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains[:k], 1))


def ndcg(gains: Sequence[float], relevant: Sequence[float], k: int, protocol: Protocol = "strict") -> float:
    """DCG@k divided by the DCG@k of the best possible list.

    Args:
        gains: gain at each place of the list, in order.
        relevant: relevance of every relevant item, found or not.
        k: cut-off ≥ 1.
        protocol: ``strict`` allows the best list k places; ``released`` allows it no more than this list has, so that a
            short list is compared with a short ideal.

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
    """Share of the relevant items that are within the first k places.

    Raises:
        ValueError: as `ndcg`.
    """
    _check(relevant, k)
    return sum(gain > 0 for gain in gains[:k]) / len(relevant)


def weighted_recall(gains: Sequence[float], relevant: Sequence[float], k: int) -> float:
    """Share of the relevance that is within the first k places: Σ_{r ≤ k} gain_r / Σ relevant.

    With inverse propensities as relevances it is the self-normalised estimate of recall from clicks (Yang et al. 2018,
    "Unbiased offline recommender evaluation for missing-not-at-random implicit feedback").

    >>> weighted_recall([2.0, 0.0], [2.0, 6.0], 2)
    0.25

    Raises:
        ValueError: as `ndcg`.
    """
    _check(relevant, k)
    return math.fsum(gains[:k]) / math.fsum(relevant)


def coverage(recommended: Sequence[Sequence[str]], catalog: int) -> tuple[float, float]:
    """Share of a catalog's items that at least one list recommends, and its standard error.

    The error is the jackknife's over lists: without list i the share falls by the items that only i names.

    Args:
        recommended: items of each list.
        catalog: number of items in the catalog.

    >>> coverage([["a", "b"], ["b"]], 4)
    (0.5, 0.125)
    """
    lists = [set(row) for row in recommended]
    owners = Counter(item for row in lists for item in row)
    without = [(len(owners) - sum(owners[item] == 1 for item in row)) / catalog for row in lists]
    count = len(without)
    mean = math.fsum(without) / count
    return len(owners) / catalog, math.sqrt((count - 1) / count * math.fsum((share - mean) ** 2 for share in without))


def gini(counts: Sequence[float], catalog: int) -> float:
    r"""Gini coefficient of how often the items of a catalog are recommended: 0 if all equally, 1 - 1/n if only one is.

    G = Σ_i (2i - n - 1) x_i / (n Σ x) over the counts x in ascending order (Fleder and Hosanagar 2009, "Blockbuster
    culture's next rise or fall", section 3).

    Args:
        counts: number of recommendations of each item that was recommended.
        catalog: number n of all items; those without a count have 0.

    Raises:
        ValueError: if nothing was recommended, or more items than there are.

    >>> gini([3.0, 3.0], 2), gini([5.0], 4)
    (0.0, 0.75)
    """
    if not counts or len(counts) > catalog:
        raise ValueError(f"{len(counts)} items recommended of {catalog}: an inequality of nothing is undecided")
    ordered = [*[0.0] * (catalog - len(counts)), *sorted(counts)]
    weighted = math.fsum((2 * place - catalog - 1) * count for place, count in enumerate(ordered, 1))
    return weighted / (catalog * math.fsum(ordered))


def exposure(lists: Sequence[Sequence[str | None]]) -> dict[str, float]:
    """Share of the users' attention that each group of items gets: Σ 1 / log2(r + 1) over its places, of all places
    with a group (Singh and Joachims 2018, "Fairness of exposure in rankings", section 3.2).

    Args:
        lists: group of the item at each place of each list; None for a place without one.

    >>> exposure([["old", "new"], ["old", None]])["old"] > 0.7
    True
    """
    found: Counter[str] = Counter()
    for groups in lists:
        for rank, group in enumerate(groups, 1):
            if group is not None:
                found[group] += 1.0 / math.log2(rank + 1)  # pyright: ignore[reportArgumentType]
    total = math.fsum(found.values())
    return {group: value / total for group, value in found.items()}


def self_information(popularity: Sequence[float]) -> list[float]:
    """Self-information -log2 p of every item in bits, where p is its share of all interactions.

    It says how surprising a recommendation of the item is; the mean over a list is the list's novelty (Zhou et al.
    2010, "Solving the apparent diversity-accuracy dilemma of recommender systems").

    Args:
        popularity: number of interactions with each item; an item without any counts as if it had one.

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
