"""The process that compares answers: a JSON question per line on standard input, a JSON answer per line back.

It is a separate process because the CPU limit is a signal, which only the main thread of a process gets, and because a
power of huge numbers is a single C call that no signal interrupts: then the parent kills the process.
Run as a program; not imported.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import resource
import signal
import sys
import time
from typing import Any

from rlpost_verifiers.math import formulas
from rlpost_verifiers.math.equality import Judge, UnevaluatedError
from rlpost_verifiers.math.formulas import UnparsableError
from rlpost_verifiers.math.readings import UnreadableError

_PR_SET_PDEATHSIG = 1


class CpuLimit(BaseException):
    """The CPU limit of a question is reached. Not an `Exception`, because libraries catch those."""


def main(parent: int, memory_mb: int) -> None:
    """Answer questions until standard input ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return
    # parsers print, and the pipe must carry answers only
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)
    # imported now, so that a missing or broken package stops the start rather than the first question
    import math_verify  # noqa: F401

    resource.setrlimit(resource.RLIMIT_AS, (memory_mb * 2**20, memory_mb * 2**20))
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        started = time.process_time()
        found = answer(question)
        found["cpu_seconds"] = time.process_time() - started
        print(json.dumps(found), file=answers, flush=True)


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Reason and message for one question."""
    cpu_seconds = question["cpu_seconds"]
    end = time.process_time() + cpu_seconds
    try:
        signal.signal(signal.SIGPROF, lambda number, frame: _stop_at(end))
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        try:
            judge = Judge(formulas, question["strict"], question["asks_percent"])
            if question["check"]:
                return _check(judge, question["gold"], question["answers"])
            return _compare(judge, question["gold"], question["answers"])
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except CpuLimit:
        return {"reason": "timeout", "said": f"more than {cpu_seconds:g} s of CPU"}
    except MemoryError:
        return {"reason": "memory", "said": "more memory than the limit"}


def _check(judge: Judge, gold: str, forms: list[str]) -> dict[str, Any]:
    """Whether the gold answer accepts itself in one of its usual forms, by value."""
    said = f"gold answer {gold!r} is not accepted in any usual form of itself"
    for form in forms:
        found = _one(judge, gold, form, shortcut=False)
        if found["reason"] == "correct":
            return {"reason": "readable", "said": ""}
        said = found["said"] if found["reason"] != "wrong" else said
    return {"reason": "bad_gold", "said": f"gold answer {gold!r} cannot be read ({said})"}


def _compare(judge: Judge, gold: str, answers: list[str]) -> dict[str, Any]:
    """The answers of one text: all of them must be right, or together be the list that the gold answer is."""
    found = [_one(judge, gold, text) for text in answers]
    bad = [row for row in found if row["reason"] != "correct"]
    if any(row["reason"] == "unreadable" for row in bad):
        checked = _check(judge, gold, [gold])
        if checked["reason"] != "readable":
            return checked
    if not bad or len(found) == 1:
        return (bad or found)[0]
    joined = _one(judge, gold, ", ".join(answers))
    if joined["reason"] == "correct" and len(bad) == len(found):
        return joined
    return {"reason": "several_answers", "said": f"{len(found)} boxes that do not agree: {', '.join(answers)[:120]}"}


def _one(judge: Judge, gold: str, text: str, shortcut: bool = True) -> dict[str, Any]:
    try:
        right = judge.accepts(gold, text, shortcut)
        return {"reason": "correct" if right else "wrong", "said": f"{text:.80} against {gold:.80}"}
    except MemoryError:
        raise
    except UnevaluatedError as error:
        return {"reason": "unevaluated", "said": str(error)}
    except (UnreadableError, UnparsableError) as error:
        return {"reason": "unreadable", "said": f"{text:.80} against {gold:.80}: {error}"}
    except Exception as error:
        # the answer's own doing, unless the gold answer fails on itself as well: see `_compare`
        said = str(error).splitlines()[0][:120] if str(error) else "no message"
        return {"reason": "unreadable", "said": f"comparing fails ({type(error).__name__}: {said})"}


def _stop_at(end: float) -> None:
    # the timer counts ticks, which on a busy machine exceed the CPU time that the process has used
    left = end - time.process_time()
    if left <= 0:
        raise CpuLimit
    # a value below a microsecond would switch the timer off
    signal.setitimer(signal.ITIMER_PROF, max(left, 0.001))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
