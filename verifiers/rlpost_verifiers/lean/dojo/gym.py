"""A Lean proof as an environment: a state is a list of goals, an action one tactic.

The types are LeanDojo's own, so a prover written for `lean_dojo.Dojo` runs here unchanged. `ReplayGym` needs nothing
but a `Backend`: each step checks all tactics so far again and reads the remaining goals from Lean's error about
unsolved goals. With the embedded Lean a step costs one check, about 10 ms of CPU time.
"""

from __future__ import annotations

import re
import textwrap
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

from rlpost.errors import DataError, InfrastructureError, RlpostError, UserError
from rlpost.types import Verdict
from rlpost_verifiers.lean.backend import Backend
from rlpost_verifiers.lean.dojo.imports import import_lean_dojo
from rlpost_verifiers.lean.filter import find_forbidden
from rlpost_verifiers.lean.task import ProofTask

if TYPE_CHECKING:
    from types import ModuleType

    from rlpost_verifiers.lean.dojo.imports import TacticResult, TacticState

_ERROR = re.compile(r"error at (\d+:\d+|the theorem): (.*)", re.DOTALL)
# The block that `script` opens starts at line 1, column 0 of the proof. Goals left open inside a tactic (by a bullet,
# or by a `by` of its own) are reported elsewhere and are an error of that tactic.
_BLOCK = "1:0"
_UNSOLVED = "unsolved goals\n"


