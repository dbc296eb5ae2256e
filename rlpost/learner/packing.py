"""Plan an update: minibatches, ranks, micro-batches and their rows as a pure function of sample lengths.

Every rank computes the same plan from the same batch, so no plan is communicated. Ranks run the same number of
micro-batches (empty ones make up the difference), because sharded parameters are gathered together.

A micro-batch is a tensor of *rows*, a row holds *sequences* side by side, and a sequence is one prompt followed by
completions of it. In the padded layout each row is one sequence of one sample.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np

from rlpost.types import Denominators, TrainSample

_STREAM = 0x9C41
"""Separates the minibatch shuffle from every other random stream of the run's seed."""

ROW_TOKENS = 512
"""Longest row that is packed from several sequences under a block mask, whose attention costs the square of the row
(measured on CPU with SmolLM2-135M: sequences of 70 tokens in rows of 512 cost a third more than padded)."""

PackedSequence = tuple[int, ...]
"""The samples that answer one prompt, by their numbers in the batch."""
Row = tuple[PackedSequence, ...]
"""Sequences side by side in one row of the tensors."""
MicroBatchPlan = tuple[Row, ...]
"""Rows of one micro-batch; empty for a rank without work."""
RankPlans = tuple[tuple[MicroBatchPlan, ...], ...]
"""The micro-batches of each rank, the same number for every rank."""


@dataclass(frozen=True, slots=True)
class SampleSize:
    """What a plan needs to know about a sample.

    Attributes:
        prompt: number of its prompt, that is of the tokens before its first trained one; samples with equal prompts
            have the same number.
        prompt_tokens: length of the prompt.
        completion_tokens: number of tokens after it, those that an environment wrote included.

    >>> SampleSize(0, 5, 3).length
    8
    """

    prompt: int
    prompt_tokens: int
    completion_tokens: int

    @property
    def length(self) -> int:
        """Number of all tokens."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How samples become tensors.

    Attributes:
        packed: whether a row may hold several sequences; otherwise it holds one sample.
        share_prompts: packed layout only: compute a prompt once for all its completions instead of once for each.
        micro_tokens: token budget of a micro-batch, padding included; a longer sample gets a separate micro-batch.
        varlen: packed layout only: attention runs sequence by sequence, so rows may be as long as the budget.

    >>> Layout(packed=False, micro_tokens=64).share_prompts
    False
    """

    packed: bool
    micro_tokens: int
    share_prompts: bool = False
    varlen: bool = False


@dataclass(frozen=True, slots=True)
class Update:
    """One optimizer step.

    Attributes:
        indices: samples of the minibatch, over all ranks.
        micro: the micro-batches of each rank, some of which may be empty.
        epoch: the pass over the batch it belongs to, 0-based.
    """

    indices: tuple[int, ...]
    micro: RankPlans
    epoch: int = 0


def numbered(prompts: Iterable[Hashable]) -> list[int]:
    """A number for each prompt, the same for equal ones.

    >>> numbered(["a", "b", "a"])
    [0, 1, 0]
    """
    known: dict[Hashable, int] = {}
    return [known.setdefault(prompt, len(known)) for prompt in prompts]


def sizes_of(samples: Sequence[TrainSample]) -> list[SampleSize]:
    """Lengths of samples, with a number for each distinct prompt."""
    numbers = numbered(np.asarray(s.token_ids[: s.prompt_tokens], np.int64).tobytes() for s in samples)
    return [
        SampleSize(number, s.prompt_tokens, s.length - s.prompt_tokens)
        for number, s in zip(numbers, samples, strict=True)
    ]


def sample_indices(micro: MicroBatchPlan) -> list[int]:
    """The samples of a micro-batch, in order."""
    return [index for row in micro for sequence in row for index in sequence]


