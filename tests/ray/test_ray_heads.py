"""Clusters started by ``ray start --head`` as a user does, with a token and without, and joined by address.

Each head runs in a session of its own with a home of its own, and is ended by its processes' ids. Not covered: several
machines, other versions of Ray.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from support.processes import Command
from support.tiny_run import prepare

pytestmark = [pytest.mark.ray, pytest.mark.slow]
_MARK = "RLPOST_TEST_HEAD"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(_MARK) == mark:
                found.append(process)
    return found


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts heads; returns their addresses."""
    marks: list[tuple[str, subprocess.Popen]] = []

    def start(**env: str) -> str:
        port = _free_port()
        mark = f"{os.getpid()}-{port}"
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", f"--port={port}", "--num-cpus=1",
                   "--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=100000000",
                   f"--temp-dir=/tmp/rlpost-test-{port}", "--block"]  # fmt: skip
        log = (tmp_path / f"{port}.log").open("w")
        process = subprocess.Popen(
            command, env={**os.environ, **env, _MARK: mark}, stdout=log, stderr=log, start_new_session=True
        )
        marks.append((mark, process))
        end = time.monotonic() + 120
        while "Ray runtime started" not in (tmp_path / f"{port}.log").read_text():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.2)
        return f"127.0.0.1:{port}"

    yield start
    for mark, process in marks:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        for left in _marked(mark):
            with suppress(psutil.NoSuchProcess):
                left.kill()


def plan(work: Path, address: str, **env: str) -> tuple[int, str, str]:
    env = {"RLPOST_CACHE": str(work / "cache"), **env}
    return Command(["plan", "config.yaml", f"cluster.address={address}"], work, env).start().finish()


def test_a_head_with_a_token_is_joined_by_who_has_it(head: Callable[..., str], tiny_model: str, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    work = prepare(tmp_path / "work", tiny_model, {"name": "r", "steps": 1}, "takes_its_time")
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("a" * 32)
    status, out, err = plan(work, head(RAY_AUTH_MODE="token", HOME=str(tmp_path)), HOME=str(tmp_path))
    assert status in (0, 1), err  # 1: the node has one core
    assert "node " in out


@pytest.mark.long
def test_a_head_with_a_token_refuses_who_has_none_with_the_remedy(
    head: Callable[..., str], tiny_model: str, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    work = prepare(tmp_path / "work", tiny_model, {"name": "r", "steps": 1}, "takes_its_time")
    home, other = tmp_path / "home", tmp_path / "other"
    for folder, token in ((home, "a" * 32), (other, "b" * 32)):
        (folder / ".ray").mkdir(parents=True)
        (folder / ".ray/auth_token").write_text(token)
    address = head(RAY_AUTH_MODE="token", HOME=str(home))
    for env, part in (
        ({"HOME": str(other)}, "it asks for another token than that in"),
        ({"HOME": str(tmp_path)}, "there is none here); copy the head's ~/.ray/auth_token"),
        ({"HOME": str(home), "RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE is 'disabled'); unset it"),
    ):
        begun = time.monotonic()
        status, out, err = plan(work, address, **env)
        assert status == 2
        assert part in out + err
        assert "Traceback" not in err
        assert time.monotonic() - begun < 90


@pytest.mark.long
def test_a_head_without_a_token_is_joined_also_by_who_has_one(
    head: Callable[..., str], tiny_model: str, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    work = prepare(tmp_path / "work", tiny_model, {"name": "r", "steps": 1}, "takes_its_time")
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("a" * 32)
    address = head(RAY_AUTH_MODE="disabled")
    status, out, err = plan(work, address, HOME=str(tmp_path))
    assert status in (0, 1), err
    assert "node " in out
