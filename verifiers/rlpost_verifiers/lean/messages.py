"""Turns Lean's messages and the end of its process into a verdict's outcome and reason. Pure functions."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from typing import Any, Literal, cast

from rlpost.types import Outcome

Reason = Literal[
    "proved",
    "failed",
    "sorry",
    "axiom",
    "statement_mismatch",
    "stray_declaration",
    "kernel_rejected",
    "filtered",
    "timeout",
    "memory",
    "crashed",
    "crashed_twice",
    "timeout_twice",
    "unavailable",
]
"""Every reason a Lean verdict can carry."""

# Reported with every failed theorem, because the prelude declares no `sorryAx` that error recovery could use.
_RECOVERY_NOISE = "internal exception #"
_GOALS = "unsolved goals"
_MAX_GOALS, _MAX_GOAL_LENGTH = 64, 8192
_ADDRESS_SPACE = ("bad_alloc", "out of memory", "failed to create thread", "Cannot allocate memory")
# What Lean writes outside its messages when a proof exhausts the address space or the stack it was given.
# Lean panics at a number too big for it, or where code of the proof itself cannot continue; the same proof would panic
# again on any machine.
_OUT_OF_MEMORY = ("INTERNAL PANIC", "PANIC at ", "Stack overflow", *_ADDRESS_SPACE)


# What Lean prints where a proof asks for compiled code that its build does not have, as `decide +native` does.
_REFUSED_IN_NATIVE_CODE = ("LEAN ASSERTION VIOLATION",)


@dataclass(frozen=True, slots=True)
class LeanMessage:
    """One message of ``lean --json``; lines count from 1, columns from 0."""

    severity: str
    text: str
    line: int
    column: int
    kind: str = ""


@dataclass(frozen=True, slots=True)
class LeanOutput:
    """Lean's messages, and every line that was not one."""

    messages: tuple[LeanMessage, ...]
    noise: tuple[str, ...]

    @property
    def errors(self) -> tuple[LeanMessage, ...]:
        """The messages that make a file wrong."""
        return tuple(message for message in self.messages if message.severity == "error")


@dataclass(frozen=True, slots=True)
class Run:
    """How one Lean process ended.

    Attributes:
        exit_code: exit status, None if a signal ended the process.
        signal: number of the signal that ended it, 0 if none.
        wall_exceeded: whether it was still running at the wall-clock limit and was killed.
        seconds: wall-clock time in seconds.
        cpu_seconds: CPU time in seconds, user and system.
        peak_rss_mb: peak resident memory in MiB, shared pages included. Linux starts from the value of the parent
            process, so it is never less than that.
        output: all text it printed.
    """

    exit_code: int | None
    signal: int
    wall_exceeded: bool
    seconds: float
    cpu_seconds: float
    peak_rss_mb: int
    output: str


@dataclass(frozen=True, slots=True)
class Ruling:
    """An outcome with its reason and a one-line explanation."""

    outcome: Outcome
    reason: Reason
    detail: str = ""


def parse_output(text: str) -> LeanOutput:
    r"""Sort the printed lines into messages and noise; error-recovery noise is dropped.

    >>> parse_output('{"severity":"error","data":"no","pos":{"line":4,"column":2}}\nlibc++abi: terminating\n').noise
    ('libc++abi: terminating',)
    """
    messages: list[LeanMessage] = []
    noise: list[str] = []
    # Lean's JSON escapes line breaks, but not the other characters at which `str.splitlines` would split.
    for line in text.split("\n"):
        if not line.strip():
            continue
        message = _parse_line(line)
        if message is None:
            noise.append(line)
        elif not message.text.startswith(_RECOVERY_NOISE):
            messages.append(message)
    return LeanOutput(tuple(messages), tuple(noise))


def open_goals(output: LeanOutput) -> list[str]:
    r"""The goals that an unfinished proof leaves, as Lean prints them, in its order.

    >>> open_goals(LeanOutput((LeanMessage("error", "unsolved goals\np : Prop\n⊢ p\n\nq : Prop\n⊢ q", 4, 0),), ()))
    ['p : Prop\n⊢ p', 'q : Prop\n⊢ q']
    """
    texts = (error.text.partition("\n") for error in output.errors)
    goals = [goal.strip() for head, _, rest in texts if head.startswith(_GOALS) for goal in rest.split("\n\n")]
    return [goal[:_MAX_GOAL_LENGTH] for goal in goals if goal][:_MAX_GOALS]


