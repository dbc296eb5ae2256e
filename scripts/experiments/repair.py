"""Does it help to tell a policy what Lean said? Second attempts with Lean's messages against more first attempts.

Per seed one warm start, whose rows show repairs, and from it two policies: `turns`, trained in dialogues of two turns,
and `plain`, trained with one attempt. Each policy is sampled 32 times on each held-out theorem, with a second attempt
after each rejected first one. Theorems are proved, at equal attempts, by

    repair   16 first attempts, and for each that fails a second with Lean's messages (16 + at most 16)
    plain    32 first attempts

of the same policy, and `repair` of `turns` is compared with `plain` of `plain`. Beside it stands the share of second
attempts that are identical to the first.

    scripts/experiments/repair.py runs/repair                        # about six minutes per seed on two cores
    scripts/experiments/repair.py runs/repair --seeds 1 --theorems 48 --set run.steps=10

Started again with the same folder it continues where it stopped. Prints JSON; also in `results.json`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from arms import BASE, Experiment, arguments, asked_for

from rlpost.actors.cluster import cluster
from rlpost.algorithms.intervals import over_problems, over_seeds
from rlpost.config.schema import ClusterSection, RunConfig
from rlpost.loop.start import session
from rlpost.rollout.sampling import evaluation_settings, requests
from rlpost.trajectory import Trajectory

RECIPE = "lean_repair_turns_cpu.yaml"
ARMS = {"turns": RECIPE, "plain": RECIPE}
OWN = {"plain": ["environment.max_turns=1", "environment.max_tokens=null"]}
AT_ONCE = 32
"""Theorems that are sampled at a time: an environment actor queues a call for each trajectory."""
FIRSTS = 16
"""First attempts of a repair; twice as many are the plain attempts."""

Attempts = list[tuple[bool | None, bool | None, bool]]
"""Of one theorem: for each trajectory whether the first attempt was accepted, whether the second was (None: there was
none), and whether the second was identical to the first. The first is None where a check stayed undecided."""


def attempts_of(trajectory: Trajectory) -> tuple[bool | None, bool | None, bool]:
    """The attempts of a trajectory of one or two turns."""
    first, *second = trajectory.turns
    undecided = trajectory.verdict is not None and trajectory.verdict.outcome == "undecided"
    if undecided or trajectory.status == "aborted":
        return None, None, False
    if not second:
        return bool(first.reward), None, False
    return False, bool(second[0].reward), second[0].text.strip() == first.text.strip()


def sampled(config: RunConfig, model: Path, target: Path) -> dict[str, Attempts]:
    """Attempts of a policy at every held-out theorem, from the file if it exists."""
    if not target.is_file():
        found: dict[str, Attempts] = {}
        with session(config, str(model), training=False) as running:
            drawn = evaluation_settings(config)
            asked = requests(
                running.held_out, run_seed=config.run.seed, step=0, group_size=2 * FIRSTS, stream="evaluation"
            )
            for start in range(0, len(asked), AT_ONCE):
                for group in running.rollouts.generate(asked[start : start + AT_ONCE], drawn):
                    found[group.prompt.id] = [attempts_of(one) for one in running.fetch(group.tokens)]
        target.write_text(json.dumps(found))
    return json.loads(target.read_text())


def repaired(attempts: Attempts) -> float:
    """Whether 16 first attempts with a second for each failed one prove a theorem: mean over the two halves of 32."""
    halves = attempts[:FIRSTS], attempts[FIRSTS:]
    return float(np.mean([any(first or second for first, second, _ in half) for half in halves]))


def plainly(attempts: Attempts) -> float:
    """Whether 32 first attempts prove a theorem."""
    return float(any(first for first, _, _ in attempts))


def figures(found: Sequence[dict[str, Attempts]]) -> dict[str, Any]:
    """Of one policy, over seeds: theorems proved both ways, and what second attempts are like."""
    every = [one for run in found for attempts in run.values() for one in attempts]
    seconds = [(second, same) for _, second, same in every if second is not None]
    decided = [first for first, _, _ in every if first is not None]
    return {
        "repair": estimate([[repaired(one) for one in run.values()] for run in found]),
        "plain": estimate([[plainly(one) for one in run.values()] for run in found]),
        "repair_minus_plain": estimate([[repaired(one) - plainly(one) for one in run.values()] for run in found]),
        "attempts_per_theorem": {"repair": FIRSTS * (1 + len(seconds) / max(len(every), 1)), "plain": 2 * FIRSTS},
        "first_accepted": sum(decided) / max(len(decided), 1),
        "second_accepted": sum(bool(second) for second, _ in seconds) / max(len(seconds), 1),
        "identical_second": sum(same for _, same in seconds) / max(len(seconds), 1),
        "undecided": len(every) - len(decided),
    }


def estimate(table: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Mean of values ``[seeds, theorems]`` with 95 % intervals over theorems and over seeds."""
    values = np.array(table)
    return {
        "mean": float(values.mean()),
        "over_theorems": over_problems(values.mean(axis=0).tolist()),
        "over_seeds": over_seeds(values.mean(axis=1).tolist()) if len(values) > 1 else None,
    }


