"""The process that compares answers: a JSON question per line on standard input, a JSON answer per line back.

It is a separate process because math-verify's time limits are signals, which only the main thread of a process gets,
and because a power of huge numbers is a single C call that no signal interrupts: then the parent kills the process.
Run as a program; not imported.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import re
import resource
import signal
import sys
import time
from typing import Any

_PR_SET_PDEATHSIG = 1
_PERCENT = re.compile(r"([0-9.]+)\s*\\?%")


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
        found = answer(question["gold"], question["answer"], question["cpu_seconds"])
        found["cpu_seconds"] = time.process_time() - started
        print(json.dumps(found), file=answers, flush=True)


def answer(gold: str, text: str | None, cpu_seconds: float) -> dict[str, Any]:
    """Reason and message for one question; without a text, whether the gold answer can be read."""
    end = time.process_time() + cpu_seconds
    try:
        signal.signal(signal.SIGPROF, lambda number, frame: _stop_at(end))
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        try:
            return _compare(gold, text)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except CpuLimit:
        return {"reason": "timeout", "said": f"more than {cpu_seconds:g} s of CPU"}
    except MemoryError:
        return {"reason": "memory", "said": "more memory than the limit"}


def _compare(gold: str, text: str | None) -> dict[str, Any]:
    from math_verify import verify

    wanted, problem = _parse(gold)
    if not wanted:
        return {"reason": "bad_gold", "said": f"gold answer {gold!r} cannot be read{problem}"}
    if text is None:
        return {"reason": "readable", "said": ""}
    if "%" not in gold:
        # math-verify accepts 50 % both for 50 and for 1/2
        text = _PERCENT.sub(r"\\frac{\1}{100}", text)
    given, problem = _parse(text)
    if not given:
        return {"reason": "unreadable", "said": f"{text!r} cannot be read{problem}"}
    try:
        same = verify(wanted, given, timeout_seconds=None, raise_on_error=True)
    except MemoryError:
        raise
    except Exception as error:
        return {"reason": "crashed", "said": f"comparing fails ({type(error).__name__}: {str(error)[:120]})"}
    return {"reason": "correct" if same else "wrong", "said": f"{given[0]!s:.80} against {wanted[0]!s:.80}"}


def _parse(text: str) -> tuple[list[Any], str]:
    """The whole of ``text`` parsed as one formula; an empty list and the cause if that fails."""
    from math_verify import LatexExtractionConfig, parse

    whole = [LatexExtractionConfig(try_extract_without_anchor=False, boxed_match_priority=0)]
    try:
        found = parse(
            f"\\boxed{{{text}}}",
            whole,
            fallback_mode="no_fallback",
            extraction_mode="first_match",
            parsing_timeout=None,  # pyright: ignore[reportArgumentType]
            raise_on_error=True,
        )
    except MemoryError:
        raise
    except Exception as error:
        return [], f" ({type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else 'no message'})"
    # a string alone means that the formula was found but not understood
    return [part for part in found if not isinstance(part, str)], ""


def _stop_at(end: float) -> None:
    # the timer counts ticks, which on a busy machine exceed the CPU time that the process has used
    left = end - time.process_time()
    if left <= 0:
        raise CpuLimit
    # a value below a microsecond would switch the timer off
    signal.setitimer(signal.ITIMER_PROF, max(left, 0.001))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
