"""The rules for what an environment says."""

from __future__ import annotations

import math
from typing import Any

from rlpost.errors import UserError
from rlpost.protocols import Observation, Reply
from rlpost.types import Message, Verdict


def checked_observation(value: Any, verb: str) -> Observation | None:
    """An observation, if it is text or messages.

    Raises:
        UserError: for anything else.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and value and all(isinstance(one, Message) for one in value):
        return tuple(value)
    raise UserError(f"{verb} gave the observation {value!r:.80}; text or a list of rlpost.types.Message is needed")


def checked_reply(value: Any) -> Reply:
    """A reply whose parts fit.

    Raises:
        UserError: otherwise.
    """
    if not isinstance(value, Reply):
        raise UserError(f"reply gave {value!r:.80}; a rlpost.protocols.Reply is needed")
    checked_observation(value.observation, "reply")
    if value.observation is None and not value.done:
        raise UserError("reply gave neither an observation nor done=True; the policy would have nothing to answer")
    if value.reward is not None and not (isinstance(value.reward, (int, float)) and math.isfinite(value.reward)):
        raise UserError(f"reply gave the reward {value.reward!r}; a finite number or None is needed")
    if not isinstance(value.failed, bool):
        raise UserError(f"reply gave failed={value.failed!r:.80}; True or False is needed")
    if value.verdict is not None and not isinstance(value.verdict, Verdict):
        raise UserError(f"reply gave the verdict {value.verdict!r:.80}; a rlpost.types.Verdict or None is needed")
    return value
