"""Who computes what in an update: minibatches, ranks, micro-batches and their rows as a pure function of the lengths.

Every rank works out the same plan from the same batch, so nothing about it has to be communicated. Ranks run the
same number of micro-batches (empty ones make up the difference), because sharded parameters are gathered together.

A micro-batch is a tensor of *lines*, a line holds *segments* side by side, and a segment is one prompt followed by
completions of it. Padded, each line is one segment of one sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rlpost.types import Denominators, TrainSample

_STREAM = 0x9C41
"""Keeps the minibatch shuffle apart from every other stream of the run's seed."""

LINE_TOKENS = 512
"""Beside a longer segment, short ones are put side by side up to here: attention under a block mask costs the square of
a line (measured on CPU with SmolLM2-135M: sequences of 70 tokens in lines of 512 cost a third more than padded)."""

Segment = tuple[int, ...]
"""Samples behind one prompt."""
Line = tuple[Segment, ...]
"""Segments in one row of the tensors."""
MicroPlan = tuple[Line, ...]
"""Lines of one micro-batch; none: a rank without work."""
Passes = tuple[tuple[MicroPlan, ...], ...]
"""For each rank its micro-batches, the same number for every rank."""


@dataclass(frozen=True, slots=True)
class Item:
    """What a plan needs to know of a sample.

    Attributes:
        prompt: number of its prompt; samples with the same prompt ids have the same.
        prompt_tokens: length of the prompt.
        completion_tokens: length of the completion.

    >>> Item(0, 5, 3).prompt_tokens
    5
    """

    prompt: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How samples become tensors.

    Attributes:
        packed: several segments in a line, or one sample.
        share_prompts: in the packed layout, one prompt before all its completions, or before each.
        micro_tokens: budget of a micro-batch, padding included; a longer sample gets one of its own.
        varlen: in the packed layout, attention goes sequence by sequence, so lines may be as long as the budget.

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
        rows: samples of the minibatch, over all ranks.
        micro: for each rank its micro-batches, some of which may be empty.
        epoch: the pass over the batch it belongs to, 0-based.
    """

    rows: tuple[int, ...]
    micro: Passes
    epoch: int = 0


def items(samples: Sequence[TrainSample]) -> list[Item]:
    """The lengths of samples, and which have the same prompt."""
    known: dict[bytes, int] = {}
    return [
        Item(
            known.setdefault(np.asarray(s.prompt_ids, np.int64).tobytes(), len(known)),
            len(s.prompt_ids),
            len(s.completion_ids),
        )
        for s in samples
    ]


def rows_of(micro: MicroPlan) -> list[int]:
    """The samples of a micro-batch, in order."""
    return [row for line in micro for segment in line for row in segment]


def pieces(passes: Passes, sizes: Sequence[Item], chunk: int | None) -> list[int]:
    """In how many pieces the logits of each micro-batch are computed so that none has more than ``chunk`` tokens.

    The same on all ranks: at ZeRO stage 3 each call of the head is a collective. None: in one piece.
    """
    if chunk is None:
        return [1] * len(passes[0])
    most = [
        max(sum(sizes[row].completion_tokens for row in rows_of(micro)) for micro in together)
        for together in zip(*passes, strict=True)
    ]
    return [max(-(-tokens // chunk), 1) for tokens in most]


def plan_updates(
    sizes: Sequence[Item], *, epochs: int, minibatches: int, ranks: int, layout: Layout, seed: Sequence[int]
) -> list[Update]:
    """All updates of one rollout batch, in order.

    Args:
        sizes: of each sample.
        epochs: passes over the batch.
        minibatches: updates per pass; samples are shuffled into them anew each pass, numbers differ by at most one.
        ranks: data-parallel learners.
        layout: of the micro-batches.
        seed: of the shuffle, e.g. (run seed, step).

    Returns:
        ``epochs × minibatches`` updates (fewer if there are fewer samples than minibatches).
    """
    updates: list[Update] = []
    for epoch in range(epochs):
        rows = np.arange(len(sizes))
        if minibatches > 1:
            rows = np.random.default_rng([*seed, _STREAM, epoch]).permutation(len(sizes))
        for chunk in np.array_split(rows, minibatches):
            if chunk.size:
                chosen = tuple(int(row) for row in chunk)
                updates.append(Update(chosen, plan_pass(chosen, sizes, ranks, layout), epoch))
    return updates


def plan_pass(rows: Sequence[int], sizes: Sequence[Item], ranks: int, layout: Layout) -> Passes:
    """One pass over some samples: for each rank its micro-batches, the same number for every rank."""
    shares = spread_over_ranks(segments(rows, sizes, layout), sizes, ranks)
    micro = [micro_batches(share, sizes, layout) for share in shares]
    longest = max(len(batches) for batches in micro)
    return tuple(tuple(batches + [()] * (longest - len(batches))) for batches in micro)


def segments(rows: Iterable[int], sizes: Sequence[Item], layout: Layout) -> list[Segment]:
    """Samples that may stand behind one prompt, by first appearance."""
    if not (layout.packed and layout.share_prompts):
        return [(row,) for row in rows]
    groups: dict[int, list[int]] = {}
    for row in rows:
        groups.setdefault(sizes[row].prompt, []).append(row)
    return [tuple(group) for group in groups.values()]


def tokens(segment: Segment, sizes: Sequence[Item]) -> int:
    """Length of a segment: its prompt once, and every completion."""
    return sizes[segment[0]].prompt_tokens + sum(sizes[row].completion_tokens for row in segment)


def spread_over_ranks(parts: Sequence[Segment], sizes: Sequence[Item], ranks: int) -> list[list[Segment]]:
    """Longest first, each to the rank with the fewest tokens so far.

    A segment that would lift that rank over its fair share is cut there, and the rest goes on with its prompt computed
    again, unless not even one completion fits.
    """
    shares: list[list[Segment]] = [[] for _ in range(ranks)]
    load = [0] * ranks
    fair = -(-sum(tokens(part, sizes) for part in parts) // ranks)
    queue = list(parts)
    while queue:
        longest = min(queue, key=lambda part: (-tokens(part, sizes), part[0]))
        queue.remove(longest)
        rank = load.index(min(load))
        kept, rest = _cut(longest, sizes, fair - load[rank])
        if not kept:
            kept, rest = longest, ()
        shares[rank].append(kept)
        load[rank] += tokens(kept, sizes)
        if rest:
            queue.append(rest)
    return shares


def micro_batches(parts: Sequence[Segment], sizes: Sequence[Item], layout: Layout) -> list[MicroPlan]:
    """Lines of similar length together, each batch within the budget once padded to its longest line."""
    batches: list[MicroPlan] = []
    current: list[Line] = []
    lines = _lines(_within(parts, sizes, layout.micro_tokens), sizes, layout)
    for line in sorted(lines, key=lambda line: (-_length(line, sizes), line)):
        if current and _length(current[0], sizes) * (len(current) + 1) > layout.micro_tokens:
            batches.append(tuple(current))
            current = []
        current.append(line)
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


def _cut(segment: Segment, sizes: Sequence[Item], room: int) -> tuple[Segment, Segment]:
    """The completions that fit into ``room`` together with the prompt, and the rest."""
    used, kept = sizes[segment[0]].prompt_tokens, 0
    for row in segment:
        used += sizes[row].completion_tokens
        if used > room:
            break
        kept += 1
    return segment[:kept], segment[kept:]


def _within(parts: Sequence[Segment], sizes: Sequence[Item], budget: int) -> list[Segment]:
    """Segments cut to the budget where more than one completion makes them longer."""
    result: list[Segment] = []
    for part in parts:
        rest = part
        while rest:
            kept, after = _cut(rest, sizes, budget)
            kept, rest = (kept, after) if kept else (rest[:1], rest[1:])
            result.append(kept)
    return result


def _lines(parts: Sequence[Segment], sizes: Sequence[Item], layout: Layout) -> list[Line]:
    """First fit, longest first, into lines no longer than the longest segment: what saves padding and no more."""
    longest = max((tokens(part, sizes) for part in parts), default=0)
    capacity = min(LINE_TOKENS, layout.micro_tokens, longest) if layout.packed else 0
    if layout.varlen:
        capacity = layout.micro_tokens
    lines: list[list[Segment]] = []
    left: list[int] = []
    for part in sorted(parts, key=lambda part: (-tokens(part, sizes), part[0])):
        length = tokens(part, sizes)
        fits = next((i for i, room in enumerate(left) if room >= length), None)
        if fits is None:
            lines.append([part])
            left.append(capacity - length)
        else:
            lines[fits].append(part)
            left[fits] -= length
    return [tuple(line) for line in lines]


def _length(line: Line, sizes: Sequence[Item]) -> int:
    return sum(tokens(segment, sizes) for segment in line)
