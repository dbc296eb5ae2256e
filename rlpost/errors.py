"""Every error rlpost raises on purpose.

`UserError` and its children mean that the input was wrong (exit status 2); every other `RlpostError` means that a run
or a check failed (exit status 1). Each is also a standard-library type, carries one line (what, the offending value,
what to do) and pickles, because Ray hands errors from actor to driver.
"""

from __future__ import annotations


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
    """Something that is not the answer's fault failed: a worker, a backend, a deadline."""


class ActorLostError(InfrastructureError):
    """An actor died or could not be reached."""


class LearnerLostError(ActorLostError):
    """A rank of the learner is gone, and with it the group; the run goes on from its last checkpoint."""


class GivingUpError(InfrastructureError):
    """Actors of a kind were lost more often than ``cluster.restarts`` allows."""


class DeadlineError(InfrastructureError, TimeoutError):
    """A wait passed its deadline; the message says what was waited for and for how long."""


class PlacementError(InfrastructureError):
    """The cluster cannot hold what the configuration asks for."""


class SelfCheckError(RlpostError, RuntimeError):
    """A self-check failed; the message holds the figures and the remedy."""


class LeakError(SelfCheckError):
    """An actor's memory grows without end; what was learned so far is sound."""


class CheckpointError(RlpostError, OSError):
    """A checkpoint could not be written or read."""
