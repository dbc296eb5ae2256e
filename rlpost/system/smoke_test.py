"""Smoke tests in separate processes, so that neither a crash nor a hang reaches this one.

A trial is a module that is run as a program: it reports its current phase with `doing`, and at the end its result with
`found`. `run` starts it, reads its output, and kills it and everything it started at the deadline.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import psutil

_MARK = "RLPOST_TRIAL"
_DOING, _FOUND = "@doing ", "@found "
_POLL_S = 0.05
_STACK_BEFORE_S = 3.0
"""Seconds before the deadline at which a trial that hangs writes its stack."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One program to be tried.

    Attributes:
        topic: name of the trial in the output.
        module: name of the module, run as ``python -m module``.
        arguments: command-line arguments of the program.
        env: variables added to the environment.
        deadline_s: wall-clock seconds until it is killed.

    >>> Trial("ray", "rlpost.actors.smoke_test").deadline_s
    150.0
    """

    topic: str
    module: str
    arguments: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    deadline_s: float = 150.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a trial.

    Attributes:
        data: argument of its call of `found`; None if it failed before.
        problem: the failure in one line; empty if it succeeded.
        seconds: wall-clock time.

    >>> Outcome("a task ran", "", 3.1).problem
    ''
    """

    data: Any
    problem: str
    seconds: float


def begin() -> None:
    """Called by a trial: have its stack written shortly before the deadline."""
    # the monotonic clock is the same in both processes
    left = float(os.environ.get(f"{_MARK}_END", "inf")) - time.monotonic()
    faulthandler.dump_traceback_later(min(max(left - _STACK_BEFORE_S, 0.1), 1e6))


def doing(what: str) -> None:
    """Called by a trial: report the phase that begins."""
    print(_DOING + what, flush=True)


def found(what: object) -> None:
    """Called by a trial: report its result, text or plain data."""
    print(_FOUND + json.dumps(what), flush=True)


def run_all(trials: Sequence[Trial], at_a_time: int = 2) -> list[Outcome]:
    """Run all trials, ``at_a_time`` of them in parallel; returns their outcomes in order."""
    with ThreadPoolExecutor(at_a_time) as pool:
        return list(pool.map(run, trials))


def run(trial: Trial) -> Outcome:
    """Run one trial; all processes that it started are gone afterwards."""
    mark = uuid.uuid4().hex
    search = os.pathsep.join(path or os.getcwd() for path in sys.path)
    began = time.monotonic()
    end = began + trial.deadline_s
    env = {**os.environ, **trial.env, "PYTHONPATH": search, _MARK: mark, f"{_MARK}_END": str(end)}
    with tempfile.TemporaryFile("w+", errors="replace") as out, tempfile.TemporaryFile("w+", errors="replace") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", trial.module, *trial.arguments],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            while process.poll() is None and time.monotonic() < end:
                time.sleep(_POLL_S)
            status, took = process.poll(), time.monotonic() - began
        finally:
            _end(process, mark)
        out.seek(0)
        err.seek(0)
        return _outcome(status, out.read().splitlines(), err.read(), took)


def _outcome(status: int | None, said: Sequence[str], errors: str, took: float) -> Outcome:
    last = next((line for line in reversed(said) if line.startswith((_DOING, _FOUND))), "")
    if status == 0 and last.startswith(_FOUND):
        return Outcome(json.loads(last.removeprefix(_FOUND)), "", took)
    # a trial that has reported its result and does not end hangs while ending
    phase = last.removeprefix(_DOING) if last.startswith(_DOING) else "ending" if last else "starting"
    if status is None:
        frames = re.findall(r'File "([^"]+)", line (\d+) in (\S+)', errors.rpartition("most recent call first")[2])
        at = f" at {frames[0][0]}:{frames[0][1]} ({frames[0][2]})" if frames else ""
        return Outcome(None, f"hung while {phase}{at}; ended after {took:.0f} s", took)
    lines = [line.strip() for line in errors.strip().splitlines() if line.strip()]
    ended = f"signal {-status}" if status < 0 else f"exit status {status}"
    return Outcome(None, f"failed while {phase}: {lines[-1][:200] if lines else ended}", took)


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    """Kill the trial's remaining processes by id; they are known by the environment variable they inherit."""
    left = [process.pid] if process.poll() is None else []
    for other in psutil.process_iter():
        try:
            if other.environ().get(_MARK) == mark:
                left.append(other.pid)
        except psutil.Error:
            continue
    for pid in left:
        try:
            psutil.Process(pid).kill()
        except psutil.Error:
            continue
    process.wait()
