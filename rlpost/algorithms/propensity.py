r"""Propensities: how likely each rank of a list is to be looked at, to correct clicks for position bias.

A click at rank k means that the item was relevant *and* looked at; logs therefore favour top ranks. Dividing each click
by the propensity θ_k of its rank gives unbiased metrics and rewards (Joachims, Swaminathan and Schnabel 2017, "Unbiased
learning-to-rank with biased feedback").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def inverse_weights(ranks: Sequence[int], propensities: Sequence[float], least: float = 0.05) -> list[float]:
    """1 / max(θ_k, least) for clicks at these ranks (1-based).

    The bound trades a little bias for bounded variance at ranks that are hardly ever looked at.

    Args:
        ranks: rank of each click, 1-based.
        propensities: θ_1, θ_2, …, each in (0, 1]; later ranks use the last one.
        least: smallest propensity that is divided by, in (0, 1].

    Raises:
        ValueError: for a rank below 1, a propensity outside (0, 1], or no propensities.

    >>> inverse_weights([1, 3, 9], [1.0, 0.5, 0.25])
    [1.0, 4.0, 4.0]
    """
    if not propensities or not all(0 < theta <= 1 for theta in propensities) or not 0 < least <= 1:
        raise ValueError(f"propensities {list(propensities)!r}, least {least}: give numbers above 0 and up to 1")
    if any(rank < 1 for rank in ranks):
        raise ValueError(f"rank {min(ranks)}: ranks count from 1")
    return [1.0 / max(propensities[min(rank, len(propensities)) - 1], least) for rank in ranks]


def estimate(
    items: Sequence[int], ranks: Sequence[int], clicks: Sequence[bool], rounds: int = 200, tolerance: float = 1e-6
) -> np.ndarray:
    r"""Propensities of ranks from logged impressions, by expectation maximisation of the position-based model.

    P(click on item i at rank k) = θ_k γ_i (Richardson, Dominowska and Ragno 2007; EM as in Wang et al. 2018, "Position
    bias estimation for unbiased learning to rank in personal search", section 4). Only products are
    observed, so θ is scaled to θ_1 = 1; and at least one item must have been shown at several ranks, or rank and
    relevance cannot be told apart.

    Args:
        items: item shown in each impression, numbered from 0.
        ranks: rank of each impression, 1-based.
        clicks: whether each impression was clicked.
        rounds: largest number of EM rounds.
        tolerance: stop once every θ changes by less than this.

    Returns:
        θ for ranks 1 to the largest, in (0, 1].

    Raises:
        ValueError: if the three differ in length or are empty, or no item was shown at two ranks.
    """
    item, rank, click = np.asarray(items, np.int64), np.asarray(ranks, np.int64) - 1, np.asarray(clicks, bool)
    if not len(item) == len(rank) == len(click) or not len(item):
        raise ValueError(f"{len(item)} items, {len(rank)} ranks, {len(click)} clicks: give one of each per impression")
    pairs = np.unique(np.stack([item, rank]), axis=1)
    if np.bincount(pairs[0]).max() < 2:
        raise ValueError("no item was shown at two ranks: relevance and rank cannot be told apart")
    theta, gamma = np.full(rank.max() + 1, 0.5), np.full(item.max() + 1, 0.5)
    shown_at, shown = np.bincount(rank, minlength=len(theta)), np.bincount(item, minlength=len(gamma))
    for _ in range(rounds):
        missed = 1.0 - theta[rank] * gamma[item]
        looked = np.where(click, 1.0, theta[rank] * (1 - gamma[item]) / missed)
        liked = np.where(click, 1.0, (1 - theta[rank]) * gamma[item] / missed)
        after = np.bincount(rank, looked, len(theta)) / np.maximum(shown_at, 1)
        gamma = np.clip(np.bincount(item, liked, len(gamma)) / np.maximum(shown, 1), 1e-6, 1 - 1e-6)
        after = np.clip(after, 1e-6, 1 - 1e-6)
        moved = float(np.abs(after - theta).max())
        theta = after
        if moved < tolerance:
            break
    return np.minimum(theta / theta[0], 1.0)
