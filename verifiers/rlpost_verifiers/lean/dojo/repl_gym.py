"""A gym on the Lean REPL's tactic mode: a step costs its own tactic, not all before it.

The REPL keeps every proof state it ever made under a number, so a tactic runs on the state it is for. With Mathlib,
where one tactic can take seconds, that is what makes long proofs affordable. Its word that no goal is left is not the
end of a proof: the whole of it is then checked as every proof is.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from rlpost.errors import DataError, InfrastructureError, RlpostError
from rlpost_verifiers.lean.backend import Backend
from rlpost_verifiers.lean.dojo.gym import Node, ReplayGym
from rlpost_verifiers.lean.filter import find_bad_part
from rlpost_verifiers.lean.task import ProofTask
from rlpost_verifiers.lean.toolchain.pin import merge_imports
from rlpost_verifiers.lean.toolchain.records import RecordError, read_record
from rlpost_verifiers.lean.toolchain.repl import LeanRepl
from rlpost_verifiers.lean.toolchain.repl_process import ReplLimitError, ReplLostError, ReplProcess

if TYPE_CHECKING:
    from rlpost_verifiers.lean.dojo.imports import TacticResult

_ATTEMPTS = 2
_FAILED = re.compile(r"Lean error:\s*(?:<input>:)?")


class ReplGym(ReplayGym):
    """`TacticGym` on a `LeanRepl`, as `ReplayGym` is on any backend.

    A state lives in the process that made it. Where that process was replaced, the tactics before are run again in the
    new one. A tactic that uses up the CPU time of a check is a `LeanError`; one that ends the process is tried again in
    another, and then raises.

    Args:
        repl: the REPLs that run the tactics.
        backend: what checks whole proofs; closed together with the gym. None: the same REPLs.
        memory: as of `ReplayGym`.
        types: as of `ReplayGym`.

    Raises:
        UserError: for a ``memory`` below 2.
        MissingPackageError: if LeanDojo is not installed and ``types`` is None.
    """

    def __init__(
        self,
        repl: LeanRepl,
        backend: Backend | None = None,
        memory: int = 100_000,
        types: ModuleType | None = None,
    ) -> None:
        super().__init__(repl if backend is None else backend, memory, types)
        self._repl = repl
        self._numbers: dict[Node, tuple[ReplProcess, int]] = {}

    def _compute(self, nodes: Sequence[Node]) -> list[TacticResult | RlpostError]:
        return [self._computed(node) for node in nodes]

    def _computed(self, node: Node) -> TacticResult | RlpostError:
        try:
            goals = self._ask(node)
        except (DataError, InfrastructureError) as error:
            return error
        if isinstance(goals, str):
            return self._dojo.LeanError(goals)
        return self._state(goals, self._number()) if goals else super()._compute([node])[0]

    def _forget(self, node: Node) -> None:
        self._numbers.pop(node, None)

    def _ask(self, node: Node) -> list[str] | str:
        """The goals after all tactics of a node, or why its last tactic fails."""
        problem: Exception | None = None
        for _ in range(_ATTEMPTS):
            try:
                with self._repl.process(node.task.header) as (process, env):
                    return self._run(process, env, node)
            except ReplLimitError as error:
                if error.limit == "cpu" and node.tactics:
                    return f"the tactic used up its {self._repl.limits[0]:g} s of CPU time"
                problem = error
            except (ReplLostError, RecordError) as error:
                problem = error
        where = f"task {node.task.name!r}, step {len(node.tactics)}"
        raise InfrastructureError(f"{where}: Lean could not judge: {problem}") from problem

    def _run(self, process: ReplProcess, env: int, node: Node) -> list[str] | str:
        """As `_ask`, in this process."""
        if not node.tactics:
            return self._begin(process, env, node)
        before = replace(node, tactics=node.tactics[:-1])
        known = self._numbers.get(before)
        if known is None or known[0] is not process:
            goals = self._run(process, env, before)
            if isinstance(goals, str) or not goals:  # it succeeded before
                raise ReplLostError(f"the REPL answers a step differently the second time: {str(goals)[:200]}")
        tactic = "(" + node.tactics[-1].replace("\n", "\n ") + ")"  # lines stay below each other
        answer = process.tactic(tactic, self._numbers[before][1], *self._repl.limits)
        return self._read_step(process, answer, node)

    def _begin(self, process: ReplProcess, env: int, node: Node) -> list[str] | str:
        answer = process.command(_stated(node.task), env, *self._repl.limits)
        output = read_record(answer)
        opened = [entry for entry in answer.get("sorries") or () if isinstance(entry.get("proofState"), int)]
        if output.errors or not opened or not isinstance(opened[-1].get("goal"), str):
            said = output.errors[0].text if output.errors else str(answer.get("message", answer))
            return " ".join(said.split())
        self._numbers[node] = process, opened[-1]["proofState"]
        return [opened[-1]["goal"]]

    def _read_step(self, process: ReplProcess, answer: Mapping[str, Any], node: Node) -> list[str] | str:
        said, goals, state = answer.get("message"), answer.get("goals"), answer.get("proofState")
        if isinstance(said, str):
            if "proof state" in said.lower() and not said.startswith("Lean error"):
                raise ReplLostError(f"the REPL has lost a proof state: {said[:200]}")
            return _FAILED.sub("", said, count=1).strip()
        output = read_record({**answer, "sorries": None})
        if output.errors:
            return output.errors[0].text
        if answer.get("sorries"):
            return "the tactic leaves a 'sorry'"
        if not isinstance(state, int) or not isinstance(goals, list):
            raise ReplLostError(f"the REPL answered a tactic with {str(dict(answer))[:200]}")
        self._numbers[node] = process, state
        return [str(goal) for goal in cast("list[object]", goals)]


def _stated(task: ProofTask) -> str:
    """The task's theorem, left open.

    Raises:
        DataError: for a statement, binders or a header that cannot be these.
    """
    if problem := find_bad_part(task):
        raise DataError(f"task {task.name!r}: {problem}")
    _, header = merge_imports("", task.header)
    binders = f" {task.binders}" if task.binders.strip() else ""
    theorem = f"theorem RlGoal_{secrets.token_hex(8)}{binders} : {task.statement} := by sorry"
    return "\n".join(part for part in (header, task.context.strip(), theorem) if part)
