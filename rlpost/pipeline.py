"""The synchronous loop: prompts, rollouts, verdicts and rewards, credit, update, sync.

Every stage finishes before the next begins, so every sample was drawn by the policy that is updated with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rlpost import credit
from rlpost.algorithms.advantages import AdvantageSettings
from rlpost.config.schema import RunConfig
from rlpost.data.sampler import indices
from rlpost.errors import InfrastructureError
from rlpost.observability.metrics import describe_groups, prefixed, tokens, undecided_share
from rlpost.protocols import RewardStage
from rlpost.rollout.sampling import requests, settings
from rlpost.scoring.score import run_stages, settle
from rlpost.session import Session
from rlpost.types import Group


@dataclass(slots=True)
class Step:
    """What one pass of the loop produced.

    Attributes:
        number: rollout batch, 0-based.
        groups: prompts with completions, verdicts and rewards.
        advantages: per group and completion, None where it was not trained on.
        metrics: registered figures.
    """

    number: int
    groups: list[Group]
    advantages: list[list[float | None]]
    metrics: dict[str, float] = field(default_factory=dict[str, float])


OnStep = Callable[[Step], None]


@dataclass(slots=True)
class Judged:
    """A rollout batch before the learner has seen it: until here nothing in the run has changed."""

    number: int
    groups: list[Group]
    credit: credit.Credit
    clock: Clock


def collect(session: Session, number: int, late_stages: Sequence[RewardStage]) -> Judged:
    """The left half of the picture: prompts, rollouts, verdicts, rewards, credit.

    Args:
        session: the running actors.
        number: rollout batch, 0-based.
        late_stages: reward stages that wait for the learner (`rlpost.scoring.score.deferred`).

    Raises:
        InfrastructureError: if too many checks stayed undecided.
    """
    config, clock = session.config, Clock()
    with clock("rollout"):
        groups = rollout(session, number)
    with clock("scoring"):
        groups = [settle(run_stages(group, late_stages)) for group in session.scoring.score(groups)]
    check_undecided(session.remember(groups), config.scoring.max_undecided_share)
    algorithm = config.algorithm
    advantage = AdvantageSettings(
        baseline=algorithm.baseline, std=algorithm.std, ddof=algorithm.std_ddof, eps=algorithm.std_eps
    )
    credited = credit.assign(
        groups, advantage, step=number, group_filter=algorithm.filter, truncated=config.scoring.truncated
    )
    return Judged(number, groups, credited, clock)


def learn(session: Session, judged: Judged) -> Step:
    """The right half: update, sync, and what both cost.

    Raises:
        SelfCheckError: if the sync's canary fails.
    """
    groups, clock, batch = judged.groups, judged.clock, judged.credit.batch
    metrics = {
        **describe_groups(groups),
        "trained_samples": float(len(batch.samples)),
        "kept_groups": float(judged.credit.kept_groups),
        "tokens_per_second": tokens(groups) / clock.seconds["rollout"],
    }
    if batch.samples:
        metrics |= update(session, batch, clock)
    metrics |= prefixed("rss_mb", session.resident_mb())
    metrics["policy_version"] = float(session.published.new_version if session.published else 0)
    metrics |= prefixed("seconds", {**clock.seconds, "step": clock.total()})
    return Step(judged.number, groups, judged.credit.advantages, metrics)


def rollout(session: Session, number: int) -> list[Group]:
    """The step's prompts with the completions the engines sample for them."""
    config = session.config
    chosen = indices(number, config.rollout.prompts_per_step, len(session.train), config.run.seed, config.data.shuffle)
    batch = [session.train[i] for i in chosen]
    asked = requests(
        [(one.prompt.id, one.ids) for one in batch],
        run_seed=config.run.seed,
        step=number,
        group_size=config.rollout.group_size,
    )
    completions = session.rollouts.generate(asked, settings(config.rollout, config.wants_logprobs(number)))
    return [Group(one.prompt, tuple(c)) for one, c in zip(batch, completions, strict=True)]


def update(session: Session, batch: credit.TrainBatch, clock: Clock) -> dict[str, float]:
    """Train on a batch and publish the result."""
    config, learner = session.config, session.learner
    assert learner is not None
    with clock("prepass"):
        old = learner.logprobs(batch.samples) if needs_old_logprobs(config) else None
        reference = learner.logprobs(batch.samples, reference=True) if config.algorithm.kl.coef else None
    with clock("update"):
        metrics = learner.step(batch, old, reference)
    with clock("sync"):
        metrics |= session.publish(metrics)
    return metrics


def needs_old_logprobs(config: RunConfig) -> bool:
    """Whether the policy's log-probabilities must be fixed before the update: with more than one update per batch the
    policy moves under the later ones, and the importance correction compares engine and learner at the same weights.
    """
    return config.updates_per_step > 1 or config.importance_cap is not None


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
