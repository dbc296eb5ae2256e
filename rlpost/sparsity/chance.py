"""The null model of one pair: which displacement it assumes, and what that predicts for each group of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from rlpost.errors import UserError
from rlpost.learner.schedule import learning_rate
from rlpost.sparsity import nullmodel
from rlpost.sparsity.compare import Compared
from rlpost.sparsity.counting import BINS, CHANGED, VALUES, bin_edges, bin_of
from rlpost.sparsity.nullmodel import CODES, Displacement, Null, round_bfloat16

_DRAWS, _MORE_DRAWS = 2**15, 2**17
"""Of a tensor, and of several together: a tail of one in a hundred is known to some percent."""


@dataclass(frozen=True, slots=True)
class Training:
    """How the pair came about, as far as it is known; the noise that the null model puts in the place of learning.

    Attributes:
        lr: peak learning rate; None: unknown, the displacement is taken from the pair.
        steps: optimizer updates.
        optimizer: whose steps.
        betas: of AdamW.
        weight_decay: decoupled, as AdamW's.
        snr: mean over standard deviation of a weight's gradient, from step to step.
        gradient: standard deviation of a weight's gradient, which SGD needs.
        schedule: course of the learning rate after the warmup.
        warmup: updates of the rise.
        masters: number format in which the optimizer holds the weights.
        seed: of simulations.
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
        if self.lr is not None and not (self.lr > 0 and self.steps is not None and self.steps > 0):
            raise UserError(f"null model: lr {self.lr:g}, {self.steps} steps; both must be positive")
        if self.optimizer == "sgd" and self.lr is not None and not self.gradient:
            raise UserError(
                "null model: SGD's steps are as large as gradients; give their standard deviation (gradient)"
            )
        if self.masters == "bfloat16" and (self.lr is None or self.optimizer != "adamw"):
            raise UserError("null model: bfloat16 masters are simulated for AdamW with known lr and steps; give both")

    def factor(self, step: int) -> float:
        """On the learning rate, of a step."""
        return learning_rate(step, peak=1.0, warmup=self.warmup, total=self.steps or 1, kind=self.schedule, floor=0.0)

    @property
    def decay(self) -> float:
        """Factor that weight decay alone leaves of a weight."""
        if self.lr is None or not self.weight_decay:
            return 1.0
        rates = [self.lr * self.factor(step) * self.weight_decay for step in range(self.steps or 0)]
        return float(np.prod([1 - rate for rate in rates]))

    def displacement(self) -> Displacement:
        """For known lr and steps."""
        assert self.lr is not None
        assert self.steps is not None
        if self.optimizer == "sgd":
            mean = sum(map(self.factor, range(self.steps))) / self.steps
            return nullmodel.sgd(self.lr * mean, self.steps, self.gradient or 0.0, self.snr)
        return nullmodel.adamw(
            self.lr, self.steps, betas=self.betas, snr=self.snr, schedule=self.factor, seed=self.seed
        )


@dataclass(frozen=True, slots=True)
class Expected:
    """What the null model says of a group of tensors; None where it says nothing.

    Attributes:
        unchanged: entries whose bfloat16 cast stays.
        within_atol: entries whose casts differ by at most the tolerance.
        within_ulp: entries whose casts are neighbours at most.
        stored_within_atol: entries whose stored values differ by at most the tolerance.
        bins: entries by |Δ|, as `rlpost.sparsity.counting` has them; drawn, not exact.
        squares: sum of Δ² in each bin.
    """

    unchanged: float
    within_atol: float | None
    within_ulp: float | None
    stored_within_atol: float | None
    bins: np.ndarray | None
    squares: np.ndarray | None


