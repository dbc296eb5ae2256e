"""LeanDojo's own Dojo with the interface of `TacticGym`, for machines with a Lean toolchain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, Self

from rlpost.errors import DeadlineError, InfrastructureError, UserError
from rlpost_verifiers.lean.dojo.gym import find_problem
from rlpost_verifiers.lean.dojo.imports import import_lean_dojo
from rlpost_verifiers.lean.task import ProofTask

if TYPE_CHECKING:
    from rlpost_verifiers.lean.dojo.imports import TacticResult, TacticState


class RunsTactics(Protocol):
    """The part of `lean_dojo.Dojo` that is used once it has started."""

    def run_tac(self, state: Any, tactic: str) -> Any:
        """As `lean_dojo.Dojo.run_tac`."""
        ...


OpenDojo = Callable[[ProofTask], "AbstractContextManager[tuple[RunsTactics, Any]]"]
"""A function that makes a Dojo, not yet entered, for a task."""


class DojoGym:
    """`rlpost_verifiers.lean.dojo.gym.TacticGym` on LeanDojo: one Dojo at a time, a new one for each reset.

    Tactics are filtered as everywhere else, and a proof given up (`ProofGivenUp`, a ``sorry``) is a `LeanError`. A
    failure that ends a Dojo's process (a wall-clock limit, memory, a crash) says nothing certain about the tactic and
    is raised; the Dojo is then closed, and only `reset` can be called next.

    Args:
        open_dojo: makes the Dojo for a task; it must be about the task's theorem, which is not checked.

    Raises:
        MissingPackageError: if LeanDojo is not installed.

    Example::

        theorems = {row["id"]: Theorem(repository, row["file_path"], row["full_name"]) for row in rows}
        with DojoGym(lambda task: Dojo(theorems[task.name], timeout=60)) as gym:
            state = gym.reset(task)
    """

    def __init__(self, open_dojo: OpenDojo) -> None:
        self._lean_dojo: Any = import_lean_dojo()
        self._open_dojo = open_dojo
        self._entered: AbstractContextManager[tuple[RunsTactics, Any]] | None = None
        self._dojo: RunsTactics | None = None
        self._name = ""

    def reset(self, task: ProofTask) -> TacticState:
        """As `TacticGym.reset`; closes the previous task's Dojo, whose states become invalid.

        Raises:
            UserError: if the Dojo is one for commands and has no goals.
            DeadlineError: if it did not start in time.
            InfrastructureError: if it did not start.
        """
        self.close()
        self._name = task.name
        try:
            entered = self._open_dojo(task)
            dojo, state = entered.__enter__()
        except self._lean_dojo.DojoTacticTimeoutError as error:
            raise DeadlineError(f"task {task.name!r}: Dojo did not start in time") from error
        except (self._lean_dojo.DojoInitError, self._lean_dojo.DojoCrashError) as error:
            raise InfrastructureError(f"task {task.name!r}: Dojo did not start: {error}") from error
        self._entered, self._dojo = entered, dojo
        if not isinstance(state, self._lean_dojo.TacticState):
            self.close()
            raise UserError(f"task {task.name!r}: Dojo starts with {state!r}; make it from a lean_dojo.Theorem")
        return state

    def run_tac(self, state: TacticState, tactic: str) -> TacticResult:
        """As `TacticGym.run_tac`.

        Raises:
            UserError: for anything but a TacticState.
            DeadlineError: if the tactic ran into Dojo's time limit.
            InfrastructureError: if Dojo crashed, ran out of memory, or has ended before.
        """
        self._check_state(state)
        problem = find_problem(tactic)
        if problem is not None:
            return self._lean_dojo.LeanError(problem)
        if self._dojo is None:
            raise InfrastructureError("no Dojo is running; start one with reset")
        try:
            result = self._dojo.run_tac(state, tactic.strip())
        except self._lean_dojo.DojoTacticTimeoutError as error:
            self.close()
            raise DeadlineError(f"task {self._name!r}: {tactic!r} ran into Dojo's time limit") from error
        except self._lean_dojo.DojoCrashError as error:
            self.close()
            what = "ran out of memory" if error.is_out_of_memory else f"crashed ({error})"
            raise InfrastructureError(f"task {self._name!r}: Dojo {what} at {tactic!r}") from error
        if isinstance(result, self._lean_dojo.ProofGivenUp):
            return self._lean_dojo.LeanError("the proof contains sorry")
        return result

    def run_tacs(self, pairs: Sequence[tuple[TacticState, str]]) -> list[TacticResult | InfrastructureError]:
        """As `TacticGym.run_tacs`, one after the other: a Dojo runs one tactic at a time."""
        for state, _ in pairs:
            self._check_state(state)
        found: list[TacticResult | InfrastructureError] = []
        for pair in pairs:
            try:
                found.append(self.run_tac(*pair))
            except InfrastructureError as error:
                found.append(error)
        return found

    def _check_state(self, state: TacticState) -> None:
        if not isinstance(state, self._lean_dojo.TacticState):
            raise UserError(f"a tactic cannot be run on {state!r}; give a TacticState")

    def close(self) -> None:
        """End the Dojo that is running; repeated calls do nothing."""
        entered, self._entered, self._dojo = self._entered, None, None
        if entered is not None:
            entered.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
