"""A second way from rewards to gradients, which shares no code with credit, packing, collation and losses.

It starts from what came in: trajectories as the engine gave them and rewards as the scorer gave them. From these it
derives which tokens are trained, with what advantage, and what the loss does to their log-probabilities, in float64,
one sample at a time, by the formulas of the papers. It is slow and simple on purpose, and looks at a few samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlpost.config.schema import AlgorithmSection, RunConfig
from rlpost.errors import SelfCheckError
from rlpost.selfcheck import plain_loss
from rlpost.selfcheck.choice import chosen
from rlpost.trajectory import BatchReceipt, GroupReceipt, SampleReceipt, Trajectory
from rlpost.types import Reward, TracedSample, UpdateRecord

TRACED = 8
"""Samples of a check: enough for several prompts, parts and signs, and little to move."""

RELATIVE = 1e-3
"""Largest relative difference of an advantage or a derivative. The learner's arithmetic is float32."""

ROUNDING = 1e-9
"""Spread of a group's rewards, as a share of their size, below which it is rounding, and so are their advantages."""

SAME = {"float32": 1e-4, "bfloat16": 0.02}
"""Largest mean |Δ log p| between two scores of the same tokens by the same weights, in nats per token."""


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


BUILTIN = ("group_relative", "maxrl")
"""Advantage functions that are derived here a second time; a user's own is taken at its word."""


def advantages_of(groups: Sequence[GroupReceipt], algorithm: AlgorithmSection) -> list[list[list[float] | None]]:
    """Advantages of every span of every member of the groups of a batch, from the rewards alone.

    A_i = g (r_i - b) / (σ + ε) among the members with a value for the same part, that is the same stage and index; σ is
    the group's deviation, the batch's, or the group's mean (MaxRL), and g F-GRPO's weight. NaN where the rewards differ
    by rounding alone, as those that are summed in another order do.
    """
    parts: dict[tuple[int, str, int], list[tuple[int, int]]] = {}
    found: list[list[list[float] | None]] = []
    for number, group in enumerate(groups):
        found.append([None if reward is None else [span.value for span in reward] for reward in group.rewards])
        for i, reward in enumerate(group.rewards):
            for k, span in enumerate(reward or ()):
                if span.channel == "reward":
                    parts.setdefault((number, span.stage, span.index), []).append((i, k))

    def values_of(key: tuple[int, str, int]) -> np.ndarray:
        return np.array([groups[key[0]].rewards[i][k].value for i, k in parts[key]])  # pyright: ignore[reportOptionalSubscript]

    batch: dict[tuple[str, int], list[float]] = {}
    for key in parts:
        batch.setdefault(key[1:], []).extend(values_of(key))
    for key, places in parts.items():
        number, values = key[0], values_of(key)
        scaled = _standardised(values, np.array(batch[key[1:]]), algorithm)
        if 0 < values.max() - values.min() <= ROUNDING * np.abs(values).max():
            scaled = np.full(len(values), np.nan)
        if algorithm.focal_gamma:
            scaled = scaled * (1 - _correct_share(groups[number])) ** algorithm.focal_gamma
        for (i, k), value in zip(places, scaled, strict=True):
            found[number][i][k] = float(value)  # pyright: ignore[reportOptionalSubscript]
    return found


def _standardised(values: np.ndarray, batch: np.ndarray, algorithm: AlgorithmSection) -> np.ndarray:
    if algorithm.advantage == "maxrl":
        return values * 0 if values.min() == values.max() else values / values.mean() - 1
    count, flat = len(values), values.min() == values.max()
    if algorithm.baseline == "none":
        centred = values
    elif flat:
        return np.zeros(count)
    else:
        centred = values - values.mean()
        if algorithm.baseline == "leave_one_out":
            centred = centred * count / (count - 1)  # r - (Σ - r)/(n - 1)
    spread = batch if algorithm.std == "batch" else values
    if algorithm.std and spread.min() < spread.max() and len(spread) > algorithm.std_ddof:
        return centred / (spread.std(ddof=algorithm.std_ddof) + algorithm.std_eps)
    return centred


def _correct_share(group: GroupReceipt) -> float:
    """Share of correct members among the decided ones: by verdict, by the sign of the reward where there is none."""
    known: list[bool] = []
    for verdict, reward in zip(group.verdicts, group.rewards, strict=True):
        if verdict is not None and verdict.outcome != "undecided":
            known.append(verdict.outcome == "accepted")
        elif verdict is None and reward is not None:
            known.append(sum(span.value for span in reward if span.channel == "reward") > 0)
    return sum(known) / len(known) if known else 0.0


