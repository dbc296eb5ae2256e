"""The pool of rollout engines: spreads requests over them, streams completions, replaces lost engines."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from rlpost.actors import env_vars
from rlpost.actors.placement import Placement
from rlpost.actors.pool import ActorPool, spawn
from rlpost.actors.recovery import LOST, Supervisor
from rlpost.actors.remote import iterate
from rlpost.actors.workers import RolloutWorker
from rlpost.config.schema import RunConfig
from rlpost.errors import LearnerLostError
from rlpost.plugins.ship import Shipped
from rlpost.protocols import ApplyReport, EngineSpec, GenerateRequest, SamplingSettings
from rlpost.rollout.sampling import round_robin
from rlpost.selfcheck import canary
from rlpost.types import Completion, WeightManifest

_GRACE_S = 30.0
"""Seconds that the driver waits longer than the deadline it has given the worker."""

Finished = tuple[int, list[Completion]]
"""Position of a request and its completions."""


class RayRolloutPool(ActorPool):
    """`rlpost.protocols.RolloutPool` on Ray, an actor for each engine.

    Args:
        config: the run configuration, from which every engine is built.
        placements: one placement per engine.
        supervisor: finds a new place for a lost actor and counts losses.
        spec: model folder and limits of every engine.
        shipped: the user's own code.

    Attributes:
        snapshot: publishes every tensor of the version that is served, for engines that have missed an update of the
            kind ``diff``; None without a learner.
    """

    def __init__(
        self,
        config: RunConfig,
        placements: Sequence[Placement],
        supervisor: Supervisor,
        spec: EngineSpec,
        shipped: Shipped,
    ):
        def start(placement: Placement) -> Any:
            # the processes of a tensor-parallel engine share its cores
            threads = max(placement.threads // config.rollout.tensor_parallel, 1)
            return spawn(RolloutWorker, placement, env_vars.rollout(threads, placement.gpus > 0))

        super().__init__("rollout", placements, start, supervisor)
        self.config, self.spec, self.shipped = config, spec, shipped
        self.snapshot: Callable[[], tuple[WeightManifest, Any]] | None = None
        self.served: list[tuple[Any, WeightManifest]] = []
        """The updates, in order, that bring a new engine to the version that the others serve."""

    def begin(self, index: int) -> Any:
        """Start loading the engine; returns the reference to wait for."""
        return self.handles[index].setup.remote(self.config, self.spec, self.shipped)

    def resync_weights(self, index: int) -> None:
        """Load the version that the others serve, and check that it arrived."""
        if not self.served:
            return
        chain = self.served
        if chain[-1][1].kind == "diff":  # the version that it changes is gone
            assert self.snapshot is not None
            manifest, update = self.snapshot()
            chain = [(update, manifest)]
        for update, manifest in chain:
            report = self.persist(index, partial(_apply, update), "apply weights", self.config.sync.timeout_s)
            if self.config.selfcheck.canary:
                canary.check_arrival(manifest, [report], None)

    def stream(self, requests: Sequence[GenerateRequest], settings: SamplingSettings) -> Iterator[Finished]:
        """Completions of each request as soon as all of its samples are there, in the order they finish.

        One thread per engine waits for that engine only, so a slow engine, or one that is being replaced, delays no
        other.
        """
        finished: queue.SimpleQueue[Finished | BaseException] = queue.SimpleQueue()

        def follow(index: int, share: list[int]) -> None:
            try:
                for item in self._follow(index, share, requests, settings):
                    finished.put(item)
            except BaseException as error:  # raised in the thread that waits for the completions
                finished.put(error)

        for index, share in enumerate(round_robin(requests, len(self.handles))):
            if share:
                threading.Thread(target=follow, args=(index, share), daemon=True).start()
        for _ in requests:
            item = finished.get()
            if isinstance(item, BaseException):
                raise item
            yield item

    def generate(self, requests: Sequence[GenerateRequest], settings: SamplingSettings) -> list[list[Completion]]:
        """Completions of each request, in order."""
        found = dict(self.stream(requests, settings))
        return [found[position] for position in range(len(requests))]

    def apply(self, update: Any, manifest: WeightManifest) -> list[ApplyReport]:
        """Load a published version into every engine; ``update`` is a reference."""
        # values without positions need the earlier update that carried them
        needed = [one for one in self.served if one[1].carries_positions] if manifest.kind == "values" else []
        self.served = [*needed, (update, manifest)]
        return self.each(partial(_apply, update), "apply weights", self.config.sync.timeout_s)

    def probe(self) -> list[list[Completion]]:
        """Completions of the pinned prompts, by every engine."""
        return self.each(lambda handle: handle.probe.remote(), "probe", self.config.sync.timeout_s)

    def parity(self, prompts: Sequence[tuple[int, ...]]) -> list[tuple[list[Completion], list[Completion]]]:
        """Both rounds of completions, by every engine; see `rlpost.protocols.RolloutEngine.parity`."""
        return self.each(lambda handle: handle.parity.remote(prompts), "parity", self.config.sync.timeout_s)

    def _follow(
        self, index: int, share: list[int], requests: Sequence[GenerateRequest], settings: SamplingSettings
    ) -> Iterator[Finished]:
        """One engine's share of the requests; what a lost engine has not finished, its replacement samples again."""
        limit = self.config.rollout.timeout_s
        while share:
            asked, handle = list(share), self.handles[index]
            call = handle.stream.options(num_returns="streaming")
            generator = call.remote([requests[position] for position in asked], settings, limit)
            try:
                for place, completions in iterate(generator, f"rollout{index}: generate", limit + _GRACE_S):
                    share.remove(asked[place])
                    yield asked[place], completions
            except LearnerLostError:
                raise
            except LOST as error:
                self.replace(index, handle, error)


def _apply(update: Any, handle: Any) -> Any:
    return handle.apply.remote(update)
