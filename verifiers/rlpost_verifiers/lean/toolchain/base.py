"""The shared part of the toolchain backends: turns tasks into files for Lean and Lean's replies into verdicts."""

from __future__ import annotations

import hashlib
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self, get_args

from rlpost.errors import InfrastructureError, UserError
from rlpost.types import Verdict
from rlpost_verifiers.lean.backend import filtered, undecided
from rlpost_verifiers.lean.filter import RULES, FilteredError, find_bad_part
from rlpost_verifiers.lean.task import Mode, ProofTask
from rlpost_verifiers.lean.toolchain.kernels import kernel_warning
from rlpost_verifiers.lean.toolchain.pin import AXIOMS, Question, build_question, build_reading
from rlpost_verifiers.lean.toolchain.ruling import Fault, Reply, describe, rule

_log = logging.getLogger(__name__)

# To be increased whenever limits are measured in another way, so that older cached verdicts expire.
_LIMITS = 2
_NO_FILES = "mode 'file' is refused (allow_old_kernel: true permits it)"
_SCORES = {"accepted": 1.0, "rejected": 0.0, "undecided": None}


class ToolchainLean(ABC):
    """A Lean outside this package; subclasses complete `rlpost_verifiers.lean.backend.Backend` by running Lean.

    Args:
        name: first part of the fingerprint, e.g. ``lean.cli``.
        lean_version: the version that the toolchain reports.
        imports: the lines every checked file starts with.
        cpu_seconds: CPU time limit of one check, in seconds.
        depends: everything else a verdict could depend on; part of the fingerprint.
        allow_old_kernel: judge whole files (mode ``file``) also where the kernel is known to be faulty, or its version
            is not known.

    Attributes:
        modes: ``proof`` and ``declarations``; ``file`` unless the kernel forbids it.
        kernel_warning: one line about a kernel with known faults, or of unknown version; empty if all is well.
    """

    def __init__(
        self,
        name: str,
        lean_version: str,
        imports: str,
        cpu_seconds: float,
        depends: object,
        allow_old_kernel: bool = False,
    ) -> None:
        content = repr((_LIMITS, imports, cpu_seconds, depends, sorted(AXIOMS), RULES))
        self._fingerprint = f"{name}/{lean_version}/{hashlib.sha256(content.encode()).hexdigest()[:8]}"
        self._lean_version, self._imports, self._cpu_seconds = lean_version, imports, cpu_seconds
        self._closing = threading.Event()
        self._allow_old_kernel, self.kernel_warning = allow_old_kernel, ""
        self.modes: frozenset[Mode] = frozenset(get_args(Mode))
        self._judge_kernel()

    @property
    def fingerprint(self) -> str:
        """Name, Lean's version, and eight digits that change with command, imports, limits and rules."""
        return self._fingerprint

    def check(self, tasks: Sequence[ProofTask]) -> list[Verdict]:
        """One verdict for each task, in order; see `Backend.check`.

        Raises:
            InfrastructureError: after `close`.
        """
        self._require_open()
        prepared = [self._prepare(task) for task in tasks]
        questions = [entry for entry in prepared if isinstance(entry, Question)]
        replies = iter(self._ask(questions))
        return [entry if isinstance(entry, Verdict) else self._judge(entry, next(replies)) for entry in prepared]

    def read_statements(self, tasks: Sequence[ProofTask]) -> list[str | None]:
        """For each task, None if Lean can read its statement, else the reason; see `Backend.read_statements`.

        Raises:
            InfrastructureError: if Lean is unavailable.
        """
        self._require_open()
        problems = [self._refusal(task) or find_bad_part(task) for task in tasks]
        questions = [build_reading(task, self._imports) for task, bad in zip(tasks, problems, strict=True) if not bad]
        asked = zip(questions, self._ask(questions), strict=True)
        return [problem or self._read(*next(asked)) for problem in problems]

    def close(self) -> None:
        """End every process; checks in flight become undecided, repeated calls do nothing."""
        self._closing.set()
        self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _ask(self, questions: Sequence[Question]) -> list[Reply | Fault]:
        """One reply for each question, in order. Failures of Lean or its process are returned, not raised."""

    @abstractmethod
    def _stop(self) -> None:
        """End every process; may be called repeatedly."""

    def _require_open(self) -> None:
        if self._closing.is_set():
            raise InfrastructureError("this Lean is closed; make a new one")

    def _judge_kernel(self) -> None:
        """Set which modes this Lean may judge, by its version, and say so once if its kernel has known faults."""
        told, self.kernel_warning = self.kernel_warning, kernel_warning(self._lean_version)
        refused: set[Mode] = {"file"} if self.kernel_warning and not self._allow_old_kernel else set()
        self.modes = frozenset(get_args(Mode)) - refused
        if self.kernel_warning not in ("", told):
            _log.warning("%s", f"{self.kernel_warning}; {_NO_FILES}" if refused else self.kernel_warning)

    def _refusal(self, task: ProofTask) -> str | None:
        return None if task.mode in self.modes else f"{_NO_FILES}: {self.kernel_warning}"

    def _prepare(self, task: ProofTask) -> Question | Verdict:
        if refusal := self._refusal(task):
            return undecided("unavailable", refusal, self._fingerprint)
        if problem := find_bad_part(task):
            return undecided("statement_mismatch", f"task {task.name!r}: {problem}", self._fingerprint)
        try:
            return build_question(task, self._imports)
        except FilteredError as error:
            return filtered(str(error), self._fingerprint)

    def _read(self, question: Question, reply: Reply | Fault) -> str | None:
        if isinstance(reply, Fault):
            raise InfrastructureError(f"Lean cannot be asked ({reply.reason}): {reply.detail}")
        ruling, finding = rule(question, reply, self._cpu_seconds)
        if finding is None or ruling.reason == "unavailable":
            raise InfrastructureError(f"Lean cannot be asked ({ruling.reason}): {ruling.detail}")
        return None if ruling.outcome == "accepted" else ruling.detail or "Lean cannot read it"

    def _judge(self, question: Question, reply: Reply | Fault) -> Verdict:
        if isinstance(reply, Fault):
            return undecided(reply.reason, reply.detail, self._fingerprint, reply.seconds)
        ruling, finding = rule(question, reply, self._cpu_seconds)
        evidence = describe(question, reply, ruling, finding)
        if finding is not None and finding.axioms is not None and not reply.output.errors:
            evidence["axioms"] = list(finding.axioms)
        assurance = "kernel_replayed" if reply.replay else "axioms_checked" if "axioms" in evidence else "elaborated"
        run = reply.run
        return Verdict(
            outcome=ruling.outcome,
            score=_SCORES[ruling.outcome],
            reason=ruling.reason,
            assurance="" if ruling.outcome == "undecided" else assurance,
            evidence={**evidence, "lean_version": self._lean_version},
            seconds=run.seconds,
            cpu_seconds=run.cpu_seconds or None,
            backend=self._fingerprint,
        )


