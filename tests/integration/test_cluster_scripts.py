"""The scripts for several machines: nodes started, joined, shown and ended by hand; the batch script's life.

Ray is real; ``srun`` and ``scontrol`` are stand-ins that run everything on this machine. Not covered: SLURM's own
behaviour, several machines, GPUs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from rlpost.actors.workers import free_port
from support.processes import Command

pytestmark = [pytest.mark.ray]
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "cluster"
NODE, BATCH = SCRIPTS / "ray_node.sh", SCRIPTS / "slurm.sbatch"
SMALL = ["--gpus", "0", "--object-store-gb", "1"]
PATIENCE_S = 120

SRUN = """#!/usr/bin/env bash
# everything in its own process, as a step's task is; the options are SLURM's
while [[ $1 == --* ]]; do shift; done
exec "$@" --gpus 0 --object-store-gb 1
"""
SCONTROL = """#!/usr/bin/env bash
[ "$1 $2" = "show hostnames" ] && printf 'one\\ntwo\\n'
"""
TRAINER = """
import json, os, signal, subprocess, sys, time
ours = [sys.executable, "-m", "rlpost.cli"]
if sys.argv[1] == "config":
    sys.exit(subprocess.run(ours + sys.argv[1:]).returncode)
asked = []
signal.signal(signal.SIGINT, lambda *_: asked.append(time.time()))
with open("seen.json.part", "w") as file:
    json.dump(sys.argv[1:], file)
os.rename("seen.json.part", "seen.json")
end = time.time() + 60
while not asked and time.time() < end:
    time.sleep(0.05)
print("checkpoint written" if asked else "nobody asked")
"""


@pytest.fixture
def work(tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a configuration. Processes that a test started and did not end are ended by process id."""
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": "∀ p q : Prop, p → q :="}) + "\n")
    config = {
        "run": {"name": "r", "steps": 1},
        "model": {"path": tiny_model, "dtype": "float32"},
        "data": {"source": "jsonl", "train": "prompts.jsonl"},
        "rollout": {"workers": 2, "kv_cache_mb": 64, "max_tokens": 16},
        "scoring": {"workers": 3, "verifier": "function", "verifier_args": {"function": "judge.py:short"}},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "judge.py").write_text("def short(text, columns):\n    return len(text) < 9\n")
    root = tempfile.mkdtemp(prefix="rn", dir="/tmp")  # short, for Ray's sockets
    mark = uuid.uuid4().hex
    monkeypatch.setenv("RLPOST_TEST_MARK", mark)
    monkeypatch.setenv("RLPOST_NODE_ROOT", root)
    monkeypatch.setenv("RLPOST_VENV", str(Path(sys.executable).parents[1]))
    monkeypatch.setenv("RAY_AUTH_TOKEN", uuid.uuid4().hex * 2)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    try:
        yield tmp_path
        # a process that was sent SIGKILL may still be exiting
        left = Command([], tmp_path, mark=mark).survivors(grace_s=30)
        folders = list(Path(root).iterdir())
    finally:
        for process in Command([], tmp_path, mark=mark).marked():
            process.kill()
        shutil.rmtree(root)
    assert not left
    assert not folders


def script(path: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(path), *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=cwd
    )


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.s*")), ids=lambda path: path.name)
def test_a_script_is_well_formed(path: Path) -> None:
    checkers = [["bash", "-n"], *([["shellcheck"]] if shutil.which("shellcheck") else [])]
    for checker in checkers:
        done = subprocess.run([*checker, str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    lines = path.read_text().splitlines()
    body = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    # SLURM reads no directive below the first command
    assert not [line for line in lines[body:] if line.startswith("#SBATCH")]


@pytest.mark.parametrize(
    ("path", "arguments", "status", "part"),
    [
        (NODE, ["worker", "nowhere"], 2, "HOST:PORT, got 'nowhere'"),
        (NODE, ["worker", "127.0.0.1:1", "--timeout", "1"], 1, "nobody answered at 127.0.0.1:1 within 1 s"),
        (NODE, ["head", "--cpus", "many"], 2, "--cpus: a whole number, got 'many'"),
        (NODE, ["head", "--interface", "none9"], 2, "--interface none9: no such network here"),
        (NODE, ["tail"], 2, "'tail': head, worker, show or end"),
        (BATCH, ["config.yaml"], 2, "not inside a SLURM job"),
    ],
)
def test_misuse_is_a_line(work: Path, path: Path, arguments: list[str], status: int, part: str) -> None:
    done = script(path, *arguments, cwd=work)
    assert done.returncode == status
    assert part in done.stderr


def test_nodes_are_started_shown_and_ended_by_hand(work: Path) -> None:
    port = free_port("")
    head = script(NODE, "head", "--port", str(port), "--cpus", "1", *SMALL)
    assert head.returncode == 0, head.stderr
    address = next(word for word in head.stdout.split() if word.endswith(f":{port}"))
    again = script(NODE, "head", "--port", str(port))
    assert again.returncode == 2
    assert "something answers there already" in again.stderr
    worker = script(NODE, "worker", address, "--cpus", "2", *SMALL)
    assert worker.returncode == 0, worker.stderr
    assert len(script(NODE, "show").stdout.splitlines()) == 2

    status, out, err = Command(["plan", "config.yaml", f"cluster.address={address}"], work).start().finish(PATIENCE_S)
    assert status == 0, err
    assert "has 1 cores, 0 GPUs" in out
    assert "has 2 cores, 0 GPUs" in out

    ended = script(NODE, "end")
    assert (ended.returncode, ended.stdout) == (0, "ray_node: ended 2 of the nodes here\n")
    assert "no node of yours" in script(NODE, "show").stdout


@pytest.mark.long
def test_a_requeued_job_starts_its_nodes_and_ends_them(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job was requeued after a checkpoint, and then receives the signal that its time is up."""
    tools = work / "tools"
    tools.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (work / "trainer.py").write_text(TRAINER)
    (work / "runs" / "r" / "checkpoints" / "step_000001").mkdir(parents=True)
    environment = {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "one,two",
        "SLURM_JOB_CPUS_PER_NODE": "1,2",
        "SLURM_RESTART_COUNT": "1",
        "RLPOST_CLUSTER": str(SCRIPTS),
        "RLPOST_PORT": str(free_port("")),
        "RLPOST_COMMAND": f"{sys.executable} trainer.py",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with (work / "log").open("w+") as log:
        job = subprocess.Popen([str(BATCH), "config.yaml", "run.steps=3"], cwd=work, stdout=log, stderr=log)
        end = time.monotonic() + PATIENCE_S
        while not (work / "seen.json").exists():
            assert job.poll() is None, (work / "log").read_text()
            assert time.monotonic() < end, (work / "log").read_text()
            time.sleep(0.1)
        job.send_signal(signal.SIGUSR1)
        status = job.wait(timeout=PATIENCE_S)
    said = (work / "log").read_text()
    assert status == 0, said
    assert "time is up: asking the run to finish its step" in said
    assert said.index("checkpoint written") < said.index("all nodes have ended")
    assert "all 2 nodes are up" in said
    seen = json.loads((work / "seen.json").read_text())
    address = said.partition("the head is up at ")[2].split()[0]
    assert seen == ["train", "config.yaml", "run.steps=3", "--resume", f"cluster.address={address}"]