def check_credit(
    groups: Sequence[GroupReceipt],
    batch: BatchReceipt,
    algorithm: AlgorithmSection,
    truncated: str,
    most: int | None = None,
) -> None:
    """Compare the batch that goes to the learner with the rewards that came from the scorer.

    Args:
        groups: scored groups, whether or not they are trained on.
        batch: what was made of them.
        algorithm: baseline and normalisation. An advantage function of the user's own is taken at its word.
        truncated: ``scoring.truncated``.
        most: number of groups that are trained on at most.

    Raises:
        SelfCheckError: if a decided member of a kept group is left out or twice there, has another reward than the
            scorer gave it, or another advantage than its group says.
    """
    places = {id(group.tokens): number for number, group in enumerate(groups)}
    seen: dict[tuple[int, int, int], SampleReceipt] = {}
    for sample in batch.samples:
        place = (places.get(id(sample.tokens), -1), sample.receipt.index, sample.part)
        if place[0] < 0 or place in seen:
            what = "twice in the batch" if place[0] >= 0 else "of no group of the step"
            raise SelfCheckError(f"credit: trajectory {place[1]} of a group is {what}; do not train on")
        seen[place] = sample
    expected = _expected(groups, {number for number, _, _ in seen}, algorithm, most)
    for (number, member, _), sample in seen.items():
        reward = groups[number].rewards[member]
        if reward != sample.reward:
            raise SelfCheckError(
                f"credit: trajectory {member} of prompt {groups[number].prompt.id!r} goes to the learner with another "
                f"reward ({_sum(sample.reward)}) than the scorer gave it ({_sum(reward)}); rewards are mixed up"
            )
        if expected is not None:
            _same_advantages(groups[number], member, sample.advantages, expected[number][member])
    for number in {number for number, _, _ in seen}:
        for receipt, reward in zip(groups[number].trajectories, groups[number].rewards, strict=True):
            masked = truncated == "mask" and receipt.status in ("length", "turns")
            wanted = reward is not None and receipt.sampled > 0 and not masked
            if wanted != any((number, receipt.index, part) in seen for part in range(len(receipt.sequences))):
                what = "has a reward and is not trained on" if wanted else "is trained on and should not be"
                raise SelfCheckError(
                    f"credit: trajectory {receipt.index} of prompt {groups[number].prompt.id!r} {what} (status "
                    f"{receipt.status}, scoring.truncated {truncated}), unlike others of its group; do not train on"
                )


def _expected(
    groups: Sequence[GroupReceipt], trained: set[int], algorithm: AlgorithmSection, most: int | None
) -> dict[int, list[list[float] | None]] | None:
    """Advantages of the groups that are trained on, by number; None for an advantage function of the user's own.

    A group whose members were all cut, and are masked, has no sample, and still counts in the batch's deviation.
    """
    if algorithm.advantage not in BUILTIN:
        return None
    numbers = sorted(trained.union(chosen(groups, algorithm, most)))
    return dict(zip(numbers, advantages_of([groups[number] for number in numbers], algorithm), strict=True))


def _same_advantages(group: GroupReceipt, member: int, found: Sequence[float], expected: list[float] | None) -> None:
    assert expected is not None
    scale = max((abs(right) for right in expected if not math.isnan(right)), default=0.0)
    for span, value, right in zip(group.rewards[member] or (), found, expected, strict=True):
        if not math.isnan(right) and not abs(value - right) <= RELATIVE * abs(right) + 1e-6 * max(scale, 1.0):
            raise SelfCheckError(
                f"credit: trajectory {member} of prompt {group.prompt.id!r} has the advantage {value:.6g} for part "
                f"{span.index} of {span.stage or 'the whole'}, and by its group's rewards {right:.6g}; do not train on"
            )


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


def plain_samples(
    groups: Sequence[GroupReceipt],
    batch: BatchReceipt,
    numbers: Sequence[int],
    fetch: Callable[[Any], Any],
    algorithm: AlgorithmSection,
    most: int | None = None,
) -> list[PlainSample]:
    """The chosen samples as they should be trained on, from their trajectories and their groups' rewards."""
    places = {id(group.tokens): number for number, group in enumerate(groups)}
    expected = _expected(groups, {places[id(sample.tokens)] for sample in batch.samples}, algorithm, most)
    trajectories: dict[int, Sequence[Trajectory]] = {}
    found: list[PlainSample] = []
    for number in numbers:
        sample = batch.samples[number]
        group, member = places[id(sample.tokens)], sample.receipt.index
        if group not in trajectories:
            trajectories[group] = fetch(groups[group].tokens)
        reward = groups[group].rewards[member] or ()
        own = sample.advantages
        derived = own if expected is None else expected[group][member] or ()
        values = [a if math.isnan(b) else b for a, b in zip(own, derived, strict=True)]
        found.append(_plain_sample(number, trajectories[group][member], sample.part, reward, values))
    return found


def _plain_sample(
    number: int, trajectory: Trajectory, part: int, reward: Reward, values: Sequence[float]
) -> PlainSample:
    begins = [segment.start for segment in trajectory.segments if segment.origin == "prompt"]
    start, stop = [*begins, len(trajectory.token_ids)][part : part + 2]
    places = [
        place
        for segment in trajectory.segments
        if segment.origin == "policy"
        for place in range(segment.start, segment.stop)
        if start <= place < stop
    ]
    credit = [sum(v for span, v in zip(reward, values, strict=True) if span.start <= p < span.stop) for p in places]
    logprobs = trajectory.logprobs
    return PlainSample(
        number=number,
        part=part,
        token_ids=trajectory.token_ids[start:stop],
        places=np.array(places) - start,
        advantages=np.array(credit, np.float64),
        spans=np.array([_innermost(reward, place) for place in places]),
        rollout=None if logprobs is None else logprobs[places].astype(np.float64),
    )


def _innermost(reward: Reward, place: int) -> int:
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
        spans += len({_innermost(sample.reward, place) for place in inside} - {-1})
    return Counts(tokens, sequences, spans, max_tokens)


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


def _sum(reward: Reward | None) -> str:
    return "none" if reward is None else f"{sum(span.value for span in reward if span.channel == 'reward'):.4g}"
