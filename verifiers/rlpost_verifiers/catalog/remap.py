r"""From a teacher's list to a list of catalog items: Remap, Reflect, Adjust.

Zhu et al. 2025, "Rank-GRPO" (arXiv 2510.20150), appendix A. A teacher recommends from its own knowledge, including
items that the catalog does not hold. Its list becomes scores over the catalog:

    remap     s = p (S + I) + λ c    p_k = 1/√k for the teacher's k-th item, S similarity of item descriptions, I exact
                                     matches, c similarity of the conversation to items
    reflect   s ← s + γ rating       the teacher's second look at the best candidates, from -2 to 2
    adjust    s ← w ⊙ s + b          a scale and a bias per item, fitted to the likelihood of what users wanted

The items with the highest s are the demonstrations of the supervised warm start (SFT).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlpost.errors import DataError

PENALTY = 0.01
"""The paper's weight of ‖w - 1‖² and ‖b‖²."""
_WORKSPACE = 2**21
"""Scores of `adjust_some` that are looked at together: 16 MB in each of a few tables."""


def positions(count: int) -> np.ndarray:
    """Weights 1/√k, ``[K]``, of the ranks k = 1 … K of a teacher's list.

    >>> positions(4).round(3).tolist()
    [1.0, 0.707, 0.577, 0.5]
    """
    return 1.0 / np.sqrt(np.arange(1, count + 1))


def remap(
    similarity: np.ndarray, exact: Sequence[int | None], conversation: np.ndarray | None = None, weight: float = 1.0
) -> np.ndarray:
    """Scores ``[C]`` of a catalog's items from a teacher's list of K.

    Args:
        similarity: ``[K, C]`` cosine similarity of the teacher's items to the catalog's.
        exact: catalog position of each of the K items, None for one that the catalog does not hold.
        conversation: ``[C]`` cosine similarity of the conversation to the items; None: not used.
        weight: λ, weight of the conversation's similarity.

    Raises:
        DataError: if the shapes do not fit.
    """
    if len(exact) != len(similarity):
        raise DataError(f"{len(exact)} matches for a list of {len(similarity)}")
    places = positions(len(similarity))
    scores = places @ similarity if len(similarity) else np.zeros(similarity.shape[1])
    for place, item in zip(places, exact, strict=True):
        if item is not None:
            scores[item] += place
    if conversation is None:
        return scores
    if conversation.shape != scores.shape:
        raise DataError(f"conversation similarity of {conversation.shape[0]} items, the catalog has {scores.shape[0]}")
    return scores + weight * conversation


def reflect(scores: np.ndarray, ratings: Mapping[int, float], weight: float = 0.5) -> np.ndarray:
    """Scores plus γ (``weight``) times the teacher's ratings of some items.

    Raises:
        DataError: for a rating outside -2 to 2.
    """
    found = scores.copy()
    check_ratings(ratings)
    for item, rating in ratings.items():
        found[item] += weight * rating
    return found


