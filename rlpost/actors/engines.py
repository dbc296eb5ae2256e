"""The engines: requests spread over them, completions handed out as they finish, lost engines replaced."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rlpost.actors import env_vars
from rlpost.actors.placement import Seat
from rlpost.actors.pool import LOST, Crew, Supervisor, spawn
from rlpost.actors.remote import items
from rlpost.actors.workers import RolloutWorker
from rlpost.config.schema import RunConfig
from rlpost.errors import LearnerLostError
from rlpost.protocols import ApplyReport, GenerateRequest, SamplingSettings
from rlpost.rollout.sampling import spread
from rlpost.selfcheck import canary
from rlpost.types import Completion, WeightManifest

_GRACE_S = 30.0
"""How much longer the driver waits than the worker it has given a deadline to."""

Finished = tuple[int, list[Completion]]
"""Position of a request and its completions."""


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """What every engine is set up with: model folder, pinned prompts, completions that may run at once, longest
    sequence to plan for.
    """

    folder: str
    probes: tuple[tuple[int, ...], ...]
    seats: int
    length: int


class RolloutGroup(Crew):
    """The engines.

    Args:
        config: of the run.
        seats: one per engine.
        supervisor: see `rlpost.actors.pool.Supervisor`.
        setup: of every engine.

    Attributes:
        snapshot: publishes every tensor of the version that is served, for engines that have missed one of a chain.
    """

    def __init__(self, config: RunConfig, seats: Sequence[Seat], supervisor: Supervisor, setup: EngineSetup):
        def start(seat: Seat) -> Any:
            # an engine's processes share its cores
            threads = max(seat.threads // config.rollout.tensor_parallel, 1)
            return spawn(RolloutWorker, seat, env_vars.rollout(threads, seat.gpus > 0))

        super().__init__("rollout", seats, start, supervisor)
        self.config, self.setup = config, setup
        self.snapshot: Callable[[], tuple[WeightManifest, Any]] | None = None
        self.served: list[tuple[Any, WeightManifest]] = []
        """What makes a new engine serve what the others do, in order."""

    def begin(self, index: int) -> Any:
        """Begin loading."""
        one = self.setup
        return self.handles[index].setup.remote(self.config, one.folder, one.probes, one.seats, one.length)

    def catch_up(self, index: int) -> None:
        """Load the version the others serve, and see that it arrived."""
        if not self.served:
            return
        chain = self.served
        if chain[-1][1].kind == "diff":  # what it differs from is gone
            assert self.snapshot is not None
            manifest, update = self.snapshot()
            chain = [(update, manifest)]
        for update, manifest in chain:
            report = self.persist(index, partial(_apply, update), "apply weights", self.config.sync.timeout_s)
            if self.config.selfcheck.canary:
                canary.check_arrival(manifest, [report], None)

    def stream(self, requests: Sequence[GenerateRequest], settings: SamplingSettings) -> Iterator[Finished]:
        """Completions of each request as soon as all of its samples are there, in the order they finish.

        A thread per engine follows that engine alone, so a slow one, or one that is being replaced, holds nobody up.
        """
        finished: queue.SimpleQueue[Finished | BaseException] = queue.SimpleQueue()

        def follow(index: int, share: list[int]) -> None:
            try:
                for item in self._follow(index, share, requests, settings):
                    finished.put(item)
            except BaseException as error:  # handed to whoever waits for the completions
                finished.put(error)

        for index, share in enumerate(spread(requests, len(self.handles))):
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
        # values without positions need the update that told them
        needed = [one for one in self.served if one[1].declares] if manifest.kind == "values" else []
        self.served = [*needed, (update, manifest)]
        return self.each(partial(_apply, update), "apply weights", self.config.sync.timeout_s)

    def probe(self) -> list[list[Completion]]:
        """The pinned prompts' completions of every engine."""
        return self.each(lambda handle: handle.probe.remote(), "probe", self.config.sync.timeout_s)

    def parity(self, prompts: Sequence[tuple[int, ...]]) -> list[tuple[list[Completion], list[Completion]]]:
        """Both rounds of every engine; see `rlpost.rollout.vllm.engine.VllmEngine.parity`."""
        return self.each(lambda handle: handle.parity.remote(prompts), "parity", self.config.sync.timeout_s)

    def _follow(
        self, index: int, share: list[int], requests: Sequence[GenerateRequest], settings: SamplingSettings
    ) -> Iterator[Finished]:
        """One engine's share; what it has not finished when it is lost is asked of its replacement."""
        limit = self.config.rollout.timeout_s
        while share:
            asked, handle = list(share), self.handles[index]
            call = handle.stream.options(num_returns="streaming")
            generator = call.remote([requests[position] for position in asked], settings, limit)
            try:
                for place, completions in items(generator, f"rollout{index}: generate", limit + _GRACE_S):
                    share.remove(asked[place])
                    yield asked[place], completions
            except LearnerLostError:
                raise
            except LOST as error:
                self.replace(index, handle, error)


def _apply(update: Any, handle: Any) -> Any:
    return handle.apply.remote(update)
