"""A pool of actors of one kind, called together or one by one; a lost actor is replaced and brought up to date."""

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
from rlpost.errors import InfrastructureError, LearnerLostError, RlpostError

_MEMORY_S = 60.0
_CLOSE_S = 15.0


class ActorPool:
    """Actors of one kind.

    Args:
        kind: kind of the actors, as in the configuration and in messages.
        placements: one placement per actor.
        spawn: starts the actor of a placement and returns its handle.
        supervisor: counts losses and finds new places.
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
        """Start setting an actor up; returns the reference to wait for."""
        raise NotImplementedError

    def resync_weights(self, index: int) -> None:
        """Bring a replacement to the version of the weights that the others hold; nothing by default."""

    def call(self, method: str, *args: Any, what: str, deadline_s: float) -> list[Any]:
        """Call a method on every actor; returns the results in order. A lost actor is not replaced here."""
        refs = [getattr(handle, method).remote(*args) for handle in self.handles]
        return wait(refs, f"{self.kind}: {what}", deadline_s)

    def each(self, ask: Callable[[Any], Any], what: str, deadline_s: float) -> list[Any]:
        """Call every actor and return the results in order; an actor that is lost is replaced and called again.

        Args:
            ask: makes the remote call on a handle and returns its reference.
            what: name of the call in messages.
            deadline_s: seconds for each attempt.
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
        gone: type[InfrastructureError] = LearnerLostError,
    ) -> Any:
        """One actor's result, as in `each`.

        ``under_way``: handle and reference of a call that was made already. ``gone``: see `rlpost.actors.remote.wait`.
        """
        while True:
            handle, ref = under_way or (self.handles[index], None)
            under_way = None
            try:
                return wait([ref or ask(handle)], f"{self.kind}{index}: {what}", deadline_s, gone)[0]
            except LearnerLostError:  # an engine that cannot fetch published weights is not the one to replace
                raise
            except LOST as error:
                self.replace(index, handle, error)

    def memory(self) -> dict[str, tuple[float, float]]:
        """Resident memory of each actor in MiB, and the part of it that is not shared, by actor name."""
        found = self.each(lambda handle: handle.memory_mb.remote(), "memory", _MEMORY_S)
        return {placement.name: pair for placement, pair in zip(self.placements, found, strict=True)}

    def replace(self, index: int, lost: Any, error: Exception) -> None:
        """Start a lost actor again, on another node if its own is gone, and bring it up to date.

        Args:
            index: number of the actor in the pool.
            lost: handle of the lost actor; nothing is done if another thread has replaced it meanwhile.
            error: the error by which the loss was noticed.

        Raises:
            RestartLimitError: if more actors of the kind were lost than ``cluster.restarts`` allows.
        """
        with self._replacing[index]:
            while self.handles[index] is lost:
                self.supervisor.record_loss(self.kind, error)
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
        """Let every actor end what it has started; what a lost actor had started is gone with it."""
        with contextlib.suppress(RlpostError):
            self.call("close", what="close", deadline_s=_CLOSE_S)

    def kill(self) -> None:
        """End every actor's process."""
        for handle in self.handles:
            self._end(handle)

    def _end(self, handle: Any) -> None:
        with contextlib.suppress(ValueError):  # a handle of a cluster that is already down
            ray.kill(handle)


def spawn(cls: type, placement: Placement, env: dict[str, str], *arguments: Any, **options: Any) -> Any:
    """Start an actor on its placement. It reserves GPUs but no cores: kinds that take turns would otherwise not fit.

    ``arguments`` are those of the class; ``options`` are Ray's, in place of the usual ones.
    """
    usual = {
        "num_cpus": 0,
        "num_gpus": placement.gpus,
        "max_restarts": 0,
        "runtime_env": {"env_vars": env},
        "scheduling_strategy": NodeAffinitySchedulingStrategy(placement.node.id, soft=False),
    }
    handle = ray.remote(cls).options(**{**usual, **options}).remote(*arguments)
    handle.end_with_node.remote()
    return handle
