"""The errors: kinds and pickling between processes. Not covered: their messages, which have their own tests."""

from __future__ import annotations

import pickle

import pytest

from rlpost import errors

ALL = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, errors.RlpostError)]
STANDARD = {
    "UserError": ValueError,
    "ConfigError": ValueError,
    "DataError": ValueError,
    "ModelError": ValueError,
    "MissingPackageError": ImportError,
    "InfrastructureError": RuntimeError,
    "ActorLostError": RuntimeError,
    "LearnerLostError": RuntimeError,
    "RestartLimitError": RuntimeError,
    "RolloutsLostError": RuntimeError,
    "DeadlineError": TimeoutError,
    "PlacementError": RuntimeError,
    "SelfCheckError": RuntimeError,
    "ConstraintError": RuntimeError,
    "LeakError": RuntimeError,
    "CheckpointError": OSError,
}


@pytest.mark.parametrize("kind", ALL, ids=lambda k: k.__name__)
def test_errors_pickle_with_their_message(kind: type[errors.RlpostError]) -> None:
    again = pickle.loads(pickle.dumps(kind("what: value; remedy")))
    assert type(again) is kind
    assert str(again) == "what: value; remedy"
    assert again.args == ("what: value; remedy",)


@pytest.mark.parametrize("kind", [k for k in ALL if k is not errors.RlpostError], ids=lambda k: k.__name__)
def test_every_error_is_also_a_standard_one(kind: type[errors.RlpostError]) -> None:
    assert issubclass(kind, STANDARD[kind.__name__])


def test_mistakes_of_the_user_are_apart_from_failures_of_the_run() -> None:
    user = {k.__name__ for k in ALL if issubclass(k, errors.UserError)}
    assert user == {"UserError", "ConfigError", "DataError", "ModelError"}
