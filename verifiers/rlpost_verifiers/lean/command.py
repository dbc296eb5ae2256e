"""What ``rlpost verify lean`` and ``rlpost doctor`` do for Lean."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from rlpost.data.jsonl import parse_lines
from rlpost.errors import RlpostError, UserError
from rlpost.types import Verdict
from rlpost_verifiers.lean.conformance.gate import Report
from rlpost_verifiers.lean.embedded.lacks import REMEDY, prelude_lacks
from rlpost_verifiers.lean.task import ProofTask, parse_task
from rlpost_verifiers.lean.toolchain.cli import lean_version
from rlpost_verifiers.lean.toolchain.kernels import kernel_warning
from rlpost_verifiers.lean.verifier import LeanVerifier

_CHUNK = 64
"""Tasks verified before their verdicts are printed, so that a long file shows progress and loses little if cut off."""


def verify_file(path: str, backend: str = "embedded", **settings: Any) -> int:
    """Print one verdict per task, in the file's order; statements that Lean cannot read also go to standard error.

    Args:
        path: a file of JSON lines; ``-`` reads standard input.
        backend: name of the Lean backend.
        settings: further arguments of `LeanVerifier`: ``timeout_s``, ``workers`` and those of the backend.

    Returns:
        The exit status.

    Raises:
        UserError: for a line that is not a task, or an unknown setting; nothing is checked then.
    """
    rows = list(read_tasks(path))
    with _open(backend, settings) as verifier:
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            verdicts = verifier.verify_tasks([task for _, task in chunk])
            for (place, task), verdict in zip(chunk, verdicts, strict=True):
                print(json.dumps(as_row(task, verdict), ensure_ascii=False), flush=True)
                if (verdict.outcome, verdict.reason) == ("undecided", "statement_mismatch"):
                    print(f"rlpost: {place}: {verdict.evidence['messages'][0]}", file=sys.stderr)
    return 0


def show_conformance(backend: str, as_json: bool, **settings: Any) -> int:
    """Print a backend's verdicts on gold proofs and cheats.

    Returns:
        The exit status: 1 if the backend failed a case.
    """
    with _open(backend, settings) as verifier:
        report = verifier.conformance()
    print(json.dumps(_as_document(report), ensure_ascii=False) if as_json else _as_table(report))
    return int(bool(report.failures))


def diagnose() -> Iterator[tuple[str, Literal["ok", "note", "broken"], str, str]]:
    """The Lean on this machine and the confinement of a check, as tuples of topic, state, text and remedy."""
    for program in ("lean", "lake"):
        where = shutil.which(program)
        yield program, "ok" if where else "note", where or "no Lean toolchain on the path (backends cli and repl)", ""
    if shutil.which("lean"):
        yield _kernel()
    try:
        verifier = LeanVerifier(timeout_s=5)
    except RlpostError as error:
        yield "lean.embedded", "note", str(error), ""
        return
    with verifier:
        yield "lean.embedded", "ok", verifier.fingerprint, ""
        yield "lean.prelude", "note", prelude_lacks(), f"where proofs need them, {REMEDY}"
        yield _confinement(verifier)
        report = verifier.conformance()
    yield "conformance", "broken" if report.failures else "ok", report.summary(), ""


def read_tasks(path: str) -> Iterator[tuple[str, ProofTask]]:
    """Tasks of a JSON-lines file, each with its file and line.

    Raises:
        UserError: naming file and line.
    """
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give JSON lines with statement and proof") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give a UTF-8 file of JSON lines") from None
    for place, row in parse_lines(text, path):
        yield place, parse_task(row, place)


def as_row(task: ProofTask, verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain data."""
    evidence = dict(verdict.evidence)
    return {
        "name": task.name,
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "assurance": verdict.assurance,
        "axioms": evidence.pop("axioms", []),
        "seconds": round(verdict.seconds, 4),
        "cpu_seconds": None if verdict.cpu_seconds is None else round(verdict.cpu_seconds, 4),
        "queued_seconds": round(verdict.queued_seconds, 4),
        "cached": verdict.cached,
        "backend": verdict.backend.partition("/")[0],
        "fingerprint": verdict.backend,
        **evidence,
    }


def _open(backend: str, settings: dict[str, Any]) -> LeanVerifier:
    try:
        return LeanVerifier(backend, **settings)
    except TypeError as error:
        raise UserError(f"backend {backend!r} cannot take {settings} ({error})") from None


def _kernel() -> tuple[str, Literal["ok", "note"], str, str]:
    """Whether the kernel of the toolchain on the path has known faults."""
    try:
        version = lean_version(["lean"])
    except RlpostError as error:
        return "lean.kernel", "note", str(error), ""
    if warning := kernel_warning(version):
        return "lean.kernel", "note", warning, "the backends refuse whole files there (allow_old_kernel permits them)"
    return "lean.kernel", "ok", f"Lean {version} has no known fault in its kernel", ""


def _confinement(verifier: LeanVerifier) -> tuple[str, Literal["ok", "note"], str, str]:
    allowed = [attempt for attempt, outcome in verifier.probe().items() if outcome == "allowed"]
    if not allowed:
        return "sandbox", "ok", "a Lean check can neither read nor write elsewhere, start processes, nor connect", ""
    remedy = (
        "proofs are still checked, whole files (mode 'file') are refused; needs Linux 5.13 with Landlock and seccomp"
    )
    return "sandbox", "note", f"nothing keeps a Lean check from trying to: {', '.join(allowed)}", remedy


def _as_document(report: Report) -> dict[str, Any]:
    rows = [
        {"kind": row.case.kind, "cheat": row.case.cheat, "held": row.held, **as_row(row.case.task, row.verdict)}
        for row in report.rows
    ]
    return {
        "fingerprint": report.backend,
        "held": not report.failures,
        "skipped": [case.task.name for case in report.skipped],
        "cases": rows,
    }


def _as_table(report: Report) -> str:
    """Every case with its verdict, failures marked by ``!!``, and the totals."""
    width = max(len(row.case.task.name) for row in report.rows)
    lines = [
        f"{'  ' if row.held else '!!'} {row.case.kind:<5} {row.case.task.name:<{width}}  {row.verdict.outcome:<9} "
        f"{row.verdict.reason:<18} {row.case.cheat}"
        for row in report.rows
    ]
    reasons = Counter(row.verdict.reason for row in report.rows)
    lines.append("reasons: " + ", ".join(f"{name} {count}" for name, count in reasons.most_common()))
    if report.skipped:
        lines.append(f"skipped: {len(report.skipped)} cases in a mode that this backend does not judge")
    return "\n".join([*(line.rstrip() for line in lines), report.summary()])