def results(found: dict[str, list[dict[str, Attempts]]], seeds: Sequence[int]) -> dict[str, Any]:
    """All figures: of each policy, and of the two trained ones against each other."""
    report: dict[str, Any] = {"seeds": list(seeds), "theorems": len(found[BASE][0])}
    report |= {arm: figures(runs) for arm, runs in found.items()}
    if "turns" in found and "plain" in found:
        pairs = [
            list(zip(a.values(), b.values(), strict=True)) for a, b in zip(found["turns"], found["plain"], strict=True)
        ]
        report["turns_repair_minus_plain_plain"] = estimate(
            [[repaired(a) - plainly(b) for a, b in run] for run in pairs]
        )
    return report


def measure(experiment: Experiment, arm: str, seed: int, theorems: int) -> dict[str, Attempts]:
    """Attempts of a policy of a seed at the held-out theorems."""
    folder = experiment.folder(seed)
    model = folder / BASE if arm == BASE else folder / arm / "model"
    config = measured_with(experiment.config("turns", seed), theorems)
    return sampled(config, model, folder / f"{arm}_attempts.json")


def measured_with(config: RunConfig, theorems: int) -> RunConfig:
    """The configuration of the measurement: two turns for every policy, and as many theorems as asked for."""
    assert isinstance(config.data.eval, dict)
    data = config.data.model_copy(update={"eval": {**config.data.eval, "count": theorems}})
    return config.model_copy(update={"data": data})


def main() -> int:
    parser = arguments(__doc__ or "", list(ARMS), "few steps and theorems, to see that it runs")
    parser.add_argument("--theorems", type=int, default=200, help="held-out theorems")
    given = parser.parse_args()
    trained = [
        "evaluation.after=false",
        "evaluation.sampling.temperature=1.0",
        *(["run.steps=4"] if given.small else []),
    ]
    experiment = asked_for(given, ARMS, RECIPE, trained, OWN)
    experiment.out.mkdir(parents=True, exist_ok=True)
    theorems = 16 if given.small else given.theorems
    found: dict[str, list[dict[str, Attempts]]] = {}
    for seed in experiment.seeds:
        experiment.warm_start(seed)
    with cluster(ClusterSection()):
        for seed in experiment.seeds:
            for arm in (BASE, *experiment.arms):
                finished = (experiment.folder(seed) / arm / "model" / "config.json").is_file()
                if arm != BASE and not finished and not experiment.train(arm, seed):
                    return 1
                found.setdefault(arm, []).append(measure(experiment, arm, seed, theorems))
                print(f"seed {seed} {arm}: measured", file=sys.stderr, flush=True)
    text = json.dumps(results(found, experiment.seeds), indent=1)
    (experiment.out / "results.json").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
