"""The scorer of one scoring worker: from trajectories to verdicts to rewards."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rlpost.algorithms.groups import paid
from rlpost.config.schema import ScoringSection
from rlpost.errors import InfrastructureError, UserError
from rlpost.plugins import registry, ship, trial_call
from rlpost.plugins.build import build_stage, build_verifier, stage_needs
from rlpost.protocols import BaselineVerifier, ReviewingVerifier, RewardStage, SiftingVerifier, Verifier
from rlpost.scoring import truncation
from rlpost.scoring.preflight import check_verifier
from rlpost.scoring.stages import named_failure, run_stages, stage_names
from rlpost.scoring.truncation import CUT, TRUNCATED
from rlpost.trajectory import Group, GroupReceipt, Trajectory
from rlpost.types import Prompt, Reward, Verdict, VerifyItem

ABORTED = Verdict("undecided", None, "unavailable", evidence={"messages": ["the rollout was cut off"]})


def drop_empty_rewards(group: GroupReceipt) -> GroupReceipt:
    """Close the reward pipeline: a reward without any span becomes None."""
    return dataclasses.replace(group, rewards=tuple(reward or None for reward in group.rewards))


class Scorer:
    """Verifier and reward pipeline of one scoring worker.

    Args:
        section: verifier, reward stages and their arguments.
        shipped: source of the plug-ins among them, as the driver read it; None: they are looked up in this process.
        dialogues: whether an environment answers the policy's turns; without a verifier its verdicts count.
        steps: steps of the run, for rewards that ask; 0 outside a run.

    Raises:
        UserError: for an unknown name, or arguments that do not fit.
    """

    def __init__(
        self, section: ScoringSection, shipped: ship.Shipped | None = None, dialogues: bool = False, steps: int = 0
    ):
        if shipped is not None:
            ship.install(shipped)
        self.section, self.dialogues = section, dialogues
        stages: list[Any] = [build_stage(spec) for spec in section.rewards]
        for stage in stages:
            if hasattr(stage, "max_steps"):
                stage.max_steps = steps
        self.stages = list(zip(stage_names(section.rewards), stages, strict=True))
        first = next((i for i, stage in enumerate(stages) if "learner_logprobs" in stage_needs(stage)), len(stages))
        self.early, self.late = self.stages[:first], self.stages[first:]
        self.floors = {name: _floor(name, stage) for name, stage in self.stages}
        self.verifier = build_verifier(section)
        self.rejects = section.truncation(dialogues) == "reject"
        reads_parts = any("offsets" in stage_needs(stage) for stage in stages)
        self.itemised = reads_parts or isinstance(self.verifier, ReviewingVerifier)

    def score(self, groups: Sequence[Group]) -> list[Group]:
        """Add verdicts, and the rewards of all stages before the first that needs the learner."""
        rewarded = run_stages(self._judge(groups), self.early, failing=self.section.reward_errors)
        settled = [self._settled(group, self.early) for group in rewarded]
        threshold = self.section.pass_threshold
        return settled if threshold is None else [_graded(group, threshold, self._cut(group)) for group in settled]

    def finish(self, groups: Sequence[Group]) -> list[Group]:
        """Run the remaining reward stages on groups in which the learner's log-probabilities are filled in."""
        open_again = [_replaced(group, dict.fromkeys(self._cut(group))) for group in groups]
        rewarded = run_stages(open_again, self.late, failing=self.section.reward_errors)
        return [self._settled(group, self.stages) for group in rewarded]

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
        return check_verifier(self.verifier, f"verifier {self.section.verifier!r}", prompts, conformance)

    def unverifiable(self, prompts: Sequence[Prompt]) -> list[str | None]:
        """For each prompt why its answers cannot be verified, or None; see `rlpost.protocols.SiftingVerifier`.

        Raises:
            UserError: for a verifier that cannot tell.
        """
        if not isinstance(self.verifier, SiftingVerifier):
            raise UserError(
                f"data.unverifiable: drop, but scoring.verifier {self.section.verifier!r} has no method `unverifiable` "
                "that names such prompts; use refuse"
            )
        with named_failure(f"verifier {self.section.verifier!r}"):
            found = list(self.verifier.unverifiable(prompts))
        if len(found) != len(prompts):
            raise UserError(
                f"scoring.verifier {self.section.verifier!r}: unverifiable gave {len(found)} replies for "
                f"{len(prompts)} prompts; give one each"
            )
        return found

    def baselines(
        self, train: Sequence[Prompt], prompts: Sequence[Prompt], places: int, teacher: str | None
    ) -> dict[str, list[Verdict]]:
        """See `rlpost.protocols.ScoringPool.baselines`."""
        if not isinstance(self.verifier, BaselineVerifier):
            return {}
        with named_failure(f"verifier {self.section.verifier!r}"):
            answers = {name: list(texts) for name, texts in self.verifier.baselines(train, prompts, places).items()}
            taught = [prompt.columns.get(teacher) for prompt in prompts] if teacher is not None else []
            if taught and all(isinstance(text, str) and text for text in taught):
                answers["teacher"] = [str(text) for text in taught]
            return {
                name: self.verifier.verify_batch(
                    [VerifyItem(prompt.columns, text) for prompt, text in zip(prompts, texts, strict=True)]
                )
                for name, texts in answers.items()
            }

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
        """Verdicts of all trajectories: the fixed ones, and the verifier's for the others.

        Where parts of an answer matter, those of a truncated one are the verifier's too, and only its outcome is fixed.
        """
        items = [
            _item(group.prompt, trajectory)
            for group, known in zip(groups, fixed, strict=True)
            for trajectory, verdict in zip(group.trajectories, known, strict=True)
            if self._asks(verdict)
        ]
        with named_failure(f"verifier {self.section.verifier!r}"):
            found = verifier.verify_batch(items)
        if len(found) != len(items):
            raise InfrastructureError(f"verifier answered {len(found)} verdicts for {len(items)} answers")
        answers = iter(found)
        return [
            [_fixed_outcome(verdict, next(answers)) if self._asks(verdict) else verdict for verdict in known]
            for known in fixed
        ]

    def _asks(self, fixed: Verdict | None) -> bool:
        """Whether the verifier is asked about an answer with this fixed verdict."""
        return fixed is None or (fixed is TRUNCATED and self.itemised)

    def _settled(self, group: Group, stages: Sequence[tuple[str, RewardStage]]) -> Group:
        """The group with rewards of the trajectories that count as wrong because they were cut; see `truncation`.

        ``stages``: those that have run. Stages that pay for parts are called once more, to say where the parts of a cut
        trajectory are.
        """
        cut = self._cut(group)
        if not cut:
            return group
        paying = {span.stage for reward in group.rewards for span in reward or ()} - {""}
        shown = _replaced(group, {**dict.fromkeys(range(len(group.rewards))), **dict.fromkeys(cut, ())})
        parts = [(name, stage) for name, stage in stages if name in paying]
        [laid] = run_stages([shown], parts, failing=self.section.reward_errors)
        floors = {name: self.floors[name] for name, _ in stages}
        return truncation.reject(group, cut, {member: laid.rewards[member] or () for member in cut}, floors)

    def _cut(self, group: Group) -> list[int]:
        """Numbers of the trajectories that count as wrong because they were cut."""
        return [member for member, one in enumerate(group.trajectories) if self._fixed(one) is TRUNCATED]

    def _fixed(self, trajectory: Trajectory) -> Verdict | None:
        """The verdict that follows from how the trajectory ended, None if it has to be verified."""
        if trajectory.status == "aborted":
            failed = trajectory.verdict
            return failed if failed is not None and failed.outcome == "undecided" else ABORTED
        return TRUNCATED if self.rejects and trajectory.status in CUT else None


