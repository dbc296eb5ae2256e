"""Selection among the answers to one prompt: the first, the shortest, or ones that differ from each other."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

Pick = Literal["shortest", "diverse", "first"]

_PIECE = re.compile(r"\w+|[^\w\s]")


def choose(texts: Sequence[str], lengths: Sequence[int], count: int | None, pick: Pick, seed: int = 0) -> list[int]:
    """Positions of the chosen answers, in the order in which they were chosen.

    ``diverse`` begins with the shortest answer and goes on with the one whose `distance` to the nearest chosen one is
    largest (the greedy farthest-point rule). Equal ones are drawn with ``seed``; everything else is by length and
    position.

    Args:
        texts: the answers, all different, in the order in which they were found.
        lengths: their lengths, in tokens.
        count: how many, at least 1; None: all.
        pick: the rule.
        seed: seed of ``diverse``.

    >>> choose(["simp at h", "simp", "exact h.1"], [3, 1, 4], 2, "diverse")
    [1, 2]
    """
    places = list(range(len(texts)))
    if pick != "first":
        places.sort(key=lambda place: (lengths[place], len(texts[place]), place))
    if pick == "diverse" and count is not None and len(places) > count:
        return _spread(texts, places, count, random.Random(seed))
    return places if count is None else places[:count]


def _spread(texts: Sequence[str], places: Sequence[int], count: int, source: random.Random) -> list[int]:
    features = {place: pieces(texts[place]) for place in places}
    chosen = [places[0]]
    nearest = {place: distance(features[place], features[chosen[0]]) for place in places[1:]}
    while len(chosen) < count:
        best = max(nearest.values())
        chosen.append(source.choice([place for place, value in nearest.items() if value == best]))
        del nearest[chosen[-1]]
        for place, value in nearest.items():
            nearest[place] = min(value, distance(features[place], features[chosen[-1]]))
    return chosen


def pieces(text: str) -> frozenset[tuple[str, ...]]:
    """The words and signs of a text, and the pairs of neighbours among them.

    >>> sorted(pieces("simp; simp"))
    [(';',), (';', 'simp'), ('simp',), ('simp', ';')]
    """
    found = _PIECE.findall(text)
    return frozenset([(one,) for one in found] + list(pairwise(found)))


def distance(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    r"""Jaccard's distance of two sets, 1 - |A ∩ B| / |A ∪ B|, from 0 (equal) to 1 (nothing in common).

    >>> distance(pieces("simp"), pieces("simp")), distance(pieces("simp"), pieces("rfl"))
    (0.0, 1.0)
    """
    union = len(one | other)
    return 1 - len(one & other) / union if union else 0.0
