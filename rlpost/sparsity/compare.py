"""Two checkpoints against each other, tensor by tensor, piece by piece, on all cores."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rlpost.errors import DataError
from rlpost.sparsity.checkpoint import Checkpoint, Scratch, Stored, open_checkpoint
from rlpost.sparsity.counting import BROKEN, Counts, count
from rlpost.sparsity.nullmodel import CODES

PIECE = 2**19
"""Entries that are read at a time: few enough for a core's cache, enough that Python's part of the work is small."""
_JOB = 2**23
_WIDEST = 2**20

OnPiece = Callable[[str, int, Tensor, Tensor], object]
"""Called with a tensor's name, the first entry of a piece, and both pieces; from several threads at once."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Tensors that both checkpoints have, in one order.

    Attributes:
        before: checkpoint the changes count from.
        after: the other.
        names: of the tensors that are compared.
        only_before: names that AFTER lacks.
        only_after: names that BEFORE lacks.
        left_out: reasons by name for what neither compares.
    """

    before: Checkpoint
    after: Checkpoint
    names: tuple[str, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    left_out: dict[str, str]


def pair(before: str | Path, after: str | Path, pickles: bool = False) -> Pair:
    """Open two checkpoints that are to be compared.

    Args:
        before: folder or file.
        after: folder or file, or a folder with a LoRA adapter of ``before``.
        pickles: as in `rlpost.sparsity.checkpoint.open_checkpoint`.

    Raises:
        DataError: if one cannot be read, both are the same, they share no tensor, or a tensor's shapes differ.
    """
    if same(before, after):
        raise DataError(f"{before} and {after} are the same; give two checkpoints")
    first = open_checkpoint(before, pickles=pickles)
    return match(first, open_checkpoint(after, first, pickles))


def same(one: str | Path, two: str | Path) -> bool:
    """Whether two paths lead to one place."""
    try:
        return os.path.samefile(one, two)
    except OSError:  # whoever opens them says what is wrong
        return False


def match(first: Checkpoint, second: Checkpoint) -> Pair:
    """The tensors two checkpoints have in common; for errors see `pair`."""
    names = tuple(name for name in first.tensors if name in second.tensors)
    if not names:
        some = [next(iter(one.tensors), "nothing") for one in (first, second)]
        raise DataError(
            f"{first.path} and {second.path} share no tensor (e.g. {some[0]!r}, {some[1]!r}); compare two of a kind"
        )
    for name in names:
        one, two = first.tensors[name].shape, second.tensors[name].shape
        if one != two:
            raise DataError(f"{name!r} is {one} in {first.path} and {two} in {second.path}; compare two of a kind")
    left_out = {**first.left_out, **second.left_out}
    ours, theirs = ([n for n in a.tensors if n not in b.tensors] for a, b in ((first, second), (second, first)))
    return Pair(
        first, second, names,
        tuple(n for n in ours if n not in left_out), tuple(n for n in theirs if n not in left_out), left_out,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Compared:
    """What is known of one tensor.

    Attributes:
        name: of the tensor.
        shape: of it.
        formats: number formats before and after.
        counts: see `rlpost.sparsity.counting`; without ``codes``, which are kept as those that occur.
        codes: magnitude bits that occur, ascending, and how often on bfloat16's values and between, int64 ``[3, k]``.
        columns_changed: columns with a changed entry, None for vectors.
        column_squares: sum over columns of the squared number of changed entries.
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
        """Entries."""
        return int(np.prod(self.shape, dtype=np.int64))


def compare(
    pair: Pair, atol: float = 1e-5, threads: int | None = None, on_piece: OnPiece | None = None
) -> Iterator[Compared]:
    """Each tensor's counts as soon as they are complete, in order.

    Args:
        pair: what to compare.
        atol: largest |Δ| that counts as unchanged in the counts with a tolerance.
        threads: that count at a time; None: one for each core.
        on_piece: is shown every piece too.

    Raises:
        DataError: for a tensor with entries that are not finite, or a file that changes meanwhile.
    """
    threads = threads or os.cpu_count() or 1
    waiting: deque[tuple[_Tensor, list[Future[Counts]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for name in pair.names:
                task = _Tensor(pair.before.tensors[name], pair.after.tensors[name], atol, on_piece)
                waiting.append((task, [pool.submit(task.count, *span) for span in task.spans()]))
                # enough tensors in work to keep every core busy, few enough to bound what is held
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
        if self.by_rows:  # eight rows, so that a mask's bytes belong to one piece
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
    """Where AFTER cannot hold BEFORE's values, training began from BEFORE rounded to its format, which is no change."""
    return (old if holds(new.dtype, old.dtype) else old.to(new.dtype)), new


@cache
def holds(wide: torch.dtype, narrow: torch.dtype) -> bool:
    """Whether a number format has every value of another."""
    one, two = torch.finfo(wide), torch.finfo(narrow)
    return one.eps <= two.eps and one.max >= two.max and one.smallest_normal <= two.smallest_normal


def cast_changed(old: Tensor, new: Tensor) -> Tensor:
    """Where the bfloat16 casts differ; of zeros the sign does not matter."""
    return old.to(torch.bfloat16) != new.to(torch.bfloat16)
