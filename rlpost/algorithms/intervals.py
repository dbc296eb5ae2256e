"""How sure a mean over problems or over seeds is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlpost.algorithms.passk import mean_and_error

_DRAWS = 4000
_BATCH = 500
"""Draws made at a time: bounds memory."""


def over_problems(values: Sequence[float], level: float = 0.95, draws: int = _DRAWS) -> tuple[float, float]:
    """Percentile bootstrap of a mean: problems are drawn anew with replacement (Efron 1979).

    For proportions near 0 or 1, where ± 1.96 standard errors would leave [0, 1], and for paired differences, whose
    pairs stay together because each is one value.

    Args:
        values: one per problem.
        level: of confidence, in (0, 1).
        draws: resamples; the same values always give the same interval.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: for no values, or a level outside (0, 1).
    """
    data = _checked(values, level)
    rng = np.random.default_rng(len(data))
    means = np.concatenate(
        [
            data[rng.integers(0, len(data), (min(_BATCH, draws - start), len(data)))].mean(axis=1)
            for start in range(0, draws, _BATCH)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def over_seeds(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's interval of a mean over runs with different seeds: mean ± t(n-1) · s / √n.

    With two or three runs t is large (12.7, 4.3), as it should be: a bootstrap of three values would be far too narrow.

    Args:
        values: one per run, at least two.
        level: of confidence, in (0, 1).

    Raises:
        ValueError: for fewer than two values, or a level outside (0, 1).
    """
    from scipy.stats import t  # pyright: ignore[reportMissingTypeStubs]

    data = _checked(values, level)
    if len(data) < 2:
        raise ValueError("one run says nothing about the spread over seeds; give two or more")
    quantile = float(t.ppf((1 + level) / 2, len(data) - 1))  # pyright: ignore[reportUnknownMemberType]
    half = quantile * float(data.std(ddof=1)) / len(data) ** 0.5
    mean = float(data.mean())
    return mean - half, mean + half


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
