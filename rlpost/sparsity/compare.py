"""Compares two checkpoints tensor by tensor, in pieces, on all cores."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from torch import Tensor

from rlpost.errors import DataError
from rlpost.sparsity.checkpoint import Scratch
from rlpost.sparsity.counting import BROKEN, Counts, count
from rlpost.sparsity.nullmodel import CODES
from rlpost.sparsity.pairs import Pair
from rlpost.sparsity.stored import Stored

PIECE = 2**19
"""Entries read at a time: few enough for a core's cache, enough to keep Python's overhead small."""
_JOB = 2**23
_WIDEST = 2**20

OnPiece = Callable[[str, int, Tensor, Tensor], object]
"""Called with a tensor's name, the first entry of a piece, and both pieces; from several threads at once."""


@dataclass(frozen=True, slots=True)
class Compared:
    """The comparison of one tensor.

    Attributes:
        name: tensor name.
        shape: tensor shape.
        formats: number formats before and after, under safetensors' names.
        counts: all counts of `rlpost.sparsity.counting` but ``codes``, which are kept here for occurring codes only.
        codes: int64 ``[3, k]``: the magnitude bits that occur, ascending; how often exactly on a bfloat16 value; how
            often between two.
        columns_changed: number of columns with a changed entry; None for vectors and for rows of more than 2²⁰ entries.
        column_squares: sum over columns of the squared number of changed entries; 0 where ``columns_changed`` is None.
    """

    name: str
    shape: tuple[int, ...]
    formats: tuple[str, str]
    counts: Counts
    codes: np.ndarray
    columns_changed: int | None
    column_squares: int

    @property
    def size(self) -> int:
        """Number of entries."""
        return int(np.prod(self.shape, dtype=np.int64))


def compare(
    pair: Pair, atol: float = 1e-5, threads: int | None = None, on_piece: OnPiece | None = None
) -> Iterator[Compared]:
    """Yield each tensor's counts as soon as they are complete, in order.

    Args:
        pair: the two checkpoints.
        atol: tolerance: largest |Δ| that the counts with a tolerance take as unchanged.
        threads: counting threads; None: one per core.
        on_piece: called with every piece, from several threads at once.

    Raises:
        DataError: for a tensor with entries that are not finite, or a file that is truncated meanwhile.
    """
    threads = threads or os.cpu_count() or 1
    waiting: deque[tuple[_Tensor, list[Future[Counts]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for name in pair.names:
                task = _Tensor(pair.before.tensors[name], pair.after.tensors[name], atol, on_piece)
                waiting.append((task, [pool.submit(task.count, *span) for span in task.spans()]))
                # enough tensors in progress to keep every core busy, few enough to bound memory
                while sum(len(jobs) for _, jobs in waiting) > 4 * threads and len(waiting) > 1:
                    yield _finished(*waiting.popleft())
            while waiting:
                yield _finished(*waiting.popleft())
        finally:
            for _, jobs in waiting:
                for job in jobs:
                    job.cancel()


def _finished(task: _Tensor, jobs: list[Future[Counts]]) -> Compared:
    counts = Counts()
    for job in jobs:
        counts.add(job.result())
    return task.finish(counts)


@dataclass
class _Tensor:
    """Both versions of a tensor, cut into whole rows; vectors and very wide rows are cut anywhere."""

    old: Stored
    new: Stored
    atol: float
    on_piece: OnPiece | None
    columns: list[np.ndarray] = field(default_factory=list)

    @property
    def by_rows(self) -> bool:
        return len(self.old.shape) > 1 and self.old.columns <= _WIDEST

    def spans(self) -> Iterator[tuple[int, int]]:
        length = _JOB
        if self.by_rows:  # multiples of eight rows, so that no byte of a mask is shared by two pieces
            length = max(_JOB // (8 * self.old.columns), 1) * 8 * self.old.columns
        for start in range(0, self.old.size, length):
            yield start, min(start + length, self.old.size)

    def count(self, start: int, stop: int) -> Counts:
        counts, width = Counts(), self.old.columns
        step = max(PIECE // (8 * width), 1) * 8 * width if self.by_rows else PIECE
        columns = np.zeros(width if self.by_rows else PIECE, np.int64)
        scratch = Scratch(), Scratch(), Scratch()
        for at in range(start, stop, step):
            end = min(at + step, stop)
            old, new = as_trained(self.old.read(at, end, scratch[0]), self.new.read(at, end, scratch[1]))
            places = scratch[2].bytes(4 * (end - at + 1)).view(np.uint32)
            count(old, new, columns if self.by_rows else columns[: end - at], self.atol, counts, places)
            if self.on_piece is not None:
                self.on_piece(self.old.name, at, old, new)
        if self.by_rows:
            self.columns.append(columns)
        return counts

    def finish(self, counts: Counts) -> Compared:
        for broken, stored in ((counts.old_broken, "before"), (int(counts.tally[BROKEN]), "after")):
            if broken:
                raise DataError(
                    f"{self.old.name!r}: {broken} entries are NaN or infinite in the checkpoint {stored} training; "
                    "leave that checkpoint out"
                )
        occurring = np.flatnonzero(counts.codes.any(axis=0))
        codes = np.concatenate([occurring[None], counts.codes[:, occurring]])
        counts.codes = np.zeros((0, CODES), np.int64)
        columns = np.sum(self.columns, axis=0) if self.columns else None
        return Compared(
            self.old.name,
            self.old.shape,
            (self.old.dtype, self.new.dtype),
            counts,
            codes,
            None if columns is None else int((columns > 0).sum()),
            0 if columns is None else int(np.square(columns).sum()),
        )


def as_trained(old: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """Both pieces, the first rounded to the second's format if that cannot hold its values.

    Training began from the rounded values then, and the rounding is no change.
    """
    return (old if holds(new.dtype, old.dtype) else old.to(new.dtype)), new


@cache
def holds(wide: torch.dtype, narrow: torch.dtype) -> bool:
    """Whether the ``wide`` number format represents every value of the ``narrow`` one."""
    one, two = torch.finfo(wide), torch.finfo(narrow)
    return one.eps <= two.eps and one.max >= two.max and one.smallest_normal <= two.smallest_normal


def cast_changed(old: Tensor, new: Tensor) -> Tensor:
    """Where the bfloat16 casts differ; the sign of zero does not count."""
    return old.to(torch.bfloat16) != new.to(torch.bfloat16)
