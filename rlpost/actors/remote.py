"""Waiting for Ray with a deadline, and its errors in our words."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
)

import ray
from rlpost.errors import ActorLostError, DeadlineError, InfrastructureError, RlpostError


def wait(refs: Sequence[Any], what: str, deadline_s: float) -> list[Any]:
    """Results of remote calls, in order; the first failure ends the wait without looking at the others.

    Args:
        refs: object references.
        what: for messages: who does what, e.g. ``rollout 0: generate``.
        deadline_s: seconds from now.

    Raises:
        DeadlineError: if the deadline passes.
        ActorLostError: if an actor died or cannot be reached.
        RlpostError: whatever the remote code raised on purpose, as it is.
        InfrastructureError: for any other remote exception.
    """
    try:
        waiting, end = list(refs), time.monotonic() + deadline_s
        while waiting:  # one at a time as they finish: a dead rank must not hide behind a peer that waits for it
            done, waiting = ray.wait(waiting, num_returns=1, timeout=max(end - time.monotonic(), 0.0))
            if not done:
                raise DeadlineError(
                    f"{what}: no answer within {deadline_s:g} s; {len(waiting)} of {len(refs)} calls open"
                )
            ray.get(done[0])
        return ray.get(list(refs))
    except GetTimeoutError:
        raise DeadlineError(f"{what}: no answer within {deadline_s:g} s") from None
    except (ActorDiedError, ActorUnavailableError) as error:
        raise ActorLostError(f"{what}: the actor's process is gone ({_reason(error)})") from None
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, RlpostError):
            raise cause from None
        raise InfrastructureError(f"{what}: {type(cause).__name__}: {_reason(cause)}") from error
    except OutOfMemoryError as error:
        raise InfrastructureError(f"{what}: out of memory ({_reason(error)})") from None
    except RayError as error:
        raise InfrastructureError(f"{what}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
