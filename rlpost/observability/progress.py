"""Progress output of a run on the console."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

STAGES = ("rollout", "scoring", "prepass", "update", "sync")


class Display:
    """Shows a progress bar on a terminal, one line per step elsewhere, and nothing if disabled.

    Args:
        console: console to write to.
        enabled: whether anything is shown.
        bar: show a progress bar if the console is a terminal.
    """

    def __init__(self, console: Console, enabled: bool = True, bar: bool = True):
        self.console, self.enabled = console, enabled
        self._progress: Progress | None = None
        self._task: Any = None
        self._bar = bar and console.is_terminal

    def say(self, text: str) -> None:
        """Print one line."""
        if self.enabled:
            self.console.print(text, highlight=False, soft_wrap=True)

    def begin(self, done: int, total: int) -> None:
        """Start the progress bar at ``done`` of ``total`` steps."""
        if not (self.enabled and self._bar):
            return
        columns = ("step", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), "eta", TimeRemainingColumn(), TextColumn("{task.fields[note]}"))  # fmt: skip # noqa: E501
        self._progress = Progress(*columns, console=self.console)
        self._progress.start()
        self._task = self._progress.add_task("", total=total, completed=done, note="")

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        """Show a finished step."""
        note = summary(metrics)
        if self._progress is not None:
            self._progress.update(self._task, completed=step + 1, note=note)
        else:
            self.say(f"step {step + 1}/{total}  {note}")

    def end(self) -> None:
        """Stop the progress bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def summary(metrics: Mapping[str, float]) -> str:
    """Reward, pass rate and seconds per stage in one line."""
    parts = []
    for name, label in (("reward_mean", "reward"), ("pass_rate", "pass"), ("mismatch", "mismatch")):
        if name in metrics:
            value = metrics[name]
            parts.append(f"{label} {value:.1e}" if name == "mismatch" else f"{label} {value:.3f}")
            if name == "pass_rate" and (rests := [n.partition("/")[2] for n in metrics if n.startswith("assurance/")]):
                parts[-1] += f" ({', '.join(rests)})"
    stages = [f"{stage} {metrics[f'seconds/{stage}']:.1f}" for stage in STAGES if f"seconds/{stage}" in metrics]
    return "  ".join([*parts, f"{metrics.get('seconds/step', 0.0):.1f} s ({', '.join(stages)})"])


def evaluation_table(evaluations: list[tuple[str, Mapping[str, float]]], sampling: str) -> Table:
    """A table of evaluations side by side, with standard errors over problems; ``sampling`` says how they sampled."""
    table = Table(title="held-out prompts", caption=sampling)
    table.add_column("measure")
    for title, _ in evaluations:
        table.add_column(title, justify="right")
    known = dict.fromkeys(k for _, values in evaluations for k in values)
    names = [name for name in known if not name.endswith(("_se", "_low", "_high"))]
    for name in names:
        cells = []
        for _, values in evaluations:
            error = f" ± {values[f'{name}_se']:.3f}" if f"{name}_se" in values else ""
            cells.append(f"{values[name]:.3f}{error}" if name in values else "-")
        table.add_row(name, *cells)
    return table
