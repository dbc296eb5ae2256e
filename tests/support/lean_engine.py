"""The embedded Lean as the engine of the tests' toolchains: its messages about a text, in the REPL's JSON."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def answer(lean: Sequence[str], before: str, text: str, timeout: float | None = None) -> dict[str, Any]:
    """The REPL's answer to ``text`` in the environment after ``before``, without the number of the environment.

    Raises:
        subprocess.TimeoutExpired: after ``timeout`` seconds.
    """
    messages: list[dict[str, Any]] = []
    sorries: list[dict[str, Any]] = []
    # The REPL counts lines from the start of the command.
    skipped = before.count("\n")
    for record in _messages(lean, before + text, timeout):
        position = {"line": record["pos"]["line"] - skipped, "column": record["pos"]["column"]}
        if position["line"] < 1:
            continue
        severity = {"information": "info"}.get(record["severity"], record["severity"])
        messages.append({"severity": severity, "pos": position, "endPos": None, "data": record["data"].strip()})
        if record["kind"] == "hasSorry":
            sorries.append({"pos": position, "endPos": position, "goal": "⊢ ?", "proofState": 0})
    found: dict[str, Any] = {}
    if messages:
        found["messages"] = messages
    if sorries:
        found["sorries"] = sorries
    return found


def _messages(lean: Sequence[str], source: str, timeout: float | None) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "Repl.lean")
        file.write_text(source, encoding="utf-8")
        command = [*lean, "--json", "-j1", "-R", folder, str(file)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if run.returncode not in (0, 1):
        raise RuntimeError(f"Lean ended with status {run.returncode}: {run.stderr[-200:]}")
    return [json.loads(line) for line in run.stdout.splitlines()]
