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


def over_problems(values: Sequence[float], level: float = 0.95, draws: int = _DRAWS) -> tuple[float, float]:
    """Percentile bootstrap of a mean: problems are drawn with replacement (Efron 1979).

    Use it for proportions near 0 or 1, where ± 1.96 standard errors would leave [0, 1], and for paired differences,
    whose pairs stay together because each is one value.

    Args:
        values: one value per problem.
        level: confidence level in (0, 1).
        draws: number of resamples; the same values always give the same interval.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: for no values, or a level outside (0, 1).
    """
    from scipy.stats import bootstrap  # pyright: ignore

    data = _checked(values, level)
    if len(data) == 1:  # the same value is drawn every time
        return float(data[0]), float(data[0])
    found: Any = bootstrap(
        (data,), np.mean, n_resamples=draws, batch=_BATCH, confidence_level=level, method="percentile",
        vectorized=True, rng=np.random.default_rng(len(data)),
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


def with_errors(name: str, values: Sequence[float]) -> dict[str, float]:
    """A mean over problems as the figures ``name``, ``name_se`` (standard error), ``name_low`` and ``name_high``.

    Raises:
        ValueError: for no values.
    """
    mean, error = mean_and_error(values)
    low, high = over_problems(values)
    return {name: mean, f"{name}_se": error, f"{name}_low": low, f"{name}_high": high}


def _checked(values: Sequence[float], level: float) -> np.ndarray:
    data = np.asarray(values, np.float64)
    if data.size == 0:
        raise ValueError("no values: an interval of nothing is undecided")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; give a share between 0 and 1")
    return data
