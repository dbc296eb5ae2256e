"""A custom environment, as small as possible: guess a number from 1 to 16 in at most 4 guesses, with replies.

    rlpost train configs/examples/guess_number.yaml

Halving what is left finds 15 of the 16 numbers. `begin`, `reply` and `close` are all that an environment needs;
`rlpost.protocols.Environment` has the contract. Before a run starts it is played twice with harmless answers.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

from rlpost.protocols import Reply, Turn
from rlpost.types import Verdict

NUMBERS, GUESSES = 16, 4
PROMPT = "a number from 1 to 16 ?"


class GuessNumber:
    """The one who knows the number, which is the column ``secret``.

    Args:
        constant: say "higher" whatever is guessed, unless it is right: what a policy finds without being told.
    """

    def __init__(self, constant: bool = False) -> None:
        self.constant = constant
        self.secret = 0

    def begin(self, row: Mapping[str, Any], seed: int) -> None:
        """Take the number; the prompt says all that the policy needs to begin."""
        self.secret = int(row["secret"])

    def reply(self, turn: Turn) -> Reply:
        """Say where the number is. Anything but a number from 1 to 16 ends the game, and so does the last guess."""
        found = re.fullmatch(r"\s*([0-9]{1,2})\s*", turn.text)
        guess = int(found[1]) if found else 0
        if guess == self.secret:
            return Reply(done=True, reward=1.0, verdict=Verdict("accepted", 1.0, "found"))
        if not 1 <= guess <= NUMBERS:
            return Reply(done=True, reward=0.0, verdict=Verdict("rejected", 0.0, "no_number"))
        if turn.number + 1 == GUESSES:
            return Reply(done=True, reward=0.0, verdict=Verdict("rejected", 0.0, "not_found"))
        return Reply(" higher" if self.constant or guess < self.secret else " lower", reward=0.0)

    def close(self) -> None:
        """Do nothing: nothing is held."""


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """A data source: a secret for each prompt, every number equally often, and a game with it for the warm start.

    The games are by a player who ignores half of what he hears, so that there is something to learn.
    """
    source = random.Random(seed)
    secrets = [i % NUMBERS + 1 for i in range(count)]
    source.shuffle(secrets)
    return [
        {"id": f"{seed}-{i}", "prompt": PROMPT, "secret": secret, "turns": game(secret, source)}
        for i, secret in enumerate(secrets)
    ]


def game(secret: int, source: random.Random) -> list[str]:
    """A game as texts of player and environment in turn."""
    low, high, said = 1, NUMBERS, list[str]()
    for number in range(GUESSES):
        guess = source.randint(low, high) if source.random() < 0.5 else source.randint(1, NUMBERS)
        said.append(f" {guess}")
        if guess == secret or number + 1 == GUESSES:
            return said
        said.append(" higher" if guess < secret else " lower")
        low, high = (max(low, guess + 1), high) if guess < secret else (low, min(high, guess - 1))
    return said
