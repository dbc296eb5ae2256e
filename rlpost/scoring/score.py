"""From completions to verdicts to rewards: what a scoring worker does."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any, cast

from rlpost import registry
from rlpost.config.schema import RewardSpec, ScoringSection
from rlpost.errors import InfrastructureError, SelfCheckError, UserError
from rlpost.protocols import RewardStage, SelfExamining, Verifier
from rlpost.types import Completion, Group, Prompt, Reward, SpanReward, Verdict, VerifyItem

TRUNCATED = Verdict("rejected", 0.0, "truncated", assurance="cut at max_tokens, not checked")
ABORTED = Verdict("undecided", None, "unavailable", evidence={"messages": ["the rollout was cut off"]})


def build_stage(spec: RewardSpec) -> RewardStage:
    """A stage of the reward pipeline: a registered class, or a plain function in TRL's manner.

    Raises:
        UserError: if the name is unknown or the arguments do not fit.
    """
    target: Any = registry.resolve("rewards", spec.name)
    try:
        if isinstance(target, type):
            return cast("RewardStage", target(**spec.arguments))
        return registry.resolve("rewards", "trl")(target, **spec.arguments)
    except TypeError as error:
        raise UserError(f"scoring.rewards: {spec.name!r} cannot take {spec.arguments} ({error})") from None


def build_verifier(section: ScoringSection) -> Verifier | None:
    """The configured verifier, or None.

    Raises:
        UserError: if the name is unknown or the arguments do not fit.
    """
    if section.verifier is None:
        return None
    target = registry.resolve("verifiers", section.verifier)
    arguments: dict[str, Any] = dict(section.verifier_args)
    if "timeout_s" in inspect.signature(target).parameters:
        arguments.setdefault("timeout_s", section.timeout_s)
    try:
        return target(**arguments)
    except TypeError as error:
        raise UserError(f"scoring.verifier_args: {section.verifier!r} cannot take {arguments} ({error})") from None


def run_stages(group: Group, stages: Sequence[RewardStage]) -> Group:
    """Send a group with verdicts through reward stages.

    A completion that is undecided, or that no stage gave a value, ends with reward None.
    """
    for stage in stages:
        rewards = tuple(stage(group))
        if len(rewards) != len(group.completions):
            raise UserError(f"reward stage {type(stage).__name__} answered {len(rewards)} of {len(group.completions)}")
        group = dataclasses.replace(group, rewards=rewards)
    return group


def settle(group: Group) -> Group:
    """Close the pipeline: a reward without any span is no reward."""
    return dataclasses.replace(group, rewards=tuple(reward or None for reward in group.rewards))


class Scorer:
    """Verifier and reward pipeline of one scoring worker.

    Args:
        section: settings.
    """

    def __init__(self, section: ScoringSection):
        self.section = section
        self.stages = [build_stage(spec) for spec in section.rewards]
        self.verifier = build_verifier(section)

    def score(self, groups: Sequence[Group]) -> list[Group]:
        """The groups with verdicts, and with rewards of the stages that need nothing from the learner.

        The stages from the first one on that does need something are left to the driver (`deferred`).
        """
        local = self.stages[: len(self.stages) - len(deferred(self.stages))]
        return [self._reject_truncated(run_stages(group, local)) for group in self._judge(groups)]

    def examine(self, prompts: Sequence[Prompt], conformance: bool) -> str:
        """Have a verifier that can show what it is worth do so, before anything depends on its word.

        Args:
            prompts: whose answers it must be able to judge.
            conformance: put its gold answers and cheats to it.

        Returns:
            One line: what judges here, and how it did.

        Raises:
            SelfCheckError: if it does not accept a gold answer, or accepts a cheat.
            DataError: for prompts it could not judge an answer to.
        """
        if self.verifier is None:
            return "no verifier"
        if not isinstance(self.verifier, SelfExamining):
            return self.verifier.fingerprint
        said = self.verifier.fingerprint
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
        """End the verifier's processes."""
        if self.verifier is not None:
            self.verifier.close()

    def _judge(self, groups: Sequence[Group]) -> list[Group]:
        fixed = [[self._fixed(c) for c in group.completions] for group in groups]
        if self.verifier is None:
            # a verdict on the truncated ones alone would be read as the group's
            verdicts = [[ABORTED if v is ABORTED else None for v in known] for known in fixed]
        else:
            verdicts = self._verify(self.verifier, groups, fixed)
        return [_begin(*parts) for parts in zip(groups, verdicts, fixed, strict=True)]

    def _verify(
        self, verifier: Verifier, groups: Sequence[Group], fixed: Sequence[Sequence[Verdict | None]]
    ) -> list[list[Verdict | None]]:
        """The fixed verdicts, with the verifier's where there is none yet."""
        items = [
            VerifyItem(group.prompt.columns, completion.text)
            for group, known in zip(groups, fixed, strict=True)
            for completion, verdict in zip(group.completions, known, strict=True)
            if verdict is None
        ]
        found = verifier.verify_batch(items)
        if len(found) != len(items):
            raise InfrastructureError(f"verifier answered {len(found)} verdicts for {len(items)} completions")
        answers = iter(found)
        return [[next(answers) if verdict is None else verdict for verdict in known] for known in fixed]

    def _reject_truncated(self, group: Group) -> Group:
        """Truncated completions are worth 0 whatever the stages would have paid; they were not shown to them."""
        rewards: list[Reward | None] = [
            (SpanReward(0, len(completion.token_ids), 0.0),) if self._fixed(completion) is TRUNCATED else reward
            for completion, reward in zip(group.completions, group.rewards, strict=True)
        ]
        return dataclasses.replace(group, rewards=tuple(rewards))

    def _fixed(self, completion: Completion) -> Verdict | None:
        """The verdict that follows from how the completion ended, None if it has to be judged."""
        if completion.finish_reason == "abort":
            return ABORTED
        if completion.finish_reason == "length" and self.section.truncated == "reject":
            return TRUNCATED
        return None


def deferred(stages: Sequence[RewardStage]) -> Sequence[RewardStage]:
    """The stages that wait for the learner: the first one that needs something, and all behind it."""
    first = next((i for i, stage in enumerate(stages) if stage.needs), len(stages))
    return stages[first:]


def undecided(group: Group) -> int:
    """How many completions of a group have an undecided verdict."""
    return sum(verdict is not None and verdict.outcome == "undecided" for verdict in group.verdicts)


def _begin(group: Group, verdicts: Sequence[Verdict | None], fixed: Sequence[Verdict | None]) -> Group:
    """The group as the reward stages first see it: nothing yet for what was judged, None for what is not to be paid."""
    start: list[Reward | None] = [
        None if known is not None or (verdict is not None and verdict.outcome == "undecided") else ()
        for verdict, known in zip(verdicts, fixed, strict=True)
    ]
    return dataclasses.replace(group, verdicts=tuple(verdicts), rewards=tuple(start))
