"""The session that the verbs of a step act on: engines, scoring workers, learner, prompts, and the published version.

It does not depend on Ray: `rlpost.loop.start` fills it with the actors of a run, tests with fakes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rlpost.config.schema import RunConfig
from rlpost.data.repair import RepairMaker
from rlpost.loop.checks import StepChecks
from rlpost.loop.unverifiable import Dropped
from rlpost.observability.metrics import Undecided, prefixed, undecided_of
from rlpost.observability.undecided import UndecidedTexts
from rlpost.plugins.algorithm import Advantages
from rlpost.plugins.normal_forms import normal_form
from rlpost.protocols import Learner, RolloutPool, ScoringPool, Supervision, TranscriptWriter
from rlpost.selfcheck import canary, invariance, parity
from rlpost.selfcheck.memory import MemoryWatch
from rlpost.selfcheck.plain_samples import PlainSample
from rlpost.selfcheck.updates import SAME
from rlpost.trajectory import BatchReceipt, GroupReceipt, TokenizedPrompt, Trajectory
from rlpost.types import WeightManifest


@dataclass(slots=True)
class Session:
    """The running parts of a run and the version that has been published to them.

    Attributes:
        config: the run configuration.
        rollouts: pool of rollout engines.
        scoring: pool of scoring workers.
        learner: the learner; None for an evaluation.
        train: training prompts.
        held_out: evaluation prompts; empty without ``data.eval``.
        advantages: the configured advantage function.
        supervision: bookkeeping of lost and replaced actors.
        watch: the actors' own memory over the last steps.
        fetch: resolves the handles in receipts.
        transcripts: writes transcripts where trajectories are at hand.
        repairs: makes the prompts that ask rejected answers again; None without ``data.repair``.
        verifiers: one line about each distinct verifier, with the result of its conformance test.
        dropped: prompts that were left out because their answers cannot be verified.
        published: manifest of the version that the engines serve; None before the first publish.
        published_probe: completions of the pinned prompts at the last publish, with the learner's log-probabilities
            then.
        first_probe: mean |Δ log p| of the probe at this session's first publish, in nats per token.
        reference_probe: completions of the pinned prompts at this session's first publish, with the log-probabilities
            of the reference policy; None without a KL term.
        rewritten: whether the user was told that the chat template rewrites earlier messages.
        examined: whether the learner's gradient has been checked on a batch of this run.
        checks: the checks of a step's samples, and what they remember.
        recent: receipts' verdicts of the last ``scoring.undecided_window`` scored batches.
        undecided: what the undecided answers of these batches say.
    """

    config: RunConfig
    rollouts: RolloutPool
    scoring: ScoringPool
    learner: Learner | None
    train: list[TokenizedPrompt]
    held_out: list[TokenizedPrompt]
    advantages: Advantages
    supervision: Supervision
    watch: MemoryWatch
    fetch: Callable[[Any], Any]
    transcripts: TranscriptWriter
    repairs: RepairMaker | None = None
    verifiers: tuple[str, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    published: WeightManifest | None = field(default=None)
    published_probe: parity.Scored | None = field(default=None)
    first_probe: float | None = field(default=None)
    reference_probe: parity.Scored | None = field(default=None)
    rewritten: bool = field(default=False)
    examined: bool = field(default=False)
    checks: StepChecks = field(init=False)
    recent: list[list[Undecided]] = field(default_factory=list[list[Undecided]])
    undecided: UndecidedTexts = field(init=False)

    def __post_init__(self) -> None:
        self.checks = StepChecks(self.config)
        scoring = self.config.scoring
        self.undecided = UndecidedTexts(scoring.undecided_window, normal_form(scoring.verifier))

    def remember(self, groups: Sequence[GroupReceipt]) -> list[list[Undecided]]:
        """Add a scored batch to the recent ones and return them; what the groups refer to is not kept."""
        self.recent = [*self.recent, [undecided_of(group) for group in groups]][-self.config.scoring.undecided_window :]
        return self.recent

    def watch_undecided(self, groups: Sequence[GroupReceipt]) -> dict[str, float]:
        """Metrics of what the undecided answers of a scored batch say; what is told for the first time is logged.

        Answers that no verifier could be asked about (``unavailable``) say nothing about their texts.
        """
        texts: list[str] = []
        for group in groups:
            places = [
                i
                for i, verdict in enumerate(group.verdicts)
                if verdict is not None and verdict.outcome == "undecided" and verdict.reason != "unavailable"
            ]
            if places:
                trajectories = self.fetch(group.tokens)
                texts += [trajectories[i].text for i in places]
        found, told = self.undecided.add(texts)
        for line in told:
            self.supervision.log(f"scoring: {line}: the policy may have found what the verifier cannot decide")
        return found

    def publish(self, metrics: dict[str, float] | None = None) -> dict[str, float]:
        """Send the learner's weights to every engine and check that they arrived; see `rlpost.selfcheck.canary`.

        Args:
            metrics: metrics of the update that led to this version; None at the start of a run.

        Returns:
            Metrics of the sync.

        Raises:
            SelfCheckError: if the canary finds a difference.
        """
        assert self.learner is not None
        manifest, update = self.learner.export()
        reports = self.rollouts.apply(update, manifest)
        found = {"sync/bytes": float(manifest.nbytes)}
        if self.config.selfcheck.canary:
            found |= canary.check_arrival(manifest, reports, self.published)
            if self.published is not None and metrics is not None:
                canary.check_movement(manifest, self.published, metrics, self.config.model.dtype)
            found |= self.probe()
        self.published = manifest
        return found

    def probe(self) -> dict[str, float]:
        """Compare every engine with the learner on the pinned prompts; returns the worst engine's figures."""
        worst: dict[str, float] = {}
        for engine, completions in enumerate(self.rollouts.probe()):
            scored = self._with_learner(completions)
            if engine == 0:
                self.published_probe = scored
            found = canary.check_probe(completions, scored.learner, self.tolerance, engine)
            worst = _larger(worst, found)
        self.checks.numerics = worst.get("canary/probe_mean", self.checks.numerics)
        if self.first_probe is None:
            self.first_probe = worst.get("canary/probe_mean")
        if self.reference_probe is None and self.config.algorithm.kl.coef and self.published_probe is not None:
            self.reference_probe = self._with_learner(self.published_probe.completions, reference=True)
        return worst

    def parity(self, prompts: Sequence[np.ndarray]) -> dict[str, float]:
        """Measure how engines and learner differ, by cause; returns the worst engine's figures.

        Args:
            prompts: token ids of this step's prompts, whose keys and values are in the engines' prefix caches.

        Raises:
            SelfCheckError: if any part is above its limit; see `rlpost.selfcheck.parity`.
        """
        before = self.published_probe
        assert before is not None
        published = parity.Published(before.learner, self._with_learner(before.completions).learner)
        worst: dict[str, float] = {}
        for engine, (as_is, fresh) in enumerate(self.rollouts.parity(prompts)):
            rounds = self._with_learner(as_is), self._with_learner(fresh)
            found = parity.check_parity(*rounds, published, self.tolerance, synchronous=True, engine=engine)
            worst = _larger(worst, found)
        self.checks.numerics = worst.get("parity/numerics", self.checks.numerics)
        if self.reference_probe is not None:
            now = self._with_learner(self.reference_probe.completions, reference=True).learner
            worst |= parity.check_reference(
                parity.Published(self.reference_probe.learner, now), SAME[self.config.model.dtype]
            )
        return worst

    def examine(self, batch: BatchReceipt, plain: Sequence[PlainSample]) -> dict[str, float]:
        """Check on samples of this run that the learner's gradient is correct.

        Args:
            batch: the batch.
            plain: a few of its samples as they should be trained on; without any, the next batch is tried.

        Raises:
            SelfCheckError: if it is not; see `rlpost.selfcheck.invariance`.
        """
        assert self.learner is not None
        few = replace(batch, samples=tuple(batch.samples[sample.number] for sample in plain))
        figures = self.learner.examine(few, plain) if plain else None
        self.examined = figures is not None
        if figures is not None and figures.plain is None:
            self.supervision.log("invariance: sharded parameters, no comparison of the gradient with plain torch")
        return invariance.check(figures, self.config.model.dtype) if figures is not None else {}

    @property
    def version(self) -> int:
        """The policy version that the engines serve; 0 before the first publish."""
        return self.published.new_version if self.published is not None else 0

    def learner_logprobs(self, trajectories: Sequence[Trajectory]) -> list[np.ndarray]:
        """The learner's log-probabilities of the sampled tokens of trajectories, at the sampling temperature."""
        assert self.learner is not None
        found = self.learner.logprobs(trajectories)
        return [values[one.mask] for one, values in zip(trajectories, found, strict=True)]

    @property
    def tolerance(self) -> float:
        """Largest mean |Δ log p| allowed between engine and learner, in nats per token."""
        return self.config.selfcheck.probe_tolerance or canary.tolerance(self.config.model.dtype, self.first_probe)

    def memory(self) -> dict[str, float]:
        """Resident memory of every actor in MiB, total and its own part; growth of the latter is monitored."""
        figures: dict[str, tuple[float, float]] = {}
        for pool in (self.rollouts, self.scoring, self.learner):
            figures |= pool.memory() if pool is not None else {}
        own = {name: pair[1] for name, pair in figures.items()}
        for name in self.supervision.take_replaced():
            self.watch.forget(name)
        self.watch.note(own)
        return prefixed("rss_mb", {name: pair[0] for name, pair in figures.items()}) | prefixed("own_mb", own)

    def _with_learner(self, completions: Sequence[Trajectory], reference: bool = False) -> parity.Scored:
        assert self.learner is not None
        # engines report greedy tokens with the log-probabilities at temperature 1
        found = self.learner.logprobs(completions, reference=reference, temperature=1.0, constrained=False)
        return parity.Scored(completions, [values[one.mask] for one, values in zip(completions, found, strict=True)])


def _larger(first: dict[str, float], second: dict[str, float]) -> dict[str, float]:
    return {name: max(value, first.get(name, 0.0)) for name, value in second.items()}
