"""Does the unlikeliness reward help where the start rarely succeeds? Trained policies, tested on new theorems.

Most held-out theorems show no difference: they are proved nearly always, or never. Here the starting policies of a
finished experiment are sampled first; theorems that they prove in some samples, but in at most an eighth, are kept, and
only on these the trained policies are sampled. The theorems are chosen by samples of the start, so the two trained
policies compare fairly with one another but neither does with the start, which is left out of the table. Each folder is
one that `unlikeliness.py` has finished; its own held-out theorems are skipped.

    scripts/experiments/rarely_proved.py runs/rare runs/pushed runs/spellings        # about 40 minutes

Started again with the same folder it continues where it stopped. Writes `results.json` and `results.md`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arms import BASE, difference_lines, differences, estimates, head, measured, publish, row

from rlpost.actors.cluster import cluster
from rlpost.config.load import load
from rlpost.config.schema import ClusterSection, RunConfig
from rlpost.data.load import rows
from rlpost.evaluation import compare
from rlpost.evaluation.outcomes import Outcome

CONTROL, TREATED = "high_kl", "unlikeliness_1"
SCREEN, SAMPLES, MOST = 64, 128, 1 / 8
"""Samples per theorem of the start and of the trained policies; largest share proved by the start that is rare."""
TOGETHER = "together"


def settings(finished: Path, seed: int, *overrides: str) -> RunConfig:
    """The configuration that the policies of a seed were trained with, for evaluations."""
    return load(finished / f"seed_{seed}" / CONTROL / "config.yaml", ["evaluation.greedy=false", *overrides]).config


def screen(finished: Path, seeds: Sequence[int], theorems: int, out: Path) -> Path:
    """Write the new theorems that the starting policies of all seeds together rarely prove; returns the file."""
    target = out / "rare.jsonl"
    if target.is_file():
        return target
    used = settings(finished, seeds[0]).data.eval
    if not isinstance(used, dict):
        raise SystemExit(f"{finished}: its held-out theorems are a file; more cannot be made")
    fresh = [f"data.eval.skip={used.get('skip', 0) + used['count']}", f"data.eval.count={theorems}"]
    configs = {seed: settings(finished, seed, *fresh, f"evaluation.samples={SCREEN}") for seed in seeds}
    found = [measured(c, finished / f"seed_{s}" / BASE, out / f"start_{s}.jsonl") for s, c in configs.items()]
    wanted = rare(found)
    data = configs[seeds[0]].data
    chosen = [one for one in rows(data, data.eval or {}, "data.eval") if one["id"] in wanted]
    target.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in chosen))
    return target


def rare(found: Sequence[Sequence[Outcome]]) -> set[str]:
    """Ids of theorems that were proved in some samples, but in at most a share ``MOST`` of the decided ones."""
    counts = {
        same[0].id: (sum(one.accepted for one in same), sum(one.decided for one in same))
        for same in zip(*found, strict=True)
    }
    return {name for name, (accepted, decided) in counts.items() if 0 < accepted <= MOST * decided}


def ask(finished: Path, seeds: Sequence[int], chosen: Path, out: Path) -> dict[str, list[list[Outcome]]]:
    """Outcomes of both trained policies on the chosen theorems, one list per seed."""
    given = ["data.source=jsonl", f"data.train={chosen}", f"data.eval={chosen}", f"evaluation.samples={SAMPLES}"]
    found: dict[str, list[list[Outcome]]] = {}
    for arm in (CONTROL, TREATED):
        models = {seed: finished / f"seed_{seed}" / arm / "model" for seed in seeds}
        found[arm] = [measured(settings(finished, s, *given), m, out / f"{arm}_{s}.jsonl") for s, m in models.items()]
    return found


def summarise(found: dict[str, list[list[Outcome]]]) -> dict[str, Any]:
    """pass@N of both policies, and the difference."""
    measures = {str(k): compare.passes(k) for k in (1, 8, 32, 128)}
    pass_at = estimates(found, measures)
    return {"theorems": len(found[CONTROL][0]), "pass": pass_at, **differences(found, measures, (CONTROL,))}


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines: list[str] = []
    for name, found in results.items():
        ks = list(found["pass"][CONTROL])
        lines += [f"{name}: {found['theorems']} theorems, {SAMPLES} samples each.", ""]
        lines += head(["arm", *(f"pass@{k}" for k in ks)])
        lines += [row([arm, *(f"{one[k]['mean']:.3f}" for k in ks)]) for arm, one in found["pass"].items()]
        lines += [*difference_lines(found, (CONTROL,), {k: f"pass@{k}" for k in ks}, "theorems"), ""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of this experiment")
    parser.add_argument("finished", type=Path, nargs="+", help="folders that unlikeliness.py has finished")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--theorems", type=int, default=700, help="new ones to ask the starts about, per folder")
    given = parser.parse_args()
    asked: dict[str, dict[str, list[list[Outcome]]]] = {}
    with cluster(ClusterSection()):
        for finished in given.finished:
            folder = given.out.absolute() / finished.absolute().name
            folder.mkdir(parents=True, exist_ok=True)
            chosen = screen(finished.absolute(), given.seeds, given.theorems, folder)
            asked[folder.name] = ask(finished.absolute(), given.seeds, chosen, folder)
            print(f"{folder.name}: done", flush=True)
    if len(asked) > 1:
        runs = range(len(given.seeds))
        asked[TOGETHER] = {
            arm: [[one for found in asked.values() for one in found[arm][run]] for run in runs]
            for arm in (CONTROL, TREATED)
        }
    results = {name: summarise(found) for name, found in asked.items()}
    print(publish(given.out, results, table(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
