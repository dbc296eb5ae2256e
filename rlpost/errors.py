"""Every error rlpost raises on purpose.

`UserError` and its children mean that the input was wrong (exit status 2); every other `RlpostError` means that a run
or a check failed (exit status 1). Each is also a standard-library type, carries one line (what, the offending value,
what to do) and pickles, because Ray passes errors from actor to driver.
"""

from __future__ import annotations

import re


class RlpostError(Exception):
    """Root of all errors raised on purpose."""


class UserError(RlpostError, ValueError):
    """The input is wrong; the message names the value and the remedy."""


class ConfigError(UserError):
    """A configuration file or override cannot be accepted."""


class DataError(UserError):
    """A data set, a row or a prompt cannot be used."""


class ModelError(UserError):
    """A model folder cannot be loaded."""


class MissingPackageError(RlpostError, ImportError):
    """An optional package is needed and absent or broken; the message holds the install command."""


class InfrastructureError(RlpostError, RuntimeError):
    """A part other than the model's answer failed: a worker, a backend, a deadline."""


class ActorLostError(InfrastructureError):
    """An actor died or could not be reached."""


class LearnerLostError(ActorLostError):
    """A rank of the learner is gone, and with it the process group; the run continues from its last checkpoint."""


class RolloutsLostError(InfrastructureError):
    """Trajectories are gone with the machine that held them; the step is rolled out again, with the same seeds."""


class RestartLimitError(InfrastructureError):
    """Actors of a kind were lost more often than ``cluster.restarts`` allows."""


class DeadlineError(InfrastructureError, TimeoutError):
    """A wait passed its deadline; the message says what was waited for and for how long."""


class PlacementError(InfrastructureError):
    """The cluster cannot hold what the configuration asks for."""


class SelfCheckError(RlpostError, RuntimeError):
    """A self-check failed; the message holds the figures and the remedy."""


class ConstraintError(SelfCheckError):
    """A token that the decoding constraint does not allow after those before it."""


class LeakError(SelfCheckError):
    """An actor's memory grows without end; what was learned so far is sound."""


class CheckpointError(RlpostError, OSError):
    """A checkpoint could not be written or read."""


_ANNOUNCES = re.compile(r":$|^\d+ validation errors? for |^Traceback|^During handling|^The above exception")
_MOST = 400


def first_line(error: BaseException) -> str:
    r"""The first line of an exception's message that says something; the exception's type if the message is empty.

    A line that only announces the next ones ("Error(s) in loading state_dict for X:", pydantic's "1 validation error
    for X") is joined with them, up to 400 characters.

    >>> first_line(ValueError("too long\nby far")), first_line(KeyError())
    ('too long', 'KeyError')
    >>> first_line(RuntimeError("1 validation error for Model\n  Value error, heads do not divide [type=value_error]"))
    '1 validation error for Model Value error, heads do not divide [type=value_error]'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if not _ANNOUNCES.search(lines[0]):
        return lines[0]
    whole = " ".join(lines)
    return whole if len(whole) <= _MOST else f"{whole[:_MOST]}…"


def describe_error(error: BaseException) -> str:
    """Type and first line of an exception.

    >>> describe_error(KeyError("answer")), describe_error(KeyError())
    ("KeyError: 'answer'", 'KeyError')
    """
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"
