"""The quickstart with every tuning method: what is learned, with how many parameters, at what cost.

The theorem prover of `configs/quickstart.yaml` from one warm start per seed, trained in full, with LoRA, LoRA-XS, MiSS,
a tenth of its weights (those of the largest gradient), and in full with GaLore. Each method has one learning rate that
was not tuned, for adapters the usual ten times the full one: compare costs, and see that all of them learn.

    scripts/experiments/tuning.py runs/tuning                     # two seeds, about half an hour
    scripts/experiments/tuning.py runs/tuning_small --small       # one seed, 16 steps, under 8 minutes

Started again with the same folder it continues where it stopped. Writes `results.json`, `results.md`, `pass_at_n.svg`.
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

from arms import BASE, Experiment, arguments, asked_for, draw_passes, estimates, finish, head, publish, row

from rlpost.evaluation import compare

OWN: dict[str, list[str]] = {
    "full": [],
    "lora": ["tuning.method=lora", "optimizer.lr=2e-3"],
    "lora_xs": ["tuning.method=lora_xs", "optimizer.lr=2e-3"],
    "miss": ["tuning.method=peft:miss", "tuning.peft={r: 16}", "optimizer.lr=2e-3"],
    "subnetwork": ["tuning.method=subnetwork", "tuning.subnetwork={mask: gradient, density: 0.1}"],
    "galore": ["optimizer.name=lowrank", "optimizer.lowrank={preset: galore, rank: 32, gap: 20}", "optimizer.lr=8e-4"],
}
ARMS = dict.fromkeys(OWN, "quickstart.yaml")
TRAINED = ["data.eval.skip=96", "evaluation.samples=16", "evaluation.k=powers", "evaluation.greedy=false"]
SMALL = ["run.steps=16", "data.eval.count=32", "evaluation.samples=8"]
COSTS = {
    "trainable_parameters": "trained",
    "memory_mb/optimizer": "optimizer MiB",
    "sync/bytes": "sync bytes",
    "seconds/update": "update s",
    "seconds/sync": "sync s",
    "seconds/step": "step s",
}
"""Metrics of a step, and their titles in the table."""


def summarise(experiment: Experiment) -> dict[str, Any]:
    """All results of the experiment, as one document."""
    arms = [BASE, *experiment.arms]
    found = {arm: experiment.outcomes(arm) for arm in arms}
    samples = min(len(outcome.samples) for runs in found.values() for run in runs for outcome in run)
    ks = [2**i for i in range(samples.bit_length()) if 2**i <= samples]
    return {
        "seeds": list(experiment.seeds),
        "prompts": len(found[BASE][0]),
        "samples": samples,
        "settings": list(experiment.settings),
        "own": {arm: list(OWN[arm]) for arm in experiment.arms},
        "pass": estimates(found, {str(k): compare.passes(k) for k in ks}),
        "costs": {arm: costs(experiment, arm) for arm in experiment.arms},
    }


def costs(experiment: Experiment, arm: str) -> dict[str, float]:
    """Medians of the cost metrics over all steps with an update, of all seeds."""
    rows = [one for seed in experiment.seeds for one in experiment.metrics(arm, seed) if one.get("updates")]
    return {name: statistics.median(one[name] for one in rows if name in one) for name in COSTS}


def table(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    ks = [k for k in ("1", "8", "16") if k in found["pass"][BASE]]
    lines = [f"{found['prompts']} theorems, {found['samples']} samples each, seeds {found['seeds']}.", ""]
    lines += head(["arm", *(f"pass@{k}" for k in ks), *COSTS.values()])
    for arm, by_k in found["pass"].items():
        spent = found["costs"].get(arm)
        cells = [f"{spent[name]:,.4g}" if spent else "" for name in COSTS]
        lines.append(row([arm, *(f"{by_k[k]['mean']:.3f}" for k in ks), *cells]))
    return "\n".join(lines) + "\n"


def report(experiment: Experiment) -> str:
    """Write the results; returns the table."""
    found = summarise(experiment)
    draw_passes(found, experiment.out)
    return publish(experiment.out, found, table(found))


def main() -> int:
    given = arguments(__doc__ or "", list(ARMS), "one seed, 16 steps, 32 theorems, 8 samples").parse_args()
    if not given.seeds and not given.small:
        given.seeds = [1, 2]
    trained = [*TRAINED, *(SMALL if given.small else [])]
    return finish(asked_for(given, ARMS, "quickstart.yaml", trained, OWN), given.minutes, report)


if __name__ == "__main__":
    sys.exit(main())
