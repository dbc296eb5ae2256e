"""Runs scripts in the environment of a rollout actor, for tests that load vLLM in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from rlpost.actors import env_vars

ROOT = Path(__file__).resolve().parents[2]


def run_engine_script(name: str, *arguments: str, timeout_s: float = 300) -> str:
    """Run ``tests/support/<name>`` in a rollout actor's environment; returns its output, or raises with its end."""
    env = {**os.environ, **env_vars.rollout(2, gpu=torch.cuda.is_available())}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests"), env.get("PYTHONPATH", "")])
    command = [sys.executable, str(ROOT / "tests" / "support" / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=env, check=False, cwd=ROOT)
    assert done.returncode == 0, f"{name} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout
