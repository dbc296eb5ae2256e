"""A REPL that speaks the protocol of leanprover-community/repl: ``python lean_repl.py COMMAND OF LEAN…``.

An environment is stored as the text that led to it. Answers take several lines and end with a blank one.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from lean_engine import answer


def main() -> None:
    lean = sys.argv[1:]
    environments: list[str] = []
    for request in requests():
        env = request.get("env")
        if env is not None and not 0 <= env < len(environments):
            reply({"message": "Unknown environment."})
            continue
        before = environments[env] if env is not None else ""
        found = answer(lean, before, request["cmd"])
        environments.append(f"{before}{request['cmd']}\n")
        reply({"env": len(environments) - 1, **found})


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
