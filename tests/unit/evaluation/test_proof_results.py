"""Files of results: what is settled stays, what is torn is mended, what is something else is refused and left alone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from rlpost.errors import DataError, UserError
from rlpost.evaluation.proofs import Marks, ProofRow, figures, read, results

MARKS = Marks("sampling", 17, "model", "lean", "abc")
STATEMENTS = {"a": "p → p", "b": "q → q", "ü\u2028": "r"}


def row(name: str = "a", outcome: Any = "proved", **changed: Any) -> ProofRow:
    values = {
        "id": name, "name": name, "statement": STATEMENTS.get(name, "?"), "outcome": outcome,
        "proof": "fun h => h" if outcome == "proved" else None, "detail": "", "attempts": 2, "model_calls": 4,
        "tokens": 10, "states": 3, "seconds": 0.5, **dataclasses.asdict(MARKS),
    }  # fmt: skip
    return ProofRow(**{**values, **changed})


def write(path: Path, *rows: ProofRow, marks: Marks = MARKS) -> dict[str, ProofRow]:
    with results(path, STATEMENTS, marks) as (known, record):
        before = dict(known)
        for one in rows:
            record(one)
    return before


def test_rows_are_appended_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "proofs.jsonl"
    assert write(path, row("a"), row("ü\u2028", "exhausted")) == {}
    first = path.read_bytes()
    assert write(path, row("b", "undecided"), row("b", "not_proved")) == {
        "a": row("a"),
        "ü\u2028": row("ü\u2028", "exhausted"),
    }
    assert path.read_bytes().startswith(first)
    assert read(path) == [row("a"), row("ü\u2028", "exhausted"), row("b", "not_proved")]


def test_every_row_is_on_disk_as_soon_as_it_is_settled(tmp_path: Path) -> None:
    path = tmp_path / "proofs.jsonl"
    with results(path, STATEMENTS, MARKS) as (_, record):
        record(row("a"))
        assert read(path) == [row("a")]


def test_a_line_that_was_torn_anywhere_is_mended(tmp_path: Path) -> None:
    whole = json.dumps(dataclasses.asdict(row("b"))).encode()
    path = tmp_path / "proofs.jsonl"
    write(path, row("a"))
    head = path.read_bytes()
    for cut in [*range(1, len(whole), 7), len(whole) - 1]:
        path.write_bytes(head + whole[:cut])
        assert read(path) == [row("a")]
        assert write(path, row("b", "exhausted")) == {"a": row("a")}
        assert read(path) == [row("a"), row("b", "exhausted")]
    path.write_bytes(head + whole)  # only the line break is missing
    assert write(path) == {"a": row("a"), "b": row("b")}
    assert path.read_bytes() == head + whole + b"\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"my notes", ":1: not valid JSON"),
        (b"my notes\n", ":1: not valid JSON"),
        (b'{"id": "a"}\n', ":1: no result of a theorem"),
        (b"[1]\n", ":1: no result of a theorem"),
        (b"\x00\xff\n", ":1: not valid JSON"),
        (b'\n\n{"id": "a", "samples": "01"}', ":3: no result of a theorem"),
    ],
)
def test_another_file_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        write(path, row())
    assert path.read_bytes() == content


def test_a_damaged_line_in_the_middle_is_no_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "proofs.jsonl"
    write(path, row("a"), row("b"))
    path.write_bytes(path.read_bytes().replace(b'"proved"', b'"prov', 1))
    before = path.read_bytes()
    with pytest.raises(DataError, match=":1: not valid JSON, so this is no file of rlpost prove"):
        write(path, row("b"))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "best_first"}, "was written with method 'sampling', this is 'best_first'"),
        ({"seed": 18}, "was written with seed 17, this is 18"),
        ({"model": "another"}, "was written with model 'model', this is 'another'"),
        ({"verifier": "kimina"}, "was written with verifier 'lean', this is 'kimina'"),
        ({"settings": "def"}, "was written with other budgets, sampling or templates; give another file"),
    ],
)
def test_results_of_something_else_are_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    path = tmp_path / "proofs.jsonl"
    write(path, row("a"))
    before = path.read_bytes()
    with pytest.raises(UserError, match=message):
        write(path, row("b"), marks=dataclasses.replace(MARKS, **changed))
    assert path.read_bytes() == before


def test_another_set_of_theorems_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "proofs.jsonl"
    write(path, row("a"))
    for statements, message in (
        ({"b": "q"}, "holds theorem 'a', which the file does not"),
        ({"a": "q"}, "'a' with another statement"),
    ):
        with pytest.raises(UserError, match=message), results(path, statements, MARKS):
            pass
    with results(path, {**STATEMENTS, "new": "s"}, MARKS) as (known, _):  # the file may have grown
        assert set(known) == {"a"}


def test_two_commands_do_not_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "proofs.jsonl"
    with results(path, STATEMENTS, MARKS), pytest.raises(UserError, match="another command is writing"):
        write(path)
    write(path, row())


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--output: .* cannot be written"):
        write(tmp_path)


def test_figures() -> None:
    rows = [row("a"), row("b", "not_proved"), row("c", "unreadable"), row("d", "undecided"), row("e", "exhausted")]
    found = figures(rows, rows[:2], 2.0)
    assert {name: found[name] for name in ("theorems", "proved", "not_proved", "exhausted", "unreadable")} == {
        "theorems": 5, "proved": 1, "not_proved": 1, "exhausted": 1, "unreadable": 1,
    }  # fmt: skip
    # 1 of the 3 that are decided and readable; Wilson's interval of 1/3 by the formula
    z, n, p = 1.959964, 3, 1 / 3
    centre, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert found["share"] == pytest.approx(1 / 3)
    assert found["share_low"] == pytest.approx((centre - half) / (1 + z**2 / n), abs=1e-6)
    assert found["share_high"] == pytest.approx((centre + half) / (1 + z**2 / n), abs=1e-6)
    assert (found["model_calls"], found["tokens"], found["states_per_second"], found["proofs_per_second"]) == (
        20, 50, 3.0, 0.5,
    )  # fmt: skip
    nothing = figures([row("c", "unreadable")], [], 0.0)
    assert "share" not in nothing
    assert "proofs_per_second" not in nothing
