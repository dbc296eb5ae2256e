"""Collate samples into the tensors of a micro-batch, with several sequences per row or one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from rlpost.learner.packing import MicroBatchPlan, Row, sample_indices
from rlpost.learner.varlen import VarlenSequences, varlen_sequences
from rlpost.types import TrainSample

Given = TypeVar("Given")
Made = TypeVar("Made")

_PADDING = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Tensors of a few samples: ``R`` rows of ``L`` tokens, ``B`` samples with ``N`` trained tokens in all.

    The completion of a sample begins with its first trained token; an environment's tokens in it are not trained.

    Attributes:
        input_ids: ``[R, L]``, padded on the right.
        attention_mask: ``[R, L]`` if each row is one sequence, else ``[R, 1, L, L]`` bool: true where row i attends to
            column j.
        position_ids: ``[R, L]``, or None if each row is one sequence.
        index: ``[N]``, flat position (of R·L) that predicts each trained token.
        token_ids: ``[N]``, the trained tokens.
        cells: ``[N]``, flat position (of B·T) of each trained token in a ``[B, T]`` table of the completions.
        mask: ``[B, T]`` bool, true for trained tokens; T is the length of the longest completion.
        indices: numbers of the B samples in their batch.
        masks: ``[L]`` bool of each of the B samples.
        varlen_sequences: cu_seqlens and keys for attention sequence by sequence, or None. If set, R is 1 and
            ``attention_mask`` a ``[1, 1, 1, 1]`` placeholder.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor | None
    index: Tensor
    token_ids: Tensor
    cells: Tensor
    mask: Tensor
    indices: tuple[int, ...]
    masks: tuple[np.ndarray, ...]
    varlen_sequences: VarlenSequences | None = None

    def table(self, values: Tensor) -> Tensor:
        """``[N]`` values as a ``[B, T]`` table of the completions, 0 where nothing is trained."""
        return (
            torch.zeros(self.mask.numel(), dtype=values.dtype, device=values.device)
            .index_put((self.cells,), values)
            .view(self.mask.shape)
        )

    def by_sample(self, values: Tensor) -> dict[int, np.ndarray]:
        """``[N]`` values as one ``[L]`` array per sample, by its number in the batch; NaN where nothing is trained."""
        flat, found, start = values.detach().float().cpu().numpy(), dict[int, np.ndarray](), 0
        for index, mask in zip(self.indices, self.masks, strict=True):
            found[index] = np.full(len(mask), np.nan, np.float32)
            stop = start + int(mask.sum())
            found[index][mask] = flat[start:stop]
            start = stop
        return found


def collate(
    samples: Sequence[TrainSample], micro: MicroBatchPlan, device: torch.device, varlen: bool = False
) -> MicroBatch:
    """Make the tensors of a micro-batch.

    An empty plan makes one masked token, so that a rank without work still runs forward and backward: all ranks gather
    sharded parameters together.

    Args:
        samples: the whole batch.
        micro: the samples of each row, as numbers in the batch.
        device: device of the tensors.
        varlen: join all rows into one, for attention sequence by sequence.
    """
    if not micro:
        ids, one = torch.zeros(1, 2, dtype=torch.long, device=device), torch.zeros(1, dtype=torch.long, device=device)
        return MicroBatch(
            input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=None, index=one, token_ids=one, cells=one,
            mask=torch.zeros(1, 1, dtype=torch.bool, device=device), indices=(), masks=(),
        )  # fmt: skip
    if varlen:
        micro = (tuple(sequence for row in micro for sequence in row),)
    indices = sample_indices(micro)
    chosen = [samples[index] for index in indices]
    trained = [sample.mask[sample.prompt_tokens :] for sample in chosen]
    width = max(map(len, trained))
    mask = np.zeros((len(chosen), width), bool)
    for cell, row in enumerate(trained):
        mask[cell, : len(row)] = row
    rows = [_row(samples, row) for row in micro]
    longest = max(len(row.ids) for row in rows)
    single = not varlen and all(len(row) == 1 and len(row[0]) == 1 for row in micro)

    def stacked(arrays: list[np.ndarray], fill: int) -> np.ndarray:
        return np.stack([np.pad(a, (0, longest - len(a)), constant_values=fill) for a in arrays])

    sequence_ids = stacked([row.sequence_ids for row in rows], _PADDING)
    seen = (sequence_ids != _PADDING).astype(np.int64)
    if varlen:
        seen = np.ones((1, 1, 1, 1), bool)  # transformers builds its own mask unless given four dimensions
    elif not single:
        seen = visible(sequence_ids, stacked([row.branch for row in rows], _PADDING))[:, None]
    position_ids = stacked([row.position_ids for row in rows], 0)

    def to(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    return MicroBatch(
        input_ids=to(stacked([row.ids for row in rows], 0)),
        attention_mask=to(seen),
        position_ids=None if single else to(position_ids),
        index=to(np.concatenate([row.predicts + longest * number for number, row in enumerate(rows)])),
        token_ids=to(np.concatenate([sample.token_ids[sample.mask].astype(np.int64) for sample in chosen])),
        cells=to(np.flatnonzero(mask)),
        mask=to(mask),
        indices=tuple(indices),
        masks=tuple(sample.mask for sample in chosen),
        varlen_sequences=varlen_sequences(rows[0].sequence_ids, rows[0].branch, device) if varlen else None,
    )


def visible(sequence_ids: np.ndarray, branch: np.ndarray) -> np.ndarray:
    r"""Block mask: i attends to j iff j ≤ i, both are in one sequence, and j is in the prompt or in i's completion.

    Args:
        sequence_ids: ``[R, L]`` number of the sequence in its row, -1 for padding.
        branch: ``[R, L]`` 0 for the prompt, 1, 2, … for the completions that follow it, -1 for padding.

    Returns:
        ``[R, L, L]`` bool, indexed by row, i and j. Padding attends to padding: a softmax over no keys is NaN.
    """
    causal = np.tri(sequence_ids.shape[1], dtype=bool)
    same = sequence_ids[:, :, None] == sequence_ids[:, None, :]
    reach = (branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :])
    return causal & same & reach


def prefetch(make: Callable[[Given], Made], given: Sequence[Given], on: bool = True) -> Iterator[Made]:
    """Yield ``make`` of each item; with ``on``, a thread makes the next one while the current one is in use."""
    if not on or len(given) < 2:
        yield from map(make, given)
        return
    with ThreadPoolExecutor(1, "collate") as pool:
        coming = pool.submit(make, given[0])
        for following in given[1:]:
            present, coming = coming.result(), pool.submit(make, following)
            yield present
        yield coming.result()


@dataclass(frozen=True, slots=True)
class _RowArrays:
    """Arrays ``[l]`` of one row; ``predicts`` is ``[n]``, the positions that predict the trained tokens."""

    ids: np.ndarray
    sequence_ids: np.ndarray
    branch: np.ndarray
    position_ids: np.ndarray
    predicts: np.ndarray


def _row(samples: Sequence[TrainSample], row: Row) -> _RowArrays:
    ids: list[np.ndarray] = []
    sequence_ids, branch, position_ids, predicts = [], [], [], []
    start = 0
    for number, indices in enumerate(row):
        size = samples[indices[0]].prompt_tokens
        prompt, at = samples[indices[0]].token_ids[:size].astype(np.int64), start + size
        answers = [samples[index].token_ids[size:].astype(np.int64) for index in indices]
        ids += [prompt, *answers]
        branch.append(np.repeat(np.arange(len(indices) + 1), [size, *map(len, answers)]))
        sequence_ids.append(np.full(len(branch[-1]), number))
        position_ids.append(np.concatenate([np.arange(size), *(np.arange(size, size + len(a)) for a in answers)]))
        for index, answer in zip(indices, answers, strict=True):
            # the prompt's last token predicts the first of every completion
            where = np.arange(at - 1, at - 1 + len(answer))
            where[:1] = start + size - 1
            predicts.append(where[samples[index].mask[size:]])
            at += len(answer)
        start = at
    return _RowArrays(*(np.concatenate(part) for part in (ids, sequence_ids, branch, position_ids, predicts)))
