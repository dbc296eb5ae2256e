"""The learner's data-parallel ranks, which are called together and restarted together."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import ray
from rlpost.actors import env_vars
from rlpost.actors.handles import LogprobShares
from rlpost.actors.placement import Placement
from rlpost.actors.pool import ActorPool, spawn
from rlpost.actors.recovery import LOST, Supervisor
from rlpost.actors.remote import ready, wait
from rlpost.actors.workers import LearnerWorker
from rlpost.algorithms.credit import train_samples, without_credit
from rlpost.config.schema import RunConfig
from rlpost.errors import LearnerLostError
from rlpost.plugins.ship import Shipped
from rlpost.trajectory import BatchReceipt, GroupReceipt, Trajectory
from rlpost.types import GradientFigures, StepReport, TensorDelta, WeightManifest


class RayLearner(ActorPool):
    """`rlpost.protocols.Learner` on Ray, one actor per data-parallel rank. Every method is called on all ranks.

    A single rank cannot be replaced: its peers wait for it inside a collective, and its shard of the optimizer state is
    gone with it. Every method therefore raises `LearnerLostError` if a rank is lost, and `restart` starts all of them.

    Args:
        config: the run configuration, from which every rank is built.
        placements: one placement per rank.
        supervisor: counts losses and finds new places.
        folder: Hugging Face folder the policy starts from.
        shipped: the user's own code.
    """

    def __init__(
        self, config: RunConfig, placements: Sequence[Placement], supervisor: Supervisor, folder: str, shipped: Shipped
    ):
        def start(placement: Placement) -> Any:
            on_gpu, together = placement.gpus > 0, self._on_one_node()
            return spawn(
                LearnerWorker,
                placement,
                env_vars.learner(placement.threads, on_gpu, placement.index, len(placements), together),
            )

        self.placements = list(placements)  # needed by `start`: ranks on one node communicate over loopback
        super().__init__("learner", placements, start, supervisor)
        self.config, self.folder, self.shipped = config, folder, shipped

    def setup(self) -> list[Any]:
        """Start loading all ranks; returns the references to wait for."""
        together = self._on_one_node()
        meeting = self.handles[0].rendezvous.remote(together)
        address, port = wait([meeting], "learner: rendezvous", self.config.cluster.start_timeout_s)[0]
        return [handle.setup.remote(self.config, self.folder, self.shipped, address, port) for handle in self.handles]

    def restart(self, error: Exception) -> None:
        """Start all ranks again, from the starting model and on a new port.

        Raises:
            RestartLimitError: if the learner was lost more often than ``cluster.restarts`` allows.
        """
        reason: Exception = error
        while True:
            self.supervisor.record_loss("learner", reason)
            self.kill()
            try:
                self.placements = [self.supervisor.move(placement) for placement in self.placements]
                self.handles = [self.spawn(placement) for placement in self.placements]
                wait(self.setup(), "learner: start again", self.config.cluster.start_timeout_s)
            except LOST as again:
                reason = again
                continue
            for placement in self.placements:
                self.supervisor.mark_replaced(placement.name)
            return

    def logprobs(
        self,
        trajectories: Sequence[Trajectory],
        *,
        reference: bool = False,
        temperature: float | None = None,
        constrained: bool = True,
    ) -> list[np.ndarray]:
        """Log-probabilities ``[L]`` of every trajectory, in order; of those without sampled tokens all are NaN."""
        chosen = [trajectory for trajectory in trajectories if trajectory.sampled]
        samples = [sample for trajectory in chosen for sample in train_samples(trajectory)]
        found: dict[int, np.ndarray] = {}
        if samples:
            shared = ray.put(samples)
            for part in self._all("logprobs", shared, reference, temperature, constrained, what="log-probabilities"):
                found.update(part)
        parts = iter(found[number] for number in range(len(samples)))
        return [
            np.concatenate([next(parts) for _ in trajectory.sequences])
            if trajectory.sampled
            else np.full(trajectory.length, np.nan, np.float32)
            for trajectory in trajectories
        ]

    def proximal(self, groups: Sequence[GroupReceipt]) -> list[GroupReceipt]:
        """The groups with a handle of their log-probabilities; each rank keeps those that it has computed."""
        by_member = without_credit(groups)
        samples = [sample for group in by_member for parts in group for sample in parts]
        if not samples:
            return list(groups)
        batch = ray.put(BatchReceipt(tuple(samples), 0))
        with _lost_together():
            shares = tuple(handle.proximal.remote(batch) for handle in self.handles)
            ready(shares, "learner: log-probabilities", self.config.learner.timeout_s)
        numbers, found = iter(range(len(samples))), list[GroupReceipt]()
        for group, members in zip(groups, by_member, strict=True):
            mine = tuple(tuple((sample.part, next(numbers)) for sample in parts) for parts in members)
            found.append(replace(group, proximal=LogprobShares(shares, group.trajectories, mine)))
        return found

    def examine(self, batch: BatchReceipt, plain: Sequence[Any]) -> GradientFigures | None:
        """See `rlpost.learner.policy.PolicyLearner.examine`."""
        return self._all("examine", ray.put(batch), ray.put(list(plain)), what="self-check")[0]

    def step(self, batch: BatchReceipt) -> StepReport:
        """Make all updates of a batch; see `rlpost.learner.policy.PolicyLearner.step`."""
        return self._all("step", ray.put(batch), what="update")[0]

    def changes(self) -> dict[str, TensorDelta]:
        """Changes of each tensor, by name; see `rlpost.learner.policy.PolicyLearner.changes`."""
        return self._all("changes", what="changes")[0]

    def export(self) -> tuple[WeightManifest, Any]:
        """The manifest of the current version, and a reference to the update itself."""
        return self._published("export")

    def snapshot(self) -> tuple[WeightManifest, Any]:
        """Publish the last version again, with every tensor whatever the kind of update; returns as `export`."""
        return self._published("snapshot")

    def save(self, folder: str) -> None:
        """Write a resumable checkpoint."""
        self._all("save", folder, what="write checkpoint")

    def load(self, folder: str) -> int:
        """Continue from a checkpoint; returns the policy version."""
        return self._all("load", folder, what="read checkpoint")[0]

    def save_model(self, folder: str) -> None:
        """Write a Hugging Face folder."""
        self._all("save_model", folder, what="write model")

    def memory(self) -> dict[str, tuple[float, float]]:
        """See `ActorPool.memory`."""
        found = self._all("memory_mb", what="memory")
        return {placement.name: pair for placement, pair in zip(self.placements, found, strict=True)}

    def _published(self, method: str) -> tuple[WeightManifest, Any]:
        refs = [getattr(handle, method).options(num_returns=2).remote() for handle in self.handles]
        with _lost_together():
            wait([manifest for manifest, _ in refs], f"learner: {method}", self.config.learner.timeout_s)
            return ray.get(refs[0][0]), refs[0][1]

    def _all(self, method: str, *args: Any, what: str) -> list[Any]:
        with _lost_together():
            return self.call(method, *args, what=what, deadline_s=self.config.learner.timeout_s)

    def _on_one_node(self) -> bool:
        return len({placement.node.id for placement in self.placements}) == 1


@contextlib.contextmanager
def _lost_together() -> Any:
    try:
        yield
    except LearnerLostError:
        raise
    except LOST as error:
        raise LearnerLostError(str(error)) from None
