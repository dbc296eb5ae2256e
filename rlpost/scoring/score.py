"""From completions to verdicts to rewards: what a scoring worker does."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rlpost.config.schema import RewardSpec, ScoringSection
from rlpost.errors import InfrastructureError, RlpostError, SelfCheckError, UserError, describe_error
from rlpost.plugins import registry, ship, trial_call, usercode
from rlpost.plugins.build import build_stage, build_verifier, stage_needs
from rlpost.protocols import RewardStage, SelfExamining, Verifier
from rlpost.types import Completion, Group, Prompt, Reward, RewardOutput, SpanReward, Verdict, VerifyItem

TRUNCATED = Verdict("rejected", 0.0, "truncated", assurance="cut at max_tokens, not checked")
ABORTED = Verdict("undecided", None, "unavailable", evidence={"messages": ["the rollout was cut off"]})


def run_stages(group: Group, stages: Sequence[tuple[str, RewardStage]]) -> Group:
    """Send a verified group through reward stages, and note what each added.

    Args:
        group: with verdicts; a completion that is undecided, or that no stage gives a value, ends with reward None.
        stages: each with the name it is logged under.

    Raises:
        UserError: if a stage answers with the wrong number of values.
        InfrastructureError: if it fails otherwise, with the user's line.
    """
    for name, stage in stages:
        with _named_failure(f"reward {getattr(stage, 'name', type(stage).__name__)!r}"):
            answer = stage(group)
            figures = answer.metrics if isinstance(answer, RewardOutput) else {}
            rewards = tuple(answer.rewards if isinstance(answer, RewardOutput) else answer)
        if len(rewards) != len(group.completions):
            raise UserError(f"reward stage {type(stage).__name__} answered {len(rewards)} of {len(group.completions)}")
        added = tuple(_added(before, after) for before, after in zip(group.rewards, rewards, strict=True))
        group = dataclasses.replace(
            group,
            rewards=rewards,
            stage_rewards={**group.stage_rewards, name: added},
            metrics={**group.metrics, **{f"{name}/{key}": float(value) for key, value in figures.items()}},
        )
    return group


def drop_empty_rewards(group: Group) -> Group:
    """Close the reward pipeline: a reward without any span is no reward."""
    return dataclasses.replace(group, rewards=tuple(reward or None for reward in group.rewards))


def stage_names(specs: Sequence[RewardSpec]) -> list[str]:
    """Names that stages are logged under: the last part of the configured name, numbered where it comes again.

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
        section: settings.
        shipped: the plug-ins among them as the driver read them; None: they are looked up here.

    Raises:
        UserError: for a name nobody knows, or arguments that do not fit.
    """

    def __init__(self, section: ScoringSection, shipped: ship.Shipped | None = None):
        if shipped is not None:
            ship.install(shipped)
        self.section = section
        stages = [build_stage(spec) for spec in section.rewards]
        self.stages = list(zip(stage_names(section.rewards), stages, strict=True))
        first = next((i for i, stage in enumerate(stages) if "learner_logprobs" in stage_needs(stage)), len(stages))
        self.early, self.late = self.stages[:first], self.stages[first:]
        self.verifier = build_verifier(section)

    def score(self, groups: Sequence[Group]) -> list[Group]:
        """The groups with verdicts, and with rewards of the stages before the first that needs the learner."""
        return [self._reject_truncated(run_stages(group, self.early)) for group in self._judge(groups)]

    def finish(self, groups: Sequence[Group]) -> list[Group]:
        """The groups, once the learner's log-probabilities are filled in, after the remaining stages."""
        return [run_stages(group, self.late) for group in groups]

    def preflight(self, prompts: Sequence[Prompt], conformance: bool, trials: bool = True) -> str:
        """Have whatever judges here show what it is worth, before anything depends on its word.

        Args:
            prompts: whose answers it must be able to judge.
            conformance: put the verifier's gold answers and cheats to it, where it has some.
            trials: try every verifier and reward that is not part of rlpost on the first prompt.

        Returns:
            One line: what judges here, how it did, and how long the trials took.

        Raises:
            SelfCheckError: if the verifier does not accept a gold answer, or accepts a cheat.
            DataError: for prompts it could not judge an answer to.
            UserError: for a plug-in that does not keep to its contract; see `rlpost.plugins.trial_call`.
        """
        tried = self._try_plugins(prompts[0]) if trials and prompts else []
        return "; ".join([self._check_verifier(prompts, conformance), *tried])

    def _try_plugins(self, prompt: Prompt) -> list[str]:
        """A note on each trial."""
        notes: list[str] = []
        name = self.section.verifier
        if self.verifier is not None and name is not None and _is_plugin("verifiers", name):
            seconds = trial_call.try_verifier(self.verifier, name, prompt)
            notes.append(f"tried verifier {name!r} in {_duration(seconds)}")
        for (_, stage), spec in zip(self.stages, self.section.rewards, strict=True):
            if _is_plugin("rewards", spec.name):
                seconds = trial_call.try_stage(stage, spec.name, prompt, self.verifier is not None)
                notes.append(f"tried reward {spec.name!r} in {_duration(seconds)}")
        return notes

    def _check_verifier(self, prompts: Sequence[Prompt], conformance: bool) -> str:
        if self.verifier is None:
            return "no verifier"
        if not isinstance(self.verifier, SelfExamining):
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
        with _named_failure(f"verifier {self.section.verifier!r}"):
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


def undecided(group: Group) -> int:
    """How many completions of a group have an undecided verdict."""
    return sum(verdict is not None and verdict.outcome == "undecided" for verdict in group.verdicts)


def _is_plugin(kind: str, name: str) -> bool:
    """Whether the user's own code decides: `function` and `trl` are ours, what they call is not."""
    return name not in registry.BUILTIN[kind] or name in ("function", "trl")


@contextmanager
def _named_failure(who: str) -> Iterator[None]:
    """An exception of a plug-in during a run, as one line with the user's file and line."""
    try:
        yield
    except RlpostError:
        raise
    except Exception as error:
        place = usercode.place_of(error)
        at = f" at {place}" if place else ""
        raise InfrastructureError(f"{who} fails{at} ({describe_error(error)}); mend it there") from error


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 0.1 else f"{seconds * 1e3:.0f} ms"


def _added(before: Reward | None, after: Reward | None) -> float | None:
    """What a stage added to the sum of a completion's rewards; None for a completion that has none."""
    if after is None:
        return None
    return sum(s.value for s in after if s.channel == "reward") - sum(
        s.value for s in before or () if s.channel == "reward"
    )


def _begin(group: Group, verdicts: Sequence[Verdict | None], fixed: Sequence[Verdict | None]) -> Group:
    """The group as the reward stages first see it: nothing yet for what was judged, None for what is not to be paid."""
    start: list[Reward | None] = [
        None if known is not None or (verdict is not None and verdict.outcome == "undecided") else ()
        for verdict, known in zip(verdicts, fixed, strict=True)
    ]
    return dataclasses.replace(group, verdicts=tuple(verdicts), rewards=tuple(start))
