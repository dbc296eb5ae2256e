r"""What rounding alone leaves unchanged: a null model that moves weights by noise independent of them.

A weight w starts at w₀, is moved by a displacement δ that is independent of it, and is compared in bfloat16 before and
after. It appears unchanged if w₀ + δ rounds to the same value as w₀: if it stays within the rounding interval
:math:`[\ell, h]` of bfloat16(w₀),

.. math:: P(\text{unchanged} \mid w_0) = P(\ell - w_0 \le \delta \le h - w_0),

where :math:`h - \ell` is one step of bfloat16, :math:`2^{\lfloor\log_2|w|\rfloor - 7}`. That is exact for any δ; it
depends on the weights, and on whether they start on bfloat16's values (as after loading a bfloat16 checkpoint) or
anywhere (as after training in float32). Only the distribution of δ is modelled: for AdamW on noise by simulation, for
SGD on noise in closed form. bfloat16 master weights have no such interval, as each step rounds: they are simulated. The
same intervals, made wider, give the shares within a tolerance; two such runs from the same start give the overlap that
chance alone explains.

The model is needed because "RL Finetunes Small Subnetworks" (arXiv 2505.11711) reads sparsity, rank and overlap off
bfloat16 checkpoints; "RL's Razor" (2509.04259) and "The Path Not Taken" (2511.08567) point to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtri

Start = Literal["exact", "between"]
"""Whether weights are exact bfloat16 values, or spread evenly over the rounding interval of the nearest one."""

STARTS: tuple[Start, Start] = ("exact", "between")
"""Row order of counts by start."""

CODES = 2**15
"""Number of codes: the bit patterns of a bfloat16 magnitude."""

TINY = 128
"""Number of codes of zero and the subnormal numbers."""

_FINITE = 0x7F80
_MAGNITUDES = (np.arange(_FINITE + 1, dtype=np.uint32) << 16).view(np.float32).astype(np.float64)
_MAGNITUDES[-1] = 2.0**128
"""Finite magnitudes of bfloat16 in order, and where the next one would be."""

_VALUES = np.concatenate([-_MAGNITUDES[:0:-1], _MAGNITUDES])
_MIDDLES = (_VALUES[1:] + _VALUES[:-1]) / 2
"""Midpoints between neighbouring values of bfloat16, negative ones included: where rounding switches to the next."""

_MISSED = 0.01
_POINTS = 4096
"""Quantiles that represent a distribution of δ."""


@dataclass(frozen=True, slots=True)
class Displacement:
    """A distribution of δ, symmetric about zero.

    Attributes:
        sizes: equally likely values of |δ|, ascending, in the weights' unit.
        made: origin of the distribution, in words.
    """

    sizes: np.ndarray
    made: str

    @property
    def scale(self) -> float:
        """Root mean square of δ."""
        return float(np.sqrt(np.mean(np.square(self.sizes))))

    def share_within(self, limit: np.ndarray | float) -> np.ndarray:
        """P(|δ| ≤ limit)."""
        return np.searchsorted(self.sizes, limit, side="right") / len(self.sizes)

    def room_within(self, limit: np.ndarray) -> np.ndarray:
        """E[max(limit − |δ|, 0)]: the integral of `share_within`."""
        sums = np.concatenate([[0.0], np.cumsum(self.sizes)])
        count = np.searchsorted(self.sizes, limit, side="right")
        return (count * limit - sums[count]) / len(self.sizes)


def gaussian(scale: float, made: str = "") -> Displacement:
    """Normal displacement with standard deviation ``scale``, the limit of many independent steps."""
    quantiles = (np.arange(_POINTS) + 0.5) / _POINTS
    return Displacement(scale * ndtri(0.5 + quantiles / 2), made or f"normal, standard deviation {scale:.3g}")


def measured(sizes: np.ndarray, weights: np.ndarray) -> Displacement:
    """The displacement found, independent of the weights: values of |Δ| (``sizes``) and how often each occurs."""
    order = np.argsort(sizes)
    total = np.cumsum(weights[order])
    at = np.searchsorted(total, (np.arange(_POINTS) + 0.5) / _POINTS * total[-1])
    return Displacement(sizes[order][at], "the pair's own displacements, dealt out anew")


def sgd(
    lr: float, steps: int, gradient: float, snr: float = 0.0, schedule: Callable[[int], float] | None = None
) -> Displacement:
    r"""SGD on noise: :math:`\delta \sim N(\pm\eta\mu\sum_t f_t, \eta^2 \sigma^2 \sum_t f_t^2)`, in closed form.

    Args:
        lr: learning rate η.
        steps: number of steps t.
        gradient: standard deviation σ of a weight's gradient.
        snr: μ / σ, the part of the gradient that is the same in every step.
        schedule: factor f on η by step, 0-based; None: 1.
    """
    factors = np.array([schedule(step) if schedule else 1.0 for step in range(steps)])
    noise = gaussian(1.0).sizes
    both = np.abs(np.concatenate([noise, -noise]) * math.sqrt(np.square(factors).sum()) + snr * factors.sum())
    return Displacement(np.sort(lr * gradient * both), f"SGD on noise: lr {lr:g}, {steps} steps, gradient {gradient:g}")


def adamw(
    lr: float,
    steps: int,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    snr: float = 0.0,
    schedule: Callable[[int], float] | None = None,
    seed: int = 0,
) -> Displacement:
    r"""AdamW on noise, simulated: gradients :math:`g_t \sim N(\mu, 1)`; their scale cancels.

    With μ = 0 and many steps |δ| is close to normal with standard deviation :math:`\eta\sqrt T`.

    Args:
        lr: learning rate η.
        steps: number of steps T.
        betas: β₁, β₂.
        snr: μ, as a multiple of the gradient's standard deviation.
        schedule: factor on η by step, 0-based; None: 1.
        seed: random seed of the noise.
    """
    source = np.random.default_rng(seed)
    walk = _Adam(_POINTS * 4, betas, snr, source)
    moved = np.zeros(_POINTS * 4)
    for step in range(steps):
        moved -= lr * (schedule(step) if schedule else 1.0) * walk.step()
    sizes = np.sort(np.abs(moved)).reshape(_POINTS, 4).mean(axis=1)
    return Displacement(sizes, f"AdamW on noise: lr {lr:g}, {steps} steps, snr {snr:g}, simulated")


class _Adam:
    """Adam's update directions on noise, for many weights at once; ε is omitted, as it is far below a gradient."""

    def __init__(self, count: int, betas: tuple[float, float], snr: float, source: np.random.Generator) -> None:
        self.first, self.second, self.steps = np.zeros(count), np.zeros(count), 0
        self.betas, self.snr, self.source = betas, snr, source

    def step(self) -> np.ndarray:
        self.steps += 1
        one, two = self.betas
        gradient = self.source.standard_normal(len(self.first)) + self.snr
        self.first += (1 - one) * (gradient - self.first)
        self.second += (1 - two) * (np.square(gradient) - self.second)
        return self.first / (1 - one**self.steps) / np.sqrt(self.second / (1 - two**self.steps))