@dataclass
class Chance:
    """Predictions under one displacement.

    Args:
        displacement: of every weight alike.
        atol: tolerance of the counts with one.
        training: see there.
        float32: whether AFTER is stored in float32, so that |Δ| is the displacement itself.
        rounding: P(unchanged) by code where the weights are bfloat16 and every step rounds.
    """

    displacement: Displacement
    atol: float
    training: Training
    float32: bool
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
        """For these tensors together."""
        codes = together(items)
        if self.rounding is not None:
            return Expected(float((codes.sum(axis=0) * self.rounding).sum()), None, None, None, None, None)
        unchanged, atol, ulp = (float((codes * self._tables[:, k]).sum()) for k in range(3))
        size = float(codes.sum())
        stored = size * float(self.displacement.share_within(self.atol)) if self.float32 else atol
        bins, squares = self._draw(codes, _DRAWS if len(items) == 1 else _MORE_DRAWS)
        return Expected(unchanged, atol, ulp, stored, bins, squares)

    def changing(self, codes: np.ndarray) -> np.ndarray:
        """Entries of each code whose cast is expected to change."""
        kept = self._tables[:, 0] if self.rounding is None else np.stack([self.rounding, self.rounding])
        return (codes * (1 - kept)).sum(axis=0)

    def _draw(self, codes: np.ndarray, draws: int) -> tuple[np.ndarray, np.ndarray]:
        size = float(codes.sum())
        if not size:
            return np.zeros(BINS), np.zeros(BINS)
        source = np.random.default_rng(self.training.seed)
        flat = np.cumsum(codes.reshape(-1))
        at = np.searchsorted(flat, (np.arange(draws) + source.random()) / draws * flat[-1], side="right")
        between, code = at >= CODES, (at % CODES).astype(np.int64)
        begun = VALUES[code].astype(np.float64)
        room = VALUES[np.minimum(code + 1, 0x7F7F)] - begun
        begun += np.where(between, (source.random(draws) - 0.5) * room, 0.0)
        moved = self.draw(begun, source)
        delta = moved - begun if self.float32 else round_bfloat16(moved) - round_bfloat16(begun)
        sizes = np.abs(delta[delta != 0]).astype(np.float64)
        place, share = bin_of(sizes), size / draws
        bins = np.bincount(place, minlength=BINS) * share
        return bins, np.bincount(place, np.square(sizes), minlength=BINS) * share

    def draw(self, weights: np.ndarray, source: np.random.Generator) -> np.ndarray:
        """The weights after one run of noise."""
        sizes = source.choice(self.displacement.sizes, weights.shape)
        return self.training.decay * weights + np.where(source.random(weights.shape) < 0.5, sizes, -sizes)


def together(items: Sequence[Compared]) -> np.ndarray:
    """How often each code occurs, on bfloat16's values and between: int64 ``[2, 32768]``."""
    total = np.zeros((2, CODES), np.int64)
    for item in items:
        total[:, item.codes[0]] += item.codes[1:]
    return total


def chance(items: Sequence[Compared], training: Training, atol: float) -> Chance | None:
    """The null model of a pair that has been compared.

    With a known learning rate and number of steps the displacement is simulated. Otherwise it comes from the pair: its
    own displacements dealt out anew where AFTER is float32, else the normal one that leaves as many entries unchanged.
    None where nothing has changed: then there is nothing to explain.
    """
    float32 = all(item.formats[1] in ("F32", "F64") for item in items)
    if training.lr is not None:
        displacement = training.displacement()
        rounding = None
        if training.masters == "bfloat16":
            assert training.steps is not None
            rounding = nullmodel.bfloat16_weights(
                np.flatnonzero(together(items).any(axis=0)), training.lr, training.steps,
                betas=training.betas, snr=training.snr, schedule=training.factor, seed=training.seed,
            )  # fmt: skip
        return Chance(displacement, atol, training, float32, rounding)
    size = sum(item.size for item in items)
    if float32:
        bins = np.sum([item.counts.bins for item in items], axis=0)
        if not bins.any():
            return None
        edges = bin_edges()
        sizes = np.concatenate([[0.0], (edges[1:] + edges[:-1]) / 2])
        return Chance(nullmodel.measured(sizes, np.concatenate([[size - bins.sum()], bins])), atol, training, True)
    changed = sum(int(item.counts.tally[CHANGED]) for item in items)
    if not 0 < changed < size:
        return None
    codes = together(items)
    displacement = nullmodel.fitted(lambda d: nullmodel.unchanged_share(codes, Null(d)), 1 - changed / size)
    return Chance(displacement, atol, training, False)
