"""Does credit by rank make a better recommender than credit for the whole list? Five policies, several seeds.

"Rank-GRPO" (Zhu et al. 2025), table 1, at the scale of two CPU cores: the starting policy, and the policies trained by
`configs/recommender_*_cpu.yaml`: GRPO and GSPO with the list's DCG as one reward, and Rank-GRPO with the returns "log"
and "exp∞". All arms of a seed start from the same warm start and see the same prompts for as many steps; all run
through the real loop, in one Ray cluster. The final conversations are of other users than the recipes' own held-out
ones. Next to the policies stand the simple methods that the verifier knows, the teacher, and the users' true taste,
which no list can beat by much.

    scripts/experiments/rank_grpo.py runs/rank_grpo                     # three seeds, about 35 minutes
    scripts/experiments/rank_grpo.py runs/rank_goods --catalog goods    # the same recipes on another catalog
    scripts/experiments/rank_grpo.py runs/rank_grpo_small --small       # one seed, short, under 10 minutes

Started again with the same folder it continues where it stopped. Writes `results.json`, `results.md`, `ndcg.svg`,
`hits.svg`, `reward.svg`.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from arms import (
    BASE,
    CONFIGS,
    Experiment,
    Measures,
    Outcomes,
    arguments,
    asked_for,
    difference_lines,
    differences,
    estimates,
    finish,
    head,
    publish,
    row,
)

from rlpost.algorithms.intervals import over_problems
from rlpost.config.load import load
from rlpost.data.decontaminate import decontaminate
from rlpost.data.load import prompts
from rlpost.errors import UserError
from rlpost.evaluation import compare
from rlpost.evaluation.lists import Listed, list_figures, popularity_shift
from rlpost.evaluation.outcomes import Outcome, read, recorder
from rlpost.loop.baselines import judged
from rlpost.observability.plots import Curve, draw
from rlpost.scoring.score import Scorer

ARMS = {
    "grpo": "recommender_grpo_cpu.yaml",
    "gspo": "recommender_gspo_cpu.yaml",
    "rank_log": "recommender_rank_log_cpu.yaml",
    "rank_exp_inf": "recommender_rank_cpu.yaml",
}
CATALOGS = {"films": None, "goods": "recommender_goods_cpu.yaml"}
"""The recipe whose own lines put all arms on another catalog."""
TEACHER, TASTE, BEST = "teacher", "true taste", "best_baseline"
NO_ERRORS = ["data.eval.teacher_noise=0", "data.eval.teacher_bias=0"]
"""The list of a teacher without errors is what the user likes best."""
CONTROLS = (BASE, "grpo", "rank_log", BEST)
FINAL = ["data.eval.count=500", "data.eval.seed=1003"]
SMALL = ["run.steps=20", "data.eval.count=150"]
KS = (1, 2, 3, 5, 10)
SHOWN = (1, 5, 10)
WINDOW = 10
"""Number of steps averaged into one point of the reward curve."""


def own_lines(recipe: str | None) -> list[str]:
    """The settings of a recipe as overrides, without those that it takes from another and its name."""

    def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from leaves(inner, (*path, key))
        elif path not in (("extends",), ("run", "name")):
            yield f"{'.'.join(path)}={json.dumps(value)}"

    return [] if recipe is None else list(leaves(yaml.safe_load((CONFIGS / recipe).read_text())))


def measure_baselines(experiment: Experiment) -> None:
    """Judge the lists of simple methods, the teacher and true taste on the held-out conversations, unless that is done.

    Raises:
        UserError: if the folder's are of other conversations, so that its policies are too.
    """
    settings = [*experiment.trained, *experiment.settings]
    config, open_ = (load(CONFIGS / experiment.start, [*settings, *more]).config for more in ([], NO_ERRORS))
    held_out, liked = (prompts(one.data, "eval")[: one.evaluation.max_prompts] for one in (config, open_))
    known = baselines(experiment)
    for outcomes in known.values():
        if [one.id for one in outcomes] != [one.id for one in held_out]:
            raise UserError(f"{experiment.out} holds an experiment on other conversations; give another folder")
    if known:
        return
    train = decontaminate(prompts(config.data, "train"), held_out, config.data.contamination)
    scorer = Scorer(config.scoring)
    found = judged(config, train, held_out, scorer.baselines)
    found[TASTE] = judged(open_, [], liked, scorer.baselines)[TEACHER]
    scorer.close()
    partial = experiment.out / "baselines.partial"
    shutil.rmtree(partial, ignore_errors=True)
    for name, outcomes in found.items():
        with recorder(partial / f"{name}.jsonl") as record:
            for outcome in outcomes:
                record(outcome)
    partial.rename(folder_of_baselines(experiment))


def folder_of_baselines(experiment: Experiment) -> Path:
    """Where `measure_baselines` writes a file for each method."""
    return experiment.out / "baselines"


def baselines(experiment: Experiment) -> dict[str, list[Outcome]]:
    """What `measure_baselines` wrote, the best nDCG@10 last; empty if it was not called."""
    found = {file.stem: read(file) for file in folder_of_baselines(experiment).glob("*.jsonl")}
    return dict(sorted(found.items(), key=lambda one: compare.mean([one[1]], measures()["ndcg@10"]).mean))


def to_the_best(found: Outcomes, simple: Mapping[str, Sequence[Outcome]], by: Measures) -> dict[str, Any]:
    """The best baseline by each measure (true taste is none), and every arm's paired difference to it."""
    rivals = {name: outcomes for name, outcomes in simple.items() if name != TASTE}
    if not rivals:
        return {}
    best = {n: max(rivals, key=lambda name, m=m: compare.mean([rivals[name]], m).mean) for n, m in by.items()}
    return {
        BEST: best,
        f"minus_{BEST}": {
            arm: {
                n: asdict(compare.difference(runs, [rivals[best[n]]] * len(runs), measure)) for n, measure in by.items()
            }
            for arm, runs in found.items()
        },
    }


