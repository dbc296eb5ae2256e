r"""One pass over a piece of two tensors counts everything about how they differ. The numba kernels are all here.

Counts are kept in plain arrays that add up over pieces, threads and tensors:

``tally``    int64, by the constants below
``largest``  float64 [1]: the largest :math:`|\Delta|`
``codes``    int64 [2, 32768]: entries by the magnitude bits of bfloat16(w); second row: those that bfloat16 cannot hold
``octaves``  int64 [256]: changed entries by the exponent bits of bfloat16(w)
``bins``     int64 [2304] and ``squares`` float64 [2304]: entries and :math:`\sum\Delta^2` by |Δ|, eight bins per octave
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numba import njit
from torch import Tensor

from rlpost.sparsity.checkpoint import as_bits, as_float32
from rlpost.sparsity.nullmodel import CODES

STORED, CHANGED, BEYOND_ATOL, STORED_BEYOND, BEYOND_ULP, ZERO_SIGN, UP, OUTWARD, ROWS, ROW_SQUARES, BROKEN = range(11)
"""Indices into ``tally``. In order: entries whose stored values differ; whose bfloat16 casts differ; whose casts differ
by more than the tolerance; whose stored values do; whose casts differ by more than one step of bfloat16; zeros whose
sign changed; stored values that rose; that grew in magnitude; rows with a changed cast; sum over rows of the squared
number of changed casts; entries of the second tensor that are NaN or infinite."""

TALLIES = 11
OCTAVES, BINS = 256, 2304
_INFINITE = 0x7F80
_LOWEST_OCTAVE = -150
"""2⁻¹⁴⁹ is the smallest float32."""

VALUES = (np.arange(2**16, dtype=np.uint32) << 16).view(np.float32)
"""The value of each bfloat16 bit pattern."""


@dataclass
class Counts:
    """The arrays that `count` fills; see the module's docstring."""

    tally: np.ndarray = field(default_factory=lambda: np.zeros(TALLIES, np.int64))
    largest: np.ndarray = field(default_factory=lambda: np.zeros(1))
    codes: np.ndarray = field(default_factory=lambda: np.zeros((2, CODES), np.int64))
    octaves: np.ndarray = field(default_factory=lambda: np.zeros(OCTAVES, np.int64))
    bins: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(BINS))

    def add(self, other: Counts) -> None:
        """Add the counts of another piece."""
        for name in ("tally", "codes", "octaves", "bins", "squares"):
            getattr(self, name)[...] += getattr(other, name)
        np.maximum(self.largest, other.largest, out=self.largest)

    @property
    def old_broken(self) -> int:
        """Entries of the first tensor that are NaN or infinite."""
        return int(self.codes[:, _INFINITE:].sum())


def count(
    old: Tensor, new: Tensor, columns: np.ndarray, atol: float, counts: Counts, places: np.ndarray | None = None
) -> None:
    """Count the differences between two pieces, adding to ``columns`` and ``counts`` in place.

    Args:
        old: entries before training ``[n]``, whole rows of ``c`` entries.
        new: the same entries after training ``[n]``.
        columns: int64 ``[c]``, changed casts by column; added to.
        atol: largest |Δ| within the tolerance.
        counts: counts so far; added to.
        places: uint32 ``[n + 1]``, scratch memory for bfloat16 pieces; None: allocated.
    """
    if old.dtype == new.dtype == torch.bfloat16:
        _count16(
            as_bits(old), as_bits(new), VALUES, columns, atol,
            counts.tally, counts.largest, counts.codes[0], counts.octaves, counts.bins, counts.squares,
            np.empty(len(old) + 1, np.uint32) if places is None else places,
        )  # fmt: skip
        return
    first, second = as_float32(old), as_float32(new)
    _count32(
        first, second, first.view(np.uint32), second.view(np.uint32), VALUES, columns, atol,
        counts.tally, counts.largest, counts.codes, counts.octaves, counts.bins, counts.squares,
    )  # fmt: skip


