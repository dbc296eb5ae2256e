"""The arithmetic generator: right answers, splits that share nothing, limits kept."""

from __future__ import annotations

import pytest

from rlpost.data.prompts import to_prompts
from rlpost.errors import UserError
from rlpost_verifiers.math.problems import Operation, render, rows, steps, value


def test_every_answer_and_every_step_is_what_python_says() -> None:
    for row in rows(500, 1, max_operands=4, operands=(0, 20), values=(-50, 400)):
        assert eval(row["question"]) == int(row["answer"])
        for step in row["solution"].split(" = "):
            assert eval(step) == int(row["answer"]), row
        assert row["prompt"] == row["question"] + " ="


def test_the_same_arguments_give_the_same_problems_and_no_two_are_alike() -> None:
    assert rows(200, 7) == rows(200, 7) != rows(200, 8)
    assert len({row["question"] for row in rows(200, 7)}) == 200
    to_prompts(rows(200, 7))


def test_the_splits_share_no_problem_even_with_operands_swapped() -> None:
    def keys(split: str, seed: int) -> set[tuple[str, ...]]:
        found = rows(20 if split == "eval" else 150, seed, split=split, max_operands=2, operators="+*")  # pyright: ignore
        return {(*sorted(row["question"].split()),) for row in found}

    assert not keys("train", 1) & keys("eval", 2)


def test_limits_are_kept() -> None:
    for row in rows(100, 3, min_operands=3, max_operands=3, values=(0, 20)):
        assert row["operands"] == 3
        for step in row["solution"].split(" = "):
            assert "- -" not in step
        assert 0 <= int(row["answer"]) <= 20


def test_spaced_rows_have_a_blank_between_all_signs() -> None:
    row = rows(1, 3, operands=(10, 99), values=(0, 9999), operators="*", max_operands=2, spaced=True)[0]
    assert row["prompt"].replace(" ", "") == row["question"].replace(" ", "") + "="
    assert all(len(piece) == 1 for piece in (row["prompt"] + " " + row["solution"]).split())
    assert " " not in row["answer"]


def test_brackets_are_written_where_they_are_needed() -> None:
    inner = Operation("-", 5, 2)
    assert render(Operation("-", 9, inner)) == "9 - (5 - 2)"
    assert render(Operation("-", inner, 9)) == "5 - 2 - 9"
    assert render(Operation("*", inner, inner)) == "(5 - 2) * (5 - 2)"
    assert steps(Operation("*", inner, inner)) == ["3 * (5 - 2)", "3 * 3", "9"]
    assert value(Operation("*", inner, inner)) == 9


def test_sloppy_solutions_work_from_left_to_right_and_the_answer_stays_right() -> None:
    found = {row["question"]: row for row in rows(300, 1, min_operands=3, values=(0, 30), tricky=True, sloppy=1.0)}
    for question, row in found.items():
        first, one, second, two, third = question.replace("(", "").replace(")", "").split()
        step = eval(f"{first} {one} {second}")
        assert row["solution"] == f"{step} {two} {third} = {eval(f'{step} {two} {third}')}"
        assert eval(question) == int(row["answer"]) != eval(row["solution"].rpartition("= ")[2])
    half = rows(300, 1, min_operands=3, values=(0, 30), tricky=True, sloppy=0.5)
    wrong = sum(row["solution"].rpartition("= ")[2] != row["answer"] for row in half)
    assert 100 < wrong < 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": -1}, "count is -1"),
        ({"split": "test"}, "split is 'test'"),
        ({"eval_share": 2}, "eval_share is 2"),
        ({"sloppy": -1}, "sloppy is -1"),
        ({"min_operands": 1}, "min_operands is 1"),
        ({"min_operands": 4}, "min_operands is 4 and max_operands 3"),
        ({"operands": (9, 0)}, r"operands is \[9, 0\]"),
        ({"operands": (-3, 3)}, "a sign is written as an operator"),
        ({"values": [1]}, r"values is \[1\]"),
        ({"operators": "+/"}, "operators is '\\+/'"),
        ({"count": 10_000, "operands": (0, 1), "max_operands": 2}, "of 10000 problems found"),
    ],
)
def test_arguments_that_make_no_sense(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rows(**{"count": 5, "seed": 1, **arguments})
