"""Which log-probabilities an update needs beforehand, and which its own forward pass gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlpost.config.schema import RunConfig
from rlpost.learner.packing import Update
from rlpost.types import TrainBatch


@dataclass(frozen=True, slots=True)
class Needed:
    """Samples of a batch, by number, whose log-probabilities are needed and not yet filled in.

    Attributes:
        reference: samples to score under the frozen reference.
        before: samples to score under the old policy, in a pass before the first update.
        during: samples whose old-policy log-probabilities the first update's own forward pass gives to later updates.
    """

    reference: tuple[int, ...]
    before: tuple[int, ...]
    during: tuple[int, ...]


def needed(batch: TrainBatch, updates: Sequence[Update], config: RunConfig) -> Needed:
    """Find the log-probabilities that a batch lacks.

    The old policy's log-probabilities are needed with more than one update, because the policy has moved by the later
    ones, and for truncated importance sampling, which compares engine and learner at the same weights. The first
    update itself runs its samples under the old policy; only the others need a pass of their own.

    Args:
        batch: the step's samples.
        updates: all updates of the step, in order.
        config: KL coefficient, importance correction and ``learner.reuse_first_forward``.
    """
    samples = batch.samples
    reference = [index for index, s in enumerate(samples) if s.ref_logprobs is None] if config.algorithm.kl.coef else []
    wanted = len(updates) > 1 or config.importance_cap is not None
    lacking = [index for index, s in enumerate(samples) if s.old_logprobs is None] if wanted else []
    first = set(updates[0].indices) if updates and config.learner.reuse_first_forward else set()
    before = [index for index in lacking if index not in first]
    during = [index for index in lacking if index in first] if len(updates) > 1 else []
    return Needed(tuple(reference), tuple(before), tuple(during))


def fill(
    batch: TrainBatch, old: Mapping[int, np.ndarray] | None = None, reference: Mapping[int, np.ndarray] | None = None
) -> TrainBatch:
    """Fill in log-probabilities of the old policy and the reference where they are missing.

    Args:
        batch: the step's samples.
        old: sample number to log-probabilities ``[T]`` under the policy at the start of the step.
        reference: sample number to log-probabilities ``[T]`` under the frozen reference.
    """
    filled = []
    for index, sample in enumerate(batch.samples):
        known_old, known_reference = sample.old_logprobs, sample.ref_logprobs
        filled.append(
            dataclasses.replace(
                sample,
                old_logprobs=known_old if known_old is not None else (old or {}).get(index),
                ref_logprobs=known_reference if known_reference is not None else (reference or {}).get(index),
            )
        )
    return TrainBatch(tuple(filled), batch.step)