def measures() -> dict[str, compare.Measure]:
    """The measures that are compared: strict nDCG and recall at some k."""
    found: dict[str, compare.Measure] = {}
    for k in KS:
        found[f"ndcg@{k}"] = compare.of_list(lambda one, k=k: one.ndcg(k))
        found[f"recall@{k}"] = compare.of_list(lambda one, k=k: one.recall(k))
    return found


def lists(outcomes: Sequence[Sequence[Outcome]]) -> list[Listed]:
    """The recommended lists of all seeds."""
    return [outcome.listed for run in outcomes for outcome in run if outcome.listed is not None]


def summarise(experiment: Experiment) -> dict[str, Any]:
    """All results of the experiment, as one document."""
    arms = [BASE, *experiment.arms]
    found = {arm: experiment.outcomes(arm) for arm in arms}
    result: dict[str, Any] = {"seeds": list(experiment.seeds), "prompts": len(found[BASE][0])}
    result["settings"] = list(experiment.settings)
    result["figures"] = estimates(found, measures())
    result |= differences(found, measures(), CONTROLS)
    simple = baselines(experiment)
    result["baselines"] = estimates({name: [outcomes] for name, outcomes in simple.items()}, measures())
    result |= to_the_best(found, simple, measures())
    result["lists"] = {arm: made_of(found[BASE], found[arm]) for arm in arms}
    result["lists"] |= {name: made_of(found[BASE], [one] * len(experiment.seeds)) for name, one in simple.items()}
    result["hits"] = {arm: hits(found[arm]) for arm in arms}
    result["reward"] = {arm: course(experiment, arm) for arm in experiment.arms}
    return result


def made_of(before: Sequence[Sequence[Outcome]], after: Sequence[Sequence[Outcome]]) -> dict[str, float]:
    """Composition of an arm's lists, all seeds together, and their shift in popularity against the start."""
    exact = float(np.mean([len(one.marks) == 10 for one in lists(after)]))
    figures = {**list_figures(lists(after), []), "exactly_ten": exact}
    return figures | popularity_shift(lists(before), lists(after))


