"""Everything that is up while a run or an evaluation goes on: Ray, the actors, prompts, the published version."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rlpost.actors.cluster import cluster, resources
from rlpost.actors.groups import LearnerGroup, RolloutGroup, ScoringGroup
from rlpost.actors.placement import place
from rlpost.actors.remote import wait
from rlpost.config.schema import RunConfig
from rlpost.data.chat import TextCodec
from rlpost.data.load import prompts
from rlpost.errors import DataError
from rlpost.evaluation.run import Encoded
from rlpost.selfcheck import canary
from rlpost.types import Group, WeightManifest

_MOST_SEATS = 256
"""vLLM reserves memory for every completion that may run at once; more than this gains nothing on two cores."""

_SHORTEST_PLAN = 256
"""Leaves room for the probe that is longer than a block of the prefix cache (128 tokens on CPU)."""


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
        published: manifest of the version the engines serve.
        recent: the last ``scoring.undecided_window`` judged batches.
    """

    config: RunConfig
    rollouts: RolloutGroup
    scoring: ScoringGroup
    learner: LearnerGroup | None
    train: list[Encoded]
    held_out: list[Encoded]
    verifiers: tuple[str, ...]
    published: WeightManifest | None = field(default=None)
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
        reports = self.rollouts.apply(update)
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
        assert self.learner is not None
        section = self.config.selfcheck
        tolerance = section.probe_tolerance or canary.TOLERANCE[self.config.model.dtype]
        worst: dict[str, float] = {}
        for engine, completions in enumerate(self.rollouts.probe()):
            # greedy tokens carry the log-probabilities of the untempered distribution
            values = self.learner.logprobs(canary.as_samples(completions), temperature=1.0)
            found = canary.check_probe(completions, values, tolerance, engine)
            worst = {name: max(value, worst.get(name, 0.0)) for name, value in found.items()}
        return worst

    def resident_mb(self) -> dict[str, float]:
        """Resident memory of every actor."""
        groups = [self.rollouts, self.scoring, *([self.learner] if self.learner else [])]
        return {name: value for group in groups for name, value in group.resident_mb().items()}


@contextmanager
def session(config: RunConfig, model: str, *, training: bool) -> Iterator[Session]:
    """Start Ray and the actors, and end them however the block ends.

    Args:
        config: of the run.
        model: Hugging Face folder of the policy.
        training: with a learner; without, only rollouts and scoring.

    Raises:
        RlpostError: if data, model, cluster or an actor's start fails.
    """
    train, held_out = load_prompts(config, model, training=training)
    with cluster(config.cluster):
        placement = place(config, *resources())
        scoring = ScoringGroup(config, placement)
        rollouts = RolloutGroup(config, placement)
        learner = LearnerGroup(config, placement) if training else None
        try:
            probes = [encoded.ids for encoded in train[: config.selfcheck.probe_prompts]]
            seats = -(-config.rollout.group_size * config.rollout.prompts_per_step // config.rollout.workers)
            longest = max(len(encoded.ids) for encoded in [*train, *held_out]) + config.rollout.max_tokens
            length = min(max(longest, _SHORTEST_PLAN), context_length(model))
            judges = scoring.setup(), scoring.examine([encoded.prompt for encoded in [*train, *held_out]])
            waiting = [*judges[0], *judges[1], *rollouts.setup(model, probes, min(max(seats, 8), _MOST_SEATS), length)]
            if learner is not None:
                waiting += learner.setup(model)
            wait(waiting, "start of the actors", config.cluster.start_timeout_s)
            verifiers = tuple(sorted(set(wait(judges[1], "scoring: examine", config.cluster.start_timeout_s))))
            yield Session(config, rollouts, scoring, learner, train, held_out, verifiers)
        finally:
            scoring.close()
            if learner is not None:
                learner.close()
            for group in (rollouts, scoring, learner):
                if group is not None:
                    group.kill()


def load_prompts(config: RunConfig, model: str, *, training: bool) -> tuple[list[Encoded], list[Encoded]]:
    """Encoded training and held-out prompts, each checked to fit the model.

    Raises:
        DataError: for a prompt that is too long, with its id and length.
    """
    codec = TextCodec(model, config.model.trust_remote_code)
    room = (config.rollout.max_model_len or context_length(model)) - config.rollout.max_tokens
    limit = min(room, config.data.max_prompt_tokens or room)
    if limit < 1:
        raise DataError(
            f"rollout.max_tokens: {config.rollout.max_tokens} leaves no room for a prompt in the model's "
            f"{context_length(model)} positions; lower it"
        )

    def encode(split: str, most: int | None) -> list[Encoded]:
        found = [Encoded(prompt, codec.encode(prompt)) for prompt in prompts(config.data, split)[:most]]
        check_lengths(found, limit, config.rollout.max_tokens)
        return found

    held_out = encode("eval", config.evaluation.max_prompts) if config.data.eval is not None else []
    return (encode("train", None) if training else []), held_out


def check_lengths(encoded: Sequence[Encoded], limit: int, max_tokens: int) -> None:
    """Raise DataError for the first prompt of more than ``limit`` tokens."""
    for one in encoded:
        if len(one.ids) > limit:
            raise DataError(
                f"prompt {one.prompt.id!r} has {len(one.ids)} tokens, {limit} fit beside rollout.max_tokens "
                f"{max_tokens}; shorten it, drop it, or lower rollout.max_tokens"
            )


def context_length(model: str) -> int:
    """``max_position_embeddings`` of a model folder."""
    values = json.loads((Path(model) / "config.json").read_text())
    return int(values.get("max_position_embeddings") or values.get("n_positions") or 2**31)
