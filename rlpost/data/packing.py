"""Who computes what in an update: minibatches, ranks and micro-batches as a pure function of the lengths.

Every rank works out the same plan from the same batch, so nothing about it has to be communicated. Ranks run the
same number of micro-batches (empty ones make up the difference), because sharded parameters are gathered together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlpost.types import Denominators, TrainSample

_STREAM = 0x9C41
"""Keeps the minibatch shuffle apart from every other stream of the run's seed."""


@dataclass(frozen=True, slots=True)
class Update:
    """One optimizer step.

    Attributes:
        rows: samples of the minibatch, over all ranks.
        micro: for each rank the rows of each of its micro-batches; the same number for every rank, some may be empty.
    """

    rows: tuple[int, ...]
    micro: tuple[tuple[tuple[int, ...], ...], ...]


def plan_updates(
    lengths: Sequence[int], *, epochs: int, minibatches: int, ranks: int, micro_tokens: int, seed: Sequence[int]
) -> list[Update]:
    """All updates of one rollout batch, in order.

    Args:
        lengths: tokens of each sample.
        epochs: passes over the batch.
        minibatches: updates per pass; samples are shuffled into them anew each pass, sizes differ by at most one.
        ranks: data-parallel learners.
        micro_tokens: budget of a micro-batch, padding included; a longer sample gets one of its own.
        seed: of the shuffle, e.g. (run seed, step).

    Returns:
        ``epochs × minibatches`` updates (fewer if there are fewer samples than minibatches).
    """
    updates: list[Update] = []
    for epoch in range(epochs):
        rows = np.arange(len(lengths))
        if minibatches > 1:
            rows = np.random.default_rng([*seed, _STREAM, epoch]).permutation(len(lengths))
        for chunk in np.array_split(rows, minibatches):
            if chunk.size:
                updates.append(_plan_one([int(r) for r in chunk], lengths, ranks, micro_tokens))
    return updates


def spread_over_ranks(rows: Sequence[int], lengths: Sequence[int], ranks: int) -> list[list[int]]:
    """Longest first, each to the rank with the fewest tokens so far."""
    shares: list[list[int]] = [[] for _ in range(ranks)]
    load = [0] * ranks
    for row in sorted(rows, key=lambda r: (-lengths[r], r)):
        rank = load.index(min(load))
        shares[rank].append(row)
        load[rank] += lengths[row]
    return shares


def micro_batches(rows: Sequence[int], lengths: Sequence[int], micro_tokens: int) -> list[tuple[int, ...]]:
    """Rows of similar length together, each batch within ``micro_tokens`` once padded to its longest row."""
    batches: list[tuple[int, ...]] = []
    current: list[int] = []
    for row in sorted(rows, key=lambda r: (-lengths[r], r)):
        if current and lengths[current[0]] * (len(current) + 1) > micro_tokens:
            batches.append(tuple(current))
            current = []
        current.append(row)
    return [*batches, tuple(current)] if current else batches


def count(samples: Sequence[TrainSample], rows: Sequence[int], max_tokens: int) -> Denominators:
    """The denominators of a minibatch.

    Args:
        samples: of the whole batch.
        rows: those of the minibatch.
        max_tokens: the constant of Dr. GRPO's aggregation.
    """
    chosen = [samples[row] for row in rows]
    return Denominators(
        tokens=sum(int(sample.mask.sum()) for sample in chosen),
        sequences=sum(bool(sample.mask.any()) for sample in chosen),
        spans=sum(len(np.unique(sample.span_ids[sample.mask & (sample.span_ids >= 0)])) for sample in chosen),
        max_tokens=max_tokens,
    )


def _plan_one(rows: list[int], lengths: Sequence[int], ranks: int, micro_tokens: int) -> Update:
    micro = [micro_batches(share, lengths, micro_tokens) for share in spread_over_ranks(rows, lengths, ranks)]
    longest = max(len(batches) for batches in micro)
    return Update(tuple(rows), tuple(tuple(b + [()] * (longest - len(b))) for b in micro))
