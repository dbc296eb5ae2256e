"""The null model of one pair: the displacement it assumes, and what that predicts for each group of tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from rlpost.errors import UserError
from rlpost.optim.schedule import learning_rate
from rlpost.sparsity import nullmodel
from rlpost.sparsity.compare import Compared
from rlpost.sparsity.counting import BINS, VALUES, bin_edges, bin_of
from rlpost.sparsity.nullmodel import CODES, TINY, Displacement, Null, round_bfloat16

WIDE = ("F32", "F64")
"""Formats fine enough to show a displacement as it is."""

_DRAWS, _MORE_DRAWS = 2**15, 2**17
"""Sample size for one tensor and for several together: enough to know a tail of one in a hundred to some percent."""
_FEWEST = 100
"""Fewest changed entries in a sample from which sizes are estimated."""


@dataclass(frozen=True, slots=True)
class Training:
    """The training that led from one checkpoint to the other, as far as known; the null model replays it with noise.

    Attributes:
        lr: peak learning rate; None: unknown, the displacement is taken from the pair.
        steps: number of optimizer updates; None exactly if ``lr`` is.
        optimizer: optimizer whose steps on noise are modelled.
        betas: β₁, β₂ of AdamW, each in [0, 1).
        weight_decay: decoupled weight decay, as in AdamW.
        snr: mean over standard deviation of a weight's gradient across steps.
        gradient: standard deviation of a weight's gradient; needed for SGD.
        schedule: shape of the learning rate after the warmup.
        warmup: number of warmup updates.
        masters: number format in which the optimizer holds the weights.
        seed: random seed of the simulations.
    """

    lr: float | None = None
    steps: int | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    snr: float = 0.0
    gradient: float | None = None
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: int = 0
    masters: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.lr is None) != (self.steps is None):
            raise UserError(f"null model: lr is {self.lr} and steps are {self.steps}; give both or neither")
        if self.lr is not None and not (0 < self.lr < math.inf and self.steps is not None and self.steps > 0):
            raise UserError(f"null model: lr {self.lr:g}, {self.steps} steps; both must be positive")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"null model: betas are {self.betas}; use numbers from 0 to below 1")
        if not (math.isfinite(self.snr) and 0 <= self.weight_decay < math.inf and self.warmup >= 0):
            text = f"snr {self.snr:g}, weight decay {self.weight_decay:g}, warmup {self.warmup}"
            raise UserError(f"null model: {text}; use finite numbers, of which only snr may be negative")
        if self.optimizer == "sgd" and self.lr is not None and not self.gradient:
            raise UserError(
                "null model: SGD's steps are as large as gradients; give their standard deviation (gradient)"
            )
        if self.masters == "bfloat16" and (self.lr is None or self.optimizer != "adamw"):
            raise UserError("null model: bfloat16 masters are simulated for AdamW with known lr and steps; give both")

    def factor(self, step: int) -> float:
        """Factor on the learning rate in a step (0-based)."""
        return learning_rate(step, peak=1.0, warmup=self.warmup, total=self.steps or 1, kind=self.schedule, floor=0.0)

    @property
    def decay(self) -> float:
        """Factor by which weight decay alone shrinks a weight over the whole training."""
        if self.lr is None or not self.weight_decay:
            return 1.0
        rates = [self.lr * self.factor(step) * self.weight_decay for step in range(self.steps or 0)]
        return float(np.prod([1 - rate for rate in rates]))

    def displacement(self) -> Displacement:
        """The displacement that the optimizer makes on noise; ``lr`` and ``steps`` must be known."""
        assert self.lr is not None
        assert self.steps is not None
        if self.optimizer == "sgd":
            return nullmodel.sgd(self.lr, self.steps, self.gradient or 0.0, self.snr, self.factor)
        return nullmodel.adamw(
            self.lr, self.steps, betas=self.betas, snr=self.snr, schedule=self.factor, seed=self.seed
        )


@dataclass(frozen=True, slots=True)
class Drawn:
    """One run of the null model over a sample of weights, scaled up to all of them.

    Attributes:
        bins: changed entries by |Δ|, in the bins of `rlpost.sparsity.counting`.
        squares: sum of Δ² in each bin.
        within_atol: entries whose stored values differ by at most the tolerance.
        risen: share of the changed entries that rose; None with weight decay, which moves each sign its own way.
        outward: share of the changed entries that grew in magnitude.
    """

    bins: np.ndarray
    squares: np.ndarray
    within_atol: float
    risen: float | None
    outward: float


@dataclass(frozen=True, slots=True)
class Expected:
    """What the null model predicts for a group of tensors; None where it predicts nothing.

    Attributes:
        unchanged: entries whose bfloat16 cast stays the same.
        within_atol: entries whose casts differ by at most the tolerance.
        within_ulp: entries whose casts are equal or neighbours.
        stored: whether the stored values are bfloat16, so that the same predictions hold for them.
        drawn: sizes of the changes of stored values; None also for formats that are not modelled, and where so few
            entries change that a sample shows nothing.
    """

    unchanged: float
    within_atol: float | None = None
    within_ulp: float | None = None
    stored: bool = False
    drawn: Drawn | None = None


@dataclass
class Chance:
    """Predictions of the null model under one displacement.

    Args:
        displacement: distribution of δ, the same for every weight.
        atol: tolerance of the predictions for ``within_atol``.
        training: weight decay and seed of the null model.
        rounding: float64 ``[32768]``, P(unchanged) by magnitude bits, for bfloat16 masters, where every step rounds;
            None: float32 masters.
    """

    displacement: Displacement
    atol: float
    training: Training
    rounding: np.ndarray | None = None
    _tables: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        null = Null(self.displacement, self.training.decay)
        rows = [
            [null.unchanged(start), null.within(start, self.atol), null.within_steps(start)]
            for start in nullmodel.STARTS
        ]
        self._tables = np.array(rows)

    @property
    def made(self) -> str:
        """The displacement in words."""
        words = self.displacement.made
        return f"{words}, rounded to bfloat16 at each step" if self.rounding is not None else words

    def expect(self, items: Sequence[Compared]) -> Expected:
        """Predictions for these tensors together."""
        codes = together(items)
        if self.rounding is not None:
            return Expected(float((codes.sum(axis=0) * self.rounding).sum()))
        unchanged, atol, ulp = (float((codes * self._tables[:, k]).sum()) for k in range(3))
        narrow, wide = (stored_as(items, formats) for formats in (("BF16",), WIDE))
        drawn = self._draw(codes, wide, _DRAWS if len(items) == 1 else _MORE_DRAWS) if narrow or wide else None
        return Expected(unchanged, atol, ulp, narrow, drawn)

    def changing(self, codes: np.ndarray) -> np.ndarray:
        """Entries of each code whose cast is expected to change."""
        kept = self._tables[:, 0] if self.rounding is None else np.stack([self.rounding, self.rounding])
        return (codes * (1 - kept)).sum(axis=0)

    def _draw(self, codes: np.ndarray, wide: bool, draws: int) -> Drawn | None:
        size = float(codes.sum())
        if not size:
            return None
        source = np.random.default_rng(self.training.seed)
        flat = np.cumsum(codes.reshape(-1))
        at = np.searchsorted(flat, (np.arange(draws) + source.random()) / draws * flat[-1], side="right")
        between, code = at >= CODES, (at % CODES).astype(np.int64)
        begun = VALUES[code].astype(np.float64)
        room = VALUES[np.minimum(code + 1, 0x7F7F)] - begun
        begun += np.where(between, (source.random(draws) - 0.5) * room, 0.0)
        begun *= np.where(source.random(draws) < 0.5, 1.0, -1.0)
        moved = self.draw(begun, source)
        if not wide:
            begun, moved = (round_bfloat16(values).astype(np.float64) for values in (begun, moved))
        delta = moved - begun
        changed = delta != 0
        if changed.sum() < _FEWEST:
            return None
        sizes, share = np.abs(delta[changed]), size / draws
        place = bin_of(sizes)
        return Drawn(
            np.bincount(place, minlength=BINS) * share,
            np.bincount(place, np.square(sizes), minlength=BINS) * share,
            float((np.abs(delta) <= self.atol).sum()) * share,
            float((delta[changed] > 0).mean()) if self.training.decay == 1 else None,
            float((np.abs(moved) > np.abs(begun))[changed].mean()),
        )

    def draw(self, weights: np.ndarray, source: np.random.Generator) -> np.ndarray:
        """The weights after one run of noise."""
        sizes = source.choice(self.displacement.sizes, weights.shape)
        return self.training.decay * weights + np.where(source.random(weights.shape) < 0.5, sizes, -sizes)


def stored_as(items: Sequence[Compared], formats: Sequence[str]) -> bool:
    """Whether AFTER holds all these tensors in one of the given number formats."""
    return all(item.formats[1] in formats for item in items)


def together(items: Sequence[Compared]) -> np.ndarray:
    """How often each code occurs exactly on a bfloat16 value and between two: int64 ``[2, 32768]``."""
    total = np.zeros((2, CODES), np.int64)
    for item in items:
        total[:, item.codes[0]] += item.codes[1:]
    return total


def chance(items: Sequence[Compared], training: Training, atol: float) -> Chance | None:
    """The null model of a pair that has been compared.

    With a known learning rate and number of steps the displacement is simulated. Otherwise it comes from the pair: its
    own displacements in random order where AFTER is float32, else the normal one that leaves as many entries unchanged.
    None where nothing has changed, or no such noise leaves as many entries unchanged: then it explains nothing.
    """
    wide = stored_as(items, WIDE)
    if training.lr is not None:
        displacement = training.displacement()
        rounding = None
        if training.masters == "bfloat16":
            assert training.steps is not None
            rounding = nullmodel.bfloat16_weights(
                np.flatnonzero(together(items).any(axis=0)), training.lr, training.steps,
                betas=training.betas, snr=training.snr, schedule=training.factor, seed=training.seed,
            )  # fmt: skip
        return Chance(displacement, atol, training, rounding)
    size = sum(item.size for item in items)
    if wide:
        bins = np.sum([item.counts.bins for item in items], axis=0)
        if not bins.any():
            return None
        edges = bin_edges()
        sizes = np.concatenate([[0.0], (edges[1:] + edges[:-1]) / 2])
        return Chance(nullmodel.measured(sizes, np.concatenate([[size - bins.sum()], bins])), atol, training)
    # zeros change under any noise; padding and pruned weights that stay zero carry no information about its size
    codes = together(items)
    codes[:, :TINY] = 0
    changed = sum(int(item.counts.octaves[1:].sum()) for item in items)
    displacement = nullmodel.fitted(codes, 1 - changed / max(int(codes.sum()), 1))
    return None if displacement is None else Chance(displacement, atol, training)
