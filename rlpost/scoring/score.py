"""The scorer of one scoring worker: from trajectories to verdicts to rewards."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rlpost.config.schema import RewardSpec, ScoringSection
from rlpost.errors import InfrastructureError, RlpostError, SelfCheckError, UserError, describe_error
from rlpost.plugins import registry, ship, trial_call, usercode
from rlpost.plugins.build import build_stage, build_verifier, stage_needs
from rlpost.protocols import RewardStage, SelfTestingVerifier, Verifier
from rlpost.trajectory import Group, GroupReceipt, Trajectory
from rlpost.types import Prompt, Reward, RewardOutput, SpanReward, Verdict, VerifyItem

TRUNCATED = Verdict("rejected", 0.0, "truncated", assurance="cut at a limit, not checked")
ABORTED = Verdict("undecided", None, "unavailable", evidence={"messages": ["the rollout was cut off"]})


def run_stages(group: Group, stages: Sequence[tuple[str, RewardStage]]) -> Group:
    """Run reward stages on a verified group, and record what each added.

    Args:
        group: a group with verdicts, and rewards of earlier stages; an undecided trajectory keeps the reward None.
        stages: pairs of the name that a stage is logged under and the stage, in order.

    Raises:
        UserError: if a stage returns the wrong number of rewards.
        InfrastructureError: if a stage fails otherwise, with the file and line of the user's code.
    """
    for name, stage in stages:
        with _named_failure(f"reward {getattr(stage, 'name', type(stage).__name__)!r}"):
            answer = stage(group)
            figures = answer.metrics if isinstance(answer, RewardOutput) else {}
            rewards = tuple(answer.rewards if isinstance(answer, RewardOutput) else answer)
        if len(rewards) != len(group.trajectories):
            raise UserError(f"reward stage {type(stage).__name__} answered {len(rewards)} of {len(group.trajectories)}")
        rewards = tuple(
            None if reward is None else named_parts(reward, name, trajectory)
            for reward, trajectory in zip(rewards, group.trajectories, strict=True)
        )
        added = tuple(_added(before, after) for before, after in zip(group.rewards, rewards, strict=True))
        group = dataclasses.replace(
            group,
            rewards=rewards,
            stage_rewards={**group.stage_rewards, name: added},
            metrics={**group.metrics, **{f"{name}/{key}": float(value) for key, value in figures.items()}},
        )
    return group


def named_parts(reward: Reward, stage: str, trajectory: Trajectory) -> Reward:
    """The reward with the stage's name in the spans that it has just added, unless they are of the whole trajectory.

    Whole trajectories are compared by the sum of what all stages pay for them, parts only with parts of their stage.
    """
    whole = (0, trajectory.length, 0)
    return tuple(
        span
        if span.stage or span.channel == "advantage" or (span.start, span.stop, span.index) == whole
        else dataclasses.replace(span, stage=stage)
        for span in reward
    )


def drop_empty_rewards(group: GroupReceipt) -> GroupReceipt:
    """Close the reward pipeline: a reward without any span becomes None."""
    return dataclasses.replace(group, rewards=tuple(reward or None for reward in group.rewards))


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


class Scorer:
    """Verifier and reward pipeline of one scoring worker.

    Args:
        section: verifier, reward stages and their arguments.
        shipped: source of the plug-ins among them, as the driver read it; None: they are looked up in this process.
        dialogues: whether an environment answers the policy's turns; without a verifier its verdicts count.

    Raises:
        UserError: for an unknown name, or arguments that do not fit.
    """

    def __init__(self, section: ScoringSection, shipped: ship.Shipped | None = None, dialogues: bool = False):
        if shipped is not None:
            ship.install(shipped)
        self.section, self.dialogues = section, dialogues
        stages = [build_stage(spec) for spec in section.rewards]
        self.stages = list(zip(stage_names(section.rewards), stages, strict=True))
        first = next((i for i, stage in enumerate(stages) if "learner_logprobs" in stage_needs(stage)), len(stages))
        self.early, self.late = self.stages[:first], self.stages[first:]
        self.verifier = build_verifier(section)

    def score(self, groups: Sequence[Group]) -> list[Group]:
        """Add verdicts, and the rewards of all stages before the first that needs the learner."""
        return [self._reject_truncated(run_stages(group, self.early), self.early) for group in self._judge(groups)]

    def finish(self, groups: Sequence[Group]) -> list[Group]:
        """Run the remaining reward stages on groups in which the learner's log-probabilities are filled in."""
        return [self._reject_truncated(run_stages(group, self.late), self.late) for group in groups]

    def preflight(self, prompts: Sequence[Prompt], conformance: bool, trials: bool = True) -> str:
        """Test the verifier and the user's own plug-ins before anything depends on them.

        Args:
            prompts: prompts whose answers the verifier must be able to verify.
            conformance: test the verifier on its own gold answers and known cheats, if it has some.
            trials: try every verifier and reward that is not part of rlpost on the first prompt.

        Returns:
            One line: the verifier, its conformance result, and how long the trials took.

        Raises:
            SelfCheckError: if the verifier does not accept a gold answer, or accepts a cheat.
            DataError: for prompts whose answers the verifier cannot verify.
            UserError: for a plug-in that does not keep to its contract; see `rlpost.plugins.trial_call`.
        """
        tried = self._try_plugins(prompts[0]) if trials and prompts else []
        return "; ".join([self._check_verifier(prompts, conformance), *tried])

    def _try_plugins(self, prompt: Prompt) -> list[str]:
        """One line for each trial, with its duration."""
        notes: list[str] = []
        name = self.section.verifier
        if self.verifier is not None and name is not None and _is_plugin("verifiers", name):
            seconds, note = trial_call.try_verifier(self.verifier, name, prompt)
            notes.append(f"tried verifier {name!r} in {_duration(seconds)}{note}")
        for (_, stage), spec in zip(self.stages, self.section.rewards, strict=True):
            if _is_plugin("rewards", spec.name):
                seconds = trial_call.try_stage(stage, spec.name, prompt, self.verifier is not None)
                notes.append(f"tried reward {spec.name!r} in {_duration(seconds)}")
        return notes

    def _check_verifier(self, prompts: Sequence[Prompt], conformance: bool) -> str:
        if self.verifier is None:
            return "no verifier"
        if not isinstance(self.verifier, SelfTestingVerifier):
            return self.verifier.fingerprint
        said = self.verifier.fingerprint
        with _named_failure(f"verifier {self.section.verifier!r}"):
            if conformance:
                report = self.verifier.conformance()
                said = report.summary()
                if report.failures:
                    raise SelfCheckError(
                        f"{said}; rewards from it would train for the wrong thing: mend it, or set "
                        "selfcheck.conformance=false if you know why"
                    )
            self.verifier.check_prompts(prompts)
        return said

    def close(self) -> None:
        """End the processes of the verifier."""
        if self.verifier is not None:
            self.verifier.close()

    def _judge(self, groups: Sequence[Group]) -> list[Group]:
        fixed = [[self._fixed(trajectory) for trajectory in group.trajectories] for group in groups]
        if self.verifier is not None:
            verdicts = self._verify(self.verifier, groups, fixed)
        elif self.dialogues:
            verdicts = [
                [
                    trajectory.verdict if verdict is None else verdict
                    for trajectory, verdict in zip(g.trajectories, known, strict=True)
                ]
                for g, known in zip(groups, fixed, strict=True)
            ]
        else:
            # verdicts on truncated trajectories only would be taken for those of the group
            verdicts = [[None if v is TRUNCATED else v for v in known] for known in fixed]
        return [_begin(*parts) for parts in zip(groups, verdicts, fixed, strict=True)]

    def _verify(
        self, verifier: Verifier, groups: Sequence[Group], fixed: Sequence[Sequence[Verdict | None]]
    ) -> list[list[Verdict | None]]:
        """Verdicts of all trajectories: the fixed ones, and the verifier's for the others."""
        items = [
            _item(group.prompt, trajectory)
            for group, known in zip(groups, fixed, strict=True)
            for trajectory, verdict in zip(group.trajectories, known, strict=True)
            if verdict is None
        ]
        with _named_failure(f"verifier {self.section.verifier!r}"):
            found = verifier.verify_batch(items)
        if len(found) != len(items):
            raise InfrastructureError(f"verifier answered {len(found)} verdicts for {len(items)} answers")
        answers = iter(found)
        return [[next(answers) if verdict is None else verdict for verdict in known] for known in fixed]

    def _reject_truncated(self, group: Group, stages: Sequence[tuple[str, RewardStage]]) -> Group:
        """Give truncated trajectories the reward 0; it was None in the stages that do not need the learner.

        ``stages``: those that have just run; one of them may have laid spans over turns. Where stages pay for parts of
        a trajectory, a truncated one counts as having none of them.
        """
        name, by_turn = _by_turn(stages)
        parts = sorted({(s.stage, s.index) for reward in group.rewards for s in reward or () if s.stage})
        rewards: list[Reward | None] = []
        for trajectory, reward in zip(group.trajectories, group.rewards, strict=True):
            if self._fixed(trajectory) is TRUNCATED:
                end = trajectory.length
                if by_turn is not None:
                    reward = named_parts(by_turn.nothing(group, trajectory), name, trajectory)
                else:
                    lacking = (SpanReward(end, end, 0.0, index, stage=stage) for stage, index in parts)
                    reward = (SpanReward(0, end, 0.0), *lacking)
            rewards.append(reward)
        return dataclasses.replace(group, rewards=tuple(rewards))

    def _fixed(self, trajectory: Trajectory) -> Verdict | None:
        """The verdict that follows from how the trajectory ended, None if it has to be verified."""
        if trajectory.status == "aborted":
            failed = trajectory.verdict
            return failed if failed is not None and failed.outcome == "undecided" else ABORTED
        if trajectory.status in ("length", "turns") and self.section.truncated == "reject":
            return TRUNCATED
        return None