def _replaced(group: Group, rewards: Mapping[int, Reward | None]) -> Group:
    """The group with other rewards of these members."""
    return dataclasses.replace(group, rewards=tuple(rewards.get(i, one) for i, one in enumerate(group.rewards)))


def _fixed_outcome(fixed: Verdict | None, found: Verdict) -> Verdict:
    """The verdict that was found, or the fixed one with what was found of the parts."""
    return found if fixed is None else dataclasses.replace(fixed, items=found.items, evidence=found.evidence)


def _graded(group: Group, threshold: float, cut: Sequence[int]) -> Group:
    """The group with verdicts on its rewards: accepted from the threshold on; without a reward there is no verdict.

    Members that were cut count as wrong, also where the floor or the worst finished one would pass.
    """
    verdicts: list[Verdict | None] = []
    for member, verdict in enumerate(group.verdicts):
        value = paid(group, member)
        if verdict is None and value is not None:
            passed = value >= threshold
            verdict = (
                TRUNCATED
                if member in cut
                else Verdict(
                    "accepted" if passed else "rejected", value, "passed" if passed else "below", assurance="reward"
                )
            )
        verdicts.append(verdict)
    return dataclasses.replace(group, verdicts=tuple(verdicts))


def _floor(name: str, stage: RewardStage) -> float:
    """The least value that a stage says it pays; 0 if it does not say."""
    floor = getattr(stage, "floor", None)
    if floor is None:
        return 0.0
    if isinstance(floor, bool) or not isinstance(floor, (int, float)) or not math.isfinite(floor):
        raise UserError(f"reward {name!r}: floor is {floor!r}; give the least value that it pays, a finite number")
    return float(floor)


def _item(prompt: Prompt, trajectory: Trajectory) -> VerifyItem:
    turns = trajectory.turns
    return VerifyItem(prompt.columns, trajectory.answer, tuple(turn.text for turn in turns) if len(turns) > 1 else ())


def undecided(group: GroupReceipt) -> int:
    """Number of trajectories of a group with an undecided verdict."""
    return sum(verdict is not None and verdict.outcome == "undecided" for verdict in group.verdicts)


def _is_plugin(kind: str, name: str) -> bool:
    """Whether the user's own code decides; `function` and `trl` are built in, but call the user's code."""
    return name not in registry.BUILTIN[kind] or name in ("function", "trl")


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 0.1 else f"{seconds * 1e3:.0f} ms"


def _begin(group: Group, verdicts: Sequence[Verdict | None], fixed: Sequence[Verdict | None]) -> Group:
    """The group with verdicts and initial rewards: empty, but None where the verdict is fixed or undecided."""
    start: list[Reward | None] = [
        None if known is not None or (verdict is not None and verdict.outcome == "undecided") else ()
        for verdict, known in zip(verdicts, fixed, strict=True)
    ]
    return dataclasses.replace(group, verdicts=tuple(verdicts), rewards=tuple(start))