class Threads:
    """A fixed number of threads, each of which may wait for a process."""

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise UserError(f"workers is {workers}; Lean needs at least 1")
        self._pool = ThreadPoolExecutor(workers, "rlpost-lean")

    def map(self, ask: Callable[[Question], Reply | Fault], questions: Sequence[Question]) -> list[Reply | Fault]:
        """``ask`` for each question, in order, several at a time.

        Raises:
            InfrastructureError: after `close`.
        """
        try:
            pending = self._pool.map(ask, questions)
        except RuntimeError as error:
            raise InfrastructureError("this Lean is closed; make a new one") from error
        return list(pending)

    def close(self) -> None:
        """Accept no more questions; those in progress continue."""
        self._pool.shutdown(wait=False)


def check_limits(cpu_seconds: float, wall_seconds: float, memory_mb: int) -> None:
    """Refuse limits that make no sense.

    Raises:
        UserError: naming the value.
    """
    if not 0 < cpu_seconds < wall_seconds:
        raise UserError(
            f"cpu_seconds is {cpu_seconds:g} and wall_seconds {wall_seconds:g}; "
            "both must be positive, and the wall clock the longer of the two"
        )
    if memory_mb < 4096:
        raise UserError(f"memory_mb is {memory_mb}; Lean's threads need an address space of at least 4096")
