"""A trial call of a user's own rollout engine, made once in its actor before a run depends on it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rlpost.errors import UserError
from rlpost.plugins.trial_call import plugin_errors, short_repr
from rlpost.protocols import GenerateRequest, SamplingSettings
from rlpost.rollout.episode import complete
from rlpost.trajectory import Completion

_DEADLINE_S = 60.0
_SEEDS = (0, 1)


def try_engine(engine: Any, name: str, prompt_ids: np.ndarray) -> None:
    """Have an engine sample two completions of two tokens and check what it returns.

    Args:
        engine: a ready engine, in its actor's process.
        name: the engine's name in the configuration, for messages.
        prompt_ids: token ids of a prompt of the run.

    Raises:
        UserError: if it lacks a method, fails, or returns something else than was requested.
    """
    who = f"rollout.engine {name!r}"
    verbs = ("submit", "step", "abort", "apply", "probe", "parity", "close")
    if missing := [verb for verb in verbs if not callable(getattr(engine, verb, None))]:
        raise UserError(f"{who} has no {', '.join(missing)}; see rlpost.protocols.RolloutEngine")
    requests = [GenerateRequest(prompt_ids, 2, seed) for seed in _SEEDS]
    with plugin_errors(who, "on a prompt of the run"):
        for completion in complete(engine, requests, SamplingSettings(max_tokens=2), _DEADLINE_S):
            _check(completion)
        left = [completion for _, completion in engine.abort(engine.submit(requests, SamplingSettings(max_tokens=2)))]
        if [completion.finish for completion in left] != ["abort"] * len(requests):
            raise UserError(f"abort answered {short_repr(left)}; a completion with finish abort for each is needed")


def _check(completion: Any) -> None:
    if not isinstance(completion, Completion):
        raise UserError(f"it answered {short_repr(completion)}; a rlpost.trajectory.Completion is needed")
    if completion.finish not in ("stop", "length"):
        raise UserError(f"a completion of two tokens has the finish {completion.finish!r}; give stop or length")
    ids, logprobs = completion.token_ids, completion.logprobs
    if not isinstance(ids, np.ndarray) or ids.dtype != np.int32 or not 1 <= len(ids) <= 2 or (ids < 0).any():
        raise UserError(f"a completion has the tokens {short_repr(ids)}; give one or two ids as an int32 array")
    if logprobs is None or not all(-math.inf < x <= 0 for x in logprobs):
        raise UserError(f"a completion has the log-probabilities {short_repr(logprobs)}; give one ≤ 0 per token")
