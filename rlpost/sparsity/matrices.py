"""A closer look at some matrices: the rank of the update and its spread over rows and columns, next to two baselines:
the same entries in random places, and one run of the null model from the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rlpost.sparsity.compare import as_trained
from rlpost.sparsity.expected import Chance
from rlpost.sparsity.nullmodel import round_bfloat16
from rlpost.sparsity.pairs import Pair
from rlpost.sparsity.rank import UpdateStructure, rank, shuffled, update_structure

LARGEST = 2**24
"""Entries of the largest matrix that is inspected as a whole: finding its rank takes half a gigabyte."""


@dataclass(frozen=True, slots=True)
class MatrixFindings:
    """The update of one matrix.

    Attributes:
        name: tensor name.
        shape: rows and columns.
        found: structure of the difference of the bfloat16 casts.
        stored_rank: rank of the difference of the stored values; None where both are stored as bfloat16.
        shuffled_rank: rank with the entries of the difference in random places.
        null: structure of the update by one run of the null model; None without one, and where bfloat16 masters are
            modelled.
    """

    name: str
    shape: tuple[int, int]
    found: UpdateStructure
    stored_rank: int | None
    shuffled_rank: int
    null: UpdateStructure | None


def sample(pair: Pair, count: int | None) -> list[str]:
    """Names of ``count`` matrices, spread evenly in the checkpoint's order; None: all of at most `LARGEST` entries."""
    names = [n for n in pair.names if len(pair.before.tensors[n].shape) == 2]
    fit = [n for n in names if 0 < pair.before.tensors[n].size <= LARGEST]
    if count is None or count >= len(fit):
        return fit
    return [fit[round(at)] for at in np.linspace(0, len(fit) - 1, count)] if count else []


def inspect_matrices(pair: Pair, names: Sequence[str], chance: Chance | None, seed: int = 0) -> list[MatrixFindings]:
    """Inspect these matrices one at a time."""
    found = []
    for name in names:
        both = as_trained(*(one.tensors[name].whole() for one in (pair.before, pair.after)))
        old, new = both[0].float(), both[1].float()
        casts = [torch.from_numpy(round_bfloat16(tensor.numpy())) for tensor in (old, new)]
        delta = casts[1] - casts[0]
        if not bool(delta.isfinite().all()):  # the difference of two values near the format's ends overflows
            continue
        narrow = both[0].dtype == both[1].dtype == torch.bfloat16
        null = None
        if chance is not None and chance.rounding is None:
            moved = chance.draw(old.numpy(), np.random.default_rng(seed)).astype(np.float32)
            null = update_structure(torch.from_numpy(round_bfloat16(moved)) - casts[0])
        found.append(
            MatrixFindings(
                name,
                (old.shape[0], old.shape[1]),
                update_structure(delta),
                None if narrow else rank(new - old),
                rank(shuffled(delta, seed)),
                null,
            )
        )
    return found
