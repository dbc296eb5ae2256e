"""Starting the actors of a run, and ending them however the run ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rlpost.actors.cluster import cluster, wait_for_placement
from rlpost.actors.engines import RayRolloutPool
from rlpost.actors.environments import EnvironmentActors
from rlpost.actors.handles import fetch
from rlpost.actors.learners import RayLearner
from rlpost.actors.placement import place
from rlpost.actors.recovery import Supervisor
from rlpost.actors.remote import check_objects, wait
from rlpost.actors.scorers import RayScoringPool
from rlpost.actors.transcripts import RayTranscripts
from rlpost.config.schema import RunConfig
from rlpost.data.constraint import check_constraint
from rlpost.data.load import held_out_tokens, tokenized_prompts
from rlpost.data.models import context_length, tensor_shapes
from rlpost.data.repair_prompts import repair_prompts
from rlpost.loop.session import Session
from rlpost.loop.unverifiable import Dropped, drop
from rlpost.plugins.algorithm import build_advantage
from rlpost.plugins.build import reward_needs, with_logprobs
from rlpost.plugins.ship import Shipped, ship
from rlpost.protocols import EngineSpec
from rlpost.selfcheck.memory import MemoryWatch
from rlpost.trajectory import TokenizedPrompt
from rlpost.tuning.dry_run import check_tuning

_MAX_NUM_SEQS = 256
"""vLLM reserves memory for every completion that can run at once; more than this gains nothing on two cores."""

_LEAST_MODEL_LEN = 256
"""Tokens; leaves room for the probe that is longer than a block of the prefix cache (128 tokens on CPU)."""


@contextmanager
def session(
    config: RunConfig,
    model: str,
    *,
    training: bool,
    shipped: Shipped | None = None,
    asked: Sequence[TokenizedPrompt] | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Iterator[Session]:
    """Start Ray and the actors, and end them however the block ends.

    Args:
        config: the run configuration.
        model: Hugging Face folder of the policy.
        training: whether a learner is started; False starts rollouts and scoring only.
        shipped: the user's own code, if `rlpost.plugins.ship.ship` was called already; None calls it.
        asked: held-out prompts instead of those of the configuration, whose data sets are not read then.
        log: called with a line about what is waited for, and about lost actors.

    Raises:
        RlpostError: if data, model, cluster or an actor's start fails.
    """
    shipped = shipped or ship(config)
    check_objects(shipped.objects)
    needs = reward_needs(config)
    config = with_logprobs(config, needs)
    if training:
        check_tuning(config, model)
    check_constraint(config, model, log)
    train, held_out = (
        tokenized_prompts(config, model, training=training, log=log) if asked is None else ([], list(asked))
    )
    repairs = repair_prompts(config, model, train) if training else None
    with cluster(config.cluster):
        shapes = tensor_shapes(model)
        plan = wait_for_placement(lambda found: place(config, found, shapes), config.cluster, log)
        supervisor, placed = Supervisor(config.cluster, plan.placements, log), plan.of
        scoring = RayScoringPool(config, placed("scoring"), supervisor, shipped, frozenset(needs))
        spec = engine_spec(config, model, train, held_out, repairs.limit if repairs else 0)
        environments = None
        if config.environment is not None:
            environments = EnvironmentActors(config.environment, placed("environment"), supervisor, shipped)
        rollouts = RayRolloutPool(
            config, placed("rollout"), supervisor, spec, shipped, environments, offsets="offsets" in needs
        )
        learner = RayLearner(config, placed("learner"), supervisor, model, shipped) if training else None
        rollouts.snapshot = learner.snapshot if learner else None
        pools = [rollouts, scoring, *([environments] if environments else []), *([learner] if learner else [])]
        try:
            workers = [scoring.begin(i) for i in range(len(scoring.handles))]
            train, held_out, dropped = _verifiable(config, scoring, train, held_out, log)
            prompts = [tokenized.prompt for tokenized in [*train, *held_out]]
            conformance, trials = config.selfcheck.conformance, config.selfcheck.plugins
            checks, tried = scoring.preflight(prompts, conformance=conformance, trials=trials), []
            if environments is not None:
                tried, verified = environments.preflight(prompts, conformance=conformance, trials=trials)
                checks += verified
            if shipped.targets or shipped.objects:  # the user's own code is tried before anything expensive is loaded
                wait([*workers, *checks, *tried], "start of the scoring workers", config.cluster.start_timeout_s)
            waiting = [*workers, *checks, *tried, *(rollouts.begin(i) for i in range(len(rollouts.handles)))]
            if learner is not None:
                waiting += learner.setup()
            wait(waiting, "start of the actors", config.cluster.start_timeout_s)
            yield Session(
                config=config,
                rollouts=rollouts,
                scoring=scoring,
                learner=learner,
                train=train,
                held_out=held_out,
                advantages=build_advantage(config),
                supervision=supervisor,
                watch=MemoryWatch(config.selfcheck.memory_window),
                fetch=fetch,
                transcripts=RayTranscripts(log),
                dropped=dropped,
                repairs=repairs,
                verifiers=tuple(sorted({*wait(checks, "preflight", config.cluster.start_timeout_s)} - {""})),
            )
        finally:
            supervisor.closing = True
            for pool in pools:
                pool.close()
            for pool in pools:
                pool.kill()


def _verifiable(
    config: RunConfig,
    scoring: RayScoringPool,
    train: list[TokenizedPrompt],
    held_out: list[TokenizedPrompt],
    log: Callable[[str], None],
) -> tuple[list[TokenizedPrompt], list[TokenizedPrompt], tuple[Dropped, ...]]:
    """Training and held-out prompts without those that ``data.unverifiable: drop`` leaves out, and these."""
    if config.data.unverifiable == "refuse":
        return train, held_out, ()
    asked = [one.prompt for one in [*train, *held_out]]
    problems = scoring.unverifiable(asked, config.cluster.start_timeout_s)
    limit = config.data.unverifiable_limit
    train, dropped = drop(train, problems[: len(train)], "train", limit, log)
    held_out, more = drop(held_out, problems[len(problems) - len(held_out) :], "eval", limit, log)
    return train, held_out, (*dropped, *more)


def engine_spec(
    config: RunConfig,
    model: str,
    train: Sequence[TokenizedPrompt],
    held_out: Sequence[TokenizedPrompt],
    repair_tokens: int = 0,
) -> EngineSpec:
    """Pinned prompts and limits of the engines, from the configuration and the longest prompt.

    ``repair_tokens``: largest number of tokens of a prompt that asks a rejected answer again; 0: there are none.
    """
    probes = tuple(tokenized.token_ids for tokenized in train[: config.selfcheck.probe_prompts])
    at_once = -(-config.rollout.group_size * config.rollout.prompts_per_step // config.rollout.workers)
    asked = [(one, config.trajectory_tokens) for one in train] + [(one, held_out_tokens(config)) for one in held_out]
    again = repair_tokens + config.trajectory_tokens if repair_tokens else 0
    longest = max(again, *(len(one.token_ids) + answer for one, answer in asked))
    length = min(max(longest, _LEAST_MODEL_LEN), context_length(model))
    return EngineSpec(model, probes, min(max(at_once, 8), _MAX_NUM_SEQS), length)