def check_ratings(ratings: Mapping[int, float]) -> None:
    """Raise DataError for a rating outside -2 to 2."""
    for item, rating in ratings.items():
        if not -2 <= rating <= 2:
            raise DataError(f"rating {rating} of item {item}; the teacher rates from -2 to 2")


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A scale and a bias for every item, ``[C]`` each, and the mean negative log-likelihood before and after."""

    scale: np.ndarray
    bias: np.ndarray
    before: float
    after: float

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """``w ⊙ s + b`` for scores ``[C]`` or ``[Q, C]``."""
        return self.scale * scores + self.bias


def adjust(scores: np.ndarray, wanted: Sequence[Sequence[int]], penalty: float = PENALTY) -> Adjustment:
    r"""Fit a scale and a bias per item to what users wanted.

    Minimises -1/Q Σ_q mean_{i ∈ wanted_q} log softmax(w ⊙ s_q + b)_i + penalty (‖w - 1‖² + ‖b‖²), which is convex, by
    L-BFGS with its gradient.

    Args:
        scores: ``[Q, C]`` scores of C items for Q conversations.
        wanted: relevant items of each conversation; conversations without any are left out.
        penalty: weight of the squared distance from the identity (w = 1, b = 0).

    Raises:
        DataError: if no conversation has a relevant item, or the number of conversations differs.
    """
    from scipy.optimize import minimize  # pyright: ignore[reportMissingTypeStubs]

    used, shares = relevance_shares(len(scores), wanted)
    table = np.asarray(scores, np.float64)[used]
    share = np.zeros_like(table)
    for row, own in enumerate(shares):
        for item, value in own.items():
            share[row, item] = value
    count, width = table.shape

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scale, bias = parameters[:width], parameters[width:]
        logits = table * scale + bias
        logits -= logits.max(axis=1, keepdims=True)
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        error = (np.exp(logs) - share) / count
        value = -float((share * logs).sum()) / count
        value += penalty * float(((scale - 1) ** 2).sum() + (bias**2).sum())
        slope = np.concatenate(
            [(error * table).sum(axis=0) + 2 * penalty * (scale - 1), error.sum(axis=0) + 2 * penalty * bias]
        )
        return value, slope

    start = np.concatenate([np.ones(width), np.zeros(width)])
    found = minimize(loss, start, jac=True, method="L-BFGS-B")
    return Adjustment(found.x[:width], found.x[width:], loss(start)[0], float(found.fun))


def relevance_shares(count: int, wanted: Sequence[Sequence[int]]) -> tuple[list[int], list[dict[int, float]]]:
    """Which of ``count`` conversations say what their users wanted, and each wanted item's share of its conversation.

    >>> relevance_shares(3, [[4, 7], [], [4]])
    ([0, 2], [{4: 0.5, 7: 0.5}, {4: 1.0}])

    Raises:
        DataError: if none does, or the number of conversations differs.
    """
    if len(wanted) != count:
        raise DataError(f"{len(wanted)} users for scores of {count} conversations")
    used = [place for place, items in enumerate(wanted) if items]
    if not used:
        raise DataError("no conversation says what its user wanted; there is nothing to adjust to")
    shares: list[dict[int, float]] = []
    for place in used:
        row: dict[int, float] = {}
        for item in wanted[place]:
            row[item] = row.get(item, 0.0) + 1.0 / len(wanted[place])
        shares.append(row)
    return used, shares


def adjust_some(
    table: np.ndarray, shares: Sequence[Mapping[int, float]], rest: np.ndarray, penalty: float = PENALTY
) -> Adjustment:
    r"""`adjust` for some items of a catalog, where all others keep scale 1 and bias 0.

    Args:
        table: ``[Q, A]`` scores of the items that are adjusted.
        shares: for each conversation the wanted items' shares, by column; they sum to 1.
        rest: ``[Q]`` log Σ exp(s) over the other items; -inf: there are none.
        penalty: as of `adjust`.
    """
    from scipy.optimize import minimize  # pyright: ignore[reportMissingTypeStubs]

    count, width = table.shape
    rows = max(_WORKSPACE // max(width, 1), 1)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scale, bias = parameters[:width], parameters[width:]
        value = penalty * float(((scale - 1) ** 2).sum() + (bias**2).sum())
        slopes = 2 * penalty * (scale - 1), 2 * penalty * bias
        for start in range(0, count, rows):
            scores = np.asarray(table[start : start + rows], np.float64)
            logs = scores * scale + bias
            others = rest[start : start + rows]
            most = np.maximum(logs.max(axis=1), others)
            mass = np.log(np.exp(logs - most[:, None]).sum(axis=1) + np.exp(others - most)) + most
            logs -= mass[:, None]
            error = np.exp(logs)
            for row, own in enumerate(shares[start : start + rows]):
                for column, share in own.items():
                    value -= share * float(logs[row, column]) / count
                    error[row, column] -= share
            slopes[1][:] += error.sum(axis=0) / count
            error *= scores
            slopes[0][:] += error.sum(axis=0) / count
        return value, np.concatenate(slopes)

    start = np.concatenate([np.ones(width), np.zeros(width)])
    found = minimize(loss, start, jac=True, method="L-BFGS-B")
    return Adjustment(found.x[:width], found.x[width:], loss(start)[0], float(found.fun))


def demonstration(scores: np.ndarray, size: int, left_out: Collection[int] = ()) -> list[int]:
    """The ``size`` best items, best first, without ``left_out`` (the seen ones); ties in the catalog's order."""
    order = np.argsort(-scores, kind="stable")
    out = frozenset(left_out)
    return [int(item) for item in order if int(item) not in out][:size]
