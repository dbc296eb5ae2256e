"""What importing the pure modules drags in. Not covered: the layers among them, which import-linter holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
import importlib, pkgutil, sys

names = [
    "rlpost.types", "rlpost.protocols", "rlpost.errors", "rlpost.plugins.registry", "rlpost.algorithms.credit", "rlpost.data.prompts",
    "rlpost.data.sampler", "rlpost.learner.packing", "rlpost.rollout.sampling", "rlpost.rollout.stream", "rlpost.loop.sync",
    "rlpost.loop.session",
    "rlpost.rollout.vllm.readback", "rlpost.sync.codec", "rlpost.selfcheck.canary", "rlpost.observability.metrics",
    "rlpost.optim.schedule", "rlpost.data.decontaminate", "rlpost.data.curriculum", "rlpost.evaluation.outcomes",
    "rlpost.evaluation.compare",
]
for package in ("rlpost.config", "rlpost.algorithms", "rlpost_rewards", "rlpost_verifiers"):
    found = importlib.import_module(package)
    names += [m.name for m in pkgutil.walk_packages(found.__path__, package + ".")]
for name in names:
    importlib.import_module(name)
    heavy = {"ray", "vllm", "deepspeed", "transformers", "trl", "peft", "datasets"} & set(sys.modules)
    assert not heavy, f"{name} imports {heavy}"
print(len(names))
"""


def test_actors_do_not_import_what_compiles() -> None:
    """vLLM looks into every module of its process when it starts, and a second of imports is saved in each actor."""
    code = "import rlpost.actors.workers, rlpost.loop.run, rlpost.learner.policy, rlpost.cli, sys; print('numba' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, cwd=ROOT
    )
    assert done.stdout.split() == ["False"]


def test_pure_modules_import_no_runtime() -> None:
    path = [str(ROOT), str(ROOT / "rewards"), str(ROOT / "verifiers")]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{CODE}"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30
