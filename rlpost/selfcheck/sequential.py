"""A test that may be looked at after every step, without the false alarms that looking often otherwise brings."""

from __future__ import annotations

import math

ALPHA = 1e-9
"""Probability that a healthy run is ever ended by one such test."""


def boundary(variance: float, scale: float) -> float:
    r"""The value that a sum of fair increments with this variance exceeds, ever, with probability at most `ALPHA`.

    u(V) = √((V + s) log((V + s) / (s α²))): Robbins' mixture of normal likelihood ratios (Robbins 1970, "Statistical
    methods related to the law of the iterated logarithm"; Howard et al. 2021, "Time-uniform, nonparametric,
    nonasymptotic confidence sequences", eq. 14).

    Args:
        variance: sum V ≥ 0 of the increments' variances.
        scale: s > 0, the V at which the test is sharpest.
    """
    return math.sqrt((variance + scale) * math.log((variance + scale) / (scale * ALPHA**2)))


def excess_over_chance(total: float, allowed: float, variance: float) -> float:
    """How far a sum is beyond what is allowed and what chance explains; positive decides.

    Args:
        total: the sum.
        allowed: |sum| that needs no explanation, ≥ 0.
        variance: sum of the increments' variances.

    >>> excess_over_chance(100.0, 10.0, 25.0) > 0 > excess_over_chance(20.0, 10.0, 25.0)
    True
    """
    if not math.isfinite(total) or not math.isfinite(variance):
        return math.inf
    if variance <= 0:
        return 0.0 if total == 0 else abs(total) - allowed
    return abs(total) - allowed - boundary(variance, max(variance / 4, 1e-12))
