"""The environment actors of a run, which Ray starts again by itself, and the driver counts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import ray
from rlpost.actors import env_vars
from rlpost.actors.placement import Placement
from rlpost.actors.pool import spawn
from rlpost.actors.recovery import Supervisor
from rlpost.actors.remote import wait
from rlpost.actors.workers import EnvironmentWorker
from rlpost.config.schema import EnvironmentSection
from rlpost.errors import ActorLostError
from rlpost.plugins.ship import Shipped
from rlpost.rollout.sampling import round_robin
from rlpost.types import Prompt

_CALL_S = 60.0
_AGAIN_S = 0.5


class EnvironmentActors:
    """The environment actors of a run. Ray starts a lost one again by itself; the driver counts them.

    Args:
        section: the environment and its arguments.
        placements: one placement per actor.
        supervisor: counts losses.
        shipped: the user's own code.
    """

    def __init__(
        self, section: EnvironmentSection, placements: Sequence[Placement], supervisor: Supervisor, shipped: Shipped
    ):
        self.section, self.placements, self.supervisor = section, list(placements), supervisor
        self.handles: list[Any] = [
            spawn(
                EnvironmentWorker,
                placement,
                env_vars.scoring(),
                section,
                shipped,
                max_restarts=-1,
                max_concurrency=section.concurrency,
                scheduling_strategy=NodeAffinitySchedulingStrategy(placement.node.id, soft=True),
            )
            for placement in placements
        ]
        self._processes: list[int] = []

    def preflight(self, prompts: Sequence[Prompt], *, conformance: bool, trials: bool) -> tuple[list[Any], list[Any]]:
        """Start checks before a run; returns the references to wait for: trials, and each actor's verifier.

        Those of the verifiers resolve to a line about each, which is empty where nothing verifies.
        """
        tried = [self.handles[0].trial.remote(prompts[0], self.section.name)] if trials else []
        shares = round_robin(prompts, len(self.handles))
        checks = [
            handle.preflight.remote([prompts[i] for i in share], self.section.name, conformance)
            for handle, share in zip(self.handles, shares, strict=True)
        ]
        return tried, checks

    def memory(self) -> dict[str, tuple[float, float]]:
        """Memory of each actor as in `ActorPool.memory`; actors that were started again since are counted as lost.

        Raises:
            RestartLimitError: if more were lost than ``cluster.restarts`` allows.
        """
        found = [self._identity(handle) for handle in self.handles]
        before, self._processes = self._processes, [process for process, *_ in found]
        for placement, old, new in zip(self.placements, before, self._processes, strict=bool(before)):
            if old != new:
                self.supervisor.record_loss("environment", ActorLostError(f"{placement.name}: its process was lost"))
                self.supervisor.mark_replaced(placement.name)
        return {placement.name: (mb, own) for placement, (_, mb, own) in zip(self.placements, found, strict=True)}

    def _identity(self, handle: Any) -> tuple[int, float, float]:
        end = time.monotonic() + self.supervisor.section.start_timeout_s
        while True:
            try:
                return wait([handle.identity.remote()], "environment: memory", _CALL_S)[0]
            except ActorLostError:  # it is being started again
                if time.monotonic() > end:
                    raise
                time.sleep(_AGAIN_S)

    def close(self) -> None:
        """Close all environments."""
        for handle in self.handles:
            handle.close.remote()

    def kill(self) -> None:
        """End every actor's process."""
        for handle in self.handles:
            ray.kill(handle)
