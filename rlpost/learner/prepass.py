"""Which log-probabilities an update needs beforehand, and which its own forward pass gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlpost.config.schema import RunConfig
from rlpost.learner.packing import Update
from rlpost.learner.samples import Samples


@dataclass(frozen=True, slots=True)
class Needed:
    """Samples of a batch, by number, whose log-probabilities are needed and not yet filled in.

    Attributes:
        reference: samples to score under the frozen reference.
        before: samples to score under the proximal policy, in a pass before the first update.
        during: samples whose proximal log-probabilities the first update's own forward pass gives to later updates.
    """

    reference: tuple[int, ...]
    before: tuple[int, ...]
    during: tuple[int, ...]


def needed(samples: Samples, updates: Sequence[Update], config: RunConfig) -> Needed:
    """Find the log-probabilities that a batch lacks.

    The proximal policy's log-probabilities are needed with more than one update, because the policy has moved by the
    later ones, and for truncated importance sampling. The first update itself runs its samples under the proximal
    policy; only the others need a pass of their own.

    Args:
        samples: the step's samples.
        updates: all updates of the step, in order.
        config: KL coefficient, importance correction and ``learner.reuse_first_forward``.
    """
    reference = samples.lacking("ref_logprobs") if config.algorithm.kl.coef else []
    wanted = len(updates) > 1 or config.importance_cap is not None
    lacking = samples.lacking("proximal_logprobs") if wanted else []
    first = set(updates[0].indices) if updates and config.learner.reuse_first_forward else set()
    before = [index for index in lacking if index not in first]
    during = [index for index in lacking if index in first] if len(updates) > 1 else []
    return Needed(tuple(reference), tuple(before), tuple(during))
