"""A trial call of a user's own rollout engine, made once in its actor before a run depends on it."""

from __future__ import annotations

import math
from typing import Any

from rlpost.errors import UserError
from rlpost.plugins.trial_call import plugin_errors, short_repr
from rlpost.protocols import GenerateRequest, SamplingSettings
from rlpost.rollout.stream import generate

_DEADLINE_S = 60.0


def try_engine(engine: Any, name: str, prompt_ids: tuple[int, ...]) -> None:
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
    with plugin_errors(who, "on a prompt of the run"):
        request = GenerateRequest("trial", prompt_ids, 2, 0)
        answers = generate(engine, [request], SamplingSettings(max_tokens=2), _DEADLINE_S)
        if [c.index for c in answers] != [0, 1] or any(c.finish_reason == "abort" for c in answers):
            raise UserError(f"it answered {len(answers)} completions, or aborted one, where 2 were asked for")
        for completion in answers:
            if tuple(completion.prompt_ids) != tuple(prompt_ids):
                raise UserError(f"a completion's prompt is {short_repr(completion.prompt_ids)}; give the request's")
            if not 1 <= len(completion.token_ids) <= 2:
                raise UserError(f"a completion has {len(completion.token_ids)} tokens where 1 or 2 were asked for")
            if any(not isinstance(token, int) or token < 0 for token in completion.token_ids):
                raise UserError(f"a completion has the tokens {short_repr(completion.token_ids)}; give ids as integers")
            if completion.finish_reason not in ("stop", "length"):
                raise UserError(f"a completion has the finish_reason {completion.finish_reason!r}; give stop or length")
            given = completion.logprobs
            if given is None or len(given) != len(completion.token_ids) or not all(-math.inf < x <= 0 for x in given):
                raise UserError(f"a completion has the log-probabilities {short_repr(given)}; give one ≤ 0 per token")
