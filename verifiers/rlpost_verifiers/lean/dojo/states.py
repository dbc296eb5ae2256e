"""LeanDojo's three answers to a tactic, for those who have no LeanDojo installed or cannot wait for its import.

Names and attributes are those of ``lean_dojo.TacticState``, ``lean_dojo.ProofFinished`` and ``lean_dojo.LeanError``, of
which these hold what a gym needs; goals stay text.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TacticState:
    """The open goals.

    Attributes:
        pp: all goals as Lean prints them, separated by empty lines.
        id: number of the state in its gym.
    """

    pp: str
    id: int


@dataclass(frozen=True, slots=True)
class ProofFinished:
    """No goal is left, and the whole proof is accepted.

    Attributes:
        tactic_state_id: number of the state in its gym.
    """

    tactic_state_id: int


@dataclass(frozen=True, slots=True)
class LeanError:
    """The tactic failed.

    Attributes:
        error: what Lean says, or why the tactic was not passed to Lean.
    """

    error: str
