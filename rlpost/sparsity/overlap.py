r"""Do two runs change the same entries more often than chance?

The share of one run's changed entries that another run changed too is compared with four expectations:

- **density chance**, as in "RL Finetunes Small Subnetworks" (arXiv 2505.11711): the density of the other's changes;
- **density by tensor**: the same within each tensor, :math:`\sum_t a_t b_t / n_t`;
- **magnitude-matched chance**: within each tensor and octave of |w|, :math:`\sum_s a_s b_s / n_s` over strata s. In
  bfloat16 small weights change first in every run, whatever it learns; only an excess over this can come from learning;
- **noise**: two runs of the null model (`rlpost.sparsity.nullmodel`) from the actual weights, each with the normal
  displacement that changes as many entries as the run did. It uses every single weight, but ignores tensors.

Under independence within strata the number in common has the hypergeometric variance
:math:`\sum_s a_s b_s (n_s-a_s)(n_s-b_s) / (n_s^2 (n_s-1))`. That holds for independent entries; entries of a tensor are
not, so a second standard error treats whole tensors as the units (jackknife).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from torch import Tensor

from rlpost.errors import DataError, UserError
from rlpost.sparsity.checkpoint import Checkpoint, as_bits, open_checkpoint
from rlpost.sparsity.compare import PIECE, as_trained, cast_changed
from rlpost.sparsity.nullmodel import CODES, TINY, Null, fitted, weighted
from rlpost.sparsity.pairs import match, same
from rlpost.sparsity.stored import Stored
from rlpost.tuning.masks import in_common

Counted = tuple[np.ndarray, np.ndarray]
"""The octaves that occur in a tensor ``[o]``, and the entries of each by the set of checkpoints that changed them
``[o, 2^k]``."""

OCTAVES = 256
MOST = 10
"""Largest number of checkpoints compared at once: every combination of changes is counted."""


@dataclass(frozen=True, slots=True)
class Strata:
    """Counts by tensor and octave of |w|: int64 ``[s]`` each.

    Attributes:
        total: entries n.
        first: entries changed in the first run, a.
        second: entries changed in the second run, b.
        both: entries changed in both.
        unit: index of the tensor that a stratum belongs to.
        octave: exponent bits of its weights; 0: zeros and subnormal numbers.
    """

    total: np.ndarray
    first: np.ndarray
    second: np.ndarray
    both: np.ndarray
    unit: np.ndarray
    octave: np.ndarray


@dataclass(frozen=True, slots=True)
class Overlap:
    """The changes that two runs have in common. Shares are None where a run has changed nothing.

    Attributes:
        first: name of one run.
        second: name of the other run.
        changed: entries changed by each run.
        both: entries changed by both.
        share_of_first: both / changed by the first.
        share_of_second: both / changed by the second.
        jaccard: both / changed by either.
        expected: entries that both change under each kind of chance: ``density``, ``tensor``, ``magnitude``, ``noise``.
        excess: (both − magnitude-matched chance) as a share of the first run's changes.
        error: standard error of the excess if entries are independent.
        error_by_tensor: standard error of the excess with tensors as units (jackknife); None if it cannot be estimated,
            as for a single tensor.
    """

    first: str
    second: str
    changed: tuple[int, int]
    both: int
    share_of_first: float | None
    share_of_second: float | None
    jaccard: float | None
    expected: Mapping[str, float]
    excess: float | None
    error: float | None
    error_by_tensor: float | None

    def chance(self, kind: str) -> tuple[float | None, float | None, float | None]:
        """The two shares and the Jaccard index expected under a kind of chance; None where there is no expectation."""
        if kind not in self.expected:
            return None, None, None
        (one, two), both = self.changed, self.expected[kind]
        union = one + two - both
        return both / one if one else None, both / two if two else None, both / union if union else None


def overlap_of(first: str, second: str, strata: Strata, codes: np.ndarray | None = None) -> Overlap:
    """Compute the overlap of two runs from counts.

    Args:
        first: name of one run.
        second: name of the other run.
        strata: changes by tensor and octave of |w|.
        codes: int64 ``[2, 32768]``, entries by magnitude bits of the starting weights, exactly on bfloat16's values and
            between them; None: no expectation under ``noise``.
    """
    one, two, both = (int(x.sum()) for x in (strata.first, strata.second, strata.both))
    total = int(strata.total.sum())
    matched, variance = in_common(strata.total, strata.first, strata.second)
    units = int(strata.unit.max()) + 1 if len(strata.unit) else 0
    by_unit = [np.bincount(strata.unit, x, units) for x in (strata.total, strata.first, strata.second)]
    beyond = np.bincount(strata.unit, strata.both - matched, units)
    expected = float(matched.sum())
    union = one + two - both
    return Overlap(
        first,
        second,
        (one, two),
        both,
        both / one if one else None,
        both / two if two else None,
        both / union if union else None,
        {
            "density": one * two / total if total else 0.0,
            "tensor": float(in_common(*by_unit)[0].sum()),
            "magnitude": expected,
            **({} if codes is None else _noise(codes, strata)),
        },
        (both - expected) / one if one else None,
        float(np.sqrt(variance.sum())) / one if one else None,
        _jackknife(beyond, by_unit[1]),
    )


def _jackknife(above: np.ndarray, below: np.ndarray) -> float | None:
    """Standard error of the ratio Σ above / Σ below by leaving out one term at a time (Efron, 1982)."""
    rest = below.sum() - below
    if len(below) < 2 or (rest <= 0).any():
        return None
    left_out = (above.sum() - above) / rest
    return float(np.sqrt((len(below) - 1) * np.var(left_out)))


def _noise(codes: np.ndarray, strata: Strata) -> dict[str, float]:
    """Entries that two runs of noise both change, if each changes as many as found; empty where no noise does.

    Zeros change under any noise; padding and pruned weights that stay zero carry no information about its size. Zeros
    are assumed to change independently in the two runs.
    """
    normal = codes.copy()
    normal[:, :TINY] = 0
    total, apart = int(normal.sum()), strata.octave > 0
    runs = [fitted(normal, 1 - int(x[apart].sum()) / max(total, 1)) for x in (strata.first, strata.second)]
    if runs[0] is None or runs[1] is None:
        return {}
    one, two = Null(runs[0]), Null(runs[1])
    zeros = in_common(strata.total, strata.first, strata.second)[0][~apart].sum()
    return {"noise": weighted(normal, lambda start: one.overlap(two, start)) + float(zeros)}


def overlaps(
    base: str | Path, paths: Sequence[str | Path], pickles: bool = False, threads: int | None = None
) -> tuple[list[Overlap], dict[str, str]]:
    """The overlap of every pair of checkpoints that were trained from the same base.

    Args:
        base: checkpoint that all of them were trained from.
        paths: 2 to `MOST` checkpoints; the result names them by these paths.
        pickles: also read ``pytorch_model*.bin``, with `torch.load` restricted to weights.
        threads: counting threads; None: one per core.

    Returns:
        The overlap of each pair, and the tensors that were left out, name to reason.

    Raises:
        DataError: if one cannot be read, or shapes differ.
        UserError: for fewer than two or more than `MOST` checkpoints.
    """
    names = [str(path) for path in paths]
    if not 2 <= len(names) <= MOST:
        raise UserError(f"overlap: {len(names)} checkpoints; give 2 to {MOST}")
    _all_different([Path(base), *map(Path, paths)])
    start = open_checkpoint(base, pickles=pickles)
    ends = [open_checkpoint(path, start, pickles) for path in paths]
    matched = [match(start, end) for end in ends]
    for one in matched:  # with a head that is tied at the start and has values of its own in one of the ends
        start = replace(start, tensors={**one.before.tensors, **start.tensors})
    ends = [replace(one.after, tensors=_with_head(one.after, start)) for one in matched]
    common = [n for n in start.tensors if all(n in end.tensors for end in ends)]
    left_out = {n: "not in every checkpoint" for one in matched for n in (*one.only_before, *one.only_after)}
    for one in matched:
        left_out |= one.left_out
    left_out = {name: reason for name, reason in left_out.items() if name not in common}
    if not common:
        raise DataError(f"overlap: no tensor is in all of {', '.join(names)}; compare checkpoints of one model")
    found: list[Counted] = []
    codes = np.zeros((2, CODES), np.int64)
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for patterns, here in pool.map(lambda name: _patterns(name, start, ends), common):
            octaves = np.flatnonzero(patterns.any(axis=1))
            found.append((octaves, patterns[octaves]))
            codes += here
    pairs = combinations(range(len(names)), 2)
    return [overlap_of(names[i], names[j], _strata(found, i, j), codes) for i, j in pairs], left_out


def _with_head(end: Checkpoint, start: Checkpoint) -> dict[str, Stored]:
    return {**{name: one for name, one in end.tied.items() if name in start.tensors}, **end.tensors}


def _all_different(paths: Sequence[Path]) -> None:
    for one, two in combinations(paths, 2):
        if same(one, two):
            raise DataError(f"{one} and {two} are the same; give different checkpoints")


def _patterns(name: str, start: Checkpoint, ends: Sequence[Checkpoint]) -> tuple[np.ndarray, np.ndarray]:
    """Entries by octave of |w| and by the set of checkpoints that changed them, int64 ``[256, 2^k]``; and by magnitude
    bits, int64 ``[2, 32768]``.
    """
    kinds = 2 ** len(ends)
    size = start.tensors[name].size
    found = np.zeros(OCTAVES * kinds, np.int64)
    codes = np.zeros((2, CODES), np.int64)
    for at in range(0, size, PIECE):
        span = at, min(at + PIECE, size)
        old = start.tensors[name].read(*span)
        news = [end.tensors[name].read(*span) for end in ends]
        # where runs differ in format, the null model starts all of them as the first began
        old, _ = as_trained(old, news[0])
        cast = old.bfloat16()
        magnitude = as_bits(cast).astype(np.int64) & (CODES - 1)
        key = (magnitude >> 7) * kinds
        magnitude += CODES * (cast.float() != old.float()).numpy()
        codes += np.bincount(magnitude, minlength=2 * CODES).reshape(2, CODES)
        for i, (end, new) in enumerate(zip(ends, news, strict=True)):
            _check(name, end.path, new)
            key += cast_changed(*as_trained(old, new)).numpy().astype(np.int64) << i
        found += np.bincount(key, minlength=len(found))
    found = found.reshape(OCTAVES, kinds)
    if found[-1].any():
        raise DataError(f"{name!r}: {found[-1].sum()} entries are NaN or infinite in {start.path}; leave it out")
    return found, codes


def _check(name: str, path: str, piece: Tensor) -> None:
    if not bool(piece.float().isfinite().all()):
        raise DataError(f"{name!r}: entries are NaN or infinite in {path}; leave that checkpoint out")


def _strata(found: Sequence[Counted], i: int, j: int) -> Strata:
    octaves, every = (np.concatenate(parts) for parts in zip(*found, strict=True))
    unit = np.repeat(np.arange(len(found)), [len(here) for here, _ in found])
    kinds = np.arange(every.shape[1])
    first, second = (kinds >> i) & 1 == 1, (kinds >> j) & 1 == 1
    total, one, two, both = (every[:, chosen].sum(axis=1) for chosen in (kinds >= 0, first, second, first & second))
    return Strata(total, one, two, both, unit, octaves)
