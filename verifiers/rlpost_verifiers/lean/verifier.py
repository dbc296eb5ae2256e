"""The Lean verifier that a configuration names: turns answers into verdicts and checks equal tasks once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rlpost.errors import DataError, UserError
from rlpost.paths import cache_folder
from rlpost.plugins.registry import resolve
from rlpost.types import Prompt, Verdict, VerifyItem
from rlpost_verifiers.cache import VerdictCache, as_cached
from rlpost_verifiers.lean.backend import Backend, filtered
from rlpost_verifiers.lean.blame import settle_crashes, settle_timeouts
from rlpost_verifiers.lean.conformance.gate import Report, examine
from rlpost_verifiers.lean.dojo.gym import ReplayGym
from rlpost_verifiers.lean.embedded.backend import EmbeddedLean
from rlpost_verifiers.lean.extract import (
    Extract,
    ExtractSettings,
    Fences,
    Form,
    NoProofError,
    Restated,
    Trailing,
    extract_task,
)
from rlpost_verifiers.lean.filter import split_imports
from rlpost_verifiers.lean.given import read_given
from rlpost_verifiers.lean.places import in_answer
from rlpost_verifiers.lean.proving import LeanTactics
from rlpost_verifiers.lean.subgoals import answered, judge
from rlpost_verifiers.lean.task import ProofTask, parse_task
from rlpost_verifiers.lean.text import normal_form

BACKENDS = {
    "embedded": "rlpost_verifiers.lean.embedded.backend:EmbeddedLean",
    "cli": "rlpost_verifiers.lean.toolchain.cli:LeanCli",
    "repl": "rlpost_verifiers.lean.toolchain.repl:LeanRepl",
    "kimina": "rlpost_verifiers.lean.toolchain.kimina:KiminaServer",
}
"""The backends by name: Lean from a pip package, Lean's command line, its REPL, and a Kimina server."""

_ARGUMENTS = {"kimina": ("timeout_s", "concurrency")}
"""A backend's arguments for time limit and parallel checks, if not ``cpu_seconds`` and ``workers``."""

_TASK_COLUMNS = ("statement", "header", "binders", "mode", "theorem", "context")
_SETS_HEARTBEATS = re.compile(r"^\s*set_option\s+maxHeartbeats\b", re.MULTILINE)
_PASSING = ("unavailable", "timeout")
"""Reasons of undecided verdicts that may be transient; what is left is looked into by `rlpost_verifiers.lean.blame`."""
_FIRST_PAUSE_SECONDS = 0.5
_GATE_CACHE = 1000
"""Verdicts that the conformance test keeps, more than it has cases."""


