"""Does the unlikeliness reward keep pass@N from falling? Five policies, several seeds, theorems that nobody tuned on.

"Rewarding the Unlikely" (He, Fried and Welleck 2025), table 1, at the scale of two CPU cores: the starting policy, and
what `configs/lean_*_cpu.yaml` make of it: GRPO with a small and a large penalty, and the unlikeliness reward with one
and two passes over each batch. Every arm of a seed starts from the same warm start and sees the same prompts; all run
through the real loop, in one Ray cluster. The final set is disjoint from the recipes' own held-out theorems.

    scripts/experiments/unlikeliness.py runs/unlikeliness                     # three seeds, about 75 minutes
    scripts/experiments/unlikeliness.py runs/unlikeliness_small --small       # one seed, short, under 12 minutes
    scripts/experiments/unlikeliness.py runs/harder --set data.train.min_tokens=10 data.eval.min_tokens=10

Started again with the same folder it goes on where it was. Writes `results.json`, `results.md`, `pass_at_n.svg`,
`uplift.svg`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import rlpost
from rlpost.actors.cluster import cluster
from rlpost.config.load import load
from rlpost.config.schema import ClusterSection, RunConfig
from rlpost.evaluation import compare
from rlpost.evaluation.outcomes import Outcome, read
from rlpost.observability.plots import Curve, draw, uplift_curve
from rlpost.observability.sinks import read_lines

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
BASE = "base"
ARMS = {
    "default": "lean_grpo_default_cpu.yaml",
    "high_kl": "lean_grpo_high_kl_cpu.yaml",
    "unlikeliness_1": "lean_unlikeliness_1_cpu.yaml",
    "unlikeliness_2": "lean_unlikeliness_2_cpu.yaml",
}
CONTROLS = ("default", "high_kl")
SMALL = ["run.steps=50", "data.eval.count=60", "evaluation.samples=32"]
COURSE = ("unique_accepted", "entropy", "kl", "clip_high", "skipped_updates")
"""Metrics of the last steps that go into the table."""
LAST = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Variant:
    """How the experiment departs from the recipes: in small, and by settings that hold for all arms."""

    small: bool = False
    settings: tuple[str, ...] = ()


def arm_config(arm: str, seed: int, folder: Path, variant: Variant) -> RunConfig:
    """A recipe on the final set, from the seed's warm start."""
    overrides = [
        f"run.seed={seed}", f"run.name={arm}", f"run.output_dir={folder}", "data.eval.count=200", "data.eval.skip=150",
        f"model.path={folder / BASE}", "model.scratch=null", "sft=null", "evaluation.before=false",
        "evaluation.every=0", "logging.transcripts_every=0", *(SMALL if variant.small else []),
        *(one for one in variant.settings if not one.startswith(("sft.", "model."))),
    ]  # fmt: skip
    return load(CONFIGS / ARMS[arm], overrides).config


def warm_start(seed: int, folder: Path, variant: Variant) -> None:
    """The policy all arms of a seed start from."""
    if (folder / BASE / "config.json").is_file():
        return
    recipe = str(CONFIGS / ARMS["default"])
    # the trainer's threads and memory should be gone before the actors start
    command = [sys.executable, "-m", "rlpost.cli", "sft", recipe, f"run.seed={seed}", *variant.settings, "--quiet"]
    subprocess.run([*command, "--output", str(folder / BASE)], check=True, stdout=subprocess.DEVNULL)


def measure_base(config: RunConfig, folder: Path) -> None:
    """pass@N of the starting policy."""
    target = folder / "base.jsonl"
    if target.is_file():
        return
    partial = target.with_suffix(".partial")
    rlpost.evaluate(config, folder / BASE, output=partial)
    partial.rename(target)


def train(config: RunConfig) -> bool:
    """Run an arm to its end, from where it was; False if somebody asked it to stop."""
    folder = Path(config.folder)
    if finished(folder):
        return True
    resume = any((folder / "checkpoints").glob("step_*"))
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    return not rlpost.train(config, resume=resume).interrupted


def finished(folder: Path) -> bool:
    """Whether an arm has been measured."""
    return any(row["when"] == "after" for row in read_lines(folder / "evaluations.jsonl"))


def outcomes(arm: str, seeds: Sequence[int], out: Path) -> list[list[Outcome]]:
    """Outcomes of an arm's final policies, a list for each seed."""
    files = {seed: out / f"seed_{seed}" for seed in seeds}
    return [read(f / "base.jsonl" if arm == BASE else f / arm / "evaluations" / "after.jsonl") for f in files.values()]


def summarise(seeds: Sequence[int], out: Path) -> dict[str, Any]:
    """Everything the experiment found, as one document."""
    arms = [BASE, *ARMS]
    found = {arm: outcomes(arm, seeds, out) for arm in arms}
    samples = min(len(outcome.samples) for runs in found.values() for run in runs for outcome in run)
    ks = [2**i for i in range(samples.bit_length()) if 2**i <= samples]
    result: dict[str, Any] = {"seeds": list(seeds), "prompts": len(found[BASE][0]), "samples": samples, "pass": {}}
    for arm in arms:
        result["pass"][arm] = {str(k): dataclasses.asdict(compare.pass_at(found[arm], k)) for k in ks}
    for control in (BASE, *CONTROLS):
        result[f"minus_{control}"] = {
            arm: {str(k): dataclasses.asdict(compare.difference(found[arm], found[control], k)) for k in ks}
            for arm in arms
            if arm != control
        }
    result["course"] = {arm: course(arm, seeds, out) for arm in ARMS}
    result["flips"] = {arm: flips(found[BASE], found[arm]) for arm in ARMS}
    result["uplift"] = {arm: uplift(arm, seeds, out) for arm in ARMS}
    return result


