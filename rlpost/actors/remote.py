"""Waiting for remote calls with a deadline; Ray's errors become `rlpost.errors`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ActorUnschedulableError,
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

import ray
from ray import cloudpickle as pickle
from rlpost.errors import (
    ActorLostError,
    DeadlineError,
    InfrastructureError,
    LearnerLostError,
    RlpostError,
    UserError,
    describe_error,
    first_line,
)

GONE = (ActorDiedError, ActorUnavailableError, ActorUnschedulableError, NodeDiedError, WorkerCrashedError)


def check_objects(objects: Mapping[str, Any]) -> None:
    """Verify that functions and classes which a configuration was given themselves can be sent to actors.

    Raises:
        UserError: for one that holds what cannot leave its process.
    """
    for name, value in objects.items():
        try:
            pickle.dumps(value)  # pyright: ignore[reportPrivateImportUsage]
        except Exception as error:
            raise UserError(
                f"{name.partition(':')[2]!r} cannot be sent to the actors ({describe_error(error)}): it holds an open "
                "file, lock, client or the like; make that inside it, at its first call, or put the code in a file and "
                "name it as path.py:attribute"
            ) from error


def wait(
    refs: Sequence[Any], what: str, deadline_s: float, gone: type[InfrastructureError] = LearnerLostError
) -> list[Any]:
    """Results of remote calls, in order; the first failure ends the wait without looking at the others.

    Args:
        refs: object references of the calls.
        what: actor and call in messages, e.g. ``rollout0: generate``.
        deadline_s: seconds from now.
        gone: error for objects that the call reads and that are gone with their machine: by default weights that the
            learner has published, or samples that it trains on.

    Raises:
        DeadlineError: if the deadline passes.
        ActorLostError: if an actor died or cannot be reached.
        LearnerLostError: by default, see ``gone``.
        RlpostError: an error that the remote code raised on purpose, unchanged.
        InfrastructureError: for any other remote exception.
    """
    ready(refs, what, deadline_s, gone)
    with _in_our_words(what, deadline_s, gone):
        return ray.get(list(refs))


def ready(
    refs: Sequence[Any], what: str, deadline_s: float, gone: type[InfrastructureError] = LearnerLostError
) -> None:
    """Wait as `wait` does for calls whose results are not held here."""
    with _in_our_words(what, deadline_s, gone):
        waiting, end = list(refs), time.monotonic() + deadline_s
        while waiting:  # one at a time as they finish: a peer that waits for a dead rank must not hide its error
            done, waiting = ray.wait(waiting, num_returns=1, timeout=max(end - time.monotonic(), 0.0))
            if not done:
                raise DeadlineError(
                    f"{what}: no answer within {deadline_s:g} s; {len(waiting)} of {len(refs)} calls open"
                )
            ray.get(done[0])


def pairs(generator: Any, what: str, deadline_s: float) -> Iterator[tuple[Any, Any]]:
    """The items of a remote generator two by two, as they come: the first as a reference, the second fetched.

    An actor that is lost between the two shows when the second is fetched, so the first is there if that succeeds.

    Args:
        generator: result of a method called with ``num_returns="streaming"``.
        what: actor and call in messages, as in `wait`.
        deadline_s: seconds from now until the generator must end.

    Raises:
        RlpostError: as `wait`.
    """
    end = time.monotonic() + deadline_s
    while True:
        with _in_our_words(what, deadline_s):
            done, _ = ray.wait([generator], timeout=max(end - time.monotonic(), 0.0))
            if not done:
                raise DeadlineError(f"{what}: not finished within {deadline_s:g} s")
            try:
                first = next(generator)
            except StopIteration:
                return
            try:
                second = ray.get(next(generator))
            except StopIteration:
                ray.get(first)  # an error of the generator is its last item
                return
        yield first, second


@contextmanager
def _in_our_words(what: str, deadline_s: float, gone: type[InfrastructureError] = LearnerLostError) -> Iterator[None]:
    try:
        yield
    except GetTimeoutError:
        raise DeadlineError(f"{what}: no answer within {deadline_s:g} s") from None
    except GONE as error:
        raise ActorLostError(f"{what}: the actor's process is gone ({first_line(error)})") from None
    except ObjectLostError as error:
        raise gone(f"{what}: what it reads is gone with its machine ({first_line(error)})") from None
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, RlpostError):
            raise cause from None
        if isinstance(cause, ObjectLostError):
            raise gone(f"{what}: what it reads is gone with its machine ({first_line(cause)})") from None
        raise InfrastructureError(f"{what}: {describe_error(cause)}") from error
    except OutOfMemoryError as error:
        raise ActorLostError(f"{what}: out of memory ({first_line(error)})") from None
    except RayError as error:
        raise InfrastructureError(f"{what}: {first_line(error)}") from error
