"""Environments in their process: one object for each trajectory, whose answers are checked before anyone reads them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rlpost.plugins.checked_reply import checked_observation, checked_reply
from rlpost.protocols import Environment, Observation, Reply, Turn


class EnvironmentHost:
    """The environments of some trajectories, by key.

    Args:
        make: makes an environment.
    """

    def __init__(self, make: Callable[[], Environment]):
        self.make = make
        self.open: dict[Any, Environment] = {}

    def begin(self, key: Any, row: Mapping[str, Any], seed: int) -> Observation | None:
        """Start the environment of a trajectory, and return its first observation, checked.

        Raises:
            UserError: for an observation that is neither text nor messages.
        """
        self.end(key)
        self.open[key] = environment = self.make()
        return checked_observation(environment.begin(row, seed), "begin")

    def reply(self, key: Any, turn: Turn) -> Reply:
        """The environment's answer to a turn, checked.

        Raises:
            UserError: for an answer that is no `Reply`, or whose parts do not fit.
            KeyError: for a trajectory that was not begun here.
        """
        return checked_reply(self.open[key].reply(turn))

    def end(self, key: Any) -> None:
        """Close the environment of a trajectory; nothing happens if there is none."""
        environment = self.open.pop(key, None)
        if environment is not None:
            environment.close()

    def close(self) -> None:
        """Close all."""
        for key in list(self.open):
            self.end(key)


class LocalEnvironments:
    """`rlpost.protocols.EnvironmentCalls` on a host of this process.

    Args:
        host: the environments.
    """

    def __init__(self, host: EnvironmentHost):
        self.host = host
        self._answers: list[tuple[int, Observation | Reply | Exception | None]] = []

    def begin(self, key: int, row: Mapping[str, Any], seed: int) -> None:
        """See `EnvironmentCalls`."""
        self._call(key, lambda: self.host.begin(key, row, seed))

    def reply(self, key: int, turn: Turn) -> None:
        """See `EnvironmentCalls`."""
        self._call(key, lambda: self.host.reply(key, turn))

    def answers(self, timeout_s: float) -> list[tuple[int, Observation | Reply | Exception | None]]:
        """See `EnvironmentCalls`."""
        found, self._answers = self._answers, []
        if not found:
            time.sleep(timeout_s)
        return found

    def end(self, key: int) -> None:
        """See `EnvironmentCalls`."""
        self.host.end(key)

    def _call(self, key: int, ask: Callable[[], Observation | Reply | None]) -> None:
        try:
            self._answers.append((key, ask()))
        except Exception as error:  # whatever the user's code raises leaves this trajectory undecided
            self._answers.append((key, error))