def logprob_chunks(plans: RankPlans, sizes: Sequence[SampleSize], chunk: int | None) -> list[int]:
    """Number of chunks in which each micro-batch's logits are computed, so that none has more than ``chunk`` tokens.

    It is the same on all ranks, because at ZeRO stage 3 each call of the head is a collective. A ``chunk`` of None
    means one chunk.
    """
    if chunk is None:
        return [1] * len(plans[0])
    most = [
        max(sum(sizes[index].completion_tokens for index in sample_indices(micro)) for micro in together)
        for together in zip(*plans, strict=True)
    ]
    return [max(-(-tokens // chunk), 1) for tokens in most]


def plan_updates(
    sizes: Sequence[SampleSize], *, epochs: int, minibatches: int, ranks: int, layout: Layout, seed: Sequence[int]
) -> list[Update]:
    """All updates of one rollout batch, in order.

    Args:
        sizes: the samples' lengths and prompts.
        epochs: passes over the batch.
        minibatches: updates per pass; samples are reshuffled in each pass, and minibatch sizes differ by at most one.
        ranks: number of data-parallel ranks.
        layout: layout and token budget of the micro-batches.
        seed: entropy of the shuffle, e.g. (run seed, step).

    Returns:
        ``epochs × minibatches`` updates (fewer if there are fewer samples than minibatches).
    """
    updates: list[Update] = []
    for epoch in range(epochs):
        indices = np.arange(len(sizes))
        if minibatches > 1:
            indices = np.random.default_rng([*seed, _STREAM, epoch]).permutation(len(sizes))
        for chunk in np.array_split(indices, minibatches):
            if chunk.size:
                chosen = tuple(int(index) for index in chunk)
                updates.append(Update(chosen, plan_pass(chosen, sizes, ranks, layout), epoch))
    return updates


def plan_pass(indices: Sequence[int], sizes: Sequence[SampleSize], ranks: int, layout: Layout) -> RankPlans:
    """Plan one pass over some samples: the micro-batches of each rank, the same number for every rank."""
    shares = spread_over_ranks(group_by_prompt(indices, sizes, layout), sizes, ranks)
    micro = [micro_batches(share, sizes, layout) for share in shares]
    longest = max(len(batches) for batches in micro)
    return tuple(tuple(batches + [()] * (longest - len(batches))) for batches in micro)


def group_by_prompt(indices: Iterable[int], sizes: Sequence[SampleSize], layout: Layout) -> list[PackedSequence]:
    """Group samples that may share one prompt, in the order of first appearance."""
    if not (layout.packed and layout.share_prompts):
        return [(index,) for index in indices]
    groups: dict[int, list[int]] = {}
    for index in indices:
        groups.setdefault(sizes[index].prompt, []).append(index)
    return [tuple(group) for group in groups.values()]


def sequence_length(sequence: PackedSequence, sizes: Sequence[SampleSize]) -> int:
    """Length of a sequence: its prompt once, and every completion."""
    return sizes[sequence[0]].prompt_tokens + sum(sizes[index].completion_tokens for index in sequence)


def spread_over_ranks(
    parts: Sequence[PackedSequence], sizes: Sequence[SampleSize], ranks: int
) -> list[list[PackedSequence]]:
    """Assign sequences to ranks: longest first, each to the rank with the fewest tokens so far.

    A sequence that would exceed that rank's fair share is cut, and the rest is assigned separately with its prompt
    computed again, unless not even one completion fits.
    """
    shares: list[list[PackedSequence]] = [[] for _ in range(ranks)]
    load = [0] * ranks
    fair = -(-sum(sequence_length(part, sizes) for part in parts) // ranks)
    queue = [(-sequence_length(part, sizes), part[0], part) for part in parts]
    heapify(queue)
    while queue:
        _, _, longest = heappop(queue)
        rank = load.index(min(load))
        kept, rest = _cut(longest, sizes, fair - load[rank])
        if not kept:
            kept, rest = longest, ()
        shares[rank].append(kept)
        load[rank] += sequence_length(kept, sizes)
        if rest:
            heappush(queue, (-sequence_length(rest, sizes), rest[0], rest))
    return shares


def micro_batches(parts: Sequence[PackedSequence], sizes: Sequence[SampleSize], layout: Layout) -> list[MicroBatchPlan]:
    """Group rows of similar length into micro-batches that are within the budget when padded to their longest row."""
    batches: list[MicroBatchPlan] = []
    current: list[Row] = []
    rows = _rows(_within(parts, sizes, layout.micro_tokens), sizes, layout)
    for row in sorted(rows, key=lambda row: (-_row_length(row, sizes), row)):
        if current and _row_length(current[0], sizes) * (len(current) + 1) > layout.micro_tokens:
            batches.append(tuple(current))
            current = []
        current.append(row)
    return [*batches, tuple(current)] if current else batches


def denominators(
    samples: Sequence[TrainSample], indices: Sequence[int], max_tokens: int, spans_per_completion: int | None = None
) -> Denominators:
    """The counts of some samples, which a minibatch's loss divides by once they are summed over ranks.

    Args:
        samples: the whole batch.
        indices: the samples to count.
        max_tokens: constant denominator of Dr. GRPO's aggregation.
        spans_per_completion: spans that every completion counts with; None: those it has.
    """
    chosen = [samples[index] for index in indices]
    sequences = sum(sample.part == 0 and bool(sample.mask.any()) for sample in chosen)
    if spans_per_completion is None:
        spans = sum(len(np.unique(sample.span_ids[sample.mask & (sample.span_ids >= 0)])) for sample in chosen)
    else:
        spans = sequences * spans_per_completion
    return Denominators(
        tokens=sum(int(sample.mask.sum()) for sample in chosen),
        sequences=sequences,
        spans=spans,
        max_tokens=max_tokens,
    )


def _cut(sequence: PackedSequence, sizes: Sequence[SampleSize], room: int) -> tuple[PackedSequence, PackedSequence]:
    """The completions that fit into ``room`` together with the prompt, and the rest."""
    used, kept = sizes[sequence[0]].prompt_tokens, 0
    for index in sequence:
        used += sizes[index].completion_tokens
        if used > room:
            break
        kept += 1
    return sequence[:kept], sequence[kept:]


def _within(parts: Sequence[PackedSequence], sizes: Sequence[SampleSize], budget: int) -> list[PackedSequence]:
    """Cut sequences of several completions to the budget."""
    result: list[PackedSequence] = []
    for part in parts:
        rest = part
        while rest:
            kept, after = _cut(rest, sizes, budget)
            kept, rest = (kept, after) if kept else (rest[:1], rest[1:])
            result.append(kept)
    return result


def _rows(parts: Sequence[PackedSequence], sizes: Sequence[SampleSize], layout: Layout) -> list[Row]:
    """Pack sequences by first fit, longest first.

    Without varlen, rows are no longer than the longest sequence: longer rows would save no padding.
    """
    longest = max((sequence_length(part, sizes) for part in parts), default=0)
    capacity = min(ROW_TOKENS, layout.micro_tokens, longest) if layout.packed else 0
    if layout.varlen:
        capacity = layout.micro_tokens
    rows: list[list[PackedSequence]] = []
    left: list[int] = []
    for part in sorted(parts, key=lambda part: (-sequence_length(part, sizes), part[0])):
        length = sequence_length(part, sizes)
        fits = next((i for i, room in enumerate(left) if room >= length), None)
        if fits is None:
            rows.append([part])
            left.append(capacity - length)
        else:
            rows[fits].append(part)
            left[fits] -= length
    return [tuple(row) for row in rows]


def _row_length(row: Row, sizes: Sequence[SampleSize]) -> int:
    return sum(sequence_length(sequence, sizes) for sequence in row)