def _by_turn(stages: Sequence[tuple[str, RewardStage]]) -> tuple[str, Any]:
    """Name and stage whose spans are turns (`rlpost_rewards.turns`); an empty name and None if there is none."""
    return next(((name, stage) for name, stage in stages if getattr(stage, "by_turn", False)), ("", None))


def _item(prompt: Prompt, trajectory: Trajectory) -> VerifyItem:
    turns = trajectory.turns
    return VerifyItem(prompt.columns, trajectory.answer, tuple(turn.text for turn in turns) if len(turns) > 1 else ())


def undecided(group: GroupReceipt) -> int:
    """Number of trajectories of a group with an undecided verdict."""
    return sum(verdict is not None and verdict.outcome == "undecided" for verdict in group.verdicts)


def _is_plugin(kind: str, name: str) -> bool:
    """Whether the user's own code decides; `function` and `trl` are built in, but call the user's code."""
    return name not in registry.BUILTIN[kind] or name in ("function", "trl")


@contextmanager
def _named_failure(who: str) -> Iterator[None]:
    """Turn an exception of a plug-in during a run into one line with the user's file and line."""
    try:
        yield
    except RlpostError:
        raise
    except Exception as error:
        raise InfrastructureError(
            f"{who} fails{usercode.at_place(error)} ({describe_error(error)}); mend it there"
        ) from error


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 0.1 else f"{seconds * 1e3:.0f} ms"


def _added(before: Reward | None, after: Reward | None) -> float | None:
    """Amount that a stage added to the sum of a trajectory's rewards; None for a trajectory without a reward."""
    if after is None:
        return None
    return sum(s.value for s in after if s.channel == "reward") - sum(
        s.value for s in before or () if s.channel == "reward"
    )


def _begin(group: Group, verdicts: Sequence[Verdict | None], fixed: Sequence[Verdict | None]) -> Group:
    """The group with verdicts and initial rewards: empty, but None where the verdict is fixed or undecided."""
    start: list[Reward | None] = [
        None if known is not None or (verdict is not None and verdict.outcome == "undecided") else ()
        for verdict, known in zip(verdicts, fixed, strict=True)
    ]
    return dataclasses.replace(group, verdicts=tuple(verdicts), rewards=tuple(start))
