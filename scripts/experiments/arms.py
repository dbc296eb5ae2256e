"""Code that the experiments share.

An arm is a recipe, trained with several seeds. All arms of a seed start from one warm start and run through the real
loop in one Ray cluster. Started again with the same folder, an experiment continues where it stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import rlpost
from rlpost.actors.cluster import cluster
from rlpost.config.load import load
from rlpost.config.schema import ClusterSection, RunConfig
from rlpost.evaluation import compare
from rlpost.evaluation.outcomes import Outcome, read
from rlpost.observability.plots import Curve, draw
from rlpost.observability.sinks import read_lines

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
Outcomes = Mapping[str, Sequence[Sequence[Outcome]]]
"""Outcomes by arm, one list per seed."""
Measures = Mapping[str, compare.Measure]
BASE = "base"
"""Name of the arm that is not trained: the starting policy."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """The arms of an experiment and their common settings.

    Attributes:
        out: folder of the experiment, with a folder for each seed.
        seeds: random seeds; each is used for one warm start and the training of all arms.
        arms: recipe (file in configs/) of each arm, by name.
        start: recipe that makes the warm start and measures the starting policy.
        settings: overrides for all recipes; those of ``sft`` and ``model`` for the warm start only.
        trained: overrides for the recipes of the arms only.
        own: overrides for single arms, by name.
    """

    out: Path
    seeds: Sequence[int]
    arms: Mapping[str, str]
    start: str
    settings: Sequence[str] = ()
    trained: Sequence[str] = ()
    own: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])

    def folder(self, seed: int) -> Path:
        """Folder of a seed."""
        return self.out / f"seed_{seed}"

    def config(self, arm: str, seed: int) -> RunConfig:
        """Configuration of an arm, which starts from the seed's warm start."""
        folder = self.folder(seed)
        overrides = [
            *self.trained,
            f"run.seed={seed}", f"run.name={arm}", f"run.output_dir={folder}", f"model.path={folder / BASE}",
            "model.scratch=null", "sft=null", "evaluation.before=false", "logging.transcripts_every=0",
            *self.own.get(arm, ()),
            *(one for one in self.settings if not one.startswith(("sft.", "model."))),
        ]  # fmt: skip
        return load(CONFIGS / self.arms.get(arm, self.start), overrides).config

    def warm_start(self, seed: int) -> None:
        """Make the policy that all arms of a seed start from, unless it exists."""
        target = self.folder(seed) / BASE
        if (target / "config.json").is_file():
            return
        recipe = str(CONFIGS / self.start)
        # the trainer's threads and memory should be gone before the actors start
        command = [sys.executable, "-m", "rlpost.cli", "sft", recipe, f"run.seed={seed}", *self.settings, "--quiet"]
        subprocess.run([*command, "--output", str(target)], check=True, stdout=subprocess.DEVNULL)

    def measure_base(self, seed: int) -> None:
        """Evaluate the starting policy of a seed, unless that is done."""
        measured(self.config(BASE, seed), self.folder(seed) / BASE, self.folder(seed) / "base.jsonl")

    def train(self, arm: str, seed: int) -> bool:
        """Train an arm to the end, from its last checkpoint if there is one; False if it was interrupted."""
        config = self.config(arm, seed)
        folder = Path(config.folder)
        if any(row["when"] == "after" for row in read_lines(folder / "evaluations.jsonl")):
            return True
        resume = any((folder / "checkpoints").glob("step_*"))
        if not resume:
            shutil.rmtree(folder, ignore_errors=True)
        return not rlpost.train(config, resume=resume).interrupted

    def run(self, minutes: float, before: Callable[[str], object] = lambda arm: None) -> bool:
        """Run everything that is not done yet; False if the time limit or the user ended it before. ``before`` is
        called with each arm before it is trained.
        """
        begun, longest = time.monotonic(), 0.0
        for seed in self.seeds:
            self.warm_start(seed)
        with cluster(ClusterSection()):
            for seed in self.seeds:
                self.measure_base(seed)
                for arm in self.arms:
                    started = time.monotonic()
                    before(arm)
                    if started + longest - begun > 60 * minutes or not self.train(arm, seed):
                        return False
                    took = time.monotonic() - started
                    longest = max(longest, took)
                    print(f"seed {seed} {arm}: {took:.0f} s", flush=True)
        return True

    def outcomes(self, arm: str) -> list[list[Outcome]]:
        """Outcomes of an arm's final policies, one list per seed."""
        return [
            read(self.folder(s) / "base.jsonl" if arm == BASE else self.evaluations(arm, s) / "after.jsonl")
            for s in self.seeds
        ]

    def evaluations(self, arm: str, seed: int) -> Path:
        """Folder of an arm's evaluations."""
        return self.folder(seed) / arm / "evaluations"

    def final(self, arm: str, seed: int) -> dict[str, Any]:
        """Figures of an arm's final policy."""
        (after,) = [one for one in read_lines(self.folder(seed) / arm / "evaluations.jsonl") if one["when"] == "after"]
        return after

    def metrics(self, arm: str, seed: int) -> list[dict[str, Any]]:
        """A row for each step of an arm."""
        return read_lines(self.folder(seed) / arm / "metrics.jsonl")


