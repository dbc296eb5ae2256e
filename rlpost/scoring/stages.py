"""The reward pipeline: stages that run on judged groups, one after the other, and what each added."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rlpost.config.schema import RewardSpec
from rlpost.errors import InfrastructureError, RlpostError, UserError, describe_error
from rlpost.plugins import usercode
from rlpost.protocols import ConcurrentRewardStage, RewardStage
from rlpost.trajectory import Group, Trajectory
from rlpost.types import Reward, RewardOutput, SpanReward, Verdict

Stages = Sequence[tuple[str, RewardStage]]
"""Pairs of the name that a stage is logged under and the stage, in order."""

_LONGEST_EXTRA = 500
"""Characters of a value that a reward notes for the transcript; it passes the driver."""


def stage_names(specs: Sequence[RewardSpec]) -> list[str]:
    """Names that stages are logged under: the last part of the configured name, numbered if it is repeated.

    >>> stage_names([RewardSpec(name="outcome"), RewardSpec(name="my.py:style"), RewardSpec(name="outcome")])
    ['outcome', 'style', 'outcome_2']
    """
    seen = Counter[str]()
    names: list[str] = []
    for spec in specs:
        short = spec.name.rpartition(":")[2].replace("/", "_")
        seen[short] += 1
        names.append(short if seen[short] == 1 else f"{short}_{seen[short]}")
    return names


def run_stages(groups: Sequence[Group], stages: Stages, *, failing: str = "stop") -> list[Group]:
    """Run reward stages on verified groups, and record what each added.

    Args:
        groups: groups with verdicts, and rewards of earlier stages; an undecided trajectory keeps the reward None.
        stages: the stages.
        failing: what an exception of a stage does: ``stop`` raises; ``undecided`` asks for each trajectory of the group
            alone, and leaves those for which the stage fails again without a reward.

    Raises:
        UserError: if a stage returns the wrong number of rewards.
        InfrastructureError: if a stage fails otherwise, with the prompt, and the file and line of the user's code.
    """
    found = list(groups)
    for name, stage in stages:
        found = [
            _answered(group, name, stage, answer, failing)
            for group, answer in zip(found, _answers(stage, found), strict=True)
        ]
    return found


def named_parts(reward: Reward, stage: str, trajectory: Trajectory) -> Reward:
    """The reward with the stage's name in the spans that it has just added, unless they are of the whole trajectory.

    Whole trajectories are compared by the sum of what all stages pay for them, parts only with parts of their stage.
    """
    whole = (0, trajectory.length, 0)
    return _joined(
        [
            span
            if span.stage or span.channel != "reward" or (span.start, span.stop, span.index) == whole
            else dataclasses.replace(span, stage=stage)
            for span in reward
        ]
    )


def _joined(reward: Sequence[SpanReward]) -> Reward:
    """The reward with spans of one place and meaning as one: a second span would be a second member of the group in its
    mean and deviation, and stages of users append theirs.
    """
    if len(reward) < 2:
        return tuple(reward)
    found: dict[tuple[Any, ...], SpanReward] = {}
    for span in reward:
        place = (span.start, span.stop, span.index, span.channel, span.stage)
        known = found.get(place)
        found[place] = span if known is None else dataclasses.replace(known, value=known.value + span.value)
    return tuple(found.values())


@contextmanager
def named_failure(who: str, when: str = "") -> Iterator[None]:
    """Turn an exception of a plug-in during a run into one line with the user's file and line."""
    try:
        yield
    except RlpostError:
        raise
    except Exception as error:
        # a context manager lets StopIteration pass where it is the cause of a RuntimeError
        cause = None if isinstance(error, StopIteration) else error
        raise InfrastructureError(
            f"{who} fails{when}{usercode.at_place(error)} ({describe_error(error)}); mend it there"
        ) from cause


def _answers(stage: RewardStage, groups: Sequence[Group]) -> list[Any]:
    """The stage's answer to each group, or the exception that it ended with."""
    if isinstance(stage, ConcurrentRewardStage) and stage.concurrent:
        return stage.answers(groups)
    return [_caught(stage, group) for group in groups]


