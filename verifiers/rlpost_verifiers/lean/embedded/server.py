"""A fork server that is ready to check: the right Lean, with the prelude imported once where that changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rlpost.errors import InfrastructureError
from rlpost_verifiers.lean.embedded import installation
from rlpost_verifiers.lean.embedded.audit import Wanted
from rlpost_verifiers.lean.embedded.client import Zygote, ZygoteLostError
from rlpost_verifiers.lean.embedded.export import Export, export_module
from rlpost_verifiers.lean.embedded.judge import inspect, judge_replay
from rlpost_verifiers.lean.embedded.olean import Olean
from rlpost_verifiers.lean.messages import Reason, Run, classify, parse_output
from rlpost_verifiers.lean.source import PRELUDE, build_source
from rlpost_verifiers.lean.task import ProofTask

_MODULE = "Cand"
_HEADER = f"prelude\nimport {PRELUDE}\n"

SELF_TEST: tuple[tuple[ProofTask, Reason], ...] = (
    (ProofTask("True", "sorry"), "failed"),
    (ProofTask("True", "lcProof"), "kernel_rejected"),
    (ProofTask("∀ p : Prop, p → p", "by\n  intro p h\n  exact q"), "failed"),
    # With automatic implicit arguments this would be a theorem about another statement.
    (ProofTask("p → p", "fun h => h"), "failed"),
    (ProofTask("True", "trivial\nprivate theorem hidden : True := trivial"), "stray_declaration"),
    # More messages than Lean prints of one file, from terms too deep for a small stack.
    (ProofTask("True", "(" * 4000 + "trivial" + ")" * 4000 + " nothing" * 20), "failed"),
    (ProofTask("True", "by\n" + "  · exact nothing\n" * 120), "failed"),
    (ProofTask("∀ {α : Sort u} (a : α), a = a", "fun _ => rfl", header="universe u\nopen Nat"), "proved"),
    (
        ProofTask(
            "∀ p : Prop, n = n ∧ (p ∨ ¬ p)",
            "by\n  intro p\n  have h : Nat.pred 3 = 2 := by simp [Nat.pred]\n"
            "  exact ⟨match n with | 0 => rfl | _ + 1 => rfl, Classical.em p⟩",
            binders="(n : Nat)",
        ),
        "proved",
    ),
)
"""Proofs and the reason each must get. The last one is accepted, so its compiled module tells what to import."""


def _claim(proposition: str) -> Export:
    """``theorem X : proposition := True.intro`` as an export for the kernel."""
    return {
        "names": [[0, "True"], [1, "intro"], [0, proposition], [0, "X"]],
        "levels": [],
        "terms": [[4, 3], [4, 2]],
        "declarations": [["theorem", 4, [], 0, 1, -2]],
    }


REPLAY_TEST: tuple[tuple[Export, Reason], ...] = ((_claim("True"), "proved"), (_claim("False"), "kernel_rejected"))
"""Declarations and the reason that the kernel's answer must give."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one check.

    Attributes:
        cpu_seconds: CPU time in seconds.
        wall_seconds: wall-clock time in seconds; generous, because running out of it says nothing about the proof.
        memory_mb: address space in MiB. Each Lean thread reserves 1 GiB of stack; below 4096 Lean may not start.
    """

    cpu_seconds: float
    wall_seconds: float
    memory_mb: int


class Server:
    """A fork server in use by one thread.

    Without ``import_once`` every check runs Lean's command line, which imports the prelude again. With it, the prelude
    stays imported and a check takes half the time; but this depends on the binary interface of one build of Lean.
    Hence each server first runs `SELF_TEST` both ways, and unless every message and declaration agree, it is
    replaced by one that uses the command line. The kernel for the replay has no such substitute: a server whose kernel
    does not accept a right declaration and refuse a wrong one fails to start.

    Attributes:
        prelude: the compiled prelude that checked files import.
        limits: the limits of one check.
        imported: whether the prelude stays imported.
        problem: the reason why it does not although requested, else empty.
    """

    def __init__(
        self, library: Path, search_path: Path, prelude: Olean, limits: Limits, import_once: bool = True
    ) -> None:
        """Start the server; takes some tenths of a second.

        Raises:
            MissingPackageError: if the library is another Lean.
            ZygoteLostError: if the server does not come up.
            InfrastructureError: if its kernel fails `REPLAY_TEST`, or cannot be opened.
        """
        self.prelude, self.limits = prelude, limits
        self.imported, self.problem = False, ""
        self._zygote = _start(library, search_path)
        try:
            if import_once and (problem := self._try_import_once()):
                self.close()
                self.imported, self.problem = False, problem
                self._zygote = _start(library, search_path)
            self._open_kernel(search_path / f"{PRELUDE}.olean")
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Process id of the fork server."""
        return self._zygote.pid

    @property
    def unconfined(self) -> tuple[str, ...]:
        """Descriptions of the confinement that this machine cannot offer; empty where nothing is missing."""
        return self._zygote.unconfined

    def run(self, source: str) -> Run:
        """Let Lean read ``source``, a file that imports the prelude, under the limits.

        Raises:
            ZygoteLostError: if the server does not answer.
        """
        if self.imported:
            # Blank lines in the header's place: Lean's positions stay those of the whole file.
            source = "\n" * _HEADER.count("\n") + source.removeprefix(_HEADER)
        return self._zygote.run(_MODULE, source, *self._numbers(), imported=self.imported)

    def replay(self, export: Export) -> Run:
        """Have the kernel check declarations on the prelude alone; see `rlpost_verifiers.lean.embedded.judge`.

        Raises:
            ZygoteLostError: if the server does not answer.
        """
        return self._zygote.replay(export, *self._numbers())

    def probe(self) -> dict[str, str]:
        """What a check is able to do to the machine; see `rlpost_verifiers.lean.embedded.sandbox.probe`."""
        return self._zygote.probe(Path(__file__))

    def compiled(self) -> bytes | None:
        """The module that the last run compiled, or None if it wrote none."""
        return self._zygote.compiled(_MODULE)

    def terminate(self) -> None:
        """Ask the server to end now; the one thing another thread may do. `close` must still be called."""
        self._zygote.terminate()

    def close(self) -> None:
        """End the server, and with it any check in flight; repeated calls do nothing."""
        self._zygote.close()

    def _numbers(self) -> tuple[float, float, int]:
        return self.limits.cpu_seconds, self.limits.wall_seconds, self.limits.memory_mb

    def _try_import_once(self) -> str:
        try:
            return self._import_once()
        except ZygoteLostError as error:
            return str(error)

    def _import_once(self) -> str:
        expected = [self._evidence(task) for task, _ in SELF_TEST]
        if problem := self._zygote.import_once(_MODULE):
            return f"the prelude cannot stay imported: {problem}"
        self.imported = True
        for (task, reason), command_line in zip(SELF_TEST, expected, strict=True):
            found = self._evidence(task)
            if found != command_line or found[0] != reason:
                shown = f"{task.statement!r} by {task.proof[:60]!r}"
                return f"with the prelude kept imported, Lean judges {shown} differently: {found[:2]}"[:500]
        return ""

    def _evidence(self, task: ProofTask) -> tuple[Reason, str, int | None, int, Export | None]:
        run = self.run(build_source(task))
        compiled = self.compiled()
        ruling = classify(run, parse_output(run.output), self.limits.cpu_seconds)
        if ruling.outcome == "accepted":
            # Statements are compared in every check; here they come from this file.
            ruling = inspect(compiled, self.prelude, Wanted(None)).ruling
        declared = None if compiled is None else export_module(Olean(compiled))
        return ruling.reason, run.output, run.exit_code, run.signal, declared

    def _open_kernel(self, compiled: Path) -> None:
        if problem := self._zygote.open_kernel(compiled):
            raise InfrastructureError(f"Lean's kernel cannot be asked: {problem}")
        for export, reason in REPLAY_TEST:
            run = self.replay(export)
            found = judge_replay(run, self.limits.cpu_seconds)
            if found.reason != reason:
                raise InfrastructureError(f"Lean's kernel must say {reason!r} and says {found.reason!r}: {run.output}")


def _start(library: Path, search_path: Path) -> Zygote:
    zygote = Zygote(library, search_path)
    try:
        installation.check_version(zygote.version, zygote.commit)
    except BaseException:
        zygote.close()
        raise
    return zygote
