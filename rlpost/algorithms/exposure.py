r"""How the exposure of items differs between two recommenders, and how much of the difference is chance.

Exposure is the attention that a model of browsing gives to a place of a list. Each recommender is a sparse matrix
``[user, item]`` of the exposure that the items get in its list for that user. All comparisons are paired by user: what
could have come out otherwise is which of a user's two lists is whose.

Sources: Singh and Joachims 2018, "Fairness of exposure in rankings"; Diaz et al. 2020, "Evaluating stochastic rankings
with expected exposure" (both models of attention); Westfall and Young 1993, "Resampling-based multiple testing" (the
largest statistic).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Attention = Literal["log", "rbp", "top"]

_CELLS = 4_000_000
"""Numbers held at a time while resampling, which bounds memory to some hundred MB."""


def attention(places: int, model: Attention = "log", patience: float = 0.8, cut: int | None = None) -> np.ndarray:
    r"""Attention that ranks 1 to ``places`` get.

    ``log``: 1 / log2(r + 1), the discount of DCG (Järvelin and Kekäläinen 2002; Singh and Joachims 2018, section 3.2).
    ``rbp``: γ^(r-1), a user who looks at the next place with probability γ (Moffat and Zobel 2008, "Rank-biased
    precision"; Diaz et al. 2020, eq. 5). ``top``: 1, so that exposure is the number of lists with the item.

    Args:
        places: number of ranks.
        model: the model's name.
        patience: γ in (0, 1), for ``rbp``.
        cut: ranks after this one get none; None: all get some.

    Returns:
        Array ``[places]``.

    Raises:
        ValueError: for an unknown model, a patience outside (0, 1), or a cut below 1.

    >>> attention(3, "rbp", 0.5).tolist(), attention(3, "top", cut=2).tolist()
    ([1.0, 0.5, 0.25], [1.0, 1.0, 0.0])
    """
    if cut is not None and cut < 1:
        raise ValueError(f"cut is {cut}; give 1 or more ranks")
    ranks = np.arange(1, places + 1, dtype=np.float64)
    if model == "log":
        found = 1.0 / np.log2(ranks + 1.0)
    elif model == "rbp":
        if not 0 < patience < 1:
            raise ValueError(f"patience is {patience}; give a number between 0 and 1")
        found = patience ** (ranks - 1.0)
    elif model == "top":
        found = np.ones(places)
    else:
        raise ValueError(f"attention is {model!r}; use 'log', 'rbp' or 'top'")
    return found if cut is None else np.where(ranks <= cut, found, 0.0)


def total_variation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """½ Σ_i |p_i - q_i| over the last axis: the share of exposure that would have to change hands, in [0, 1].

    >>> float(total_variation(np.array([0.5, 0.5, 0.0]), np.array([0.5, 0.25, 0.25])))
    0.25
    """
    return 0.5 * np.abs(first - second).sum(axis=-1)


def jensen_shannon(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Jensen–Shannon divergence over the last axis in bits, in [0, 1] (Lin 1991, eq. 4.1 with equal weights).

    >>> float(jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])))
    1.0
    """
    middle = (first + second) / 2.0
    return (_relative_entropy(first, middle) + _relative_entropy(second, middle)) / 2.0


def _relative_entropy(p: np.ndarray, m: np.ndarray) -> np.ndarray:
    ratio = np.divide(p, m, out=np.ones_like(p), where=p > 0)
    return (p * np.log2(ratio)).sum(axis=-1)


@dataclass(frozen=True, slots=True, eq=False)
class Swaps:
    """What the comparison gives if each user's two lists change sides by the toss of a coin: the noise.

    Attributes:
        variation: total variation of each draw, ``[draws]``.
        divergence: Jensen–Shannon divergence of each draw, ``[draws]``.
        largest: max_i |d_i| / s_i of each draw, ``[draws]``, with s of `swap_error`.
    """

    variation: np.ndarray
    divergence: np.ndarray
    largest: np.ndarray


def swap_error(first: Any, second: Any) -> np.ndarray:
    """Standard error s_i = √(Σ_u (a_ui - b_ui)²) / T of a difference of shares under swaps, T half the whole exposure.

    Args:
        first: sparse exposure ``[user, item]``.
        second: the other recommender's, for the same users and items.

    Returns:
        Array ``[item]``.
    """
    moved = first - second
    return np.sqrt(np.asarray(moved.multiply(moved).sum(axis=0)).ravel()) / _half(first, second)


def swaps(first: Any, second: Any, draws: int = 999, seed: int = 0) -> Swaps:
    """Exchange the two lists of random users; see `Swaps`. A user is a row: rows that belong together are summed.

    Args:
        first: sparse exposure ``[user, item]``.
        second: the other recommender's, for the same users and items.
        draws: number of draws.
        seed: seed of the coins.
    """
    rng = np.random.default_rng(seed)
    moved, whole = (first - second).T.tocsr(), np.asarray((first + second).sum(axis=0)).ravel()
    error = swap_error(first, second)
    known = error > 0
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    at_once = max(_CELLS // max(max(moved.shape), 1), 1)
    for start in range(0, draws, at_once):
        count = min(at_once, draws - start)
        signs = rng.integers(0, 2, (count, moved.shape[1])) * 2.0 - 1.0
        half = (moved @ signs.T).T / 2.0
        p, q = normalised(whole / 2.0 + half), normalised(whole / 2.0 - half)
        scaled = np.abs(p - q)[:, known] / error[known]
        largest = scaled.max(axis=1) if known.any() else np.zeros(count)
        found.append((total_variation(p, q), jensen_shannon(p, q), largest))
    variation, divergence, largest = (np.concatenate([part[i] for part in found]) for i in range(3))
    return Swaps(variation, divergence, largest)


def normalised(totals: np.ndarray) -> np.ndarray:
    """Shares along the last axis; zeros where there is nothing to share."""
    totals = np.maximum(totals, 0.0)  # halves of equal numbers may differ from 0 by rounding
    whole = totals.sum(axis=-1, keepdims=True)
    return np.divide(totals, whole, out=np.zeros_like(totals), where=whole > 0)


def exceedance(observed: np.ndarray | float, drawn: np.ndarray) -> np.ndarray:
    """p-value (1 + #{drawn ≥ observed}) / (1 + draws), which is never 0 (Phipson and Smyth 2010).

    >>> float(exceedance(2.0, np.array([1.0, 2.0, 3.0])))
    0.75
    """
    ordered = np.sort(drawn)
    # equal values may differ by rounding, and a tie counts
    below = np.searchsorted(ordered, np.asarray(observed) * (1.0 - 1e-9), side="left")
    return (1.0 + len(ordered) - below) / (1.0 + len(ordered))


def simultaneous_intervals(
    first: np.ndarray, second: np.ndarray, level: float = 0.95, draws: int = 4000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Intervals of the differences of shares that hold for all groups at once, by a bootstrap of users.

    d_g ± c s_g: s_g is the standard deviation of the resampled d*_g, and c the quantile ``level`` of
    max_g |d*_g - d_g| / s_g (Davison and Hinkley 1997, section 5.2, studentised by the bootstrap's own error). The two
    lists of a user stay together.

    Args:
        first: exposure ``[user, group]``, dense.
        second: the other recommender's, for the same users and groups.
        level: probability that all intervals hold, in (0, 1).
        draws: number of resamples.
        seed: seed of the resamples.

    Returns:
        Lower and upper ends, ``[group]``.

    Raises:
        ValueError: for fewer than two users, or a level outside (0, 1).
    """
    users = len(first)
    if users < 2:
        raise ValueError(f"{users} users say nothing about others; give two or more")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; give a share between 0 and 1")
    rng = np.random.default_rng(seed)
    observed = normalised(first.sum(axis=0)) - normalised(second.sum(axis=0))
    found: list[np.ndarray] = []
    at_once = max(_CELLS // users, 1)
    for start in range(0, draws, at_once):
        weights = rng.multinomial(users, np.full(users, 1.0 / users), min(at_once, draws - start)).astype(np.float64)
        found.append(normalised(weights @ first) - normalised(weights @ second))
    moved = np.concatenate(found) - observed
    error = moved.std(axis=0)
    known = error > 0
    largest = (np.abs(moved)[:, known] / error[known]).max(axis=1) if known.any() else np.zeros(1)
    spread = float(np.quantile(largest, level)) * error
    return observed - spread, observed + spread


def sparse_exposure(
    rows: Sequence[Sequence[int | None]], owners: Sequence[int], shape: tuple[int, int], weights: np.ndarray
) -> Any:
    """Exposure ``[user, item]`` of lists as a sparse matrix.

    Args:
        rows: number of the item at each place of each list; None for a place without one.
        owners: number of the user of each list; several lists of a user are summed.
        shape: numbers of users and items.
        weights: attention by rank, as long as the longest list.
    """
    from scipy import sparse  # pyright: ignore

    cells = [
        (owner, item, float(weights[place]))
        for row, owner in zip(rows, owners, strict=True)
        for place, item in enumerate(row)
        if item is not None
    ]
    users, items, values = (np.array([cell[i] for cell in cells]) for i in range(3))
    made: Any = sparse
    return made.csr_matrix((values, (users.astype(np.int64), items.astype(np.int64))), shape=shape)


def _half(first: Any, second: Any) -> float:
    return max(float(first.sum() + second.sum()) / 2.0, math.ulp(0.0))