def classify(run: Run, output: LeanOutput, cpu_limit: float) -> Ruling:
    """The ruling that a finished process supports.

    A limit that the proof itself exhausted (CPU, memory, size of its output) is the proof's fault and rejects it.
    So is a failed assertion of Lean's. Running out of wall-clock time without using the CPU time, any other signal and
    any other line that is not a message leave it undecided: whose fault that is, only a second check can tell
    (`rlpost_verifiers.lean.blame`). ``accepted`` means only that Lean reported no error; the compiled
    module must still be audited.

    Args:
        run: exit status, signal, times and output of the process.
        output: ``parse_output(run.output)``.
        cpu_limit: the CPU time limit it ran under, in seconds.
    """
    if run.wall_exceeded or run.signal:
        return _classify_killed(run, output, cpu_limit)
    if output.noise:
        undecided = Ruling("undecided", "crashed", f"Lean printed {output.noise[0][:200]!r}")
        return _out_of_memory(output) or _failed_assertion(output) or undecided
    if output.errors:
        return _classify_errors(output.errors)
    if any(message.kind == "hasSorry" for message in output.messages):
        return Ruling("rejected", "sorry", "the proof uses sorry")
    if run.exit_code == 0:
        return Ruling("accepted", "proved")
    if run.exit_code == 1 and _RECOVERY_NOISE in run.output:
        return Ruling("rejected", "failed", "Lean could not elaborate the proof")
    return Ruling("undecided", "crashed", f"Lean exited with status {run.exit_code} and no error message")


def _classify_killed(run: Run, output: LeanOutput, cpu_limit: float) -> Ruling:
    if run.cpu_seconds >= cpu_limit or run.signal == signal.SIGXCPU:
        return Ruling("rejected", "timeout", f"used its {cpu_limit:g} s of CPU time")
    if run.wall_exceeded:
        return Ruling(
            "undecided", "timeout", f"{run.seconds:.1f} s passed and only {run.cpu_seconds:.1f} s of CPU time were used"
        )
    if run.signal == signal.SIGXFSZ:
        return Ruling("rejected", "memory", "wrote more than the file size limit")
    undecided = Ruling("undecided", "crashed", f"Lean was ended by signal {run.signal}")
    return _out_of_memory(output) or _failed_assertion(output) or undecided


def ran_out_of_address_space(output: LeanOutput) -> bool:
    """Whether Lean reported that it could not get more memory or threads; this does not show whose fault it was."""
    return any(mark in line for line in output.noise for mark in _ADDRESS_SPACE)


def _out_of_memory(output: LeanOutput) -> Ruling | None:
    line = next((line for line in output.noise if any(mark in line for mark in _OUT_OF_MEMORY)), None)
    return None if line is None else Ruling("rejected", "memory", line[:200])


def _failed_assertion(output: LeanOutput) -> Ruling | None:
    line = next((line for line in output.noise if line.startswith(_REFUSED_IN_NATIVE_CODE)), None)
    return None if line is None else Ruling("rejected", "failed", f"Lean printed {line[:200]!r}")


def _classify_errors(errors: tuple[LeanMessage, ...]) -> Ruling:
    first = errors[0].text.strip()
    line = first.splitlines()[0][:200] if first else "Lean reported an error"
    if any(error.text.startswith("(deterministic) timeout") for error in errors):
        return Ruling("rejected", "timeout", line)
    if any(error.text.startswith("(kernel)") for error in errors):
        return Ruling("rejected", "kernel_rejected", line)
    return Ruling("rejected", "failed", line)


def _parse_line(line: str) -> LeanMessage | None:
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    fields = cast("dict[str, Any]", record)
    position = fields.get("pos")
    match fields.get("severity"), fields.get("data"), position:
        case str(severity), str(text), {"line": int(row), "column": int(column)}:
            return LeanMessage(severity, text, row, column, str(fields.get("kind", "")))
        case _:
            return None
