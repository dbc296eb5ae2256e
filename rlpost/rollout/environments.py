"""Environments in their process: one object for each trajectory, whose answers are checked before anyone reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rlpost.plugins.checked_reply import checked_observation, checked_reply
from rlpost.protocols import Environment, Observation, Reply, Turn, VerifiedEnvironment, Verifier


class EnvironmentHost:
    """The environments of some trajectories, by key.

    Args:
        make: makes an environment.
    """

    def __init__(self, make: Callable[[], Environment]):
        self.make = make
        self.open: dict[Any, Environment] = {}
        self.verified = False
        """Whether the environments are backed by a verifier."""

    def begin(self, key: Any, row: Mapping[str, Any], seed: int) -> Observation | None:
        """Start the environment of a trajectory, and return its first observation, checked.

        Raises:
            UserError: for an observation that is neither text nor messages.
        """
        self.end(key)
        self.open[key] = environment = self._made()
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

    def verifier(self) -> Verifier | None:
        """The verifier that gives the environments' verdicts, which is started if it is not; None if there is none."""
        environment = self._made()
        try:
            return environment.verifier if isinstance(environment, VerifiedEnvironment) else None
        finally:
            environment.close()

    def close(self) -> None:
        """Close all, and the verifier behind them."""
        for key in list(self.open):
            self.end(key)
        verifier = self.verifier() if self.verified else None
        if verifier is not None:
            verifier.close()

    def _made(self) -> Environment:
        environment = self.make()
        # asking an instance would start its verifier
        self.verified = self.verified or hasattr(type(environment), "verifier")
        return environment
