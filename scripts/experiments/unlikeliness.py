"""Does the unlikeliness reward keep pass@N from falling? Five policies, several seeds, theorems that nobody tuned on.

"Rewarding the Unlikely" (He, Fried and Welleck 2025), table 1, at the scale of two CPU cores: the starting policy, and
the policies trained by `configs/lean_*_cpu.yaml`: GRPO with a small and a large KL penalty, and the unlikeliness reward
with one and two passes over each batch. A fifth arm, if asked for, has a penalty four times the large one instead of
the reward, which `sharpening.py` suggests trying first where training can only sharpen. All arms of a seed start from
the same warm start and see the same prompts; all run through the real loop, in one Ray cluster. The final set is
disjoint from the recipes' own held-out theorems.

    scripts/experiments/unlikeliness.py runs/unlikeliness                     # three seeds, about 75 minutes
    scripts/experiments/unlikeliness.py runs/unlikeliness_small --small       # one seed, short, under 12 minutes
    scripts/experiments/unlikeliness.py runs/harder --set data.train.min_tokens=10 data.eval.min_tokens=10

Started again with the same folder it continues where it stopped. Writes `results.json`, `results.md`, `pass_at_n.svg`,
`uplift.svg`.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from arms import (
    BASE,
    Experiment,
    arguments,
    asked_for,
    difference_lines,
    differences,
    draw_passes,
    estimates,
    finish,
    head,
    publish,
    row,
)

from rlpost.evaluation import compare
from rlpost.evaluation.outcomes import Outcome
from rlpost.evaluation.outcomes import compare as compare_outcomes
from rlpost.observability.plots import draw, uplift_curve
from rlpost.observability.sinks import read_lines

ARMS = {
    "default": "lean_grpo_default_cpu.yaml",
    "high_kl": "lean_grpo_high_kl_cpu.yaml",
    "unlikeliness_1": "lean_unlikeliness_1_cpu.yaml",
    "unlikeliness_2": "lean_unlikeliness_2_cpu.yaml",
    "kl_0.4": "lean_grpo_high_kl_cpu.yaml",
}
OWN = {"kl_0.4": ["algorithm.kl.coef=0.4"]}
CONTROLS = ("default", "high_kl", "kl_0.4")
FINAL = ["data.eval.count=200", "data.eval.skip=150", "evaluation.every=0"]
SMALL = ["run.steps=25", "data.eval.count=40", "evaluation.samples=32"]
COURSE = ("unique_accepted", "entropy", "kl", "clip_frac/high", "skipped_updates")
"""Metrics in the table, averaged over the last steps."""
LAST = 20


def summarise(experiment: Experiment) -> dict[str, Any]:
    """All results of the experiment, as one document."""
    trained, seeds = list(experiment.arms), list(experiment.seeds)
    arms = [BASE, *trained]
    found = {arm: experiment.outcomes(arm) for arm in arms}
    samples = min(len(outcome.samples) for runs in found.values() for run in runs for outcome in run)
    ks = [2**i for i in range(samples.bit_length()) if 2**i <= samples]
    result: dict[str, Any] = {"seeds": seeds, "prompts": len(found[BASE][0]), "samples": samples}
    result["settings"] = list(experiment.settings)
    measures = {str(k): compare.passes(k) for k in ks}
    result["pass"] = estimates(found, measures)
    result |= differences(found, measures, (BASE, *CONTROLS))
    result["course"] = {arm: course(experiment, arm) for arm in trained}
    result["flips"] = {arm: flips(found[BASE], found[arm]) for arm in trained}
    result["uplift"] = {arm: uplift(experiment, arm) for arm in trained}
    return result


def flips(before: Sequence[Sequence[Outcome]], after: Sequence[Sequence[Outcome]]) -> dict[str, float]:
    """Shares of prompts lost and won against the starting policy, mean over seeds."""
    rows = [compare_outcomes(b, a) for b, a in zip(before, after, strict=True)]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def course(experiment: Experiment, arm: str) -> dict[str, float]:
    """Metrics of the last steps, mean over steps and seeds."""
    rows = [one for seed in experiment.seeds for one in experiment.metrics(arm, seed)[-LAST:]]
    return {name: float(np.mean([one[name] for one in rows if one.get(name) is not None])) for name in COURSE}


def uplift(experiment: Experiment, arm: str) -> list[list[float]]:
    """Rows of rank, number of right answers, and number that became likelier, summed over seeds."""
    counts: dict[int, list[float]] = defaultdict(lambda: [0, 0])
    for seed in experiment.seeds:
        for measured in read_lines(experiment.evaluations(arm, seed) / "uplift.jsonl")[-1:]:
            for rank, count, rose, _ in measured["by_rank"]:
                counts[rank][0] += count
                counts[rank][1] += rose
    return [[rank, *counts[rank]] for rank in sorted(counts)]


def plots(found: dict[str, Any], out: Path) -> None:
    """Draw pass@N and uplift of all arms."""
    title = draw_passes(found, out)
    lines = [uplift_curve(arm, rows) for arm, rows in found["uplift"].items() if rows]
    x, y = "rank by likelihood at the start (0: likeliest)", "share of right proofs now likelier"
    if lines:
        draw(lines, out / "uplift.svg", title=title, x=x, y=y)


def table(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    ks = [k for k in ("1", "8", "32", "128", "512") if k in found["pass"][BASE]]
    lines = [f"{found['prompts']} theorems, {found['samples']} samples each, seeds {found['seeds']}.", ""]
    lines += head(["arm", *(f"pass@{k}" for k in ks), "lost", "won", *COURSE])
    for arm, by_k in found["pass"].items():
        cells = [f"{by_k[k]['mean']:.3f}" for k in ks]
        lost = [f"{value:.3f}" for value in found["flips"].get(arm, {}).values()] or ["", ""]
        course_cells = [f"{found['course'][arm][name]:.3g}" if arm in found["course"] else "" for name in COURSE]
        lines.append(row([arm, *cells, *lost, *course_cells]))
    lines += difference_lines(found, (BASE, *CONTROLS), {k: f"pass@{k}" for k in ks}, "theorems")
    return "\n".join(lines) + "\n"


def report(experiment: Experiment) -> str:
    """Write the results; returns the table."""
    found = summarise(experiment)
    plots(found, experiment.out)
    return publish(experiment.out, found, table(found))


def main() -> int:
    parser = arguments(__doc__ or "", list(ARMS), "one seed, 25 steps, 40 theorems, 32 samples")
    parser.set_defaults(arms=[arm for arm in ARMS if arm not in OWN])
    given = parser.parse_args()
    trained = [*FINAL, *(SMALL if given.small else [])]
    return finish(asked_for(given, ARMS, ARMS[given.arms[0]], trained, OWN), given.minutes, report)


if __name__ == "__main__":
    sys.exit(main())
