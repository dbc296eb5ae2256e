"""Lean's output and exit status, turned into outcomes. The lines are those that Lean 4.35 prints."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from rlpost_verifiers.lean.messages import LeanMessage, Run, classify, parse_output

CPU_LIMIT = 10.0


def line(severity: str, text: str, kind: str = "[anonymous]") -> str:
    position = {"line": 4, "column": 7}
    return json.dumps({"severity": severity, "data": text, "kind": kind, "pos": position, "caption": ""})


def ended(output: str = "", **changes: Any) -> Run:
    facts: dict[str, Any] = {
        **{"exit_code": 0, "signal": 0, "wall_exceeded": False, "seconds": 0.1, "cpu_seconds": 0.1},
        **{"peak_rss_mb": 60, "output": output},
        **changes,
    }
    return Run(**facts)


def ruling(run: Run) -> tuple[str, str]:
    found = classify(run, parse_output(run.output), CPU_LIMIT)
    return found.outcome, found.reason


def test_parses_messages_and_keeps_everything_else_as_noise() -> None:
    output = parse_output("\n".join([line("error", "bad"), "INTERNAL PANIC", "", "[1]", '{"severity": "error"}']))
    assert output.messages == (LeanMessage("error", "bad", 4, 7, "[anonymous]"),)
    assert output.noise == ("INTERNAL PANIC", "[1]", '{"severity": "error"}')


def test_error_recovery_noise_is_dropped() -> None:
    assert parse_output(line("error", "internal exception #3")).messages == ()


def test_only_errors_are_errors() -> None:
    assert parse_output("\n".join([line("warning", "w"), line("information", "i"), line("error", "e")])).errors == (
        LeanMessage("error", "e", 4, 7, "[anonymous]"),
    )


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (ended(), ("accepted", "proved")),
        (ended(line("warning", "unused variable")), ("accepted", "proved")),
        (ended(line("error", "Type mismatch"), exit_code=1), ("rejected", "failed")),
        (ended(line("error", "Type mismatch")), ("rejected", "failed")),
        (ended(line("error", "internal exception #3"), exit_code=1), ("rejected", "failed")),
        (ended(line("error", "(kernel) declaration type mismatch"), exit_code=1), ("rejected", "kernel_rejected")),
        (ended(line("error", "(deterministic) timeout at `whnf`"), exit_code=1), ("rejected", "timeout")),
        (ended(line("warning", "declaration uses `sorry`", "hasSorry")), ("rejected", "sorry")),
        (ended(cpu_seconds=10.0, exit_code=None, signal=signal.SIGKILL), ("rejected", "timeout")),
        (ended(cpu_seconds=9.99, exit_code=None, signal=signal.SIGXCPU), ("rejected", "timeout")),
        (ended(cpu_seconds=10.1, exit_code=None, signal=signal.SIGKILL, wall_exceeded=True), ("rejected", "timeout")),
        (ended("INTERNAL PANIC: out of memory", exit_code=1), ("rejected", "memory")),
        (ended("libc++abi: std::bad_alloc", exit_code=None, signal=signal.SIGABRT), ("rejected", "memory")),
        (ended("Stack overflow detected.", exit_code=None, signal=signal.SIGABRT), ("rejected", "memory")),
        (ended(exit_code=None, signal=signal.SIGXFSZ), ("rejected", "memory")),
        (ended(cpu_seconds=0.2, exit_code=None, signal=signal.SIGKILL, wall_exceeded=True), ("undecided", "timeout")),
        (ended(exit_code=None, signal=signal.SIGSEGV), ("undecided", "crashed")),
        (ended(exit_code=None, signal=signal.SIGKILL), ("undecided", "crashed")),
        (ended(exit_code=1), ("undecided", "crashed")),
        (ended("libc++abi: terminating"), ("undecided", "crashed")),
        (ended(line("error", "x") + "\nzygote: OSError(28)", exit_code=70), ("undecided", "crashed")),
    ],
)
def test_outcome_follows_the_cause(run: Run, expected: tuple[str, str]) -> None:
    assert ruling(run) == expected


def test_detail_is_one_short_line() -> None:
    run = ended(line("error", "first\nsecond" + "x" * 500), exit_code=1)
    assert classify(run, parse_output(run.output), CPU_LIMIT).detail == "first"


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x1c", "\x0b"])
def test_only_line_feeds_end_a_message(character: str) -> None:
    line = json.dumps(
        {"severity": "error", "data": f"a{character}b", "pos": {"line": 1, "column": 0}}, ensure_ascii=False
    )
    line = line.replace(json.dumps(character)[1:-1], character)
    found = parse_output(line + "\n")
    assert (len(found.messages), found.noise) in ((1, ()), (0, (line,)))


def test_a_line_that_is_nested_too_deeply_is_noise() -> None:
    assert parse_output("[" * 100_000).noise == ("[" * 100_000,)
