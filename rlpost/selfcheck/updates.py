"""Did an update do with its samples what the second path says? See `rlpost.selfcheck.independent`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from rlpost.config.schema import RunConfig
from rlpost.errors import SelfCheckError
from rlpost.selfcheck import plain_loss
from rlpost.selfcheck.independent import RELATIVE
from rlpost.selfcheck.plain_samples import Counts, PlainSample, counts_of
from rlpost.trajectory import BatchReceipt
from rlpost.types import TracedSample, UpdateRecord

SAME = {"float32": 1e-4, "bfloat16": 0.02}
"""Largest mean |Δ log p| between two scores of the same tokens by the same weights, in nats per token."""


def check_updates(
    config: RunConfig, batch: BatchReceipt, samples: Sequence[PlainSample], updates: Sequence[UpdateRecord]
) -> None:
    """Compare what the updates did with some samples with what they should have done.

    Args:
        config: the loss and its settings.
        batch: the whole batch.
        samples: the samples that were traced, as they should be trained on.
        updates: what the learner recorded.

    Raises:
        SelfCheckError: if a pass leaves out a sample or repeats one, a sampled token has no gradient or another token
            has, the advantage or the derivative of the loss is another one, or the proximal log-probabilities of a
            sample change from pass to pass.
    """
    _each_once(updates, len(batch.samples))
    proximal: dict[int, np.ndarray] = {}
    for update in updates:
        counts = counts_of(batch, update.indices, config.rollout.max_tokens)
        for sample in samples:
            if sample.number not in update.traced:
                continue
            traced = update.traced[sample.number]
            _check_tokens(sample, traced)
            first = proximal.setdefault(sample.number, traced.proximal)
            moved = float(np.abs(first - traced.proximal)[sample.places].max())
            if not moved <= 1e-6:
                raise SelfCheckError(
                    f"independent: the proximal log-probabilities of a sample change by {moved:.3g} nats from one pass "
                    "over the batch to the next; they follow the policy, and no ratio would ever be clipped"
                )
            _check_gradient(config, sample, traced, counts)


def check_reference(updates: Sequence[UpdateRecord], tolerance: float) -> None:
    """Verify that the reference of a KL term is the policy while nothing has been trained yet.

    Args:
        updates: what the learner recorded of a run's first step.
        tolerance: largest mean |log p policy - log p reference| in nats; n tokens may show 1 + 4/√n times it.

    Raises:
        SelfCheckError: above it.
    """
    known = [traced for update in updates if update.first for traced in update.traced.values()]
    gaps = [np.abs(one.reference - one.logprobs) for one in known if one.reference is not None]
    apart = np.concatenate([gap[~np.isnan(one.gradient)] for gap, one in zip(gaps, known, strict=False)] or [[]])
    if len(apart) and not (mean := float(apart.mean())) <= tolerance * (1 + 4 / math.sqrt(len(apart))):
        raise SelfCheckError(
            f"independent: before the first update policy and reference differ by {mean:.4g} nats per token on "
            f"{len(apart)} tokens (limit {tolerance:g}); the KL term compares with another model, or at another "
            "temperature"
        )


def check_reference_given(
    updates: Sequence[UpdateRecord], expected: Mapping[int, np.ndarray], tolerance: float
) -> None:
    """Compare the reference's log-probabilities that a loss was given with those that the reference gives when asked.

    Args:
        updates: what the learner recorded.
        expected: ``[L]`` log-probabilities under the reference, by number of the sample.
        tolerance: largest mean difference of a sample, in nats per token.

    Raises:
        SelfCheckError: above it: the KL term compares with another policy, such as the current one, and pulls nowhere.
    """
    for number, traced in ((n, one) for update in updates for n, one in update.traced.items() if n in expected):
        if traced.reference is None:
            continue
        apart = float(np.nanmean(np.abs(traced.reference - expected[number])))
        if not apart <= tolerance:
            raise SelfCheckError(
                f"independent: the loss was given a reference that differs by {apart:.4g} nats per token from the "
                f"reference policy's own log-probabilities (limit {tolerance:g}); the KL term compares with another "
                "policy, do not train on"
            )


def _each_once(updates: Sequence[UpdateRecord], size: int) -> None:
    for epoch in {update.epoch for update in updates}:
        trained = sorted(index for update in updates if update.epoch == epoch for index in update.indices)
        if trained != list(range(size)):
            raise SelfCheckError(
                f"independent: pass {epoch} over a batch of {size} samples trains on {len(set(trained))} of them, in "
                f"{len(trained)} places; every sample belongs into each pass once"
            )


def _check_tokens(sample: PlainSample, traced: TracedSample) -> None:
    trained = np.flatnonzero(np.isfinite(traced.gradient))
    lost, wrong = np.setdiff1d(sample.places, trained), np.setdiff1d(trained, sample.places)
    untrained = np.setdiff1d(sample.places, np.flatnonzero(np.isfinite(traced.advantages)))
    if len(lost) or len(wrong) or len(untrained):
        missing = np.union1d(lost, untrained)
        last = " (the last one among them)" if sample.places[-1] in missing else ""
        raise SelfCheckError(
            f"independent: of {len(sample.places)} sampled tokens of a sample {len(missing)} are not trained on{last}, "
            f"and {len(wrong)} others are; do not train on"
        )
    found, scale = traced.advantages[sample.places], float(np.abs(sample.advantages).max())
    apart = np.abs(found - sample.advantages)
    if not np.all(apart <= RELATIVE * np.abs(sample.advantages) + 1e-5 * max(scale, 1e-3)):
        place = int(apart.argmax())
        raise SelfCheckError(
            f"independent: token {sample.places[place]} of a sample is trained with the advantage {found[place]:.6g}, "
            f"by the rewards of its group it is {sample.advantages[place]:.6g}; do not train on"
        )


def _check_gradient(config: RunConfig, sample: PlainSample, traced: TracedSample, counts: Counts) -> None:
    if plain_loss.unsupported_reason(config) is not None:
        return
    reference = None if traced.reference is None else traced.reference[sample.places]
    expected, certain = plain_loss.derivative(
        config,
        sample,
        current=traced.logprobs[sample.places],
        proximal=traced.proximal[sample.places],
        reference=reference,
        counts=counts,
    )
    found = traced.gradient[sample.places]
    scale = max(float(np.abs(expected).max()), 1e-12)
    apart = np.where(certain, np.abs(found - expected), 0.0)
    if np.all(apart <= RELATIVE * np.abs(expected) + 1e-4 * scale):
        return
    place = int(apart.argmax())
    factor = found[place] / expected[place] if expected[place] else math.inf
    at = " (its last)" if place == len(found) - 1 else ""
    raise SelfCheckError(
        f"independent: the loss's derivative by the log-probability of token {sample.places[place]}{at} of a sample is "
        f"{found[place]:.6g}, and {expected[place]:.6g} by the formula (factor {factor:.4g}; advantage "
        f"{sample.advantages[place]:.4g}); the loss, its mask, its divisor or its KL term is wrong, do not train on"
    )
