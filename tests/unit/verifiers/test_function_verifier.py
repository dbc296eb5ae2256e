"""A plain function as a verifier."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rlpost.errors import UserError
from rlpost.protocols import Verifier
from rlpost.types import VerifyItem
from rlpost_verifiers.function import FunctionVerifier


def by_column(text: str, columns: Mapping[str, Any]) -> Any:
    return columns[text]


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (True, ("accepted", 1.0, "accepted")),
        (False, ("rejected", 0.0, "rejected")),
        (0.25, ("accepted", 0.25, "accepted")),
        (-2, ("rejected", -2.0, "rejected")),
        (None, ("undecided", None, "unavailable")),
        (float("nan"), ("undecided", None, "crashed")),
        ("yes", ("undecided", None, "crashed")),
    ],
)
def test_what_a_function_may_return(returned: Any, expected: tuple[str, float | None, str]) -> None:
    [verdict] = FunctionVerifier(by_column).verify_batch([VerifyItem({"x": returned}, "x")])
    assert (verdict.outcome, verdict.score, verdict.reason) == expected
    assert verdict.outcome != "undecided" or verdict.reason in {"unavailable", "crashed"}


def test_an_exception_is_not_a_wrong_answer() -> None:
    [verdict] = FunctionVerifier(by_column).verify_batch([VerifyItem({}, "missing")])
    assert (verdict.outcome, verdict.score, verdict.reason) == ("undecided", None, "crashed")
    assert verdict.evidence["messages"] == ["KeyError: 'missing'"]


def test_order_is_kept_and_equal_items_are_verified_once() -> None:
    seen: list[str] = []

    def judge(text: str, columns: Mapping[str, Any]) -> bool:
        seen.append(text)
        return text == "a"

    columns = {"k": 1}
    verdicts = FunctionVerifier(judge).verify_batch([VerifyItem(columns, text) for text in "abab"])
    assert [verdict.score for verdict in verdicts] == [1.0, 0.0, 1.0, 0.0]
    assert seen == ["a", "b"]


def test_numpy_scalars_count_as_numbers() -> None:
    import numpy as np

    verdicts = FunctionVerifier(by_column).verify_batch(
        [VerifyItem({"x": v}, "x") for v in (np.bool_(True), np.float32(0.5))]
    )
    assert [verdict.score for verdict in verdicts] == [1.0, 0.5]


def test_function_by_name(tmp_path: Path) -> None:
    (tmp_path / "brief.py").write_text("def short(text, columns):\n    return len(text) < 3\n\nLIMIT = 3\n")
    with FunctionVerifier(f"{tmp_path}/brief.py:short") as verifier:
        assert isinstance(verifier, Verifier)
        assert [v.score for v in verifier.verify_batch([VerifyItem({}, "ab"), VerifyItem({}, "abc")])] == [1.0, 0.0]
        assert verifier.fingerprint.startswith("function/rlpost_user_brief:short/")
    with pytest.raises(UserError, match="cannot be called"):
        FunctionVerifier(f"{tmp_path}/brief.py:LIMIT")


def test_fingerprint_follows_the_source() -> None:
    assert FunctionVerifier(by_column).fingerprint != FunctionVerifier(lambda text, columns: True).fingerprint
