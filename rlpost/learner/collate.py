"""Samples into tensors: several sequences in a line, kept apart by a block mask, or one sequence per line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from rlpost.learner.packing import MicroPlan, rows_of
from rlpost.learner.varlen import Stretches, stretches
from rlpost.types import TrainSample

Given = TypeVar("Given")
Made = TypeVar("Made")

_PADDING = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Tensors of a few samples: ``R`` lines of ``L`` tokens, ``B`` samples with ``N`` completion tokens together.

    Attributes:
        input_ids: ``[R, L]``, padded on the right.
        attention_mask: ``[R, L]`` if each line is one sequence, else ``[R, 1, L, L]`` bool: what each token sees.
        position_ids: ``[R, L]``, or None if each line is one sequence.
        index: ``[N]``, which of the R·L positions predicts the token.
        token_ids: ``[N]``.
        cells: ``[N]``, which of the B·T cells of a table of the samples it is.
        mask: ``[B, T]`` bool, trained tokens, T of the longest completion.
        rows: numbers of the B samples in their batch.
        sizes: their completions' lengths.
        stretches: where attention goes sequence by sequence; the mask says nothing then, and R is 1.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor | None
    index: Tensor
    token_ids: Tensor
    cells: Tensor
    mask: Tensor
    rows: tuple[int, ...]
    sizes: tuple[int, ...]
    stretches: Stretches | None = None

    def table(self, values: Tensor) -> Tensor:
        """``[N]`` values as ``[B, T]``, 0 where a completion is shorter."""
        return (
            torch.zeros(self.mask.numel(), dtype=values.dtype, device=values.device)
            .index_put((self.cells,), values)
            .view(self.mask.shape)
        )

    def by_row(self, values: Tensor) -> dict[int, np.ndarray]:
        """``[N]`` values as one ``[T]`` array for each sample."""
        parts = np.split(values.detach().float().cpu().numpy(), np.cumsum(self.sizes)[:-1]) if self.rows else []
        return {row: part.copy() for row, part in zip(self.rows, parts, strict=True)}


def lay_out(samples: Sequence[TrainSample], micro: MicroPlan, device: torch.device, varlen: bool = False) -> MicroBatch:
    """The tensors of a micro-batch.

    Without lines: one masked token, so that a rank without work still runs forward and backward and sharded parameters
    are gathered by all ranks together.

    Args:
        samples: of the whole batch.
        micro: which of them, and where.
        device: of the tensors.
        varlen: all lines behind one another, for attention that goes sequence by sequence.
    """
    if not micro:
        ids, one = torch.zeros(1, 2, dtype=torch.long, device=device), torch.zeros(1, dtype=torch.long, device=device)
        return MicroBatch(
            input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=None, index=one, token_ids=one, cells=one,
            mask=torch.zeros(1, 1, dtype=torch.bool, device=device), rows=(), sizes=(),
        )  # fmt: skip
    if varlen:
        micro = (tuple(segment for line in micro for segment in line),)
    rows = rows_of(micro)
    sizes = [len(samples[row].completion_ids) for row in rows]
    width = max(sizes)
    mask = np.zeros((len(rows), width), bool)
    for cell, row in enumerate(rows):
        mask[cell, : sizes[cell]] = samples[row].mask
    parts = [_line(samples, line) for line in micro]
    longest = max(len(part.ids) for part in parts)
    single = not varlen and all(len(line) == 1 and len(line[0]) == 1 for line in micro)

    def stacked(arrays: list[np.ndarray], fill: int) -> np.ndarray:
        return np.stack([np.pad(a, (0, longest - len(a)), constant_values=fill) for a in arrays])

    segment = stacked([part.segment for part in parts], _PADDING)
    seen = (segment != _PADDING).astype(np.int64)
    if varlen:
        seen = np.ones((1, 1, 1, 1), bool)  # of four dimensions, or transformers would make a mask of its own
    elif not single:
        seen = visible(segment, stacked([part.branch for part in parts], _PADDING))[:, None]
    place = stacked([part.place for part in parts], 0)

    def to(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    return MicroBatch(
        input_ids=to(stacked([part.ids for part in parts], 0)),
        attention_mask=to(seen),
        position_ids=None if single else to(place),
        index=to(np.concatenate([part.predicts + longest * number for number, part in enumerate(parts)])),
        token_ids=to(np.concatenate([np.asarray(samples[row].completion_ids, np.int64) for row in rows])),
        cells=to(np.concatenate([np.arange(size) + cell * width for cell, size in enumerate(sizes)])),
        mask=to(mask),
        rows=tuple(rows),
        sizes=tuple(sizes),
        stretches=stretches(parts[0].segment, parts[0].branch, device) if varlen else None,
    )


def visible(segment: np.ndarray, branch: np.ndarray) -> np.ndarray:
    r"""Token j is visible to i iff j ≤ i, both are of one segment, and j is of the prompt or of i's completion.

    Args:
        segment: ``[R, L]`` number of the segment in its line, -1 for padding.
        branch: ``[R, L]`` 0 for the prompt, 1, 2, … for the completions behind it, -1 for padding.

    Returns:
        ``[R, L, L]`` bool, first i, then j. Padding sees padding: a softmax over nothing is NaN.
    """
    causal = np.tri(segment.shape[1], dtype=bool)
    same = segment[:, :, None] == segment[:, None, :]
    reach = (branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :])
    return causal & same & reach


def ahead(make: Callable[[Given], Made], given: Sequence[Given], on: bool = True) -> Iterator[Made]:
    """``make`` of each, the next one in a thread while the present one is in use."""
    if not on or len(given) < 2:
        yield from map(make, given)
        return
    with ThreadPoolExecutor(1, "lay-out") as pool:
        coming = pool.submit(make, given[0])
        for following in given[1:]:
            present, coming = coming.result(), pool.submit(make, following)
            yield present
        yield coming.result()


@dataclass(frozen=True, slots=True)
class _Line:
    """One line, ``[l]`` each; ``predicts`` ``[n]``: the positions that predict the completions' tokens."""

    ids: np.ndarray
    segment: np.ndarray
    branch: np.ndarray
    place: np.ndarray
    predicts: np.ndarray


def _line(samples: Sequence[TrainSample], line: tuple[tuple[int, ...], ...]) -> _Line:
    ids: list[np.ndarray] = []
    segment, branch, place, predicts = [], [], [], []
    start = 0
    for number, rows in enumerate(line):
        prompt = np.asarray(samples[rows[0]].prompt_ids, np.int64)
        size, at = len(prompt), start + len(prompt)
        pieces = [np.asarray(samples[row].completion_ids, np.int64) for row in rows]
        ids += [prompt, *pieces]
        branch.append(np.repeat(np.arange(len(rows) + 1), [size, *map(len, pieces)]))
        segment.append(np.full(len(branch[-1]), number))
        place.append(np.concatenate([np.arange(size), *(np.arange(size, size + len(piece)) for piece in pieces)]))
        for piece in pieces:
            # the prompt's last token predicts the first of every completion
            where = np.arange(at - 1, at - 1 + len(piece))
            where[:1] = start + size - 1
            predicts.append(where)
            at += len(piece)
        start = at
    return _Line(*(np.concatenate(part) for part in (ids, segment, branch, place, predicts)))
