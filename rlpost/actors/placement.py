"""What each actor needs, worked out and checked before anything starts."""

from __future__ import annotations

from dataclasses import dataclass

from rlpost.config.schema import RunConfig
from rlpost.errors import PlacementError


@dataclass(frozen=True, slots=True)
class Share:
    """Resources of one actor: CPU threads it computes with, and the part of a GPU it is given."""

    threads: int
    gpus: float


@dataclass(frozen=True, slots=True)
class Placement:
    """Resources of every actor of a kind."""

    rollout: Share
    learner: Share
    scoring: Share


def place(config: RunConfig, cpus: int, gpus: int) -> Placement:
    """Divide a machine or cluster.

    Without a GPU, rollouts and learners take turns, so each is given every core. With GPUs, every rollout and learner
    actor gets one of its own; where there are fewer than actors, they share evenly.

    Args:
        config: of the run.
        cpus: cores Ray has.
        gpus: GPUs Ray has.

    Raises:
        PlacementError: if learner ranks would have to share a GPU (NCCL refuses that).
    """
    rollout, learner = config.rollout, config.learner
    if gpus == 0:
        return Placement(
            Share(rollout.threads or max(cpus // rollout.workers, 1), 0.0),
            Share(learner.threads or max(cpus // learner.workers, 1), 0.0),
            Share(1, 0.0),
        )
    if learner.workers > gpus:
        raise PlacementError(
            f"learner.workers: {learner.workers} ranks need as many GPUs, the cluster has {gpus}; lower learner.workers"
        )
    actors = rollout.workers + learner.workers
    share = 1.0 if actors <= gpus else gpus / actors
    if share < 1.0 and learner.workers > 1:
        raise PlacementError(
            f"{actors} rollout and learner actors on {gpus} GPUs would make learner ranks share one; lower "
            "rollout.workers or learner.workers"
        )
    return Placement(Share(rollout.threads or 1, share), Share(learner.threads or 1, share), Share(1, 0.0))
