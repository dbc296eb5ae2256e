"""The synchronous loop: prompts, rollouts, verdicts and rewards, credit, update, sync.

Every stage finishes before the next begins, so every sample was drawn by the policy that is updated with it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rlpost.algorithms import credit
from rlpost.algorithms.advantages import AdvantageSettings
from rlpost.algorithms.groups import keep
from rlpost.data.sampler import indices
from rlpost.errors import InfrastructureError
from rlpost.loop.session import Session
from rlpost.observability.metrics import describe_groups, prefixed, tokens, undecided_share
from rlpost.protocols import RewardStage
from rlpost.rollout.sampling import requests, settings
from rlpost.scoring.score import run_stages, settle
from rlpost.sparsity.deltas import Moved, summary
from rlpost.types import Group


@dataclass(slots=True)
class Step:
    """What one pass of the loop produced.

    Attributes:
        number: rollout batch, 0-based.
        groups: prompts with completions, verdicts and rewards.
        advantages: per group and completion, None where it was not trained on.
        metrics: registered figures.
        changes: what changed of each tensor; empty where that is not looked at.
    """

    number: int
    groups: list[Group]
    advantages: list[list[float | None]]
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    changes: dict[str, Moved] = field(default_factory=dict[str, Moved])


OnStep = Callable[[Step], object]


@dataclass(slots=True)
class Judged:
    """A rollout batch before the learner has seen it: until here nothing in the run has changed. ``checked`` holds the
    figures of the self-checks that were due.
    """

    number: int
    groups: list[Group]
    credit: credit.Credit
    clock: Clock
    checked: dict[str, float]


def collect(session: Session, number: int, late_stages: Sequence[RewardStage]) -> Judged:
    """The left half of the picture: prompts, rollouts, verdicts, rewards, credit.

    Args:
        session: the running actors.
        number: rollout batch, 0-based.
        late_stages: reward stages that wait for the learner (`rlpost.scoring.score.deferred`).

    Raises:
        InfrastructureError: if too many checks stayed undecided.
        SelfCheckError: if an actor's memory keeps growing, or engine and learner are apart.
    """
    config, clock = session.config, Clock()
    if config.selfcheck.memory_growth is not None:
        session.watch.check(config.selfcheck.memory_growth)
    groups = shape(session, rollout_and_score(session, number, clock), late_stages, clock)
    checked: dict[str, float] = {}
    if config.parity_due(number):
        with clock("selfcheck"):
            shown = groups[: config.selfcheck.probe_prompts]
            checked = session.parity([group.completions[0].prompt_ids for group in shown])
    check_undecided(session.remember(groups), config.scoring.max_undecided_share)
    algorithm = config.algorithm
    advantage = AdvantageSettings(
        baseline=algorithm.baseline, std=algorithm.std, ddof=algorithm.std_ddof, eps=algorithm.std_eps
    )
    credited = credit.assign(
        groups, advantage, step=number, group_filter=algorithm.filter, truncated=config.scoring.truncated
    )
    return Judged(number, groups, credited, clock, checked)


def learn(session: Session, judged: Judged) -> Step:
    """The right half, up to the learner: all updates of the batch.

    Raises:
        SelfCheckError: on the first batch, if the learner's gradient is not the loss's.
    """
    groups, clock, batch = judged.groups, judged.clock, judged.credit.batch
    metrics = {
        **describe_groups(groups),
        "trained_samples": float(len(batch.samples)),
        "kept_groups": float(judged.credit.kept_groups),
        "tokens_per_second": tokens(groups) / clock.seconds["rollout"],
        **judged.checked,
    }
    if batch.samples:
        assert session.learner is not None
        if session.config.selfcheck.invariance and not session.examined:
            with clock("selfcheck"):
                metrics |= session.examine(batch)
        with clock("update"):
            metrics |= session.learner.step(batch)
    return Step(judged.number, groups, judged.credit.advantages, metrics)


def publish(session: Session, step: Step, clock: Clock) -> None:
    """The way back: the new version goes to the engines and is checked there; adds to the step's metrics.

    Raises:
        SelfCheckError: if the sync's canary fails.
    """
    metrics = step.metrics
    if "updates" in metrics:
        with clock("sync"):
            metrics |= session.publish(metrics)
    if session.config.changes_due(step.number) and session.learner is not None:
        with clock("changes"):
            step.changes = session.learner.changes()
        metrics |= prefixed("changes", summary(step.changes))
    metrics |= session.memory()
    metrics |= prefixed("recoveries", session.supervisor.lost)
    metrics["policy_version"] = float(session.published.new_version if session.published else 0)
    # the learner measures its own pre-pass, which is part of the update here
    metrics |= prefixed("seconds", {**clock.seconds, "step": clock.total()})


def shape(session: Session, groups: list[Group], late_stages: Sequence[RewardStage], clock: Clock) -> list[Group]:
    """Close the reward pipeline: the stages that need the learner's log-probabilities, which it computes here.

    Groups that the filter on outcomes leaves out anyway are not scored, and stay as they are.
    """
    if not late_stages:
        return [settle(group) for group in groups]
    config = session.config
    # without a verifier it can be a late stage that says what is right
    rule = config.algorithm.filter if config.scoring.verifier is not None else "off"
    chosen = [i for i, group in enumerate(groups) if keep(group, "binary" if rule == "binary" else "off")]
    with clock("shaping"):  # the learner scores as its answers are taken
        scored = iter(list(session.score([c for i in chosen for c in groups[i].completions])))
    for i in chosen:
        logprobs = tuple(next(scored) for _ in groups[i].completions)
        groups[i] = run_stages(dataclasses.replace(groups[i], learner_logprobs=logprobs), late_stages)
    return [settle(group) for group in groups]


def rollout_and_score(session: Session, number: int, clock: Clock) -> list[Group]:
    """The step's prompts with what the engines sample for them, judged; each group is on its way to a scoring worker
    while the others are still being sampled.
    """
    config = session.config
    chosen = indices(number, config.rollout.prompts_per_step, len(session.train), config.run.seed, config.shuffles)
    batch = [session.train[i] for i in chosen]
    asked = requests(
        [(one.prompt.id, one.ids) for one in batch],
        run_seed=config.run.seed,
        step=number,
        group_size=config.rollout.group_size,
    )
    drawn = settings(config.rollout, config.wants_logprobs(number))
    with session.scoring.desk() as desk:
        with clock("rollout"):
            for position, completions in session.rollouts.stream(asked, drawn):
                desk.hand_in(position, Group(batch[position].prompt, tuple(completions)))
        with clock("scoring"):  # what is left of it once the last completion is there
            judged = desk.judged()
    return [judged[position] for position in range(len(batch))]


def check_undecided(recent: Sequence[Sequence[Group]], limit: float) -> None:
    """Stop a run whose verifier does not decide.

    Args:
        recent: the last batches, whose completions count together.
        limit: largest share that may stay undecided.

    Raises:
        InfrastructureError: with the commonest reason.
    """
    groups = [group for batch in recent for group in batch]
    share = undecided_share(groups)
    if share > limit:
        open_ = [v for g in groups for v in g.verdicts if v is not None and v.outcome == "undecided"]
        reasons = [v.reason for v in open_]
        commonest = max(set(reasons), key=reasons.count) if reasons else "no reward stage gave a value"
        raise InfrastructureError(
            f"scoring: {share:.0%} of the last {len(recent)} batches stayed undecided (limit {limit:.0%}), mostly "
            f"{commonest!r}; mend the verifier, or raise scoring.max_undecided_share"
        )


class Clock:
    """Wall-clock seconds of named stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a block."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - begun

    def total(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self._start
