"""Actors of one kind, called together or one by one; a lost one is replaced and brought up to date."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import ray
from rlpost.actors.placement import Kind, Placement
from rlpost.actors.recovery import LOST, Supervisor
from rlpost.actors.remote import wait
from rlpost.errors import LearnerLostError, RlpostError

_MEMORY_S = 60.0
_CLOSE_S = 15.0


class ActorPool:
    """Actors of one kind.

    Args:
        kind: for messages.
        placements: where each actor runs.
        spawn: starts the actor of a placement.
        supervisor: replaces lost actors.
    """

    def __init__(
        self, kind: Kind, placements: Sequence[Placement], spawn: Callable[[Placement], Any], supervisor: Supervisor
    ):
        self.kind: Kind = kind
        self.placements, self.spawn, self.supervisor = list(placements), spawn, supervisor
        self.handles = [spawn(placement) for placement in self.placements]
        # reentrant: bringing a replacement up to date can find that it is lost as well
        self._replacing = [threading.RLock() for _ in self.placements]

    def begin(self, index: int) -> Any:
        """Begin setting an actor up; returns the reference to wait for."""
        raise NotImplementedError

    def resync_weights(self, index: int) -> None:
        """Bring a replacement to where the others are."""

    def call(self, method: str, *args: Any, what: str, deadline_s: float) -> list[Any]:
        """The same call on every actor; results in order. A lost one is not replaced here."""
        refs = [getattr(handle, method).remote(*args) for handle in self.handles]
        return wait(refs, f"{self.kind}: {what}", deadline_s)

    def each(self, ask: Callable[[Any], Any], what: str, deadline_s: float) -> list[Any]:
        """As `call`, but an actor that is lost over it is replaced and asked again.

        Args:
            ask: handle to reference.
            what: for messages.
            deadline_s: seconds for each try.
        """
        calls = [(handle, ask(handle)) for handle in self.handles]
        return [self.persist(index, ask, what, deadline_s, call) for index, call in enumerate(calls)]

    def persist(
        self,
        index: int,
        ask: Callable[[Any], Any],
        what: str,
        deadline_s: float,
        under_way: tuple[Any, Any] | None = None,
    ) -> Any:
        """One actor's answer; see `each`. ``under_way``: a handle and the reference of a call it is already at."""
        while True:
            handle, ref = under_way or (self.handles[index], None)
            under_way = None
            try:
                return wait([ref or ask(handle)], f"{self.kind}{index}: {what}", deadline_s)[0]
            except LearnerLostError:  # an engine that cannot fetch what the learner published is not the one to replace
                raise
            except LOST as error:
                self.replace(index, handle, error)

    def memory(self) -> dict[str, tuple[float, float]]:
        """By actor, resident memory in MiB and the part of it that is its own."""
        found = self.each(lambda handle: handle.memory_mb.remote(), "memory", _MEMORY_S)
        return {placement.name: pair for placement, pair in zip(self.placements, found, strict=True)}

    def replace(self, index: int, lost: Any, error: Exception) -> None:
        """Start a lost actor anew, on another node if its own is gone, and bring it up to date.

        Args:
            index: of the actor.
            lost: its handle; if it is no longer the actor's, somebody else has replaced it meanwhile.
            error: how it was lost.

        Raises:
            GivingUpError: if too many of the kind were lost.
        """
        with self._replacing[index]:
            while self.handles[index] is lost:
                self.supervisor.note(self.kind, error)
                try:
                    self._start_again(index)
                except LearnerLostError:
                    raise
                except LOST as again:
                    lost, error = self.handles[index], again

    def _start_again(self, index: int) -> None:
        begun, section = time.monotonic(), self.supervisor.section
        self._end(self.handles[index])
        self.placements[index] = self.supervisor.move(self.placements[index])
        self.handles[index] = self.spawn(self.placements[index])
        wait([self.begin(index)], f"{self.kind}{index}: start again", section.start_timeout_s)
        self.resync_weights(index)
        self.supervisor.mark_replaced(self.placements[index].name)
        self.supervisor.log(f"{self.kind}{index}: replaced in {time.monotonic() - begun:.1f} s")

    def close(self) -> None:
        """Let every actor end what it has started; one that is gone has taken that with it."""
        with contextlib.suppress(RlpostError):
            self.call("close", what="close", deadline_s=_CLOSE_S)

    def kill(self) -> None:
        """End every actor's process."""
        for handle in self.handles:
            self._end(handle)

    def _end(self, handle: Any) -> None:
        with contextlib.suppress(ValueError):  # a handle of a cluster that is already down
            ray.kill(handle)


def spawn(cls: type, placement: Placement, env: dict[str, str], **options: Any) -> Any:
    """An actor on its placement. It reserves GPUs, and no cores: kinds that take turns would otherwise not fit."""
    handle = (
        ray.remote(cls)
        .options(
            num_cpus=0,
            num_gpus=placement.gpus,
            max_restarts=0,
            runtime_env={"env_vars": env},
            scheduling_strategy=NodeAffinitySchedulingStrategy(placement.node.id, soft=False),
            **options,
        )
        .remote()
    )
    handle.end_with_node.remote()
    return handle
