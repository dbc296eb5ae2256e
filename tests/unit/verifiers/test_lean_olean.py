"""The module reader and the audit, on modules made by hand. Modules written by Lean: tests/contract."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlpost_verifiers.lean.embedded.audit import Wanted, audit, axiom_closure
from rlpost_verifiers.lean.embedded.judge import inspect
from rlpost_verifiers.lean.embedded.olean import Olean, OleanError, dotted
from support.oleans import BASE, Builder, Declaration


def candidate(*declarations: Declaration, imports: Sequence[str] = ("RLPre",)) -> bytes:
    return Builder().module(imports, declarations)


PRELUDE = Olean(
    Builder().module(
        [],
        [
            ("propext", "axiom", []),
            ("lcProof", "axiom", []),
            ("Classical.choice", "axiom", []),
            ("Classical.em", "theorem", ["Classical.choice", "propext"]),
            ("Nat.add", "definition", []),
        ],
    )
)


def test_reads_names_kinds_and_uses() -> None:
    module = Olean(candidate(("X", "theorem", ["Classical.em", "X._proof_1"]), ("X._proof_1", "theorem", [])))
    assert (module.version, module.commit, module.imports) == ("4.35.0", "e" * 40, (("RLPre",),))
    assert {dotted(name): constant.kind for name, constant in module.constants.items()} == {
        "X": "theorem",
        "X._proof_1": "theorem",
    }
    assert module.uses(("X",)) == {("Classical", "em"), ("X", "_proof_1")}


def test_closure_follows_both_modules() -> None:
    module = Olean(candidate(("X", "theorem", ["X._proof_1"]), ("X._proof_1", "theorem", ["Classical.em"])))
    assert axiom_closure(("X",), module, PRELUDE) == {("propext",), ("Classical", "choice")}


def test_honest_module_passes_with_its_axioms() -> None:
    ruling, axioms = audit(Olean(candidate(("X", "theorem", ["Classical.em"]))), PRELUDE, Wanted(None))
    assert (ruling.outcome, ruling.reason) == ("accepted", "proved")
    assert axioms == ("Classical.choice", "propext")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (candidate(("Y", "theorem", [])), "failed"),
        (candidate(), "failed"),
        (candidate(("X", "definition", [])), "failed"),
        (candidate(("X", "axiom", [])), "failed"),
        (candidate(("X", "theorem", []), ("cheat", "axiom", [])), "stray_declaration"),
        (candidate(("X", "theorem", []), ("XY", "theorem", [])), "stray_declaration"),
        (candidate(("X", "theorem", []), ("Nat.add.eq_1", "axiom", [])), "stray_declaration"),
        (candidate(("X", "theorem", []), ("Nat.sub.eq_1", "theorem", [])), "stray_declaration"),
        (candidate(("X", "theorem", []), imports=("RLPre", "Evil")), "stray_declaration"),
        (candidate(("X", "theorem", []), imports=()), "stray_declaration"),
        (candidate(("X", "theorem", ["X.cheat"]), ("X.cheat", "axiom", [])), "stray_declaration"),
        (candidate(("X", "theorem", []), ("X.hidden", "opaque", [])), "stray_declaration"),
        (candidate(("X", "theorem", ["lcProof"])), "axiom"),
    ],
)
def test_audit_rejects(data: bytes, reason: str) -> None:
    ruling, _ = audit(Olean(data), PRELUDE, Wanted(None))
    assert (ruling.outcome, ruling.reason) == ("rejected", reason)


@pytest.mark.parametrize("name", ["Nat.add.eq_1", "Nat.add.eq_def", "_private.Cand.0.Nat.add.match_1.splitter"])
def test_lemmas_lean_derives_about_the_prelude_are_no_strays(name: str) -> None:
    ruling, axioms = audit(
        Olean(candidate(("X", "theorem", [name]), (name, "theorem", ["propext"]))), PRELUDE, Wanted(None)
    )
    assert (ruling.outcome, axioms) == ("accepted", ("propext",))


def test_unknown_constant_is_unreadable_not_fine() -> None:
    with pytest.raises(OleanError, match=r"Lean\.trustMe is used and declared nowhere"):
        audit(Olean(candidate(("X", "theorem", ["Lean.trustMe"]))), PRELUDE, Wanted(None))


def test_duplicate_declaration_is_refused() -> None:
    with pytest.raises(OleanError, match="X is declared twice"):
        Olean(candidate(("X", "theorem", []), ("X", "theorem", [])))


@pytest.mark.parametrize("data", [b"", b"olean", b"x" * 200, b"olean\x03" + b"\0" * 200, b"olean\x02" + b"\0" * 200])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(OleanError):
        Olean(data)


def test_object_budget_ends_a_loop() -> None:
    """A name that is its own prefix."""
    builder = Builder()
    part = builder.string("x")
    itself = BASE + len(builder.data)
    builder.constructor(1, itself, part)
    entry = builder.constructor(0, itself)
    empty = builder.array([])
    root = builder.constructor(0, builder.array([entry]), empty, empty, empty, empty)
    builder.data[0x58:0x60] = struct.pack("<Q", root)
    with pytest.raises(OleanError, match="in circles"):
        Olean(bytes(builder.data))


@pytest.mark.parametrize("parts", [1001, 30_000])
def test_endless_names_are_refused_in_no_time(parts: int) -> None:
    with pytest.raises(OleanError, match="a name of more than 1000 parts"):
        Olean(candidate((".".join(["x"] * parts), "theorem", [])))


def test_numbers_in_names_are_small_and_objects_may_have_more_fields_than_are_read() -> None:
    builder = Builder()
    big = builder.put(struct.pack("<iHBBiiQ", 0, 0, 0, 250, 1, 1, BASE + len(builder.data) + 24) + b"\xff" * 8)
    name = builder.constructor(2, 1, big)
    entry = builder.constructor(0, name, 1, 1)
    empty = builder.array([])
    root = builder.constructor(0, builder.array([entry]), empty, empty, empty, empty)
    builder.data[0x58:0x60] = struct.pack("<Q", root)
    with pytest.raises(OleanError, match="beyond 63 bits"):
        Olean(bytes(builder.data))


@settings(max_examples=300)
@given(st.data())
def test_damage_is_found_or_harmless(data: st.DataObject) -> None:
    damaged = bytearray(candidate(("X", "theorem", ["Classical.em"]), ("X.y", "definition", ["X"])))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    for raw in (bytes(damaged), bytes(damaged[:cut])):
        assert inspect(raw, PRELUDE, Wanted(None)).ruling.outcome in ("accepted", "rejected", "undecided")
