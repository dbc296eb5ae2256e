"""The pool of rollout engines: spreads requests over them, streams completions, replaces lost engines."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from rlpost.actors import env_vars
from rlpost.actors.environments import EnvironmentActors
from rlpost.actors.handles import Part
from rlpost.actors.placement import Placement
from rlpost.actors.pool import ActorPool, spawn
from rlpost.actors.recovery import LOST, Supervisor
from rlpost.actors.remote import pairs
from rlpost.actors.workers import RolloutWorker
from rlpost.config.schema import RunConfig
from rlpost.errors import LearnerLostError
from rlpost.plugins.ship import Shipped
from rlpost.protocols import ApplyReport, EngineSpec, GroupRequest, SamplingSettings
from rlpost.rollout.sampling import round_robin
from rlpost.selfcheck import canary
from rlpost.trajectory import GroupReceipt, Trajectory
from rlpost.types import WeightManifest

_GRACE_S = 30.0
"""Seconds that the driver waits longer than the deadline it has given the worker."""

Finished = tuple[int, GroupReceipt]
"""Position of a request and its group."""


class RayRolloutPool(ActorPool):
    """`rlpost.protocols.RolloutPool` on Ray, an actor for each engine.

    Args:
        config: the run configuration, from which every engine is built.
        placements: one placement per engine.
        supervisor: finds a new place for a lost actor and counts losses.
        spec: model folder and limits of every engine.
        shipped: the user's own code.
        environments: the environment actors; None if trajectories have one turn.
        offsets: whether a reward stage reads the character spans of tokens.

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
        environments: EnvironmentActors | None = None,
        offsets: bool = False,
    ):
        def start(placement: Placement) -> Any:
            # the processes of a tensor-parallel engine share its cores
            threads = max(placement.threads // config.rollout.tensor_parallel, 1)
            return spawn(RolloutWorker, placement, env_vars.rollout(threads, placement.gpus > 0))

        super().__init__("rollout", placements, start, supervisor)
        self.config, self.spec, self.shipped, self.environments = config, spec, shipped, environments
        self.offsets = offsets
        self.snapshot: Callable[[], tuple[WeightManifest, Any]] | None = None
        self.served: list[tuple[Any, WeightManifest]] = []
        """The updates, in order, that bring a new engine to the version that the others serve."""

    def begin(self, index: int) -> Any:
        """Start loading the engine; returns the reference to wait for."""
        return self.handles[index].setup.remote(self.config, self.spec, self.offsets, self.shipped)

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

    def stream(self, requests: Sequence[GroupRequest], settings: SamplingSettings) -> Iterator[Finished]:
        """The group of each request as soon as all of its trajectories are there, in the order they finish.

        One thread per engine waits for that engine only, so a slow engine, or one that is being replaced, delays no
        other.
        """
        finished: queue.SimpleQueue[Finished | BaseException] = queue.SimpleQueue()

        def follow(index: int, share: list[int]) -> None:
            try:
                for item in self._follow(index, share, requests, settings):
                    finished.put(item)
            except BaseException as error:  # raised in the thread that waits for the groups
                finished.put(error)

        for index, share in enumerate(round_robin(requests, len(self.handles))):
            if share:
                threading.Thread(target=follow, args=(index, share), daemon=True).start()
        for _ in requests:
            item = finished.get()
            if isinstance(item, BaseException):
                raise item
            yield item

    def generate(self, requests: Sequence[GroupRequest], settings: SamplingSettings) -> list[GroupReceipt]:
        """The group of each request, in order."""
        found = dict(self.stream(requests, settings))
        return [found[position] for position in range(len(requests))]

    def apply(self, update: Any, manifest: WeightManifest) -> list[ApplyReport]:
        """Load a published version into every engine; ``update`` is a reference."""
        # values without positions need the earlier update that carried them
        needed = [one for one in self.served if one[1].carries_positions] if manifest.kind == "values" else []
        self.served = [*needed, (update, manifest)]
        return self.each(partial(_apply, update), "apply weights", self.config.sync.timeout_s)

    def probe(self) -> list[list[Trajectory]]:
        """Completions of the pinned prompts, by every engine."""
        return self.each(lambda handle: handle.probe.remote(), "probe", self.config.sync.timeout_s)

    def parity(self, prompts: Sequence[np.ndarray]) -> list[tuple[list[Trajectory], list[Trajectory]]]:
        """Both rounds of completions, by every engine; see `rlpost.protocols.RolloutEngine.parity`."""
        return self.each(lambda handle: handle.parity.remote(prompts), "parity", self.config.sync.timeout_s)

    def memory(self) -> dict[str, tuple[float, float]]:
        """See `ActorPool.memory`; environment actors are among them."""
        return super().memory() | (self.environments.memory() if self.environments else {})

    def _follow(
        self, index: int, share: list[int], requests: Sequence[GroupRequest], settings: SamplingSettings
    ) -> Iterator[Finished]:
        """One engine's share of the requests; what a lost engine has not finished, its replacement samples again."""
        limit = self.config.rollout.timeout_s
        environments = self.environments.handles if self.environments else ()
        while share:
            asked, handle = list(share), self.handles[index]
            call = handle.stream.options(num_returns="streaming")
            sent = [requests[position] if environments else _without_columns(requests[position]) for position in asked]
            generator = call.remote(sent, settings, limit, environments)
            try:
                for tokens, finished in pairs(generator, f"rollout{index}: generate", limit + _GRACE_S):
                    for number, (place, receipts) in enumerate(finished):
                        position = asked[place]
                        share.remove(position)
                        request, part = requests[position], Part(tokens, number)
                        yield position, GroupReceipt(request.ticket, request.prompt.prompt, receipts, part)
            except LearnerLostError:
                raise
            except LOST as error:
                self.replace(index, handle, error)


def _without_columns(request: GroupRequest) -> GroupRequest:
    """The request without the columns of its prompt, which only environments read."""
    bare = dataclasses.replace(request.prompt.prompt, columns={})
    return dataclasses.replace(request, prompt=dataclasses.replace(request.prompt, prompt=bare))


def _apply(update: Any, handle: Any) -> Any:
    return handle.apply.remote(update)
