"""pass@k and its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence


def pass_at_k(samples: int, correct: int, k: int) -> float:
    r"""Unbiased estimate of P(at least one of k samples is correct): 1 - C(n-c, k) / C(n, k).

    Chen et al. 2021, "Evaluating large language models trained on code", eq. 1, as a product so that no factorial
    overflows.

    Args:
        samples: number n ≥ k of decided samples.
        correct: number c of correct samples, in [0, n].
        k: number k ≥ 1 of samples to draw.

    Returns:
        A probability in [0, 1].

    Raises:
        ValueError: if k > n (the estimate would need samples that were not drawn) or a count is out of range.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs 1 <= k <= samples, got {samples} samples")
    if not 0 <= correct <= samples:
        raise ValueError(f"{correct} correct of {samples} samples")
    if samples - correct < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(samples - correct + 1, samples + 1))


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean over problems and its standard error (sample standard deviation / √n; 0 for one value).

    Raises:
        ValueError: for no values.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values: a mean over nothing is undecided, not 0")
    mean = math.fsum(values) / n
    if n == 1:
        return mean, 0.0
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)
