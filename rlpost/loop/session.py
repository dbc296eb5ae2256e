"""Everything that is up while a run or an evaluation goes on: Ray, the actors, prompts, the published version."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from rlpost.actors.cluster import cluster, settle
from rlpost.actors.engines import EngineSetup, RolloutGroup
from rlpost.actors.learners import LearnerGroup
from rlpost.actors.placement import place
from rlpost.actors.pool import Supervisor
from rlpost.actors.remote import wait
from rlpost.actors.scorers import ScoringGroup
from rlpost.algorithms.credit import as_samples
from rlpost.config.schema import RunConfig
from rlpost.data.load import apart, prompts
from rlpost.data.models import context_length, tensor_shapes
from rlpost.data.tokenizer import TextCodec
from rlpost.errors import DataError
from rlpost.loop.evaluate import Encoded
from rlpost.observability.metrics import prefixed
from rlpost.plugins.ship import Shipped, ship
from rlpost.selfcheck import canary, invariance, parity
from rlpost.selfcheck.memory import MemoryWatch
from rlpost.types import Completion, Group, Prompt, TrainBatch, WeightManifest

_MOST_SEATS = 256
"""vLLM reserves memory for every completion that may run at once; more than this gains nothing on two cores."""

_SHORTEST_PLAN = 256
"""Leaves room for the probe that is longer than a block of the prefix cache (128 tokens on CPU)."""


_SAME = {"float32": 1e-4, "bfloat16": 0.02}
"""Largest mean difference between two scores of the same tokens by the same weights, nats per token."""


@dataclass(slots=True)
class Session:
    """The actors of a run and what has been published to them.

    Attributes:
        config: of the run.
        rollouts: the engines.
        scoring: the scoring workers.
        learner: the ranks; None for an evaluation.
        train: encoded training prompts.
        held_out: encoded evaluation prompts, empty without.
        verifiers: a line about each kind of verifier that judges, with how it did when examined.
        supervisor: who replaces lost actors.
        watch: the actors' memory over the last steps.
        published: manifest of the version the engines serve.
        recorded: the pinned prompts' completions when it was published, scored by the learner then.
        starting: those of the first version, scored by the reference policy, where there is one.
        examined: whether the learner's gradient has been checked on a batch of this run.
        recent: the last ``scoring.undecided_window`` judged batches.
    """

    config: RunConfig
    rollouts: RolloutGroup
    scoring: ScoringGroup
    learner: LearnerGroup | None
    train: list[Encoded]
    held_out: list[Encoded]
    verifiers: tuple[str, ...]
    supervisor: Supervisor
    watch: MemoryWatch
    published: WeightManifest | None = field(default=None)
    recorded: parity.Scored | None = field(default=None)
    starting: parity.Scored | None = field(default=None)
    examined: bool = field(default=False)
    recent: list[list[Group]] = field(default_factory=list[list[Group]])

    def remember(self, groups: list[Group]) -> list[list[Group]]:
        """Add a judged batch to the recent ones and return those."""
        self.recent = [*self.recent, groups][-self.config.scoring.undecided_window :]
        return self.recent

    def publish(self, metrics: dict[str, float] | None = None) -> dict[str, float]:
        """Send the learner's weights to every engine and check that they arrived; see `rlpost.selfcheck.canary`.

        Args:
            metrics: of the update that led to this version; None at the start of a run.

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
        """Compare every engine with the learner on the pinned prompts; the worst engine's figures."""
        worst: dict[str, float] = {}
        for engine, completions in enumerate(self.rollouts.probe()):
            scored = self._score(completions)
            if engine == 0:
                self.recorded = scored
            found = canary.check_probe(completions, scored.learner, self.tolerance, engine)
            worst = _larger(worst, found)
        if self.starting is None and self.config.algorithm.kl.coef and self.recorded is not None:
            self.starting = self._score(self.recorded.completions, reference=True)
        return worst

    def parity(self, prompts: Sequence[tuple[int, ...]]) -> dict[str, float]:
        """What separates the engines from the learner, by cause; the worst engine's figures.

        Args:
            prompts: of the present rollouts, whose keys and values are in the engines' caches.

        Raises:
            SelfCheckError: if any part is too large; see `rlpost.selfcheck.parity`.
        """
        before = self.recorded
        assert before is not None
        published = parity.Published(before.learner, self._score(before.completions).learner)
        worst: dict[str, float] = {}
        for engine, (as_is, fresh) in enumerate(self.rollouts.parity(prompts)):
            rounds = self._score(as_is), self._score(fresh)
            found = parity.check_parity(*rounds, published, self.tolerance, synchronous=True, engine=engine)
            worst = _larger(worst, found)
        if self.starting is not None:
            now = self._score(self.starting.completions, reference=True).learner
            worst |= parity.check_reference(
                parity.Published(self.starting.learner, now), _SAME[self.config.model.dtype]
            )
        return worst

    def examine(self, batch: TrainBatch) -> dict[str, float]:
        """Have the learner show on the run's own samples that its gradient is the right one.

        Raises:
            SelfCheckError: if it is not; see `rlpost.selfcheck.invariance`.
        """
        assert self.learner is not None
        figures = self.learner.examine(batch)
        self.examined = figures is not None  # a batch without contrast shows nothing: the next one will have to
        if figures is not None and figures.plain is None:
            self.supervisor.say("invariance: sharded parameters, no comparison of the gradient with plain torch")
        return invariance.check(figures, self.config.model.dtype) if figures is not None else {}

    def score(self, completions: Sequence[Completion]) -> Iterator[np.ndarray]:
        """The learner's log-probabilities ``[T]`` of completions, at the sampling temperature, in order."""
        assert self.learner is not None
        samples = as_samples([completion for completion in completions if completion.token_ids])
        found = iter(self.learner.logprobs(samples) if samples else [])
        for completion in completions:  # one that was cut off before its first token has nothing to score
            yield next(found) if completion.token_ids else np.zeros(0, np.float32)

    @property
    def tolerance(self) -> float:
        """Largest mean difference between engine and learner, nats per token."""
        return self.config.selfcheck.probe_tolerance or canary.TOLERANCE[self.config.model.dtype]

    def _score(self, completions: Sequence[Completion], reference: bool = False) -> parity.Scored:
        assert self.learner is not None
        # greedy tokens carry the log-probabilities of the untempered distribution
        found = self.learner.logprobs(as_samples(completions), reference=reference, temperature=1.0)
        return parity.Scored(completions, found)

    def memory(self) -> dict[str, float]:
        """Resident memory of every actor in MiB, all of it and its own part; the latter is watched."""
        crews = [self.rollouts, self.scoring, *([self.learner] if self.learner else [])]
        figures = {seat.name: pair for crew in crews for seat, pair in zip(crew.seats, crew.memory(), strict=True)}
        own = {name: pair[1] for name, pair in figures.items()}
        for name in self.supervisor.take_replaced():
            self.watch.forget(name)
        self.watch.note(own)
        return prefixed("rss_mb", {name: pair[0] for name, pair in figures.items()}) | prefixed("own_mb", own)


