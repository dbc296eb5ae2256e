"""Proof repair in turns: Lean answers a proof that it rejects with its messages, and the policy tries again.

    environment: {name: lean.repair, max_turns: 2, args: {form: term}}
    scoring: {rewards: [{name: turns}]}

All trajectories of an environment actor share one Lean. It ends with the actor, also with one that is killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlpost.data.prompts import fill
from rlpost.data.repair import told
from rlpost.errors import UserError
from rlpost.protocols import Reply, Turn
from rlpost.types import VerifyItem
from rlpost_verifiers.lean.environments.shared import shared_verifier
from rlpost_verifiers.lean.verifier import LeanVerifier

TEMPLATE = "Lean does not accept this proof:\n{messages}\nGive the whole answer again, with a proof that it accepts."
"""What the policy reads after a rejected proof, unless ``template`` says otherwise."""


class LeanRepair:
    """Verifies each turn's proof. Implements `rlpost.protocols.Environment` and `VerifiedEnvironment`.

    An accepted proof ends the trajectory with reward 1. A rejected one gets reward 0, and Lean's messages as the
    observation; in the last turn it ends the trajectory. A check that stays undecided, after the verifier's own
    repetitions, ends the trajectory undecided. Every turn's verdict is the audited one of `LeanVerifier`.

    Args:
        template: the observation, with the fields ``{messages}`` and any column of the prompt's row.
        max_messages: number of Lean's messages that are told, errors first.
        max_characters: length of all messages together. Keep the whole observation within
            ``environment.observation_tokens``, where it would be cut at its end.
        timeout_s: CPU time limit of one check in seconds. ``environment.timeout_s`` must be longer than the wall-clock
            limits of a check and its repetitions, which are 20 s each by default.
        settings: further arguments of `LeanVerifier`: ``backend``, ``workers``, ``form``, ``extract``, ….

    Raises:
        UserError: for a template without ``{messages}``, or a limit below 1.
    """

    def __init__(
        self,
        template: str = TEMPLATE,
        max_messages: int = 3,
        max_characters: int = 1000,
        timeout_s: float = 5.0,
        **settings: Any,
    ) -> None:
        if "{messages}" not in template:
            raise UserError(f"template is {template!r}; it must hold {{messages}}, where Lean's messages go")
        if max_messages < 1 or max_characters < 1:
            raise UserError(f"max_messages is {max_messages} and max_characters {max_characters}; give 1 or more")
        self._template, self._limits = template, (max_messages, max_characters)
        self._settings = {**settings, "timeout_s": timeout_s}
        self._row: Mapping[str, Any] = {}

    @property
    def verifier(self) -> LeanVerifier:
        """The verifier that all environments of this process with these settings share; started on first use."""
        return shared_verifier(**self._settings)

    def begin(self, row: Mapping[str, Any], seed: int) -> None:
        """Take the row; the prompt says all that the policy needs to begin."""
        self._row = row

    def reply(self, turn: Turn) -> Reply:
        """Verify a turn's proof.

        Raises:
            DataError: for a row that is no proof task, or lacks a column that the template asks for.
            InfrastructureError: if Lean cannot be started.
        """
        [verdict] = self.verifier.verify_batch([VerifyItem(self._row, turn.text)])
        if verdict.outcome == "undecided":
            return Reply(done=True, verdict=verdict)
        if verdict.outcome == "accepted":
            return Reply(done=True, reward=1.0, verdict=verdict)
        if turn.last:
            return Reply(done=True, reward=0.0, verdict=verdict)
        messages = told(verdict.evidence.get("messages") or [verdict.reason], *self._limits)
        return Reply(observation(self._template, messages, self._row), reward=0.0, verdict=verdict)

    def close(self) -> None:
        """Do nothing: what is open belongs to all trajectories of the process."""


def observation(template: str, messages: str, row: Mapping[str, Any]) -> str:
    r"""The template with the messages and the row's columns filled in.

    Raises:
        DataError: for a column that the row lacks, or that is no text.

    >>> observation("{messages}\n{statement} :=", "error: no", {"statement": "True"})
    'error: no\\nTrue :='
    """
    return fill(template, {**row, "messages": messages}, "environment.args.template")
