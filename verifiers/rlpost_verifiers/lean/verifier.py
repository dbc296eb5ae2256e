"""The verifier a configuration names: answers in, verdicts out, equal questions asked once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import get_args

from rlpost.errors import UserError
from rlpost.types import Verdict, VerifyItem
from rlpost_verifiers.cache import VerdictCache, as_cached
from rlpost_verifiers.lean.embedded.backend import EmbeddedLean, rejected_unread
from rlpost_verifiers.lean.source import Extract, NoProofError, Trailing, extract_proof
from rlpost_verifiers.lean.task import ProofTask, parse_task

_TASK_COLUMNS = ("statement", "header", "binders", "mode")


class LeanVerifier:
    """Accepts an answer if and only if it proves the prompt's statement in Lean.

    Implements `rlpost.protocols.Verifier`. A prompt's columns must hold ``statement`` and may hold ``header`` and
    ``binders``; the proof is taken from the answer's text.

    Args:
        timeout_s: CPU seconds of one check.
        workers: checks that run at the same time.
        memory_mb: address space of one check in MiB.
        extract: ``raw`` (the answer is the proof) or ``fence`` (the last ```` ```lean ```` block is).
        trailing: ``reject`` or ``allow`` text after that block.
        cache_size: decided verdicts kept in memory.

    Raises:
        UserError: for a setting that makes no sense.
        MissingPackageError: if Lean is not installed.
        InfrastructureError: if Lean cannot be started.

    Example::

        with LeanVerifier() as verifier:
            [verdict] = verifier.verify_tasks([ProofTask("∀ p : Prop, p → p", "fun _ h => h")])
    """

    def __init__(
        self,
        timeout_s: float = 10.0,
        workers: int = 1,
        memory_mb: int = 6144,
        extract: Extract = "raw",
        trailing: Trailing = "reject",
        cache_size: int = 100_000,
    ) -> None:
        for key, value, known in (("extract", extract, get_args(Extract)), ("trailing", trailing, get_args(Trailing))):
            if value not in known:
                raise UserError(f"{key} is {value!r}; use {' or '.join(map(repr, known))}")
        self._extract: Extract = extract
        self._trailing: Trailing = trailing
        self._cache = VerdictCache(cache_size)
        self._lean = EmbeddedLean(workers=workers, cpu_seconds=timeout_s, memory_mb=memory_mb)

    @property
    def fingerprint(self) -> str:
        """Name, version and a hash of prelude, limits and rules."""
        return self._lean.fingerprint

    def verify_batch(self, items: Sequence[VerifyItem]) -> list[Verdict]:
        """One verdict for each item, in order; an answer without a proof in it is rejected as ``filtered``.

        Raises:
            DataError: for an item whose columns hold no statement, or one that could not be checked as what it claims
                to be. That is a fault of the data set, which no verdict on an answer can express.
            UserError: for ``mode: file``.
            InfrastructureError: after `close`.
        """
        verdicts: list[Verdict | None] = []
        tasks: list[ProofTask] = []
        for item in items:
            try:
                tasks.append(self._task(item))
                verdicts.append(None)
            except NoProofError as error:
                verdicts.append(rejected_unread(str(error), self.fingerprint))
        found = iter(self.verify_tasks(tasks))
        return [next(found) if verdict is None else verdict for verdict in verdicts]

    def verify_tasks(self, tasks: Sequence[ProofTask]) -> list[Verdict]:
        """One verdict for each task, in order; equal tasks are checked once, decided ones remembered.

        Raises:
            DataError: for a statement that could not be checked as what it claims to be, or that Lean cannot read.
            UserError: for ``mode="file"``.
            InfrastructureError: after `close`.
        """
        for task in tasks:
            if task.mode != "proof":
                raise UserError(
                    f"task {task.name!r}: mode {task.mode!r} is not supported by the embedded backend; use mode 'proof'"
                )
        keys = [self._key(task) for task in tasks]
        known = {key: verdict for key in set(keys) if (verdict := self._cache.get(key)) is not None}
        fresh = {key: task for key, task in zip(keys, tasks, strict=True) if key not in known}
        checked = dict(zip(fresh, self._lean.check(list(fresh.values())), strict=True))
        for key, verdict in checked.items():
            self._cache.put(key, verdict)
        verdicts: list[Verdict] = []
        for key in keys:
            verdict = known.get(key) or checked[key]
            verdicts.append(verdict)
            known[key] = verdict if verdict.outcome == "undecided" else as_cached(verdict)
        return verdicts

    def close(self) -> None:
        """End every process this verifier started; repeated calls do nothing."""
        self._lean.close()

    def __enter__(self) -> LeanVerifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _task(self, item: VerifyItem) -> ProofTask:
        name = str(item.columns.get("id") or item.columns.get("name") or "X")
        row = {key: item.columns[key] for key in _TASK_COLUMNS if key in item.columns}
        # The columns are the data set's: they are judged before the model's text is even looked at.
        task = parse_task({**row, "name": name, "proof": ""}, f"prompt {name!r}")
        proof = extract_proof(item.text, self._extract, self._trailing)
        return ProofTask(task.statement, proof, task.name, task.header, task.binders, task.mode)

    def _key(self, task: ProofTask) -> str:
        parts = [self.fingerprint, task.header, task.binders, task.statement, task.proof]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
