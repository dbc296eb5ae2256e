"""A second way from rewards to gradients, which shares no code with credit, packing, collation and losses.

It starts from what came in: trajectories as the engine gave them and rewards as the scorer gave them. From these it
derives which tokens are trained, with what advantage, and what the loss does to their log-probabilities, in float64,
one sample at a time, by the formulas of the papers. It is slow and simple on purpose, and looks at a few samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlpost.config.schema import AlgorithmSection
from rlpost.errors import SelfCheckError
from rlpost.selfcheck.choice import chosen
from rlpost.selfcheck.plain_samples import PlainSample, innermost
from rlpost.trajectory import BatchReceipt, GroupReceipt, SampleReceipt, Trajectory
from rlpost.types import Reward

RELATIVE = 1e-3
"""Largest relative difference of an advantage or a derivative. The learner's arithmetic is float32."""

ROUNDING = 1e-9
"""Spread of a group's rewards, as a share of their size, below which it is rounding, and so are their advantages."""

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
    turn: tuple[int, int] = (0, 1),
) -> None:
    """Compare the batch that goes to the learner with the rewards that came from the scorer.

    Args:
        groups: scored groups, whether or not they are trained on.
        batch: what was made of them.
        algorithm: baseline and normalisation. An advantage function of the user's own is taken at its word.
        truncated: ``scoring.truncated``.
        most: number of groups that are trained on at most.
        turn: (m, n): advantages are derived of every n-th group, from the m-th on. All are where σ is the batch's.

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
    every = 1 if algorithm.std == "batch" else turn[1]
    looked = {number for number, _, _ in seen if number % every == turn[0] % every}
    expected = _expected(groups, looked, algorithm, most) or {}
    for (number, member, _), sample in seen.items():
        reward = groups[number].rewards[member]
        if reward != sample.reward:
            raise SelfCheckError(
                f"credit: trajectory {member} of prompt {groups[number].prompt.id!r} goes to the learner with another "
                f"reward ({_sum(sample.reward)}) than the scorer gave it ({_sum(reward)}); rewards are mixed up"
            )
        if number in expected:
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
    numbers = sorted(trained.union(chosen(groups, algorithm, most)) if algorithm.std == "batch" else trained)
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
    credit = [_credit_at(place, reward, values) for place in places]
    logprobs = trajectory.logprobs
    return PlainSample(
        number=number,
        part=part,
        token_ids=trajectory.token_ids[start:stop],
        places=np.array(places) - start,
        advantages=np.array(credit, np.float64),
        spans=np.array([innermost(reward, place) for place in places]),
        rollout=None if logprobs is None else logprobs[places].astype(np.float64),
    )


def _credit_at(place: int, reward: Reward, values: Sequence[float]) -> float:
    """Advantage of the token at a place of the trajectory; no blame inside an exempt part."""
    here = [
        (span.channel, value) for span, value in zip(reward, values, strict=True) if span.start <= place < span.stop
    ]
    credit = sum(value for channel, value in here if channel != "exempt")
    return max(credit, 0.0) if any(channel == "exempt" for channel, _ in here) else credit


def _sum(reward: Reward | None) -> str:
    return "none" if reward is None else f"{sum(span.value for span in reward if span.channel == 'reward'):.4g}"
