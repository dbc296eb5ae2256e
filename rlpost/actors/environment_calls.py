"""The calls that an engine's process makes to environment actors, and what it does when one of them is lost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from ray.exceptions import RayTaskError

import ray
from rlpost.actors.remote import GONE
from rlpost.errors import DeadlineError, InfrastructureError, RlpostError, describe_error
from rlpost.protocols import Observation, Reply, Turn

_AGAIN_S = 0.5
_TRIES = 2
"""Times that a trajectory may end its environment's process before it is left undecided."""

Answer = Observation | Reply | Exception | None


@dataclass(slots=True)
class _Open:
    """A trajectory's environment: what was said to it so far, to be said again to another process."""

    actor: int
    row: Mapping[str, Any]
    seed: int
    turns: list[Turn] = field(default_factory=list[Turn])
    crashes: int = 0


@dataclass(slots=True)
class _Actor:
    """An environment actor with its calls in the order they were made, and when the last of them was answered."""

    handle: Any
    calls: dict[Any, int] = field(default_factory=dict[Any, int])
    moved: float = 0.0
    again: list[int] = field(default_factory=list[int])
    """Trajectories to be played to it again once it is back."""
    probe: Any = None
    back_by: float = 0.0


class RayEnvironments:
    """`rlpost.protocols.EnvironmentCalls` on environment actors.

    A lost actor's trajectories are played again to its successor. If it was lost while it answered a trajectory, or was
    late with it, twice, that trajectory is answered with an exception.

    Args:
        handles: the actors.
        timeout_s: deadline for one answer.
        restart_s: deadline for a lost actor to be back.
    """

    def __init__(self, handles: Sequence[Any], timeout_s: float, restart_s: float):
        self.actors = [_Actor(handle) for handle in handles]
        self.timeout_s, self.restart_s = timeout_s, restart_s
        self.name = uuid4().hex
        self.open: dict[int, _Open] = {}
        self.failed: list[tuple[int, Answer]] = []

    def begin(self, key: int, row: Mapping[str, Any], seed: int) -> None:
        """See `EnvironmentCalls`."""
        self.open[key] = _Open(key % len(self.actors), row, seed)
        self._play(key)

    def reply(self, key: int, turn: Turn) -> None:
        """See `EnvironmentCalls`."""
        one = self.open[key]
        one.turns.append(turn)
        actor = self.actors[one.actor]
        if actor.probe is not None:
            actor.again.append(key)
        else:
            self._call(actor, key, actor.handle.reply.remote((self.name, key), turn))

    def answers(self, timeout_s: float) -> list[tuple[int, Answer]]:
        """See `EnvironmentCalls`."""
        found, self.failed = self.failed, []
        refs = [ref for actor in self.actors for ref in actor.calls]
        refs += [actor.probe for actor in self.actors if actor.probe is not None]
        if refs and not found:
            ray.wait(refs, num_returns=1, timeout=timeout_s)
        for actor in self.actors:
            found += self._take(actor)
        return [*found, *self._late()]

    def end(self, key: int) -> None:
        """See `EnvironmentCalls`."""
        one = self.open.pop(key, None)
        if one is not None:
            self.actors[one.actor].handle.end.remote((self.name, key))

    def _play(self, key: int) -> None:
        """Begin a trajectory's environment and say all its turns."""
        one = self.open[key]
        actor = self.actors[one.actor]
        if actor.probe is not None:
            actor.again.append(key)
            return
        self._call(actor, key, actor.handle.play.remote((self.name, key), one.row, one.seed, one.turns))

    def _call(self, actor: _Actor, key: int, ref: Any) -> None:
        if not actor.calls:
            actor.moved = time.monotonic()
        actor.calls[ref] = key

    def _take(self, actor: _Actor) -> list[tuple[int, Answer]]:
        """Answers of an actor that are there."""
        if actor.probe is not None:
            self._look_for(actor)
            return []
        found: list[tuple[int, Answer]] = []
        done, _ = ray.wait(list(actor.calls), num_returns=len(actor.calls), timeout=0) if actor.calls else ([], [])
        ready = set(done)
        # in the order of the calls, so that the first that is lost is the one the actor was at
        for ref in [ref for ref in actor.calls if ref in ready]:
            try:
                answer: Answer = ray.get(ref)
            except GONE as error:
                self._lost(actor, error)
                return found
            except RayTaskError as error:
                cause = error.cause
                answer = cause if isinstance(cause, RlpostError) else InfrastructureError(describe_error(cause))
            actor.moved = time.monotonic()
            found.append((actor.calls.pop(ref), answer))
        return found

    def _lost(self, actor: _Actor, error: Exception) -> None:
        """Note which trajectory an actor was answering when it was lost, and play all of them again when it is back."""
        keys = list(actor.calls.values())
        actor.calls.clear()
        self._blame(keys[0], f"ended its process {_TRIES} times ({error})"[:300])
        actor.again = [key for key in keys if key in self.open]
        actor.back_by = time.monotonic() + self.restart_s
        actor.probe = actor.handle.ready.remote()

    def _blame(self, key: int, text: str) -> None:
        one = self.open.get(key)
        if one is None:
            return
        one.crashes += 1
        if one.crashes >= _TRIES:
            del self.open[key]
            self.failed.append((key, InfrastructureError(f"the environment {text}")))

    def _look_for(self, actor: _Actor) -> None:
        """Whether a lost actor is back; its trajectories begin again then."""
        if not ray.wait([actor.probe], timeout=0)[0]:
            return
        try:
            ray.get(actor.probe)
        except GONE as error:
            if time.monotonic() > actor.back_by:
                gone = InfrastructureError(f"the environment is gone ({error})"[:300])
                self.failed += [(key, gone) for key in actor.again]
                actor.again = []
                return
            time.sleep(_AGAIN_S)
            actor.probe = actor.handle.ready.remote()
            return
        actor.probe, again, actor.again = None, actor.again, []
        for key in again:
            if key in self.open:
                self._play(key)

    def _late(self) -> list[tuple[int, Answer]]:
        """End actors that have answered nothing for too long; the trajectory they were at is the late one."""
        found: list[tuple[int, Answer]] = []
        for actor in self.actors:
            if not actor.calls or time.monotonic() - actor.moved <= self.timeout_s:
                continue
            key = next(iter(actor.calls.values()))
            self.open.pop(key, None)
            found.append((key, DeadlineError(f"the environment did not answer within {self.timeout_s:g} s")))
            ray.kill(actor.handle, no_restart=False)
            self._lost(actor, DeadlineError("late"))
        return found
