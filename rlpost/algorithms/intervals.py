"""Confidence intervals of a mean over problems or over seeds, and of a proportion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rlpost.algorithms.passk import mean_and_error

_DRAWS = 4000
_BATCH = 500
"""Resamples drawn at a time, which bounds memory."""


def over_problems(
    values: Sequence[float], level: float = 0.95, draws: int = _DRAWS, clusters: Sequence[str] | None = None
) -> tuple[float, float]:
    """Percentile bootstrap of a mean: problems are drawn with replacement (Efron 1979).

    Use it for proportions near 0 or 1, where ± 1.96 standard errors would leave [0, 1], and for paired differences,
    whose pairs stay together because each is one value.

    Args:
        values: one value per problem.
        level: confidence level in (0, 1).
        draws: number of resamples; the same values always give the same interval.
        clusters: name of each problem's cluster, such as the conversation that several problems come from; whole
            clusters are drawn (Davison and Hinkley 1997, section 3.8). None: each problem is one of its own.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: for no values, or a level outside (0, 1).
    """
    from scipy.stats import bootstrap  # pyright: ignore

    data = _checked(values, level)
    sums, sizes = _by_cluster(data, clusters)
    if len(sums) == 1:  # the same value is drawn every time
        return float(data.mean()), float(data.mean())
    found: Any = bootstrap(
        (sums, sizes), _ratio, n_resamples=draws, batch=_BATCH, confidence_level=level, method="percentile",
        paired=True, vectorized=True, rng=np.random.default_rng(len(sums)),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)


def over_seeds(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's interval of a mean over runs with different seeds: mean ± t(n-1) · s / √n.

    With two or three runs t is large (12.7, 4.3), as it should be: a bootstrap of three values would be far too narrow.

    Args:
        values: one value per run, at least two.
        level: confidence level in (0, 1).

    Raises:
        ValueError: for fewer than two values, or a level outside (0, 1).
    """
    from scipy import stats as scipy_stats  # pyright: ignore

    stats: Any = scipy_stats

    data = _checked(values, level)
    if len(data) < 2:
        raise ValueError("one run says nothing about the spread over seeds; give two or more")
    # equal values have no spread: an interval of no length
    low, high = stats.t.interval(level, len(data) - 1, data.mean(), stats.sem(data) or math.ulp(0.0))
    return float(low), float(high)


def wilson(successes: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927), which stays in [0, 1] and has a length at 0 and 1 too.

    Args:
        successes: number of successes, 0 to ``count``.
        count: number of trials.
        level: confidence level in (0, 1).

    Raises:
        ValueError: for no trials, or numbers out of range.

    >>> tuple(round(end, 3) for end in wilson(9, 10))
    (0.596, 0.982)
    """
    from scipy.stats import binomtest  # pyright: ignore

    if not 0 <= successes <= count or count == 0:
        raise ValueError(f"{successes} successes of {count} trials; give 1 trial or more, and no more successes")
    found: Any = binomtest(successes, count).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def with_errors(name: str, values: Sequence[float], clusters: Sequence[str] | None = None) -> dict[str, float]:
    """A mean over problems as the figures ``name``, ``name_se`` (standard error), ``name_low`` and ``name_high``.

    ``clusters`` are those of `over_problems`; the standard error is then √(c/(c-1) Σ_g (Σ_{i ∈ g} (x_i - x̄))²) / n with
    c clusters g (Cameron and Miller 2015, "A practitioner's guide to cluster-robust inference", eq. 11), 0 for one.

    Raises:
        ValueError: for no values.
    """
    mean, error = mean_and_error(values)
    if clusters is not None:
        sums, sizes = _by_cluster(np.asarray(values, np.float64), clusters)
        count = len(sums)
        error = math.sqrt(count / max(count - 1, 1) * float(np.square(sums - mean * sizes).sum())) / len(values)
    low, high = over_problems(values, clusters=clusters)
    return {name: mean, f"{name}_se": error, f"{name}_low": low, f"{name}_high": high}


def _by_cluster(data: np.ndarray, clusters: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the values of each cluster, and their number."""
    if clusters is None:
        return data, np.ones_like(data)
    if len(clusters) != len(data):
        raise ValueError(f"{len(data)} values and {len(clusters)} clusters")
    _, number = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    return np.bincount(number, weights=data), np.bincount(number).astype(np.float64)


def _ratio(sums: np.ndarray, sizes: np.ndarray, axis: int = -1) -> np.ndarray:
    return sums.sum(axis=axis) / sizes.sum(axis=axis)


def _checked(values: Sequence[float], level: float) -> np.ndarray:
    data = np.asarray(values, np.float64)
    if data.size == 0:
        raise ValueError("no values: an interval of nothing is undecided")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; give a share between 0 and 1")
    return data