class LeanVerifier:
    """Accepts an answer if and only if it proves the prompt's statement in Lean.

    Implements `rlpost.protocols.Verifier`. A prompt's columns must hold ``statement`` and may hold ``header``,
    ``binders``, ``mode``, ``context`` and ``theorem``, the theorem's name; the proof (in file mode: the file) is taken
    from the answer's text.

    Args:
        backend: a name in `BACKENDS`, or a running backend.
        timeout_s: CPU time limit of one check in seconds; for a Kimina server, its wall-clock limit.
        workers: number of checks that run at the same time.
        extract: ``declarations`` (the theorem and what it needs, as provers write them, or the bare proof), ``raw``
            (the answer is the proof), ``fence`` (a ```` ```lean ```` block of it is), or ``continued`` (the answer
            continues a block that the prompt opened).
        trailing: ``reject`` or ``allow`` text after that block.
        fences: the block that counts: the ``last``, the ``first``, or the ``only`` one.
        form: ``any``, ``term`` or ``tactic``: whether the prompt ends in ``:=`` or, for ``tactic``, in ``:= by``.
        restated: ``reject`` or ``allow`` answers that write the theorem out. `ExtractSettings` has the details.
        max_heartbeats: Lean's limit on the work of one declaration, where the row's ``header`` sets none; 0 is no
            limit, so that only ``timeout_s`` ends a check; None is Lean's own limit (200000). An answer may set
            its own.
        retries: repetitions of a check that failed for a transient reason (an unreachable backend, a wall-clock
            timeout), after half a second, then one, then two … A check that ended Lean's process is repeated once,
            alone; a proof that ends it again, while a gold proof is accepted, is rejected as ``crashed_twice``. So is
            one that runs out of wall-clock time again while gold proofs are quick, as ``timeout_twice``.
        cache_size: number of decided verdicts kept in memory.
        subgoals: say of each ``have`` step of a rejected proof whether it is proved and needed, as the items of the
            verdict, for the reward ``subgoals``; see `rlpost_verifiers.lean.subgoals`.
        max_subgoals: number of steps n that are looked at in one proof, at a cost of at most 3n + 2 further checks.
        cache_dir: folder that keeps them across runs; ``auto`` is a folder of the user's cache, None keeps none.
        settings: further arguments of the backend, e.g. ``memory_mb``, ``project``, ``url``.

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
        backend: Backend | str = "embedded",
        timeout_s: float = 10.0,
        workers: int = 1,
        extract: Extract = "declarations",
        trailing: Trailing = "reject",
        fences: Fences = "last",
        form: Form = "any",
        restated: Restated = "reject",
        max_heartbeats: int | None = None,
        retries: int = 1,
        cache_size: int = 100_000,
        cache_dir: str | None = None,
        subgoals: bool = False,
        max_subgoals: int = 6,
        **settings: Any,
    ) -> None:
        if retries < 0:
            raise UserError(f"retries is {retries}; give 0 or more")
        if max_heartbeats is not None and (isinstance(max_heartbeats, bool) or max_heartbeats < 0):
            raise UserError(f"max_heartbeats is {max_heartbeats}; give 0 for no limit, or a positive number")
        self._heartbeats = max_heartbeats
        self._readable: set[str] = set()
        if max_subgoals < 1:
            raise UserError(f"max_subgoals is {max_subgoals}; give 1 or more, or subgoals: false")
        self._subgoals = max_subgoals if subgoals else 0
        self._extract = ExtractSettings(extract, trailing, fences, form, restated)
        self._retries, self._closing = retries, threading.Event()
        self._cache = VerdictCache(cache_size, _folder(cache_dir))
        self._backend = _open(backend, timeout_s, workers, settings) if isinstance(backend, str) else backend

    normal_form = staticmethod(normal_form)
    """See `rlpost.protocols.NormalisingVerifier`."""

    @property
    def fingerprint(self) -> str:
        """The backend's fingerprint: name, version and a hash of everything else a verdict could depend on."""
        return self._backend.fingerprint

    def verify_batch(self, items: Sequence[VerifyItem]) -> list[Verdict]:
        """One verdict for each item, in order; an answer that contains no proof is rejected as ``filtered``.

        Messages give places in the answer's own text; see `rlpost_verifiers.lean.places`.

        Raises:
            DataError: for an item whose columns do not form a proof task.
            InfrastructureError: after `close`.
        """
        verdicts: list[Verdict | None] = [None] * len(items)
        tasks: dict[int, ProofTask] = {}
        for place, item in enumerate(items):
            try:
                tasks[place] = self._task(item)
            except NoProofError as error:
                verdicts[place] = filtered(str(error), self.fingerprint)
        found = dict(zip(tasks, self.verify_tasks(list(tasks.values())), strict=True))
        verified = {place: in_answer(one, tasks[place], items[place].text) for place, one in found.items()}
        if self._subgoals:
            rejected = {place: tasks[place] for place, one in verified.items() if one.outcome == "rejected"}
            asking = {place: judge(items[place].text, task, self._subgoals) for place, task in rejected.items()}
            parts = answered(asking, self.verify_tasks)
            verified |= {place: replace(verified[place], items=found) for place, found in parts.items()}
        return [verified[place] if verdict is None else verdict for place, verdict in enumerate(verdicts)]

    def verify_tasks(self, tasks: Sequence[ProofTask]) -> list[Verdict]:
        """One verdict for each task, in order; equal tasks are checked once, decided ones are cached.

        A statement that Lean cannot read leaves its task undecided with reason ``statement_mismatch``: that is a fault
        of the data set, for which no answer may be scored. `check_prompts` finds it before training.

        Raises:
            InfrastructureError: after `close`.
        """
        keys = [self._key(task) for task in tasks]
        known = {key: verdict for key in dict.fromkeys(keys) if (verdict := self._cache.get(key)) is not None}
        fresh = {key: task for key, task in zip(keys, tasks, strict=True) if key not in known}
        checked = dict(zip(fresh, self._check(list(fresh.values())), strict=True))
        for key, verdict in checked.items():
            self._cache.put(key, verdict)
        verdicts: list[Verdict] = []
        for key in keys:
            verdict = known.get(key) or checked[key]
            verdicts.append(verdict)
            known[key] = verdict if verdict.outcome == "undecided" else as_cached(verdict)
        return verdicts

    async def averify_batch(self, items: Sequence[VerifyItem]) -> list[Verdict]:
        """`verify_batch` without blocking the event loop."""
        return await asyncio.to_thread(self.verify_batch, items)

    async def averify_tasks(self, tasks: Sequence[ProofTask]) -> list[Verdict]:
        """`verify_tasks` without blocking the event loop."""
        return await asyncio.to_thread(self.verify_tasks, tasks)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closing.is_set()

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Refuse a data set with statements that Lean cannot read, before anything is trained on it.

        Raises:
            DataError: with the number of such statements, and the prompt and reason of the first.
            InfrastructureError: if Lean is unavailable.
        """
        tasks = {self._key(task): task for task in (self._bare_task(prompt.columns, prompt.id) for prompt in prompts)}
        problems = self._read(tasks)
        bad = [(tasks[key], problem) for key, problem in problems.items() if problem is not None]
        if bad:
            task, problem = bad[0]
            raise DataError(
                f"{len(bad)} of {len(tasks)} statements cannot be read; first, prompt {task.name!r}: {problem}"
            )

    def read_theorems(
        self, path: str, *, id_key: str, shown: Collection[str] | None
    ) -> list[tuple[dict[str, Any], str | None]]:
        """See `rlpost.protocols.ProvingVerifier`, and `rlpost_verifiers.lean.given.read_given` for the rows."""
        return read_given(path, id_key=id_key, fields=shown)

    def unverifiable(self, prompts: Sequence[Prompt]) -> list[str | None]:
        """For each prompt why Lean cannot read its statement, or None; columns that form no task count as unreadable.

        Raises:
            InfrastructureError: if Lean is unavailable.
        """
        keys: list[str] = []
        tasks: dict[str, ProofTask] = {}
        known: dict[str, str | None] = {}
        for number, prompt in enumerate(prompts):
            try:
                task = self._bare_task(prompt.columns, prompt.id)
                keys.append(self._key(task))
                tasks[keys[-1]] = task
            except DataError as error:
                keys.append(f"no task: {number}")
                known[keys[-1]] = str(error)
        known.update(self._read(tasks))
        return [known[key] for key in keys]

    def tactics(self) -> LeanTactics:
        """Proofs tactic by tactic on this verifier's Lean.

        Raises:
            MissingPackageError: if LeanDojo is not installed.
        """
        return LeanTactics(ReplayGym(self._backend), self._bare_task, self._extract.extract)

    def conformance(self) -> Report:
        """Verify gold proofs and cheats as training does, except that no verdict of an earlier run counts; see
        `rlpost_verifiers.lean.conformance.gate.examine`.
        """
        kept, self._cache = self._cache, VerdictCache(_GATE_CACHE, None)
        try:
            return examine(self, self._backend.modes, self._extract)
        finally:
            self._cache.close()
            self._cache = kept

    def probe(self) -> dict[str, str]:
        """What a check of the embedded backend is able to do to this machine; empty for other backends."""
        return self._backend.probe() if isinstance(self._backend, EmbeddedLean) else {}

    def close(self) -> None:
        """End every process this verifier started; repeated calls do nothing."""
        self._closing.set()
        self._backend.close()
        self._cache.close()

    def __enter__(self) -> LeanVerifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, tasks: Mapping[str, ProofTask]) -> dict[str, str | None]:
        """For each task by its key why Lean cannot read its statement, or None; what can be read is asked once."""
        fresh = {key: task for key, task in tasks.items() if key not in self._readable}
        problems = dict(zip(fresh, self._backend.read_statements(list(fresh.values())), strict=True))
        self._readable.update(key for key, problem in problems.items() if problem is None)
        return {key: problems.get(key) for key in tasks}

    def _check(self, tasks: Sequence[ProofTask]) -> list[Verdict]:
        verdicts = self._backend.check(tasks)
        for attempt in range(self._retries):
            again = [i for i, v in enumerate(verdicts) if v.outcome == "undecided" and v.reason in _PASSING]
            if not again or self._closing.wait(_FIRST_PAUSE_SECONDS * 2**attempt):
                break
            for i, verdict in zip(again, self._backend.check([tasks[i] for i in again]), strict=True):
                verdicts[i] = verdict
        return settle_timeouts(self._backend, tasks, settle_crashes(self._backend, tasks, verdicts))

    def _task(self, item: VerifyItem) -> ProofTask:
        # The columns come from the data set: an error in them must not depend on the model's text.
        task = self._bare_task(item.columns, str(item.columns.get("id") or item.columns.get("name") or "X"))
        return extract_task(item.text, task, self._extract)

    def _bare_task(self, columns: Any, name: str) -> ProofTask:
        row = {key: columns[key] for key in _TASK_COLUMNS if key in columns}
        task = parse_task({**row, "name": name, "proof": ""}, f"prompt {name!r}")
        if self._heartbeats is None or _SETS_HEARTBEATS.search(task.header):
            return task
        imports, rest = split_imports(task.header)
        lines = (*(f"import {module}" for module in imports), f"set_option maxHeartbeats {self._heartbeats}", rest)
        return replace(task, header="\n".join(lines).strip())

    def _key(self, task: ProofTask) -> str:
        parts = [self.fingerprint, task.mode, task.header, task.binders, task.statement, task.proof]
        parts += [task.context, task.theorem if task.mode == "declarations" else ""]
        # With ASCII escapes, two lone surrogates in a row would equal the character that the pair encodes.
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()


def _open(name: str, timeout_s: float, workers: int, settings: dict[str, Any]) -> Backend:
    if name not in BACKENDS:
        raise UserError(f"backend is {name!r}; use {', '.join(map(repr, BACKENDS))}")
    limit, parallel = _ARGUMENTS.get(name, ("cpu_seconds", "workers"))
    return resolve("verifiers", BACKENDS[name])(**{limit: timeout_s, parallel: workers, **settings})


def _folder(cache_dir: str | None) -> Path | None:
    if cache_dir is None:
        return None
    return cache_folder() / "verdicts" if cache_dir == "auto" else Path(cache_dir).expanduser()


LeanCommand = partial(LeanVerifier, "cli")
"""`LeanVerifier` on an installed toolchain's command line (``lean.cli``)."""
LeanReplPool = partial(LeanVerifier, "repl")
"""`LeanVerifier` on processes of the Lean REPL (``lean.repl``)."""
LeanService = partial(LeanVerifier, "kimina")
"""`LeanVerifier` on a Kimina Lean server (``lean.kimina``)."""
