"""What the experiments share: recipes as arms, several seeds, a seed's arms from one warm start, all through the real
loop in one Ray session; started again with the same folder, an experiment goes on where it was.
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
"""Of each arm, a list for each seed."""
Measures = Mapping[str, compare.Measure]
BASE = "base"
"""The arm that is not trained: the starting policy."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """Arms, and what holds for all of them.

    Attributes:
        out: its folder, with a folder for each seed.
        seeds: of warm start and training.
        arms: names to recipes (files in configs/).
        start: recipe that makes the warm start and measures the starting policy.
        settings: over the recipes of all arms, warm start included.
        trained: over the recipes of the arms only.
        own: likewise, of single arms.
    """

    out: Path
    seeds: Sequence[int]
    arms: Mapping[str, str]
    start: str
    settings: Sequence[str] = ()
    trained: Sequence[str] = ()
    own: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])

    def folder(self, seed: int) -> Path:
        """Of a seed."""
        return self.out / f"seed_{seed}"

    def config(self, arm: str, seed: int) -> RunConfig:
        """An arm's recipe from the seed's warm start."""
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
        """The policy that all arms of a seed start from."""
        target = self.folder(seed) / BASE
        if (target / "config.json").is_file():
            return
        recipe = str(CONFIGS / self.start)
        # the trainer's threads and memory should be gone before the actors start
        command = [sys.executable, "-m", "rlpost.cli", "sft", recipe, f"run.seed={seed}", *self.settings, "--quiet"]
        subprocess.run([*command, "--output", str(target)], check=True, stdout=subprocess.DEVNULL)

    def measure_base(self, seed: int) -> None:
        """Outcomes of the starting policy."""
        measured(self.config(BASE, seed), self.folder(seed) / BASE, self.folder(seed) / "base.jsonl")

    def train(self, arm: str, seed: int) -> bool:
        """Run an arm to its end, from where it was; False if somebody asked it to stop."""
        config = self.config(arm, seed)
        folder = Path(config.folder)
        if any(row["when"] == "after" for row in read_lines(folder / "evaluations.jsonl")):
            return True
        resume = any((folder / "checkpoints").glob("step_*"))
        if not resume:
            shutil.rmtree(folder, ignore_errors=True)
        return not rlpost.train(config, resume=resume).interrupted

    def run(self, minutes: float, before: Callable[[str], object] = lambda arm: None) -> bool:
        """Everything that is not done yet; False if the time or the user ended it before. ``before`` is called with
        each arm before it is trained.
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
        """Outcomes of an arm's final policies, a list for each seed."""
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
    """Outcomes of a policy, from the file if they are known."""
    if not target.is_file():
        partial = target.with_suffix(".partial")
        rlpost.evaluate(config, model, output=partial)
        partial.rename(target)
    return read(target)


def arguments(description: str, arms: Sequence[str], small: str) -> argparse.ArgumentParser:
    """The options of every experiment."""
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
    """Every measure of every arm, as plain data."""
    return {arm: {n: asdict(compare.mean(runs, m)) for n, m in measures.items()} for arm, runs in found.items()}


def differences(found: Outcomes, measures: Measures, controls: Sequence[str]) -> dict[str, Any]:
    """``minus_CONTROL`` for each control that takes part: every measure of every other arm against it."""
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
    """The differences as Markdown tables, one for each control; ``columns`` are measures and what they are called."""
    lines: list[str] = []
    for control in controls:
        if by_arm := found.get(f"minus_{control}"):
            lines += ["", f"Minus {control}: mean [95 % over {over}] (95 % over seeds)", ""]
            lines += head(["arm", *columns.values()])
            lines += [row([arm, *(with_intervals(values[n]) for n in columns)]) for arm, values in by_arm.items()]
    return lines


def draw_passes(found: Mapping[str, Any], out: Path) -> str:
    """pass@N of all arms as ``pass_at_n.svg``; its title. ``found`` has ``pass`` from `estimates`, by k."""
    curves = []
    for arm, by_k in found["pass"].items():
        ends = [entry["problems"] for entry in by_k.values()]
        means = [entry["mean"] for entry in by_k.values()]
        curves.append(Curve(arm, [int(k) for k in by_k], means, [low for low, _ in ends], [high for _, high in ends]))
    title = f"{found['prompts']} held-out theorems, {len(found['seeds'])} seeds"
    draw(curves, out / "pass_at_n.svg", title=title, x="N", y="pass@N (95 % over theorems)", base=2)
    return title


def publish(out: Path, found: Mapping[str, Any], table: str) -> str:
    """Write ``results.json`` and ``results.md``; the table."""
    (out / "results.json").write_text(json.dumps(found, indent=1))
    (out / "results.md").write_text(table)
    return table


def finish(experiment: Experiment, minutes: float, report: Callable[[Experiment], str]) -> int:
    """Run what is left and print the report; the exit status."""
    experiment.out.mkdir(parents=True, exist_ok=True)
    if not experiment.run(minutes):
        print("not finished; start it again with the same folder to go on", file=sys.stderr)
        return 1
    print(report(experiment))
    return 0


def head(names: Sequence[str]) -> list[str]:
    """The first two lines of a Markdown table."""
    return [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]


def row(cells: Sequence[str]) -> str:
    """A line of it."""
    return f"| {' | '.join(cells)} |"


def with_intervals(estimate: Mapping[str, Any]) -> str:
    """A difference: mean [95 % over prompts] (95 % over seeds)."""
    low, high = estimate["problems"]
    seeds = "" if estimate["seeds"] is None else f" ({estimate['seeds'][0]:+.3f}, {estimate['seeds'][1]:+.3f})"
    return f"{estimate['mean']:+.3f} [{low:+.3f}, {high:+.3f}]{seeds}"
