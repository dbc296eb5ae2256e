"""Samples as a second path has them, and what an update divides by: see `rlpost.selfcheck.independent`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlpost.trajectory import BatchReceipt
from rlpost.types import Reward

TRACED = 8
"""Samples of a check: enough for several prompts, parts and signs, and little to move."""


@dataclass(frozen=True, slots=True, eq=False)
class PlainSample:
    """One sequence of a trajectory as it should be trained on.

    Attributes:
        number: number of the sample in the batch.
        part: number of the sequence in its trajectory.
        token_ids: ``[L]`` int32.
        places: ``[n]``, positions of the sampled tokens, all of which are trained on.
        advantages: ``[n]`` float64.
        spans: ``[n]`` int, equal for tokens of the same rewarded part, -1 outside all of them.
        rollout: ``[n]`` float64 log-probabilities as the engine reported them, or None.
    """

    number: int
    part: int
    token_ids: np.ndarray
    places: np.ndarray
    advantages: np.ndarray
    spans: np.ndarray
    rollout: np.ndarray | None


def choose(batch: BatchReceipt, count: int = TRACED) -> list[int]:
    """Numbers of a few samples that together have as many rewarded parts and signs as possible, short ones first.

    Two of a group are taken before a third: a mix-up within a group shows between its members.
    """
    parts: dict[int, set[tuple[str, int, bool]]] = {}
    for number, sample in enumerate(batch.samples):
        parts[number] = {
            (span.stage, span.index, value > 0)
            for span, value in zip(sample.reward, sample.advantages, strict=True)
            if value and any(max(a, span.start) < min(b, span.stop) for a, b in sample.turns)
        }
    waiting = sorted((n for n in parts if parts[n]), key=lambda n: batch.samples[n].receipt.length)
    chosen: list[int] = []
    covered: set[tuple[str, int, bool]] = set()
    by_group: dict[int, int] = {}
    while waiting and len(chosen) < count:
        mates = {number: by_group.get(id(batch.samples[number].tokens), 0) for number in waiting}
        worth = {number: (len(parts[number] - covered), mates[number] == 1, -mates[number]) for number in waiting}
        best = max(waiting, key=worth.__getitem__)
        waiting.remove(best)
        chosen.append(best)
        covered |= parts[best]
        group = id(batch.samples[best].tokens)
        by_group[group] = by_group.get(group, 0) + 1
    return sorted(chosen)


def innermost(reward: Reward, place: int) -> int:
    """Number of the innermost rewarded span that a token is in, by place; -1 if none."""
    known = sorted({(span.start, span.stop) for span in reward if span.channel == "reward"})
    inside = [span for span in known if span[0] <= place < span[1]]
    return known.index(max(inside, key=lambda span: (span[0], -span[1]))) if inside else -1


@dataclass(frozen=True, slots=True)
class Counts:
    """What an update divides by, counted from receipts."""

    tokens: int
    sequences: int
    spans: int
    max_tokens: int


def counts_of_all(samples: Sequence[PlainSample], max_tokens: int) -> Counts:
    """Counts of an update on just these samples."""
    return Counts(
        tokens=sum(len(sample.places) for sample in samples),
        sequences=sum(sample.part == 0 for sample in samples),
        spans=sum(len(set(sample.spans.tolist()) - {-1}) for sample in samples),
        max_tokens=max_tokens,
    )


def counts_of(batch: BatchReceipt, indices: Sequence[int], max_tokens: int) -> Counts:
    """Counts of trained tokens, trajectories and rewarded parts with tokens of some samples."""
    tokens = sequences = spans = 0
    for index in indices:
        sample = batch.samples[index]
        own = sum(stop - start for start, stop in sample.turns)
        tokens += own
        sequences += sample.part == 0 and own > 0
        edges = {edge for span in sample.reward for edge in (span.start, span.stop)}
        edges |= {edge for turn in sample.turns for edge in turn}
        cuts = sorted(edges)
        inside = [a for a in cuts[:-1] if any(start <= a < stop for start, stop in sample.turns)]
        spans += len({innermost(sample.reward, place) for place in inside} - {-1})
    return Counts(tokens, sequences, spans, max_tokens)