def hits(outcomes: Sequence[Sequence[Outcome]]) -> list[list[float]]:
    """Share of lists with a hit at each of the ten ranks, with its 95 % interval."""
    rows = []
    for place in range(10):
        values = [float(one.marks[place : place + 1] == "h") for one in lists(outcomes)]
        rows.append([float(np.mean(values)), *over_problems(values)])
    return rows


def course(experiment: Experiment, arm: str) -> list[float]:
    """Share of sampled lists with a hit during training, mean over seeds and windows of steps."""
    by_seed = [[float(one["pass_rate"]) for one in experiment.metrics(arm, seed)] for seed in experiment.seeds]
    means = np.mean(by_seed, axis=0)
    return [float(np.mean(means[start : start + WINDOW])) for start in range(0, len(means) - WINDOW + 1, WINDOW)]


def plots(found: dict[str, Any], experiment: Experiment) -> None:
    """Draw nDCG over k, hits by rank, and the course of training."""
    title = f"{found['prompts']} held-out conversations, {len(found['seeds'])} seeds"
    curves = []
    for arm, figures in (found["figures"] | found["baselines"]).items():
        ends = [figures[f"ndcg@{k}"]["problems"] for k in KS]
        means = [figures[f"ndcg@{k}"]["mean"] for k in KS]
        lows, highs = [low for low, _ in ends], [high for _, high in ends]
        curves.append(Curve(arm, KS, means, lows, highs, reference=arm in found["baselines"]))
    draw(curves, experiment.out / "ndcg.svg", title=title, x="k", y="nDCG@k (95 % over conversations)")
    ranks = list(range(1, 11))
    by_rank = [
        Curve(arm, ranks, [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows])
        for arm, rows in found["hits"].items()
    ]
    draw(by_rank, experiment.out / "hits.svg", title=title, x="rank", y="share of lists with a hit there")
    training = [
        Curve(arm, [WINDOW * (i + 1) for i in range(len(values))], values, values, values)
        for arm, values in found["reward"].items()
        if values
    ]
    if training:
        what = f"sampled lists with a hit (mean of {WINDOW} steps)"
        draw(training, experiment.out / "reward.svg", title=f"{len(found['seeds'])} seeds", x="step", y=what)


def table(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    names = [f"{name}@{k}" for name in ("ndcg", "recall") for k in SHOWN]
    made = ("exactly_ten", "in_catalog", "duplicates", "coverage", "novelty", "popularity_shift")
    lines = [f"{found['prompts']} conversations, seeds {found['seeds']}, greedy lists, protocol strict.", ""]
    lines += head(["arm", *names, *made])
    for arm, figures in (found["figures"] | found["baselines"]).items():
        cells = [f"{figures[name]['mean']:.3f}" for name in names]
        lines.append(row([arm, *cells, *(f"{found['lists'][arm].get(name, float('nan')):.3f}" for name in made)]))
    if best := found.get(BEST):
        lines += ["", f"Best baselines: {', '.join(f'{best[name]} ({name})' for name in names)}."]
    lines += difference_lines(found, CONTROLS, dict(zip(names, names, strict=True)), "conversations")
    return "\n".join(lines) + "\n"


def report(experiment: Experiment) -> str:
    """Write the results; returns the table."""
    found = summarise(experiment)
    plots(found, experiment)
    return publish(experiment.out, found, table(found))


def main() -> int:
    parser = arguments(__doc__ or "", list(ARMS), "one seed, 20 steps, 150 conversations")
    parser.add_argument("--catalog", choices=CATALOGS, default="films", help="what is recommended; default: films")
    given = parser.parse_args()
    given.set = [*own_lines(CATALOGS[given.catalog]), *given.set]
    trained = [*FINAL, *(SMALL if given.small else [])]
    experiment = asked_for(given, ARMS, ARMS[given.arms[-1]], trained)
    try:
        measure_baselines(experiment)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return finish(experiment, given.minutes, report)


if __name__ == "__main__":
    sys.exit(main())