@contextmanager
def session(
    config: RunConfig,
    model: str,
    *,
    training: bool,
    shipped: Shipped | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Session]:
    """Start Ray and the actors, and end them however the block ends.

    Args:
        config: of the run.
        model: Hugging Face folder of the policy.
        training: with a learner; without, only rollouts and scoring.
        shipped: the user's own rewards and verifiers, if they were packed up already.
        say: told what is waited for, and about lost actors.

    Raises:
        RlpostError: if data, model, cluster or an actor's start fails.
    """
    shipped = shipped or ship(config.scoring)
    train, held_out = load_prompts(config, model, training=training)
    with cluster(config.cluster):
        shapes = tensor_shapes(model)
        plan = settle(lambda found: place(config, found, shapes), config.cluster, say)
        supervisor, seats = Supervisor(config.cluster, plan.seats, say), plan.of
        scoring = ScoringGroup(config, seats("scoring"), supervisor, shipped)
        rollouts = RolloutGroup(config, seats("rollout"), supervisor, engine_setup(config, model, train, held_out))
        learner = LearnerGroup(config, seats("learner"), supervisor, model) if training else None
        rollouts.snapshot = learner.snapshot if learner else None
        crews = [rollouts, scoring, *([learner] if learner else [])]
        try:
            judges = [scoring.begin(i) for i in range(len(scoring.handles))]
            examined = scoring.examine([encoded.prompt for encoded in [*train, *held_out]])
            if shipped.targets:  # the user's own code is tried before anything expensive is loaded
                wait([*judges, *examined], "start of the scoring workers", config.cluster.start_timeout_s)
            waiting = [*judges, *examined, *(rollouts.begin(i) for i in range(len(rollouts.handles)))]
            if learner is not None:
                waiting += learner.setup()
            wait(waiting, "start of the actors", config.cluster.start_timeout_s)
            verifiers = tuple(sorted(set(wait(examined, "scoring: examine", config.cluster.start_timeout_s))))
            watch = MemoryWatch(config.selfcheck.memory_window)
            yield Session(config, rollouts, scoring, learner, train, held_out, verifiers, supervisor, watch)
        finally:
            supervisor.closing = True
            for crew in crews:
                crew.close()
            for crew in crews:
                crew.kill()


