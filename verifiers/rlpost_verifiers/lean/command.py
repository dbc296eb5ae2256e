"""What ``rlpost verify lean`` does: tasks from a file, a JSON verdict per line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlpost.data.prompts import parse_lines
from rlpost.errors import UserError
from rlpost.types import Verdict
from rlpost_verifiers.lean.task import ProofTask, parse_task
from rlpost_verifiers.lean.verifier import LeanVerifier

_CHUNK = 64
"""Tasks between two outputs: a long file shows progress, and what is printed is never lost."""


def verify_file(path: str, *, workers: int = 1, timeout_s: float = 10.0) -> None:
    """Print one verdict per task, in the file's order.

    Args:
        path: JSON lines; ``-`` reads standard input.
        workers: proofs checked at a time.
        timeout_s: CPU seconds per proof.

    Raises:
        UserError: for a line that is not a task; nothing is checked then.
    """
    tasks = list(read_tasks(path))
    with LeanVerifier(workers=workers, timeout_s=timeout_s) as verifier:
        for start in range(0, len(tasks), _CHUNK):
            chunk = tasks[start : start + _CHUNK]
            for task, verdict in zip(chunk, verifier.verify_tasks(chunk), strict=True):
                print(json.dumps(as_row(task, verdict), ensure_ascii=False), flush=True)


def read_tasks(path: str) -> Iterator[ProofTask]:
    """Tasks of a JSON-lines file.

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
        yield parse_task(row, place)


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
        "cached": verdict.cached,
        "backend": verdict.backend,
        **evidence,
    }
