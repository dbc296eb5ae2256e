"""Sinks of metrics: always ``metrics.jsonl``, and TensorBoard and Weights & Biases if configured."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from rlpost.config.schema import LoggingSection
from rlpost.errors import InfrastructureError, MissingPackageError, describe_error
from rlpost.observability.metrics import check_names, current_name


class Sink(Protocol):
    """A destination of the metrics of each step."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of one step."""
        ...

    def close(self) -> None:
        """Flush and close."""
        ...


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a JSON-lines file written by rlpost; a last line cut off by a kill is left out."""
    rows: list[dict[str, Any]] = []
    # splitlines would also split at the line separators that texts of models hold
    for line in path.read_text(encoding="utf-8").split("\n") if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Metrics of a run, one row per step, under their current names."""
    return [{current_name(name): value for name, value in row.items()} for row in read_lines(run / "metrics.jsonl")]


def keep_lines_before(path: Path, step: int) -> list[dict[str, Any]]:
    """Drop the lines of ``step`` and later from a file, as they will be written again; returns the remaining rows."""
    kept = [row for row in read_lines(path) if row["step"] < step]
    path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    return kept


class JsonlSink:
    """Writes one JSON object per line. Lines of steps that are repeated after a resume are dropped first.

    Args:
        path: file to append to.
        first_step: first step that this process runs.
    """

    def __init__(self, path: Path, first_step: int):
        keep_lines_before(path, first_step)
        self._file = path.open("a")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a line and flush it; numbers that are not finite become null."""
        check_names(metrics)
        row = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoardSink:
    """Writes TensorBoard events."""

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingPackageError("logging.tensorboard: pip install 'rlpost[tensorboard]'") from error
        self._writer: Any = SummaryWriter(str(folder))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the scalars."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the events."""
        self._writer.close()


class WandbSink:
    """Logs to a Weights & Biases run."""

    def __init__(self, project: str, name: str, config: Mapping[str, Any], folder: Path):
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingPackageError("logging.wandb_project: pip install 'rlpost[wandb]'") from error
        try:
            self._run: Any = wandb.init(
                project=project, name=name, config=dict(config), dir=str(folder), resume="allow"
            )
        except Exception as error:  # no key, no network, a project that is not there
            raise InfrastructureError(
                f"logging.wandb_project: {project}: W&B does not start ({describe_error(error)}); `wandb login`, or "
                "set WANDB_MODE=offline"
            ) from error

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the step."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def open_sinks(
    section: LoggingSection, folder: Path, name: str, config: Mapping[str, Any], first_step: int
) -> list[Sink]:
    """Open the sinks that a configuration asks for.

    Raises:
        MissingPackageError: if the package of a sink is not installed.
    """
    sinks: list[Sink] = [JsonlSink(folder / "metrics.jsonl", first_step)]
    if section.tensorboard:
        sinks.append(TensorBoardSink(folder / "tensorboard"))
    if section.wandb_project:
        sinks.append(WandbSink(section.wandb_project, name, config, folder))
    return sinks
