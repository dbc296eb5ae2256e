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
        truncated_above: share of truncated answers from which the step line names it.
    """

    def __init__(self, console: Console, enabled: bool = True, bar: bool = True, truncated_above: float = 0.1):
        self.console, self.enabled, self.truncated_above = console, enabled, truncated_above
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
        note = summary(metrics, self.truncated_above)
        if self._progress is not None:
            self._progress.update(self._task, completed=step + 1, note=note)
        else:
            self.say(f"step {step + 1}/{total}  {note}")

    def end(self) -> None:
        """Stop the progress bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def summary(metrics: Mapping[str, float], truncated_above: float = 0.1) -> str:
    """Reward with its standard error, pass rate, what is amiss with the answers, and seconds per stage in one line."""
    parts: list[str] = []
    if "reward_mean" in metrics:
        error = f" ± {metrics['reward_se']:.3f}" if "reward_se" in metrics else ""
        parts.append(f"reward {metrics['reward_mean']:.3f}{error}")
    if "pass_rate" in metrics:
        rests = [name.partition("/")[2] for name in metrics if name.startswith("assurance/")]
        parts.append(f"pass {metrics['pass_rate']:.3f}" + (f" ({', '.join(rests)})" if rests else ""))
    if "mismatch" in metrics:
        parts.append(f"mismatch {metrics['mismatch']:.1e}")
    if (truncated := metrics.get("truncated_share", 0.0)) > truncated_above:
        parts.append(f"truncated {truncated:.0%}")
    if unrewarded := metrics.get("unrewarded_share", 0.0):
        parts.append(f"without a reward {unrewarded:.0%}")
    stages = [f"{stage} {metrics[f'seconds/{stage}']:.1f}" for stage in STAGES if f"seconds/{stage}" in metrics]
    return "  ".join([*parts, f"{metrics.get('seconds/step', 0.0):.1f} s ({', '.join(stages)})"])


def beside_baselines(title: str, figures: Mapping[str, float]) -> list[tuple[str, Mapping[str, float]]]:
    """Columns of `evaluation_table`: a policy's figures, and those of each baseline among them.

    >>> beside_baselines("model", {"ndcg@5": 0.2, "baseline/popularity/ndcg@5": 0.1})
    [('baseline popularity', {'ndcg@5': 0.1}), ('model', {'ndcg@5': 0.2})]
    """
    columns: dict[str, dict[str, float]] = {}
    for key, value in figures.items():
        kind, _, rest = key.partition("/")
        name, _, measure = rest.partition("/")
        column = f"baseline {name}" if kind == "baseline" and measure else title
        columns.setdefault(column, {})[measure if column != title else key] = value
    own = columns.pop(title, {})
    return [*columns.items(), (title, own)]


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