class TacticGym(Protocol):
    """The environment that a prover needs: a first state, and the result of a tactic on a state."""

    def reset(self, task: ProofTask) -> TacticState:
        """The state before any tactic; ``task.proof`` is ignored.

        Raises:
            DataError: if Lean cannot read the statement.
            InfrastructureError: if Lean could not decide.
        """
        ...

    def run_tac(self, state: TacticState, tactic: str) -> TacticResult:
        """The state after ``tactic``, `ProofFinished` if no goal is left, or `LeanError` if it fails.

        Raises:
            UserError: for a state that does not come from this environment.
            InfrastructureError: if Lean could not decide; the tactic may be right.
        """
        ...

    def run_tacs(self, pairs: Sequence[tuple[TacticState, str]]) -> list[TacticResult | InfrastructureError]:
        """`run_tac` on many pairs at once, in order; where Lean could not decide, the error stands for the result.

        Raises:
            UserError: for a state that does not come from this environment; nothing is run then.
        """
        ...

    def close(self) -> None:
        """End the environment's Lean; repeated calls do nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Node:
    """A task, stripped of its proof, and the tactics applied so far."""

    task: ProofTask
    tactics: tuple[str, ...] = ()


class ReplayGym:
    """`TacticGym` on any backend.

    A step is written as one group in parentheses: its text can neither continue the step before it nor end the block.
    It may hold several tactics, which then count as one (LeanDojo refuses that). `ProofFinished` means that the
    backend accepted the whole proof of the task's own statement. Used by one thread at a time.

    Args:
        backend: the Lean that checks the proofs; closed together with the gym.
        types: where ``TacticState``, ``ProofFinished`` and ``LeanError`` are taken from; None: LeanDojo, else
            `rlpost_verifiers.lean.dojo.states`, which needs nothing installed.
        memory: number of results remembered, at least 2, so that a search that returns to a step does not check it
            again. A state that is no longer remembered cannot be continued.

    Raises:
        UserError: for a ``memory`` below 2.
        MissingPackageError: if LeanDojo is not installed.

    Example::

        with ReplayGym(EmbeddedLean()) as gym:
            state = gym.reset(ProofTask("∀ p : Prop, p → p", ""))
            state = gym.run_tac(state, "intro p h")
            assert isinstance(gym.run_tac(state, "exact h"), ProofFinished)
    """

    def __init__(self, backend: Backend, memory: int = 100_000, types: ModuleType | None = None) -> None:
        if memory < 2:
            raise UserError(f"memory is {memory}; a state and its successor need at least 2")
        self._dojo: Any = import_lean_dojo() if types is None else types
        self._backend, self._memory = backend, memory
        self._results: OrderedDict[Node, TacticResult] = OrderedDict()
        self._nodes: dict[int, Node] = {}
        self._steps = 0

    def reset(self, task: ProofTask) -> TacticState:
        """As `TacticGym.reset`; states of earlier tasks stay valid.

        Raises:
            DataError: if Lean cannot read the statement.
            UserError: for ``mode="file"``, which has no goals.
            InfrastructureError: if Lean could not decide.
        """
        if task.mode != "proof":
            raise UserError(f"task {task.name!r}: mode {task.mode!r} has no goals; use mode 'proof'")
        node = Node(replace(task, proof=""))
        result = self._results_of([node])[node]
        if isinstance(result, RlpostError):
            raise result
        if not isinstance(result, self._dojo.TacticState):
            shown = _one_line([getattr(result, "error", str(result))])
            raise DataError(f"task {task.name!r}: Lean shows no goal for {task.statement!r}: {shown}")
        return cast("TacticState", result)

    def run_tac(self, state: TacticState, tactic: str) -> TacticResult:
        """As `TacticGym.run_tac`. A tactic that uses up its CPU time or memory is a `LeanError`.

        Raises:
            UserError: for a state that does not come from this gym, or that it has forgotten.
            InfrastructureError: if Lean could not decide.
        """
        [result] = self.run_tacs([(state, tactic)])
        if isinstance(result, InfrastructureError):
            raise result
        return result

    def run_tacs(self, pairs: Sequence[tuple[TacticState, str]]) -> list[TacticResult | InfrastructureError]:
        """As `TacticGym.run_tacs`: one call of the backend for all pairs; equal ones are checked once.

        Raises:
            UserError: for a state that does not come from this gym, or that it has forgotten; nothing is run then.
        """
        nodes = [self._known_node(state) for state, _ in pairs]
        problems = [find_problem(tactic) for _, tactic in pairs]
        wanted = [
            Node(node.task, (*node.tactics, normalise(tactic))) if problem is None else None
            for node, problem, (_, tactic) in zip(nodes, problems, pairs, strict=True)
        ]
        found = self._results_of([node for node in wanted if node is not None])
        return [
            self._dojo.LeanError(problem) if node is None else _checkable(found[node])
            for node, problem in zip(wanted, problems, strict=True)
        ]

    def close(self) -> None:
        """Close the backend; repeated calls do nothing."""
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _known_node(self, state: TacticState) -> Node:
        if not isinstance(state, self._dojo.TacticState):
            raise UserError(f"a tactic cannot be run on {state!r}; give a TacticState")
        node = self._nodes.get(state.id)
        if node is None or self._results[node] != state:
            raise UserError(
                f"state {state.id} is unknown: another gym's, or older than the last {self._memory} results; "
                "start from reset or raise memory"
            )
        self._results.move_to_end(node)
        return node

    def _results_of(self, nodes: Sequence[Node]) -> dict[Node, TacticResult | RlpostError]:
        """The result of each node, where it cannot be told the error; decided ones are remembered."""
        found: dict[Node, TacticResult | RlpostError] = {}
        for node in nodes:
            if node in self._results:
                self._results.move_to_end(node)
                found[node] = self._results[node]
        fresh = [node for node in dict.fromkeys(nodes) if node not in found]
        for node, result in zip(fresh, self._compute(fresh) if fresh else (), strict=True):
            found[node] = result
            if not isinstance(result, RlpostError):
                self._results[node] = result
            if isinstance(result, self._dojo.TacticState):
                self._nodes[cast("TacticState", result).id] = node
        while len(self._results) > self._memory:
            forgotten, oldest = self._results.popitem(last=False)
            self._nodes.pop(getattr(oldest, "id", 0), None)
            self._forget(forgotten)
        return found

    def _compute(self, nodes: Sequence[Node]) -> list[TacticResult | RlpostError]:
        """The results of nodes that nothing is remembered of, in order; where it cannot be told, the error."""
        verdicts = self._backend.check([replace(node.task, proof=script(node.tactics)) for node in nodes])
        return [self._judged(verdict, node) for verdict, node in zip(verdicts, nodes, strict=True)]

    def _judged(self, verdict: Verdict, node: Node) -> TacticResult | RlpostError:
        try:
            return self._read(verdict, node, self._number())
        except (DataError, InfrastructureError) as error:
            return error

    def _number(self) -> int:
        """A number for a new result."""
        self._steps += 1
        return self._steps

    def _forget(self, node: Node) -> None:
        """Drop what is remembered of a node besides its result."""

    def _read(self, verdict: Verdict, node: Node, number: int) -> TacticResult:
        messages = [str(message) for message in verdict.evidence.get("messages", ())]
        if verdict.outcome == "undecided":
            detail = _one_line(messages)
            if verdict.reason == "statement_mismatch":
                raise DataError(f"task {node.task.name!r}: {detail.removeprefix(f'task {node.task.name!r}: ')}")
            where = f"task {node.task.name!r}, step {len(node.tactics)}"
            raise InfrastructureError(f"{where}: Lean could not judge ({verdict.reason}: {detail})")
        if verdict.outcome == "accepted":
            return self._dojo.ProofFinished(number)
        errors = [(match[1], match[2]) for match in map(_ERROR.fullmatch, messages) if match]
        goals: Sequence[str] = verdict.evidence.get("goals", ())
        fault = next((text for place, text in errors if not _is_open_block(place, text)), None)
        if fault is None and not errors and goals:
            # Evidence holds the first few messages only, and warnings about earlier steps can crowd out the errors.
            raise InfrastructureError(f"task {node.task.name!r}, step {len(node.tactics)}: the errors were cut off")
        if fault is not None or not errors:
            return self._dojo.LeanError(fault or "\n".join(messages) or verdict.reason)
        return self._state(goals or [errors[0][1].removeprefix(_UNSOLVED)], number)

    def _state(self, goals: Sequence[str], number: int) -> TacticResult:
        try:
            return self._dojo.TacticState("\n\n".join(goals), number)
        except AssertionError:
            # LeanDojo separates goals by ⊢ and empty lines; a tactic that puts these into a string defeats it.
            return self._dojo.LeanError(f"LeanDojo cannot parse the goals: {_one_line(goals)}")


def find_problem(tactic: str) -> str | None:
    """Why ``tactic`` must not be passed to Lean, or None if it may: `find_forbidden`, and unbalanced parentheses.

    >>> find_problem("exact h) (trivial")
    "')' closes nothing"
    >>> find_problem("exact f (g h)") is None
    True
    """
    if not tactic.strip():
        return "the tactic is empty"
    forbidden = find_forbidden(tactic)
    if forbidden is not None:
        return forbidden
    if mark := next((mark for mark in ("--", "/-") if mark in tactic), None):
        return f"{mark!r} opens a comment, which could hide the end of the step"
    depth = 0
    for character in tactic:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return "')' closes nothing"
    return "'(' is never closed" if depth else None


def normalise(tactic: str) -> str:
    r"""The tactic without surrounding space and common indentation, so that equal steps compare equal.

    >>> normalise("  cases h with\n  | inl a => exact a\n")
    'cases h with\n| inl a => exact a'
    """
    lines = textwrap.dedent(tactic).strip().split("\n")
    return "\n".join(line.rstrip() for line in lines)


def script(tactics: Sequence[str]) -> str:
    r"""The proof that the gym checks for these tactics, each normalised.

    >>> script(["intro p h", "exact h"])
    'by\n  skip\n  (intro p h)\n  (exact h)'
    """
    # Lines after the first are indented as far as the parenthesis moved the first, so columns keep their meaning.
    groups = ["  (" + tactic.replace("\n", "\n   ") + ")" for tactic in tactics]
    return "\n".join(["by", "  skip", *groups])


def _checkable(result: TacticResult | RlpostError) -> TacticResult | InfrastructureError:
    """The result; a fault of the statement, which Lean could read before, says nothing about the tactic."""
    if isinstance(result, RlpostError) and not isinstance(result, InfrastructureError):
        return InfrastructureError(str(result))
    return result


def _is_open_block(place: str, text: str) -> bool:
    return place == _BLOCK and text.startswith(_UNSOLVED)


def _one_line(texts: Sequence[str]) -> str:
    return " ".join(" ".join(texts).split())[:200]
