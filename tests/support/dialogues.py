"""Environments for tests, which some answers of an untrained model please."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from rlpost.protocols import Reply, Turn


class Talk:
    """Two or three turns; each that names a hypothesis is paid.

    Args:
        seconds: time that an answer takes.
        trouble: ``raise``, ``hang`` or ``crash`` in the second turn of the trajectories of the first prompt.
    """

    def __init__(self, seconds: float = 0.0, trouble: str | None = None) -> None:
        self.seconds, self.trouble = seconds, trouble
        self.turns = 0

    def begin(self, row: Mapping[str, Any], seed: int) -> None:
        self.turns = 2 + seed % 2
        self.first = row["id"] == "t0"

    def reply(self, turn: Turn) -> Reply:
        time.sleep(self.seconds)
        if self.trouble and self.first and turn.number == 1:
            {"raise": lambda: 1 / 0, "hang": lambda: time.sleep(600), "crash": lambda: os._exit(3)}[self.trouble]()
        named = " h1" in turn.text or " h2" in turn.text
        done = turn.number + 1 == self.turns
        return Reply(None if done else " h1 :=", done, float(named))

    def close(self) -> None: ...