def measured(config: RunConfig, model: Path, target: Path) -> list[Outcome]:
    """Outcomes of a policy on held-out prompts, from the file if it exists."""
    if not target.is_file():
        partial = target.with_suffix(".partial")
        rlpost.evaluate(config, model, output=partial)
        partial.rename(target)
    return read(target)


def arguments(description: str, arms: Sequence[str], small: str) -> argparse.ArgumentParser:
    """Command-line parser with the options of every experiment."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the experiment")
    parser.add_argument("--small", action="store_true", help=small)
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 1 2 3, with --small 1")
    parser.add_argument("--arms", nargs="+", default=list(arms), choices=arms, help="only these")
    parser.add_argument("--minutes", type=float, default=90.0, help="begin nothing that would end later")
    parser.add_argument("--set", nargs="+", default=[], metavar="section.key=value", help="for all arms alike")
    return parser


def asked_for(
    given: argparse.Namespace,
    arms: Mapping[str, str],
    start: str,
    trained: Sequence[str],
    own: Mapping[str, Sequence[str]] | None = None,
) -> Experiment:
    """The experiment that the options describe; ``start``, ``trained`` and ``own`` as in `Experiment`."""
    seeds = given.seeds or ([1] if given.small else [1, 2, 3])
    chosen = {arm: arms[arm] for arm in given.arms}
    return Experiment(given.out.resolve(), seeds, chosen, start, given.set, trained, own or {})


def estimates(found: Outcomes, measures: Measures) -> dict[str, Any]:
    """Estimates of every measure for every arm, as plain data."""
    return {arm: {n: asdict(compare.mean(runs, m)) for n, m in measures.items()} for arm, runs in found.items()}


def differences(found: Outcomes, measures: Measures, controls: Sequence[str]) -> dict[str, Any]:
    """``minus_CONTROL`` for each control among the arms: differences of every measure of every other arm to it."""
    return {
        f"minus_{control}": {
            arm: {n: asdict(compare.difference(runs, found[control], m)) for n, m in measures.items()}
            for arm, runs in found.items()
            if arm != control
        }
        for control in controls
        if control in found
    }


def difference_lines(
    found: Mapping[str, Any], controls: Sequence[str], columns: Mapping[str, str], over: str
) -> list[str]:
    """The differences as Markdown tables, one per control; ``columns`` maps measures to column titles."""
    lines: list[str] = []
    for control in controls:
        if by_arm := found.get(f"minus_{control}"):
            lines += ["", f"Minus {control}: mean [95 % over {over}] (95 % over seeds)", ""]
            lines += head(["arm", *columns.values()])
            lines += [row([arm, *(with_intervals(values[n]) for n in columns)]) for arm, values in by_arm.items()]
    return lines


def draw_passes(found: Mapping[str, Any], out: Path) -> str:
    """Draw pass@N of all arms as ``pass_at_n.svg``; returns the title. ``found["pass"]`` is from `estimates`, by k."""
    curves = []
    for arm, by_k in found["pass"].items():
        ends = [entry["problems"] for entry in by_k.values()]
        means = [entry["mean"] for entry in by_k.values()]
        curves.append(Curve(arm, [int(k) for k in by_k], means, [low for low, _ in ends], [high for _, high in ends]))
    title = f"{found['prompts']} held-out theorems, {len(found['seeds'])} seeds"
    draw(curves, out / "pass_at_n.svg", title=title, x="N", y="pass@N (95 % over theorems)", base=2)
    return title


def publish(out: Path, found: Mapping[str, Any], table: str) -> str:
    """Write ``results.json`` and ``results.md``; returns the table."""
    (out / "results.json").write_text(json.dumps(found, indent=1))
    (out / "results.md").write_text(table)
    return table


def finish(experiment: Experiment, minutes: float, report: Callable[[Experiment], str]) -> int:
    """Run the rest of an experiment and print its report; returns the exit status."""
    experiment.out.mkdir(parents=True, exist_ok=True)
    if not experiment.run(minutes):
        print("not finished; start it again with the same folder to go on", file=sys.stderr)
        return 1
    print(report(experiment))
    return 0


def head(names: Sequence[str]) -> list[str]:
    """The first two lines of a Markdown table, with the column titles."""
    return [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]


def row(cells: Sequence[str]) -> str:
    """One row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def with_intervals(estimate: Mapping[str, Any]) -> str:
    """A difference as text: mean [95 % over prompts] (95 % over seeds)."""
    low, high = estimate["problems"]
    seeds = "" if estimate["seeds"] is None else f" ({estimate['seeds'][0]:+.3f}, {estimate['seeds'][1]:+.3f})"
    return f"{estimate['mean']:+.3f} [{low:+.3f}, {high:+.3f}]{seeds}"