def flips(before: Sequence[Sequence[Outcome]], after: Sequence[Sequence[Outcome]]) -> dict[str, float]:
    """Prompts lost and won against the starting policy, mean over seeds."""
    from rlpost.evaluation.outcomes import compare as compare_outcomes

    rows = [compare_outcomes(b, a) for b, a in zip(before, after, strict=True)]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def course(arm: str, seeds: Sequence[int], out: Path) -> dict[str, float]:
    """Metrics of the last steps, mean over seeds."""
    rows = [row for seed in seeds for row in read_lines(out / f"seed_{seed}" / arm / "metrics.jsonl")[-LAST:]]
    return {name: float(np.mean([row[name] for row in rows if row.get(name) is not None])) for name in COURSE}


def uplift(arm: str, seeds: Sequence[int], out: Path) -> list[list[float]]:
    """Rows of rank, right answers, how many became likelier: the seeds together."""
    counts: dict[int, list[float]] = defaultdict(lambda: [0, 0])
    for seed in seeds:
        for row in read_lines(out / f"seed_{seed}" / arm / "evaluations" / "uplift.jsonl")[-1:]:
            for rank, count, rose, _ in row["by_rank"]:
                counts[rank][0] += count
                counts[rank][1] += rose
    return [[rank, *counts[rank]] for rank in sorted(counts)]


def plots(found: dict[str, Any], out: Path) -> None:
    """pass@N and uplift of all arms."""
    curves = []
    for arm, by_k in found["pass"].items():
        ends = [entry["problems"] for entry in by_k.values()]
        means = [entry["mean"] for entry in by_k.values()]
        curves.append(Curve(arm, [int(k) for k in by_k], means, [low for low, _ in ends], [high for _, high in ends]))
    title = f"{found['prompts']} held-out theorems, {len(found['seeds'])} seeds"
    draw(curves, out / "pass_at_n.svg", title=title, x="N", y="pass@N (95 % over theorems)", powers=True)
    lines = [uplift_curve(arm, rows) for arm, rows in found["uplift"].items() if rows]
    x, y = "rank by likelihood at the start (0: likeliest)", "share of right proofs now likelier"
    draw(lines, out / "uplift.svg", title=title, x=x, y=y)


def table(found: dict[str, Any]) -> str:
    """The result as Markdown."""
    ks = [k for k in ("1", "8", "32", "128") if k in found["pass"][BASE]]
    lines = [f"{found['prompts']} theorems, {found['samples']} samples each, seeds {found['seeds']}.", ""]
    lines += _head(["arm", *(f"pass@{k}" for k in ks), "lost", "won", *COURSE])
    for arm, by_k in found["pass"].items():
        cells = [f"{by_k[k]['mean']:.3f}" for k in ks]
        lost = [f"{value:.3f}" for value in found["flips"].get(arm, {}).values()] or ["", ""]
        course_cells = [f"{found['course'][arm][name]:.3g}" if arm in found["course"] else "" for name in COURSE]
        lines.append(f"| {' | '.join([arm, *cells, *lost, *course_cells])} |")
    for control in (BASE, *CONTROLS):
        lines += ["", f"Minus {control}: mean [95 % over theorems] (95 % over seeds)", ""]
        lines += _head(["arm", *(f"pass@{k}" for k in ks)])
        for arm, by_k in found[f"minus_{control}"].items():
            lines.append(f"| {' | '.join([arm, *(_cell(by_k[k]) for k in ks)])} |")
    return "\n".join(lines) + "\n"


def _head(names: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]


def _cell(entry: dict[str, Any]) -> str:
    low, high = entry["problems"]
    seeds = "" if entry["seeds"] is None else f" ({entry['seeds'][0]:+.3f}, {entry['seeds'][1]:+.3f})"
    return f"{entry['mean']:+.3f} [{low:+.3f}, {high:+.3f}]{seeds}"


def run(out: Path, seeds: Sequence[int], variant: Variant, minutes: float) -> bool:
    """Everything that is not done yet; False if the time or the user ended it before."""
    begun, longest = time.monotonic(), 0.0
    for seed in seeds:
        warm_start(seed, out / f"seed_{seed}", variant)
    with cluster(ClusterSection()):
        for seed in seeds:
            folder = out / f"seed_{seed}"
            measure_base(arm_config("default", seed, folder, variant), folder)
            for arm in ARMS:
                started = time.monotonic()
                if started + longest - begun > 60 * minutes:
                    return False
                if not train(arm_config(arm, seed, folder, variant)):
                    return False
                longest = max(longest, time.monotonic() - started)
                print(f"seed {seed} {arm}: {time.monotonic() - started:.0f} s", flush=True)
    return True


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=Path, help="folder of the experiment")
    arguments.add_argument("--small", action="store_true", help="one seed, 50 steps, 60 theorems, 32 samples")
    arguments.add_argument("--seeds", type=int, nargs="+", help="default: 1 2 3, with --small 1")
    arguments.add_argument("--minutes", type=float, default=100.0, help="begin nothing that would end later")
    arguments.add_argument("--set", nargs="+", default=[], metavar="section.key=value", help="for all arms alike")
    given = arguments.parse_args()
    seeds = given.seeds or ([1] if given.small else [1, 2, 3])
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if not run(out, seeds, Variant(given.small, tuple(given.set)), given.minutes):
        print("not finished; start it again with the same folder to go on", file=sys.stderr)
        return 1
    found = summarise(seeds, out)
    found["settings"] = given.set
    (out / "results.json").write_text(json.dumps(found, indent=1))
    (out / "results.md").write_text(table(found))
    plots(found, out)
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
