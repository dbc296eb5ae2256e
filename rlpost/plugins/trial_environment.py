"""A trial of a user's own environment, made once in its actor before a run depends on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rlpost.errors import UserError
from rlpost.plugins.checked_reply import checked_observation, checked_reply
from rlpost.plugins.trial_call import answers, plugin_errors, short_repr
from rlpost.protocols import Environment, Reply, Turn
from rlpost.types import Prompt

_VERBS = ("begin", "reply", "close")
_SEED = 1


def try_environment(make: Callable[[], Environment], name: str, prompt: Prompt) -> float:
    """Play a few harmless answers to an environment, twice, and check what it says.

    Args:
        make: makes an environment; its answers are checked as in a run.
        name: value of ``environment.name``.
        prompt: first training prompt.

    Returns:
        Wall-clock seconds of the first game.

    Raises:
        UserError: if a method is missing, it fails, it says something else than it may, or it answers the same turns
            differently, so that a trajectory could not be played again.
    """
    who = f"environment.name {name!r}"
    with plugin_errors(who, f"on prompt {prompt.id!r}"):
        texts = answers(prompt)
        begun = time.perf_counter()
        first = _play(make(), prompt, texts)
        seconds = time.perf_counter() - begun
        if _play(make(), prompt, texts) != first:
            raise UserError(
                f"it answered the turns {short_repr(texts)} differently the second time; derive all randomness from "
                "the row and the seed, or a lost trajectory cannot be played again"
            )
    return seconds


def _play(environment: Any, prompt: Prompt, texts: list[str]) -> list[Any]:
    if missing := [verb for verb in _VERBS if not callable(getattr(environment, verb, None))]:
        raise UserError(f"it has no {', '.join(missing)}; see rlpost.protocols.Environment")
    said: list[Any] = [checked_observation(environment.begin(prompt.columns, _SEED), "begin")]
    for number, text in enumerate(texts):
        reply: Reply = checked_reply(environment.reply(Turn(number, text, number + 1 == len(texts))))
        said.append(_timeless(reply))
        if reply.done:
            break
    environment.close()
    return said


def _timeless(reply: Reply) -> Reply:
    """The reply without what its verdict says of how long the check took, and of the machine."""
    if reply.verdict is None:
        return reply
    verdict = replace(reply.verdict.without_evidence(), seconds=0.0, cpu_seconds=None, queued_seconds=0.0, cached=False)
    return replace(reply, verdict=verdict)
