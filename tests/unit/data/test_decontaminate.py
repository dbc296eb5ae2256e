"""Contamination of held-out data by training data; curricula. Not covered: their callers (tests/integration)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlpost.config.schema import CurriculumSettings
from rlpost.data.curriculum import by_pass_rate
from rlpost.data.decontaminate import decontaminate, find_contamination, question
from rlpost.errors import DataError
from rlpost.types import Message, Prompt


def theorem(name: str, statement: str, binders: str | None = None) -> Prompt:
    columns = {"statement": statement} | ({"binders": binders} if binders else {})
    return Prompt(name, text=f"theorem {name} {binders or ''} : {statement} := by", columns=columns)


def test_a_statement_is_recognised_despite_another_name_and_spacing() -> None:
    train = [theorem("a", "1 + 1 = 2"), theorem("b", "n\n  = n", "(n : ℕ)"), theorem("c", "n = n", "(n : ℤ)")]
    held_out = [theorem("x", "n = n", "(n  : ℕ)")]
    found = find_contamination(train, held_out)
    assert (found.positions, found.example) == ({1}, ("b", "x"))


def test_prompts_without_a_statement_are_compared_as_texts() -> None:
    assert question(Prompt("a", text=" 2 +\t2")) == question(Prompt("b", text="2 + 2"))
    chat = Prompt("c", messages=(Message("user", "2  + 2"),))
    assert question(chat) == "user: 2 + 2"
    assert question(Prompt("d", text="e\u0301")) == question(Prompt("e", text="é"))


def test_contamination_is_refused_dropped_or_allowed() -> None:
    train, held_out = [theorem("a", "A"), theorem("b", "B")], [theorem("x", "B")]
    with pytest.raises(DataError, match=r"1 of 2 prompts are held out as well \(training prompt 'b' .* prompt 'x'"):
        decontaminate(train, held_out, "refuse")
    assert decontaminate(train, held_out, "drop") == train[:1]
    assert decontaminate(train, held_out, "allow") == train
    with pytest.raises(DataError, match="2 of 2"):
        decontaminate(train, [*held_out, theorem("y", "A")], "drop")


@pytest.fixture
def measured(tmp_path: Path) -> str:
    rows = [("a", "1111"), ("b", "10?0"), ("c", "0000"), ("d", "1100")]
    lines = [json.dumps({"id": name, "samples": marks, "distinct": 1, "greedy": ""}) for name, marks in rows]
    (tmp_path / "outcomes.jsonl").write_text("\n".join(lines))
    return str(tmp_path / "outcomes.jsonl")


PROMPTS = [Prompt(name, text=name) for name in "dcba"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "dcba"),
        ({"lowest": 0.01, "highest": 0.99}, "db"),
        ({"order": "easy_first"}, "adbc"),
        ({"order": "hard_first"}, "cbda"),
    ],
)
def test_a_curriculum_by_hand(measured: str, settings: dict, expected: str) -> None:
    chosen = by_pass_rate(PROMPTS, CurriculumSettings(outcomes=measured, **settings))
    assert "".join(prompt.id for prompt in chosen) == expected


def test_how_many_prompts_are_left_out_is_said(measured: str, caplog: pytest.LogCaptureFixture) -> None:
    by_pass_rate(PROMPTS, CurriculumSettings(outcomes=measured, lowest=0.01, highest=0.99))
    assert "2 of 4 training prompts are left out, whose pass rate is not from 0.01 to 0.99" in caplog.text
    decontaminate([theorem("a", "A"), theorem("b", "B")], [theorem("x", "B")], "drop")
    assert "drop leaves out 1 of 2 training prompts, which are held out as well (e.g. 'b')" in caplog.text
    caplog.clear()
    by_pass_rate(PROMPTS, CurriculumSettings(outcomes=measured))
    decontaminate([theorem("a", "A")], [theorem("x", "B")], "drop")
    assert not caplog.text


def test_an_unmeasured_prompt_and_an_empty_choice_are_errors(measured: str) -> None:
    with pytest.raises(DataError, match=r"1 of 2 prompts have no pass rate .*first is 'z'.*--split train"):
        by_pass_rate([PROMPTS[0], Prompt("z", text="z")], CurriculumSettings(outcomes=measured))
    with pytest.raises(DataError, match=r"between|from 0.6 to 0.9"):
        by_pass_rate(PROMPTS, CurriculumSettings(outcomes=measured, lowest=0.6, highest=0.9))
