"""Do engine and learner agree on the tokens that are trained on?

The engine says how likely each token was when it sampled it, and the loss takes a log-probability for the proximal
policy, of the same token under the same weights. Their difference d = log p proximal - log p rollout is rounding, and
nothing else may be in it: another temperature, a penalty, a truncated distribution, another context, or
log-probabilities that follow the policy from update to update all show here. Where in a trajectory they show tells
which it is.

A fault that is larger than the noise of one step ends the run at that step. A smaller one is decided by evidence that
adds up over steps (`rlpost.selfcheck.evidence`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlpost.errors import SelfCheckError
from rlpost.types import Differences, TrainSample, UpdateRecord

CLASSES = ("first", "border", "end", "last", "repeated", "inner", "stale")
"""Classes of position; a token belongs to the first that fits, and to ``stale`` if an older version sampled it."""

MEANING = {
    "first": "the first token after the prompt",
    "border": "the first token after an observation",
    "end": "the token that ends an answer",
    "last": "the last token of an answer that was cut",
    "repeated": "tokens that occur before in their sequence",
    "inner": "the other tokens",
}

FLOOR = {"float32": 1e-3, "bfloat16": 0.1}
"""Mean |d| in nats below which no single step ends a run. Healthy: 5e-7 in float32, 0.009 in bfloat16 (a model of 1.3M
parameters), 0.03 to 0.09 (SmolLM2-135M)."""

OVER_NUMERICS = 10.0
"""How many times the difference that the parity check measured on greedy tokens sampled ones may show: these are less
likely, and rounding grows with the distance from the most likely token."""


def position_classes(sample: TrainSample, version: int) -> np.ndarray:
    """The class of each token as an index into `CLASSES`, ``[L]`` int8; -1 where nothing was sampled.

    Args:
        sample: a sample with the log-probabilities that the engine reported, which say what was sampled.
        version: policy version of the learner.
    """
    assert sample.rollout_logprobs is not None
    sampled = np.isfinite(sample.rollout_logprobs)
    found = np.full(sample.length, -1, np.int8)
    places = np.flatnonzero(sampled)
    if not len(places):
        return found
    _, first_use = np.unique(sample.token_ids, return_index=True)
    again = np.ones(sample.length, bool)
    again[first_use] = False
    found[places] = np.where(again[places], CLASSES.index("repeated"), CLASSES.index("inner"))
    begins = places[~sampled[places - 1]]  # a place of 0 looks at the last token, and counts as first below anyway
    found[begins] = CLASSES.index("border")
    found[places[-1]] = CLASSES.index("end" if sample.ended else "last")
    found[places[0]] = CLASSES.index("first")
    found[places[sample.versions[places] != version]] = CLASSES.index("stale")
    return found


def differences(classes: np.ndarray, proximal: np.ndarray, rollout: np.ndarray) -> dict[str, Differences]:
    """Sums of d by class; arguments ``[L]``, tokens of class -1 or without a proximal log-probability left out."""
    found: dict[str, Differences] = {}
    known = np.isfinite(proximal)
    for number, name in enumerate(CLASSES):
        here = (classes == number) & known
        if here.any():
            d = proximal[here].astype(np.float64) - rollout[here]
            found[name] = Differences(
                float(len(d)),
                float(d.sum()),
                float(np.abs(d).sum()),
                float(np.square(d).sum()),
                float(np.expm1(np.minimum(d, 20.0)).sum()),
            )
    return found


@dataclass(frozen=True, slots=True)
class Split:
    """Mean |d| of the trained tokens, by cause, in nats per token.

    Attributes:
        total: of all tokens.
        staleness: what tokens of older versions add to it.
        truncation: -log of the share that the learner gives to what the engine sampled from, where that is less than 1
            beyond chance: E[π/q] over samples of q is the probability under π of q's support.
        numerics: the rest.
    """

    total: float
    staleness: float
    truncation: float
    numerics: float


def split(by_class: Mapping[str, Differences]) -> Split:
    """Split the mean |d| by cause."""
    everything = sum(by_class.values(), Differences())
    current = sum((found for name, found in by_class.items() if name != "stale"), Differences())
    staleness = max(everything.mean_absolute - current.mean_absolute, 0.0)
    share = 1.0 + current.excess / max(current.tokens, 1.0)
    spread = math.sqrt(current.square) / max(current.tokens, 1.0)  # of the mean of e^d - 1, for small d
    truncation = -math.log(max(share, 1e-9)) if share < 1.0 - 4.0 * spread else 0.0
    return Split(everything.mean_absolute, staleness, truncation, max(current.mean_absolute - truncation, 0.0))


def check_step(updates: Sequence[UpdateRecord], limit: float, synchronous: bool = True) -> dict[str, float]:
    """Compare the trained tokens of a step with a limit, update by update.

    Args:
        updates: what the learner recorded.
        limit: largest allowed mean |d| of an update, in nats per token. A class of n tokens may show 1 + 4/√n times it,
            one of fewer than 16 tokens 1 + 16/n times.
        synchronous: whether every token must have been sampled by the learner's version at the step's start.

    Returns:
        Metrics: the split of the first pass, and mean signed d by class.

    Raises:
        SelfCheckError: above the limit, with the cause that the classes point to; or for tokens that were sampled and
            not trained on, or by another version in a synchronous run.
    """
    total: dict[str, Differences] = {}
    for update in updates:
        if update.untrained:
            raise SelfCheckError(
                f"mismatch: {update.untrained} tokens that the policy sampled, by the engine's report, have no "
                "log-probability in the update; the mask of the loss is wrong, do not train on"
            )
        if synchronous and "stale" in update.differences:
            count = update.differences["stale"].tokens
            raise SelfCheckError(
                f"mismatch: {count:.0f} tokens of this step were sampled by another version than the learner's, in a "
                "synchronous run; an update did not reach the engines, or versions are named wrongly"
            )
        _check_update(update, limit, first=total)
        if update.epoch == 0:
            for name, found in update.differences.items():
                total[name] = total.get(name, Differences()) + found
    if not total:
        return {}
    parts = split(total)
    return {
        "mismatch": parts.total,
        "mismatch/numerics": parts.numerics,
        "mismatch/staleness": parts.staleness,
        "mismatch/truncation": parts.truncation,
        **{f"mismatch/{name}": found.mean for name, found in total.items()},
    }


def _check_update(update: UpdateRecord, limit: float, first: Mapping[str, Differences]) -> None:
    current = {name: found for name, found in update.differences.items() if name != "stale"}
    everything = sum(current.values(), Differences())
    if not everything.tokens:
        return
    over = [name for name, found in current.items() if not found.mean_absolute <= _limit(limit, found.tokens)]
    if everything.mean_absolute <= _limit(limit, everything.tokens) and not over:
        return
    figures = ", ".join(f"{name} {found.mean:+.3g}" for name, found in current.items())
    raise SelfCheckError(
        f"mismatch: the loss and the engine differ by {everything.mean_absolute:.4g} nats per token on "
        f"{everything.tokens:.0f} trained tokens (limit {limit:.3g}; signed, by place: {figures}): "
        f"{cause(current, later=update.epoch > 0 and bool(first))}; do not train on"
    )


def _limit(limit: float, tokens: float) -> float:
    """A mean of n tokens may be 1 + 4/√n times the limit; of fewer than 16, 1 + 16/n times: unlikely tokens differ by a
    nat now and then (SmolLM2-135M in bfloat16: 0.33 nats on a single end token, 0.04 on average).
    """
    return limit * (1.0 + max(4.0 / math.sqrt(tokens), 16.0 / tokens))


def cause(by_class: Mapping[str, Differences], later: bool = False) -> str:
    """What the differences by class point to, in words."""
    everything = sum(by_class.values(), Differences())
    rest = sum((found for name, found in by_class.items() if name in ("repeated", "inner")), Differences())
    if later:
        return (
            "the first pass over the batch agreed, so the proximal log-probabilities follow the policy from update to "
            "update, and no ratio would ever be clipped"
        )
    if not math.isfinite(everything.absolute):
        return "a log-probability is not a number, or a sampled token has none"
    parts = split(by_class)
    if parts.truncation > 0.5 * everything.mean_absolute:
        return (
            f"the engine samples from {math.exp(-parts.truncation):.2%} of the distribution that the learner scores "
            "(top-p, top-k, a minimum probability, allowed tokens)"
        )
    for name in ("end", "last", "first", "border"):
        found = by_class.get(name, Differences())
        if found.tokens and found.mean_absolute > 3.0 * max(rest.mean_absolute, 1e-9) and rest.tokens:
            context = "the prompt differs" if name == "first" else "what stands before it differs"
            what = context if name in ("first", "border") else "the engine treats it otherwise (minimum length, ban)"
            return f"most of it at {MEANING[name]}: {what}"
    repeated, new = by_class.get("repeated", Differences()), by_class.get("inner", Differences())
    if repeated.tokens and new.tokens and repeated.mean > 0 > new.mean:
        return (
            "tokens that occur before are less likely for the engine and new ones more likely: a penalty on "
            "repetition, presence or frequency, or another temperature"
        )
    return (
        "engine and learner score another distribution or another context: temperature, prompt or first token (BOS), "
        "penalties, or the engine's log-probabilities are not those it samples by"
    )


def limit_of(dtype: str, numerics: float, chosen: float | None) -> float:
    """The largest allowed mean |d| of a step.

    Args:
        dtype: ``float32`` or ``bfloat16``.
        numerics: what the parity check last attributed to rounding, in nats per token.
        chosen: ``selfcheck.mismatch_limit``; None derives it.
    """
    return chosen if chosen is not None else max(FLOOR[dtype], OVER_NUMERICS * numerics)
