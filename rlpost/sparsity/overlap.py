r"""Do two runs change the same entries more often than chance?

Of entries changed in one run, the share changed in another as well is compared with four expectations:

- **density chance**, as "RL Finetunes Small Subnetworks" (arXiv 2505.11711) has it: the density of the other's changes;
- **density by tensor**: the same within each tensor, :math:`\sum_t a_t b_t / n_t`;
- **magnitude-matched chance**: within each tensor and octave of |w|, :math:`\sum_s a_s b_s / n_s` over strata s. In
  bfloat16 small weights change first in every run, whatever it learns; only what exceeds this chance can be learning's;
- **noise**: two runs of the null model (`rlpost.sparsity.nullmodel`) from the actual weights, each with the normal
  displacement that changes as many entries as the run did. It knows nothing of tensors, but every single weight.

Under independence within strata the number in common has the hypergeometric variance
:math:`\sum_s a_s b_s (n_s-a_s)(n_s-b_s) / (n_s^2 (n_s-1))`. That holds for independent entries; entries of a tensor are
not, so a second standard error treats whole tensors as the units (jackknife).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from torch import Tensor

from rlpost.errors import DataError, UserError
from rlpost.sparsity.checkpoint import Checkpoint, as_bits, open_checkpoint
from rlpost.sparsity.compare import PIECE, as_trained, cast_changed, match, same
from rlpost.sparsity.nullmodel import CODES, TINY, Null, fitted, weighted
from rlpost.tuning.masks import in_common

Counted = tuple[np.ndarray, np.ndarray]
"""Octaves of a tensor that occur, and entries of each by which checkpoints have changed them."""

OCTAVES = 256
MOST = 10
"""Checkpoints that are compared with one another at most: every combination of changes is counted."""


@dataclass(frozen=True, slots=True)
class Strata:
    """Counts by tensor and octave of |w|: int64 ``[s]`` each.

    Attributes:
        total: entries n.
        first: entries changed in the first run, a.
        second: entries changed in the second run, b.
        both: entries changed in both.
        unit: number of the tensor a stratum belongs to.
        octave: exponent bits of its weights; 0: zeros, and what is below the smallest normal number.
    """

    total: np.ndarray
    first: np.ndarray
    second: np.ndarray
    both: np.ndarray
    unit: np.ndarray
    octave: np.ndarray


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two runs' changes in common. Shares are None where a run has changed nothing.

    Attributes:
        first: name of a run.
        second: name of the other.
        changed: entries each has changed.
        both: entries both have changed.
        share_of_first: both / changed by the first.
        share_of_second: both / changed by the second.
        jaccard: both / changed by any.
        expected: entries that both change by each kind of chance: ``density``, ``tensor``, ``magnitude``, ``noise``.
        excess: (both − magnitude-matched chance) as a share of the first's changes.
        error: standard error of the excess if entries are independent.
        error_by_tensor: its standard error with tensors as units (jackknife); None for a single one.
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
        """The two shares and the Jaccard index that a kind of chance gives; None where it gives none."""
        if kind not in self.expected:
            return None, None, None
        (one, two), both = self.changed, self.expected[kind]
        union = one + two - both
        return both / one if one else None, both / two if two else None, both / union if union else None


def overlap_of(first: str, second: str, strata: Strata, codes: np.ndarray | None = None) -> Overlap:
    """From counts.

    Args:
        first: name of a run.
        second: name of the other.
        strata: see there.
        codes: int64 ``[2, 32768]``, entries by magnitude bits of the starting weights, on bfloat16's values and
            between; None: without the chance called ``noise``.
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
    """Standard error of Σ above / Σ below over the terms, by leaving each out (Efron, 1982)."""
    rest = below.sum() - below
    if len(below) < 2 or (rest <= 0).any():
        return None
    left_out = (above.sum() - above) / rest
    return float(np.sqrt((len(below) - 1) * np.var(left_out)))


def _noise(codes: np.ndarray, strata: Strata) -> dict[str, float]:
    """Entries that two runs of noise both change, if each changes as many as found; empty where no noise does.

    Zeros change under any noise; where padding and pruned weights stay zero, they say nothing about its size. They are
    taken to change independently.
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
    """Every pair of some checkpoints that began as one.

    Args:
        base: what they began as.
        paths: of at least two; named in the result as given.
        pickles: as in `rlpost.sparsity.checkpoint.open_checkpoint`.
        threads: that count at a time; None: one for each core.

    Returns:
        Overlaps, and tensors that were left out with the reason.

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
    common = [n for n in start.tensors if all(n in one.names for one in matched)]
    left_out = {n: "not in every checkpoint" for one in matched for n in (*one.only_before, *one.only_after)}
    for one in matched:
        left_out |= one.left_out
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


def _all_different(paths: Sequence[Path]) -> None:
    for one, two in combinations(paths, 2):
        if same(one, two):
            raise DataError(f"{one} and {two} are the same; give different checkpoints")


def _patterns(name: str, start: Checkpoint, ends: Sequence[Checkpoint]) -> tuple[np.ndarray, np.ndarray]:
    """Entries by octave of |w| and by which checkpoints have changed them, int64 ``[256, 2^k]``; and by magnitude bits,
    int64 ``[2, 32768]``.
    """
    kinds = 2 ** len(ends)
    size = start.tensors[name].size
    found = np.zeros(OCTAVES * kinds, np.int64)
    codes = np.zeros((2, CODES), np.int64)
    for at in range(0, size, PIECE):
        span = at, min(at + PIECE, size)
        old = start.tensors[name].read(*span)
        news = [end.tensors[name].read(*span) for end in ends]
        # where runs are of several formats, the null model has all of them begin as the first did
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
