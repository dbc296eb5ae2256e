"""Proofs tactic by tactic for a search, on a gym: which texts are whole tactics, and what became of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlpost.errors import DataError, InfrastructureError, UserError
from rlpost.protocols import ProofStep
from rlpost_verifiers.lean.dojo.gym import TacticGym, find_problem, normalise, script
from rlpost_verifiers.lean.task import ProofTask

_FENCE = "```"
# What cannot end a tactic: more of it stands on the next line, or after a separator that was cut inside it.
_OPEN_END = re.compile(r"(?:(?<![\w.])(?:by|with|at|using|from|then|else|do|calc)|:=|=>|<|,|·|\(|\[|\{|⟨)\s*\Z")
# Lean's words for a step whose text ended too early: a block with goals left, a bracket, a missing argument or case.
_TOO_SHORT = re.compile(
    r"unsolved goals|unexpected token '\)'|'\(' is never closed|[Aa]lternative .* not been provided"
)


class LeanTactics:
    """`rlpost.protocols.Tactics` on a `TacticGym`.

    Args:
        gym: runs the tactics.
        task: the proof task of a row with this name, its proof empty.
        extract: how the verifier finds the proof in an answer; see `rlpost_verifiers.lean.extract.ExtractSettings`.
    """

    def __init__(self, gym: TacticGym, task: Callable[[Any, str], ProofTask], extract: str):
        self._gym, self._task, self._extract = gym, task, extract

    def begin(self, columns: Mapping[str, Any]) -> ProofStep:
        """The state before any tactic; ``failed`` for a statement that has no goals, as in file mode."""
        try:
            state = self._gym.reset(self._task(columns, str(columns.get("name") or "X")))
        except InfrastructureError as error:
            return ProofStep("undecided", detail=str(error))
        except (DataError, UserError) as error:
            return ProofStep("failed", detail=str(error))
        return ProofStep("open", state, state.pp)

    def run(self, steps: Sequence[tuple[Any, str]]) -> list[ProofStep]:
        """See `rlpost.protocols.Tactics`. A step may be several tactics; what follows a closing fence is left out."""
        found: list[ProofStep | None] = [_without_lean(_tactic(text)) for _, text in steps]
        asked = [(state, _tactic(text)) for (state, text), known in zip(steps, found, strict=True) if known is None]
        results = iter(self._results(asked))
        return [_step(next(results)) if known is None else known for known in found]

    def _results(self, asked: Sequence[tuple[Any, str]]) -> list[Any]:
        """Results of the gym. A state that it has forgotten must not cost the others theirs."""
        try:
            return list(self._gym.run_tacs(asked))
        except UserError as error:
            if len(asked) == 1:
                return [InfrastructureError(str(error))]
            return [result for one in asked for result in self._results([one])]

    def answer(self, tactics: Sequence[str]) -> str:
        """The tactics as the gym has checked them, in a block of their own where the verifier reads one only."""
        proof = script([normalise(_tactic(text)) for text in tactics])
        return f"```lean\n{proof}\n```" if self._extract == "fence" else proof


def _tactic(text: str) -> str:
    return text.partition(_FENCE)[0].rstrip()


def _without_lean(tactic: str) -> ProofStep | None:
    """What can be said of a step without running it."""
    if not tactic.strip():
        return ProofStep("blank")
    if _OPEN_END.search(tactic):
        return ProofStep("unfinished", detail="it ends where more must follow")
    problem = find_problem(tactic)
    if problem is None:
        return None
    return ProofStep("unfinished" if _TOO_SHORT.match(problem) else "failed", detail=problem)


def _step(result: Any) -> ProofStep:
    if isinstance(result, InfrastructureError):
        return ProofStep("undecided", detail=str(result))
    error = getattr(result, "error", None)
    if error is not None:
        return ProofStep("unfinished" if _TOO_SHORT.match(error) else "failed", detail=error)
    goals = getattr(result, "pp", None)
    return ProofStep("proved") if goals is None else ProofStep("open", result, goals)
