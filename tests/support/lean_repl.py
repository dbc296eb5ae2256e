"""A REPL that speaks the protocol of leanprover-community/repl: ``python lean_repl.py COMMAND OF LEAN…``.

An environment is stored as the text that led to it, and a proof state as the theorem and the tactics that led to it: each
is checked again as a whole. Answers take several lines and end with a blank one.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from typing import Any

from lean_engine import answer

OPEN = "by sorry"
UNSOLVED = "unsolved goals\n"


@dataclass(frozen=True)
class ProofState:
    """A theorem up to its ``by``, the text before it, and its tactics."""

    before: str
    theorem: str
    tactics: tuple[str, ...] = ()

    def run(self, lean: list[str]) -> tuple[list[str], list[dict[str, Any]], dict[str, Any]]:
        """Goals that are open, errors of the last tactic, and the whole answer of the engine."""
        steps = ["skip", *self.tactics]
        text = self.theorem + "".join("\n  " + step.replace("\n", "\n  ") for step in steps) + "\n"
        found = answer(lean, self.before, text)
        line, column = self.theorem.count("\n") + 1, len(self.theorem.rpartition("\n")[2]) - len("by")
        errors = [one for one in found.get("messages", []) if one["severity"] == "error"]
        block = [
            one for one in errors if one["data"].startswith(UNSOLVED) and one["pos"] == {"line": line, "column": column}
        ]
        goals = [goal for one in block for goal in one["data"].removeprefix(UNSOLVED).split("\n\n")]
        return goals, [one for one in errors if one not in block], found


class Repl:
    """All environments and proof states so far."""

    def __init__(self, lean: list[str]) -> None:
        self.lean = lean
        self.environments: list[str] = []
        self.states: list[ProofState] = []

    def command(self, text: str, env: int | None) -> dict[str, Any]:
        if env is not None and not 0 <= env < len(self.environments):
            return {"message": "Unknown environment."}
        before = self.environments[env] if env is not None else ""
        self.environments.append(f"{before}{text}\n")
        number = {"env": len(self.environments) - 1}
        if not text.rstrip().endswith(OPEN):
            return number | answer(self.lean, before, text)
        state = ProofState(before, text.rstrip().removesuffix(" sorry"))
        goals, errors, found = state.run(self.lean)
        if errors or not goals:
            return number | found
        self.states.append(state)
        place = {"line": text.count("\n") + 1, "column": 0}
        sorry = {"proofState": len(self.states) - 1, "pos": place, "goal": goals[0], "endPos": place}
        warning = {"severity": "warning", "pos": place, "endPos": place, "data": "declaration uses `sorry`"}
        return {"sorries": [sorry], "messages": [warning], **number}

    def tactic(self, text: str, number: int) -> dict[str, Any]:
        if not 0 <= number < len(self.states):
            return {"message": "Unknown proof state."}
        before = self.states[number]
        state = replace(before, tactics=(*before.tactics, text))
        goals, errors, _ = state.run(self.lean)
        if errors:
            return {"message": f"Lean error:\n{errors[0]['data']}"}
        self.states.append(state)
        status = "Incomplete: open goals remain" if goals else "Completed"
        return {"proofStatus": status, "proofState": len(self.states) - 1, "goals": goals}


def main() -> None:
    repl = Repl(sys.argv[1:])
    for request in requests():
        if "tactic" in request:
            reply(repl.tactic(request["tactic"], request["proofState"]))
        else:
            reply(repl.command(request["cmd"], request.get("env")))


def requests() -> Any:
    lines: list[str] = []
    for line in sys.stdin:
        if line.strip():
            lines.append(line.rstrip())
        elif lines:
            yield json.loads("".join(lines))
            lines = []


def reply(record: dict[str, Any]) -> None:
    print(json.dumps(record, ensure_ascii=False, indent=1), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