def follow(
    start: Tensor, before: Tensor, now: Tensor, touched: np.ndarray, counts: np.ndarray, sums: np.ndarray
) -> None:
    """Compare three versions of a tensor for `rlpost.sparsity.tracker`; ``touched``, ``counts``, ``sums`` are updated.

    Args:
        start: starting weights ``[n]``, bfloat16 or any format whose values float32 holds.
        before: previous version ``[n]``, in the same format.
        now: present version ``[n]``, in the same format.
        touched: uint8 ``[⌈n/8⌉]``, a bit per entry (little-endian order), set once its cast has changed; updated.
        counts: int64 ``[5]``: casts stepped, changed, cancelled; stored values stepped, changed.
        sums: float64 ``[4]``: squared step, squared distance from the start, ‖before‖², ‖now‖².
    """
    if now.dtype == torch.bfloat16:
        _follow16(as_bits(start), as_bits(before), as_bits(now), VALUES, touched, counts, sums)
    else:
        _follow32(as_float32(start), as_float32(before), as_float32(now), touched, counts, sums)


def bin_edges() -> np.ndarray:
    """Lower edges of the bins of |Δ|, then the upper edge of the last: float64 ``[2305]``."""
    number = np.arange(BINS + 1)
    return np.ldexp(1 + (number % 8) / 8, number // 8 + _LOWEST_OCTAVE)


def bin_of(sizes: np.ndarray) -> np.ndarray:
    """Index of the bin of each |Δ| > 0."""
    mantissa, exponent = np.frexp(sizes)
    return (exponent - 1 - _LOWEST_OCTAVE) * 8 + (mantissa * 16).astype(np.int64) - 8


@njit(nogil=True, cache=True, inline="always")
def _measure(was, now, atol, bins, squares):
    """|Δ| of a stored value that changed, and whether it is beyond the tolerance, rose, and grew in magnitude."""
    delta = np.float64(now) - np.float64(was)
    size = abs(delta)
    # exponent and three bits of the mantissa: eight bins per octave
    place = np.uint64(np.float64(size).view(np.int64) >> 49) - np.uint64((1023 + _LOWEST_OCTAVE) * 8)
    bins[place] += 1
    squares[place] += size * size
    return size, np.int64(size > atol), np.int64(delta > 0), np.int64(abs(now) > abs(was))


@njit(nogil=True, cache=True, inline="always")
def _step(bits):
    """Rank of a bfloat16 value in numerical order: neighbours differ by one, and both zeros are 0."""
    magnitude = np.int64(bits & 0x7FFF)
    return -magnitude if bits & 0x8000 else magnitude


@njit(nogil=True, cache=True, inline="always")
def _row(touched, tally):
    tally[CHANGED] += touched
    tally[ROWS] += touched > 0
    tally[ROW_SQUARES] += touched * touched


@njit(nogil=True, cache=True)
def _differing16(old, new, codes, places):
    """Count magnitudes and write down where bits differ; returns how many do. Unsigned indices avoid numba's checks for
    negative ones.
    """
    found = np.uint64(0)
    for i in range(np.uint64(old.size)):
        bits = old[i]
        codes[bits & np.uint16(0x7FFF)] += 1
        places[found] = i
        found += np.uint64(bits != new[i])
    return found


@njit(nogil=True, cache=True)
def _count16(old, new, values, columns, atol, tally, largest, codes, octaves, bins, squares, places):
    width, row_begin, touched = np.uint64(columns.size), np.uint64(0), 0
    changed = beyond = far = risen = outward = 0
    most = largest[0]
    for k in range(_differing16(old, new, codes, places)):
        i = np.uint64(places[k])
        a, b = old[i], new[i]
        if a & 0x7FFF >= _INFINITE:
            continue
        if b & 0x7FFF >= _INFINITE:
            tally[BROKEN] += 1
            continue
        if (a | b) & 0x7FFF == 0:
            tally[ZERO_SIGN] += 1
            continue
        while i - row_begin >= width:
            _row(touched, tally)
            row_begin += width
            touched = 0
        size, above, up, out = _measure(values[a], values[b], atol, bins, squares)
        most = max(most, size)
        changed, beyond, risen, outward = changed + 1, beyond + above, risen + up, outward + out
        far += abs(_step(a) - _step(b)) > 1
        octaves[(a >> np.uint16(7)) & np.uint16(0xFF)] += 1
        columns[i - row_begin] += 1
        touched += 1
    _row(touched, tally)
    largest[0] = most
    # bfloat16 values are their own casts
    _add(tally, changed, beyond, risen, outward)
    tally[BEYOND_ATOL] += beyond
    tally[BEYOND_ULP] += far


@njit(nogil=True, cache=True, inline="always")
def _add(tally, changed, beyond, risen, outward):
    tally[STORED] += changed
    tally[STORED_BEYOND] += beyond
    tally[UP] += risen
    tally[OUTWARD] += outward


@njit(nogil=True, cache=True, inline="always")
def _rounded(bits):
    """TensorMask of the nearest finite bfloat16, ties to even."""
    near = np.uint32((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))
    return np.uint32(near - 1) if near & 0x7FFF == np.uint32(_INFINITE) else near


@njit(nogil=True, cache=True)
def _count32(old, new, old_bits, new_bits, values, columns, atol, tally, largest, codes, octaves, bins, squares):
    width = columns.size
    for row in range(old.size // width):
        touched = 0
        for column in range(width):
            i = row * width + column
            a, b = old_bits[i], new_bits[i]
            if a & 0x7FFFFFFF >= np.uint32(0x7F800000):
                codes[0, _INFINITE] += 1
                continue
            first = _rounded(a)
            codes[1 if a & 0xFFFF else 0, first & 0x7FFF] += 1
            if a == b:
                continue
            if b & 0x7FFFFFFF >= np.uint32(0x7F800000):
                tally[BROKEN] += 1
                continue
            if old[i] == new[i]:
                tally[ZERO_SIGN] += 1
                continue
            size, above, up, out = _measure(old[i], new[i], atol, bins, squares)
            largest[0] = max(largest[0], size)
            _add(tally, 1, above, up, out)
            second = _rounded(b)
            was, now = values[first], values[second]
            if was == now:
                continue
            tally[BEYOND_ATOL] += abs(now - was) > atol
            tally[BEYOND_ULP] += abs(_step(first) - _step(second)) > 1
            octaves[(first >> 7) & 0xFF] += 1
            columns[column] += 1
            touched += 1
        _row(touched, tally)


@njit(nogil=True, cache=True, inline="always")
def _note(i, stepped, changed, touched, counts):
    """Count one cast as stepped, changed or cancelled."""
    bit = np.uint8(1 << (i & 7))
    if stepped:
        counts[0] += 1
        touched[i >> 3] |= bit
    if changed:
        counts[1] += 1
    elif touched[i >> 3] & bit:
        counts[2] += 1


@njit(nogil=True, cache=True, inline="always")
def _sum(first, old, new, sums):
    a, b, c = np.float64(first), np.float64(old), np.float64(new)
    sums[0] += (c - b) * (c - b)
    sums[1] += (c - a) * (c - a)
    sums[2] += b * b
    sums[3] += c * c


@njit(nogil=True, cache=True)
def _follow16(start, before, now, values, touched, counts, sums):
    for i in range(now.size):
        first, old, new = values[start[i]], values[before[i]], values[now[i]]
        _note(i, old != new, first != new, touched, counts)
        _sum(first, old, new, sums)
    counts[3] += counts[0]
    counts[4] += counts[1]


@njit(nogil=True, cache=True)
def _follow32(start, before, now, touched, counts, sums):
    first_bits, old_bits, new_bits = start.view(np.uint32), before.view(np.uint32), now.view(np.uint32)
    for i in range(now.size):
        new = _rounded(new_bits[i])
        stepped = before[i] != now[i]
        changed = start[i] != now[i]
        old, first = _rounded(old_bits[i]), _rounded(first_bits[i])
        _note(
            i,
            stepped and old != new and (old | new) & 0x7FFF != 0,
            changed and first != new and (first | new) & 0x7FFF != 0,
            touched,
            counts,
        )
        counts[3] += stepped
        counts[4] += changed
        _sum(start[i], before[i], now[i], sums)