@dataclass(frozen=True, slots=True)
class Null:
    r"""Probabilities under the null model by the magnitude bits of bfloat16(w): float64 ``[32768]`` for a given start.

    Attributes:
        displacement: distribution of δ, the same for every weight.
        decay: factor on every weight over the whole training, :math:`(1 - \eta\lambda)^T` with weight decay λ.
    """

    displacement: Displacement
    decay: float = 1.0

    def unchanged(self, start: Start) -> np.ndarray:
        """P(the bfloat16 cast is unchanged)."""
        return self._kept(*_interval(0), start)

    def within_steps(self, start: Start, steps: int = 1) -> np.ndarray:
        """P(the cast moved by at most ``steps`` values of bfloat16)."""
        return self._kept(*_interval(steps), start)

    def within(self, start: Start, limit: float) -> np.ndarray:
        """P(the casts differ by at most ``limit``)."""
        return self._kept(*_interval_within(limit), start)

    def overlap(self, other: Null, start: Start) -> np.ndarray:
        """P(changed in this run and in an independent one from the same weights)."""
        low, high = _interval(0)

        def both(at: np.ndarray) -> np.ndarray:
            return (1 - self._kept_from(at, low, high)) * (1 - other._kept_from(at, low, high))

        if start == "exact":
            return _padded(both(_MAGNITUDES[:-1]), 0.0)
        parts = (share * both(low + (high - low) * point) for point, share in zip(*_graded(), strict=True))
        return _padded(sum(parts, np.zeros(_FINITE)), 0.0)

    def _kept(self, low: np.ndarray, high: np.ndarray, start: Start) -> np.ndarray:
        if start == "exact":
            return _padded(self._kept_from(_MAGNITUDES[:-1], low, high), 1.0)
        first, last = _interval(0)
        return _padded(self._kept_between(first, last, low, high), 1.0)

    def _kept_from(self, at: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """P(low ≤ decay · at + δ ≤ high)."""
        here, within = self.decay * at, self.displacement.share_within
        up = within(high - here) - within(low - here)
        down = within(here - low) - within(here - high)
        return (up + down) / 2

    def _kept_between(self, first: np.ndarray, last: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """P(low ≤ decay · w + δ ≤ high) for weights spread evenly from ``first`` to ``last``."""
        here, there, room = self.decay * first, self.decay * last, self.displacement.room_within
        up = room(high - here) - room(high - there) - room(low - here) + room(low - there)
        down = room(there - low) - room(here - low) - room(there - high) + room(here - high)
        return (up + down) / 2 / (there - here)


def bfloat16_weights(
    codes: np.ndarray,
    lr: float,
    steps: int,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    snr: float = 0.0,
    schedule: Callable[[int], float] | None = None,
    draws: int = 16,
    seed: int = 0,
) -> np.ndarray:
    """P(unchanged) for bfloat16 master weights, where every step of AdamW on noise is rounded; simulated.

    Args:
        codes: int ``[n]``, magnitude bits to simulate.
        lr: learning rate.
        steps: number of steps.
        betas: β₁, β₂.
        snr: mean of the gradient, as a multiple of its standard deviation.
        schedule: factor on the learning rate by step, 0-based; None: 1.
        draws: simulated weights per code.
        seed: random seed of the noise.

    Returns:
        float64 ``[32768]`` by code, 1 for codes that were not asked for.
    """
    walk = _Adam(len(codes) * draws, betas, snr, np.random.default_rng(seed))
    begun = np.repeat(_MAGNITUDES[codes], draws).astype(np.float32)
    weights = begun.copy()
    for step in range(steps):
        rate = lr * (schedule(step) if schedule else 1.0)
        weights = round_bfloat16(weights - (rate * walk.step()).astype(np.float32))
    found = np.ones(CODES)
    found[codes] = (weights == begun).reshape(len(codes), draws).mean(axis=1)
    return found


def round_bfloat16(values: np.ndarray) -> np.ndarray:
    """Round float32 values to bfloat16, ties to even; returns float32. NaN is not handled."""
    bits = values.astype(np.float32).view(np.uint32)
    return (((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) << 16).astype(np.uint32).view(np.float32)


def unchanged_share(codes: np.ndarray, null: Null) -> float:
    """Expected unchanged share of entries that are counted by start and magnitude bits, int ``[2, 32768]``."""
    return weighted(codes, null.unchanged) / max(float(codes.sum()), 1.0)


def weighted(codes: np.ndarray, probability: Callable[[Start], np.ndarray]) -> float:
    """Expected number of entries from probabilities by code; ``probability`` is not called for a start without any."""
    return float(sum(codes[k] @ probability(start) for k, start in enumerate(STARTS) if codes[k].any()))


def fitted(codes: np.ndarray, share: float) -> Displacement | None:
    """The normal displacement under which a given share of weights stays unchanged; None where there is none.

    Args:
        codes: counts by start and magnitude bits, int ``[2, 32768]``. Leave out zeros, which change under any noise.
        share: share of unchanged entries to reproduce.
    """

    def unchanged(displacement: Displacement) -> float:
        return unchanged_share(codes, Null(displacement))

    if not 0 < share < 1:
        return None
    low, high = -40.0, 4.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if unchanged(gaussian(2.0**middle)) > share else (low, middle)
    scale = 2.0**low
    if abs(unchanged(gaussian(scale)) - share) > _MISSED:
        return None
    return gaussian(scale, f"normal, standard deviation {scale:.3g} (fitted to the changed share)")


def _interval(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Interval that rounds to each magnitude or to a neighbour up to ``steps`` away; neighbours may be negative."""
    at = np.arange(_FINITE) + _FINITE
    return _between(at - steps, at + steps)


def _interval_within(limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Interval that rounds to a value at most ``limit`` away from each magnitude."""
    here = _MAGNITUDES[:-1]
    return _between(
        np.searchsorted(_VALUES, here - limit, side="left"), np.searchsorted(_VALUES, here + limit, side="right") - 1
    )


def _between(lowest: np.ndarray, highest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interval that rounds to one of the values between two indices into `_VALUES`."""
    return _MIDDLES[np.maximum(lowest - 1, 0)], _MIDDLES[np.minimum(highest, len(_MIDDLES) - 1)]


def _graded() -> tuple[np.ndarray, np.ndarray]:
    """Quadrature points of the unit interval and their weights, finer towards both ends: displacements that are small
    against the interval only matter there.
    """
    edges = np.concatenate([[0.0], np.geomspace(2.0**-16, 0.5, 15 * 2 + 1)])
    points, shares = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    return np.concatenate([points, 1 - points]), np.concatenate([shares, shares])


def _padded(values: np.ndarray, rest: float) -> np.ndarray:
    found = np.full(CODES, rest)
    found[:_FINITE] = values
    return found
