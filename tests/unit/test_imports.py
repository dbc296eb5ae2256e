"""The modules that importing the pure modules loads, and import cycles. Not covered: layers (import-linter)."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import importlib, pkgutil, sys

names = [
    "rlpost.types", "rlpost.protocols", "rlpost.errors", "rlpost.plugins.registry", "rlpost.algorithms.credit", "rlpost.data.prompts",
    "rlpost.data.sampler", "rlpost.learner.packing", "rlpost.rollout.sampling", "rlpost.rollout.episode", "rlpost.loop.sync",
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
    """vLLM inspects every module of its process when it starts, and each actor saves a second of imports."""
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


def _imports(file: Path) -> set[str]:
    """Modules of rlpost that a file imports, imports inside functions and for types included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("package", ["rlpost", "rewards/rlpost_rewards", "verifiers/rlpost_verifiers"])
def test_files_do_not_import_each_other_in_cycles(package: str) -> None:
    top = ROOT / package
    files = {".".join(f.relative_to(top.parent).with_suffix("").parts): f for f in top.rglob("*.py")}
    graph = {name: _imports(file) & (files.keys() - {name}) for name, file in files.items()}
    # the package's four functions are imported on first use
    graph.pop("rlpost.__init__", None)
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert len(order) >= len(graph) > 5


def test_only_entry_points_and_contracts_are_top_level_modules() -> None:
    """Everything else is in a subpackage, where a reader can find it."""
    loose = {file.stem for file in (ROOT / "rlpost").glob("*.py")} - {"__init__"}
    assert loose == {"api", "cli", "decoding", "errors", "paths", "protocols", "trajectory", "types"}
    inits = [file for top in ("rlpost", "rewards", "verifiers") for file in (ROOT / top).rglob("__init__.py")]
    code = [f for f in inits if len(ast.parse(f.read_text()).body) > 1 and f.parent != ROOT / "rlpost"]
    assert code == [], "an __init__.py holds a docstring"
