"""The environment ``lean.tactics``: the policy proves a theorem tactic by tactic and reads Lean's goals in between."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from rlpost.errors import DataError, InfrastructureError, UserError
from rlpost.protocols import Reply, Turn
from rlpost.types import Prompt, Verdict, VerifyItem
from rlpost_verifiers.lean.conformance.gate import Report
from rlpost_verifiers.lean.dojo.gym import script
from rlpost_verifiers.lean.dojo.states import LeanError, ProofFinished
from rlpost_verifiers.lean.environments.shared import SharedVerifier, shared_verifier
from rlpost_verifiers.lean.environments.tactic_text import read_tactic
from rlpost_verifiers.lean.extract import NoProofError
from rlpost_verifiers.lean.task import ProofTask

OnError = Literal["retry", "end"]
First = Literal["prompt", "state"]
_CUT = " …"


class TacticProof:
    """One proof. An observation is the open goals as Lean prints them, a turn one tactic.

    A prompt's columns are those of `LeanVerifier`: ``statement``, and perhaps ``header``, ``binders``, ``context``. A
    turn that holds no tactic which Lean accepts on the present goals is a failure, and so is a tactic that uses up its
    time or memory, that must not be passed to Lean (``sorry``, commands, options), or that leads back to goals that
    were there before. It may be several lines; code blocks, ``by``, comments and end tokens around it are taken off.

    The trajectory ends with reward 1 and an accepted verdict when no goal is left and the verifier accepts the proof
    that the tactics make, under the same rules as any other proof. What Lean cannot decide is asked again
    (``retries``), and then leaves the trajectory undecided.

    Args:
        on_error: what a failure does: ``retry``: the policy reads the error and the goals, which are as before, and has
            used up a turn; ``end``: the trajectory ends, rejected.
        first: where the first goals are: in the ``prompt`` already, or in a ``state`` that follows it.
        template: observation after a tactic, with ``{state}``.
        error_template: observation after a failure, with ``{error}`` and ``{state}`` as far as wanted.
        state_chars: most characters of goals or errors in an observation; more are cut off, marked by ``…``.
        step_reward: reward of a tactic that succeeds and leaves goals.
        error_reward: reward of one that fails.
        lean: further arguments of `LeanVerifier`: ``backend``, ``timeout_s`` (CPU seconds of a step), ``workers``,
            ``retries``, ``memory_mb``, …

    Raises:
        UserError: for a setting that makes no sense.
    """

    def __init__(
        self,
        on_error: OnError = "retry",
        first: First = "prompt",
        template: str = "{state}",
        error_template: str = "{error}\n\n{state}",
        state_chars: int = 4000,
        step_reward: float = 0.0,
        error_reward: float = 0.0,
        **lean: Any,
    ) -> None:
        for key, value, known in (("on_error", on_error, OnError), ("first", first, First)):
            if value not in get_args(known):
                raise UserError(f"{key} is {value!r}; use {' or '.join(map(repr, get_args(known)))}")
        for key, value in (("step_reward", step_reward), ("error_reward", error_reward)):
            if not math.isfinite(value):
                raise UserError(f"{key} is {value!r}; give a finite number")
        if state_chars < 1:
            raise UserError(f"state_chars is {state_chars}; give 1 or more")
        check_template("template", template, {"state"})
        check_template("error_template", error_template, {"error", "state"})
        self._on_error, self._first = on_error, first
        self._template, self._error_template, self._chars = template, error_template, state_chars
        self._step_reward, self._error_reward = step_reward, error_reward
        self._settings = lean
        self._tactics: list[str] = []
        self._seen: set[str] = set()
        self._lean: Any = None
        self._task = ProofTask("", "")
        self._state: Any = None

    @property
    def verifier(self) -> TacticVerifier:
        """The verifier of whole proofs that all environments of this process with these settings share."""
        return TacticVerifier(self._open())

    def begin(self, row: Mapping[str, Any], seed: int) -> str | None:
        """Open the row's theorem.

        Returns:
            The first goals, None where the prompt has them.

        Raises:
            DataError: for a row that is no theorem, or whose statement Lean cannot read.
            InfrastructureError: if Lean could not decide.
        """
        self._lean = self._open()
        self._task = _theorem(self._lean.task(row))
        with self._lean.lock:
            self._state = self._lean.gym.reset(self._task)
        self._seen.add(self._state.pp)
        return self._fill(self._template) if self._first == "state" else None

    def reply(self, turn: Turn) -> Reply:
        """Run the turn's tactic.

        Raises:
            InfrastructureError: if Lean could not decide, which says nothing about the tactic.
        """
        try:
            tactic = read_tactic(turn.text)
        except NoProofError as error:
            return self._failure(str(error))
        with self._lean.lock:
            result: Any = self._lean.gym.run_tac(self._state, tactic)
        if isinstance(result, LeanError):
            return self._failure(result.error)
        if isinstance(result, ProofFinished):
            return self._finish(tactic)
        if result.pp in self._seen:
            return self._failure("no progress: the goals are what they were before")
        self._tactics.append(tactic)
        self._state = result
        self._seen.add(result.pp)
        return Reply(self._fill(self._template), reward=self._step_reward, verdict=self._unproved("unfinished"))

    def close(self) -> None:
        """Do nothing: Lean is shared, and ends with the process or its verifier."""

    def _open(self) -> SharedVerifier:
        return shared_verifier(**self._settings)

    def _finish(self, tactic: str) -> Reply:
        """The end of the proof, if the verifier accepts all of it."""
        proof = script([*self._tactics, tactic])
        [verdict] = self._lean.verify_tasks([replace(self._task, proof=proof)])
        said = " ".join(map(str, verdict.evidence.get("messages", ())))
        if verdict.outcome == "undecided":
            raise InfrastructureError(
                f"task {self._task.name!r}: Lean could not judge ({verdict.reason}: {said[:200]})"
            )
        if verdict.outcome == "rejected":
            return self._failure(f"the whole proof is not accepted ({verdict.reason}): {said}")
        return Reply(done=True, reward=1.0, verdict=verdict)

    def _failure(self, error: str) -> Reply:
        verdict = self._unproved("failed", error)
        if self._on_error == "end":
            return Reply(done=True, reward=self._error_reward, verdict=verdict, failed=True)
        return Reply(self._fill(self._error_template, error), reward=self._error_reward, verdict=verdict, failed=True)

    def _unproved(self, reason: str, *messages: str) -> Verdict:
        evidence = {"messages": [message[: self._chars] for message in messages], "goals": self._state.pp}
        return Verdict("rejected", 0.0, reason, evidence=evidence, backend=self._lean.fingerprint)

    def _fill(self, template: str, error: str = "") -> str:
        return template.format(state=self._cut(self._state.pp), error=self._cut(error))

    def _cut(self, text: str) -> str:
        return text if len(text) <= self._chars else text[: self._chars] + _CUT


class TacticVerifier:
    """The shared verifier as start checks see it: it also refuses prompts that have no goals.

    Implements `rlpost.protocols.Verifier` and `rlpost.protocols.SelfTestingVerifier`.

    Args:
        lean: the verifier; closed together with this one.
    """

    def __init__(self, lean: SharedVerifier) -> None:
        self._lean = lean

    @property
    def fingerprint(self) -> str:
        """See `LeanVerifier.fingerprint`."""
        return self._lean.fingerprint

    def verify_batch(self, items: Sequence[VerifyItem]) -> list[Verdict]:
        """See `LeanVerifier.verify_batch`."""
        return self._lean.verify_batch(items)

    def conformance(self) -> Report:
        """See `LeanVerifier.conformance`."""
        return self._lean.conformance()

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Refuse prompts that are no theorems, and statements that Lean cannot read.

        Raises:
            DataError: with the first of them.
        """
        for prompt in prompts:
            _theorem(self._lean.task(prompt.columns))
        self._lean.check_prompts(prompts)

    def close(self) -> None:
        """See `SharedVerifier.close`."""
        self._lean.close()


def _theorem(task: ProofTask) -> ProofTask:
    if task.mode != "proof":
        raise DataError(f"prompt {task.name!r}: mode {task.mode!r} has no goals; tactics need mode 'proof'")
    return task


def check_template(key: str, template: str, fields: set[str]) -> None:
    """Raise UserError for a template that `str.format` cannot fill with these fields, or that is empty."""
    try:
        found = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise UserError(f"{key} is {template!r} ({error}); write braces twice where they are text") from None
    if not found <= fields:
        raise UserError(f"{key} is {template!r}; it may have {', '.join(f'{{{name}}}' for name in sorted(fields))}")
    if not template:
        raise UserError(f"{key} is empty; the policy would have nothing to answer")
