"""Runs a command in a process of its own, and finds processes it started that outlive it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

_MARK = "RLPOST_TEST_MARK"


@dataclass
class Command:
    """``rlpost …`` in a session of its own; everything it starts inherits a mark in its environment."""

    arguments: list[str]
    cwd: Path
    env: dict[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    session: int | None = field(default=None, init=False)

    def start(self) -> Command:
        env = {**os.environ, **self.env, _MARK: self.mark, "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
        self.out, self.err = (tempfile.TemporaryFile("w+") for _ in range(2))  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rlpost.cli", *self.arguments],
            cwd=self.cwd, env=env, text=True, stdout=self.out, stderr=self.err, start_new_session=True,
        )  # fmt: skip
        self.session = self.process.pid
        return self

    def finish(self, timeout_s: float = 300) -> tuple[int, str, str]:
        """Exit status, output and errors; processes that are left are killed by id and fail the test."""
        try:
            self.process.wait(timeout=timeout_s)
        finally:
            left = self.survivors(grace_s=30)
            # a killed process has no command line any more
            named = [(process.pid, _name(process)) for process in left]
            for process in left:
                process.kill()
        assert not left, f"left behind: {named}"
        return self.process.returncode, _text(self.out), _text(self.err)

    def until_said(self, text: str, timeout_s: float = 180) -> None:
        self.until(lambda: text in _text(self.out), timeout_s)

    def until(self, condition: Callable[[], bool], timeout_s: float = 180) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, f"ended early: {_text(self.out)} {_text(self.err)}"
            assert time.monotonic() < end, "the condition did not come true"
            time.sleep(0.05)

    def interrupt(self) -> None:
        """Ctrl-C: the terminal sends SIGINT to the whole foreground group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def marked(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                # a process that changes its title may overwrite its environment, as Ray's agents do
                ours = os.getsid(process.pid) == self.session or process.environ().get(_MARK) == self.mark
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
                continue
        return found

    def actors(self, name: str) -> list[psutil.Process]:
        found = [p for p in self.marked() if f"ray::{name}" in _name(p)]
        return sorted(found, key=lambda p: p.pid)

    def actor(self, name: str) -> psutil.Process:
        return self.actors(name)[0]

    def survivors(self, grace_s: float) -> list[psutil.Process]:
        end = time.monotonic() + grace_s
        while (left := [p for p in self.marked() if p.pid != self.session]) and time.monotonic() < end:
            time.sleep(0.2)
        return left


def _text(file: IO[str]) -> str:
    """The output so far, read through a new descriptor: the process moves the position of its own."""
    return Path(f"/proc/self/fd/{file.fileno()}").read_text()


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return ""