def engine_setup(config: RunConfig, model: str, train: Sequence[Encoded], held_out: Sequence[Encoded]) -> EngineSetup:
    """What the engines have to be ready for."""
    probes = tuple(encoded.ids for encoded in train[: config.selfcheck.probe_prompts])
    seats = -(-config.rollout.group_size * config.rollout.prompts_per_step // config.rollout.workers)
    longest = max(len(encoded.ids) for encoded in [*train, *held_out]) + config.rollout.max_tokens
    length = min(max(longest, _SHORTEST_PLAN), context_length(model))
    return EngineSetup(model, probes, min(max(seats, 8), _MOST_SEATS), length)


def _larger(first: dict[str, float], second: dict[str, float]) -> dict[str, float]:
    return {name: max(value, first.get(name, 0.0)) for name, value in second.items()}


def load_prompts(config: RunConfig, model: str, *, training: bool) -> tuple[list[Encoded], list[Encoded]]:
    """Encoded training and held-out prompts, each checked to fit the model.

    Raises:
        DataError: for a prompt that is too long, with its id and length.
    """
    codec = TextCodec(model, config.model.trust_remote_code, config.data.special_tokens)
    room = (config.rollout.max_model_len or context_length(model)) - config.rollout.max_tokens
    limit = min(room, config.data.max_prompt_tokens or room)
    if limit < 1:
        raise DataError(
            f"rollout.max_tokens: {config.rollout.max_tokens} leaves no room for a prompt in the model's "
            f"{context_length(model)} positions; lower it"
        )

    def encode(chosen: Sequence[Prompt]) -> list[Encoded]:
        found = [Encoded(prompt, codec.encode(prompt)) for prompt in chosen]
        check_lengths(found, limit, config.rollout.max_tokens)
        return found

    held_out = prompts(config.data, "eval") if config.data.eval is not None else []
    train = apart(prompts(config.data, "train"), held_out, config.data.leaks) if training else []
    return encode(train), encode(held_out[: config.evaluation.max_prompts])


def check_lengths(encoded: Sequence[Encoded], limit: int, max_tokens: int) -> None:
    """Raise DataError for the first prompt of more than ``limit`` tokens."""
    for one in encoded:
        if len(one.ids) > limit:
            raise DataError(
                f"prompt {one.prompt.id!r} has {len(one.ids)} tokens, {limit} fit beside rollout.max_tokens "
                f"{max_tokens}; shorten it, drop it, or lower rollout.max_tokens"
            )
