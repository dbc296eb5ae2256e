"""Actors that can be lost: noticed, replaced, brought up to date, and counted."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import ray
from rlpost.actors import cluster
from rlpost.actors.placement import Kind, Seat, reseat
from rlpost.actors.remote import wait
from rlpost.config.schema import ClusterSection
from rlpost.errors import ActorLostError, DeadlineError, GivingUpError, LearnerLostError, PlacementError, RlpostError

LOST = (ActorLostError, DeadlineError)
"""What counts as a lost actor: one that is gone, and one that does not answer in time."""


_MEMORY_S = 60.0
_CLOSE_S = 15.0


class Supervisor:
    """Where actors sit, how often each kind was lost, and when to stop replacing them.

    Args:
        section: how many may be lost, and how long a replacement may take to start.
        seats: of all actors.
        say: told about losses and replacements.
    """

    def __init__(self, section: ClusterSection, seats: Sequence[Seat], say: Callable[[str], None]):
        self.section, self.say = section, say
        self.seats = {seat.name: seat for seat in seats}
        self.lost: Counter[str] = Counter()
        self._replaced: list[str] = []
        self.closing = False
        self._lock = threading.Lock()

    def note(self, kind: Kind, error: Exception) -> None:
        """Count a loss.

        Raises:
            GivingUpError: if it is one more than may be made good.
        """
        with self._lock:
            if self.closing:
                raise GivingUpError(f"{kind}: not replaced, the run is ending ({error})") from None
            self.lost[kind] += 1
            count, limit = self.lost[kind], self.section.restarts
        if count > limit:
            raise GivingUpError(
                f"{kind}: loss number {count} in this run, {limit} are made good (cluster.restarts); the last: {error}"
            ) from None
        self.say(f"{error}; replacing it (loss {count} of {limit} that are made good)")

    def welcome(self, name: str) -> None:
        """Note that an actor was replaced."""
        with self._lock:
            self._replaced.append(name)

    def take_replaced(self) -> list[str]:
        """Names of the actors replaced since this was last asked."""
        with self._lock:
            found, self._replaced = self._replaced, []
            return found

    def move(self, seat: Seat) -> Seat:
        """A seat for a replacement, on the same node if that is alive; waits for one until the deadline.

        Raises:
            PlacementError: if no node can hold it in time.
        """
        end, told = time.monotonic() + self.section.start_timeout_s, False
        while True:
            with self._lock:
                others = [other for other in self.seats.values() if other.name != seat.name]
                found = reseat(seat, others, cluster.nodes())
                if found is not None:
                    self.seats[seat.name] = found
                    return found
            if time.monotonic() > end:
                raise PlacementError(
                    f"{seat.name}: no node with cores and {seat.gpus:g} free GPUs came within "
                    f"{self.section.start_timeout_s:g} s"
                )
            if not told:
                told = True
                self.say(f"waiting for a node with cores and {seat.gpus:g} free GPUs for {seat.name}")
            time.sleep(1.0)


class Crew:
    """Actors of one kind.

    Args:
        kind: for messages.
        seats: one for each actor.
        spawn: starts the actor of a seat.
        supervisor: see `Supervisor`.
    """

    def __init__(self, kind: Kind, seats: Sequence[Seat], spawn: Callable[[Seat], Any], supervisor: Supervisor):
        self.kind: Kind = kind
        self.seats, self.spawn, self.supervisor = list(seats), spawn, supervisor
        self.handles = [spawn(seat) for seat in self.seats]
        # reentrant: bringing a replacement up to date can find that it is lost as well
        self._replacing = [threading.RLock() for _ in self.seats]

    def begin(self, index: int) -> Any:
        """Begin setting an actor up; returns the reference to wait for."""
        raise NotImplementedError

    def catch_up(self, index: int) -> None:
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

    def memory(self) -> list[tuple[float, float]]:
        """Resident memory of each actor in MiB, and its own part of it."""
        return self.each(lambda handle: handle.memory_mb.remote(), "memory", _MEMORY_S)

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
        self.seats[index] = self.supervisor.move(self.seats[index])
        self.handles[index] = self.spawn(self.seats[index])
        wait([self.begin(index)], f"{self.kind}{index}: start again", section.start_timeout_s)
        self.catch_up(index)
        self.supervisor.welcome(self.seats[index].name)
        self.supervisor.say(f"{self.kind}{index}: replaced in {time.monotonic() - begun:.1f} s")

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


def spawn(cls: type, seat: Seat, env: dict[str, str], **options: Any) -> Any:
    """An actor on its seat. It reserves GPUs, and no cores: kinds that take turns would otherwise not fit."""
    handle = (
        ray.remote(cls)
        .options(
            num_cpus=0,
            num_gpus=seat.gpus,
            max_restarts=0,
            runtime_env={"env_vars": env},
            scheduling_strategy=NodeAffinitySchedulingStrategy(seat.node.id, soft=False),
            **options,
        )
        .remote()
    )
    handle.end_with_node.remote()
    return handle
