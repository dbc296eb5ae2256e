"""Rows become proof tasks, or a one-line error."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from rlpost.errors import DataError
from rlpost_verifiers.lean.task import ProofTask, parse_task


def test_parses_the_keys_of_a_task_and_ignores_the_rest() -> None:
    row = {"statement": "True", "proof": "trivial", "name": "t", "binders": "(p : Prop)", "mode": "file", "level": 3}
    assert parse_task(row, "line 1") == ProofTask("True", "trivial", "t", "", "(p : Prop)", "file")


def test_optional_keys_may_be_null() -> None:
    assert parse_task({"statement": "True", "proof": "", "name": None}, "line 1") == ProofTask("True", "")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"proof": "x"}, "a.jsonl line 3: no 'statement'"),
        ({"statement": "True"}, "a.jsonl line 3: no 'proof'"),
        ({"statement": "True", "proof": 4}, "'proof' is 4, not a string"),
        ({"statement": " \n", "proof": "x"}, "'statement' is blank"),
        (
            {"statement": "True", "proof": "x", "mode": "tactic"},
            "'mode' is 'tactic'; use 'proof', 'declarations', 'file'",
        ),
        ({"statement": "True", "proof": "x", "mode": "declarations"}, "no 'theorem'"),
        ({"statement": "True", "proof": "x", "header": ["open Nat"]}, "'header' is ['open Nat'], not a string"),
    ],
)
def test_refuses_what_is_no_task(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_task(row, "a.jsonl line 3")
    assert message in str(caught.value)


def test_task_pickles() -> None:
    task = ProofTask("True", "trivial")
    assert pickle.loads(pickle.dumps(task)) == task