def _caught(stage: RewardStage, group: Group) -> Any:
    try:
        return stage(group)
    except Exception as error:
        return error


def _answered(group: Group, name: str, stage: RewardStage, answer: Any, failing: str) -> Group:
    """The group with what a stage answered; an exception is raised here, or taken for undecided trajectories."""
    if isinstance(answer, Exception):
        if failing == "undecided" and not isinstance(answer, RlpostError):
            return _one_by_one(group, name, stage)
        who = f"reward {getattr(stage, 'name', type(stage).__name__)!r}"
        with named_failure(who, f" on prompt {group.prompt.id!r}"):
            raise answer
    output = answer if isinstance(answer, RewardOutput) else RewardOutput(answer)
    rewards = tuple(output.rewards)
    if len(rewards) != len(group.trajectories):
        raise UserError(f"reward stage {type(stage).__name__} answered {len(rewards)} of {len(group.trajectories)}")
    named = tuple(
        None if reward is None else named_parts(reward, name, trajectory)
        for reward, trajectory in zip(rewards, group.trajectories, strict=True)
    )
    added = tuple(_added(before, after) for before, after in zip(group.rewards, named, strict=True))
    return dataclasses.replace(
        group,
        rewards=named,
        stage_rewards={**group.stage_rewards, name: added},
        metrics={**group.metrics, **{f"{name}/{key}": float(value) for key, value in output.metrics.items()}},
        extras={**group.extras, **{f"{name}/{key}": _plain(values) for key, values in output.extras.items()}},
    )


def _one_by_one(group: Group, name: str, stage: RewardStage) -> Group:
    """The group, with the stage asked for each trajectory alone; where it fails again, the trajectory is undecided."""
    rewards: list[Reward | None] = [None] * len(group.rewards)
    verdicts = list(group.verdicts)
    metrics: dict[str, list[float]] = {}
    extras: dict[str, list[Any]] = {}
    asked = [member for member, reward in enumerate(group.rewards) if reward is not None]
    alone = [
        dataclasses.replace(group, rewards=tuple(r if i == member else None for i, r in enumerate(group.rewards)))
        for member in asked
    ]
    for member, answer in zip(asked, _answers(stage, alone), strict=True):
        if isinstance(answer, Exception):
            if isinstance(answer, RlpostError):
                raise answer
            said = f"reward {name!r} fails{usercode.at_place(answer)}: {describe_error(answer)}"
            verdicts[member] = Verdict("undecided", None, "reward_failed", evidence={"messages": [said]})
            continue
        output = answer if isinstance(answer, RewardOutput) else RewardOutput(answer)
        rewards[member] = output.rewards[member]
        for key, value in output.metrics.items():
            metrics.setdefault(key, []).append(float(value))
        for key, values in output.extras.items():
            extras.setdefault(key, [None] * len(rewards))[member] = values[member]
    paid = dataclasses.replace(group, verdicts=tuple(verdicts))
    means = {key: math.fsum(values) / len(values) for key, values in metrics.items()}
    return _answered(paid, name, stage, RewardOutput(rewards, means, extras), "stop")


def _added(before: Reward | None, after: Reward | None) -> float | None:
    """Amount that a stage added to the sum of a trajectory's rewards; None for a trajectory without a reward."""
    if after is None:
        return None
    return sum(s.value for s in after if s.channel == "reward") - sum(
        s.value for s in before or () if s.channel == "reward"
    )


def _plain(values: Sequence[Any]) -> tuple[Any, ...]:
    """Values for a transcript: plain ones as they are, others and long texts as text of a limited length."""
    return tuple(_plain_one(value) for value in values)


def _plain_one(value: Any) -> Any:
    if getattr(value, "size", None) == 1 or getattr(value, "shape", None) == ():
        value = value.item()  # numbers of numpy, torch and others
    if value is None or isinstance(value, (bool, int, float)):
        return value
    # half of a pair of surrogates, as JSON text may hold, cannot be written to a file
    return str(value)[:_LONGEST_EXTRA].encode("utf-8", "backslashreplace").decode()
