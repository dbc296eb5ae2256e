"""Record small real runs, and list where two recordings differ: a refactoring must leave them bit-identical.

Float32 and fixed numbers of threads. A recording holds a checksum of every published tensor, every metric, every
transcript (texts, verdicts, rewards, advantages) and every evaluation; wall-clock times and memory are left out.
Renamed metrics are compared under their new names. Two recordings of the same commit show what is reproducible.

    scripts/golden.py record before.json --root ../old-checkout
    scripts/golden.py record after.json
    scripts/golden.py compare before.json after.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COMMON = (
    "model.dtype=float32", "rollout.threads=2", "learner.threads=2", "run.seed=3", "selfcheck.parity_every=2",
    "logging.progress=false", "selfcheck.conformance=false",
)  # fmt: skip
SMALL_EVALUATION = ("data.eval.count=24", "evaluation.samples=4", "evaluation.k=[1,4]")
VOLATILE_METRICS = (
    "seconds/",
    "rss_mb/",
    "own_mb/",
    "queue_seconds",
    "check_seconds",
    "check_cpu_seconds",
    "tokens_per_second",
)
VOLATILE_EVIDENCE = ("seconds", "evidence")


def cases(start: str) -> dict[str, list[tuple[str, list[str]]]]:
    """The runs of each case in order, each as the configuration and the overrides of ``rlpost train``.

    Args:
        start: folder of the warm-started quickstart model, from which all other cases of the quickstart begin.
    """
    quick, catalog = "configs/quickstart.yaml", "configs/recommender_rank_cpu.yaml"
    warm = [*SMALL_EVALUATION, f"model={{path: {start}}}", "sft=null", "rollout.prompts_per_step=8"]
    resumed = [*warm, "optimizer.schedule=constant", "run.name=resume", "evaluation.every=1"]
    return {
        "quickstart": [(quick, ["run.steps=6", "run.name=quickstart", "sft.epochs=2", *SMALL_EVALUATION])],
        "recommender": [
            (catalog, ["run.steps=4", "run.name=recommender", "sft.epochs=1", "data.eval.count=24"]),
        ],
        "lora": [(quick, [*warm, "run.steps=4", "run.name=lora", "tuning.method=lora", "optimizer.lr=2.0e-3"])],
        "subnetwork": [
            (quick, [*warm, "run.steps=4", "run.name=subnetwork", "tuning.method=subnetwork",
                     "logging.changes_every=2"]),
        ],
        "unlikeliness": [
            (
                quick,
                [
                    *warm, "run.steps=4", "run.name=unlikeliness", "algorithm.epochs=2", "algorithm.minibatches=2",
                    "scoring.rewards=[{name: outcome}, {name: unlikeliness, beta: 0.5}]", "algorithm.kl.coef=0.02",
                    "algorithm.filter=binary", "evaluation.uplift_prompts=8", "rollout.logprobs=always",
                ],
            )
        ],
        "ranks": [
            (quick, [*warm, "run.steps=4", "run.name=ranks", "learner.workers=2", "learner.threads=1",
                     "learner.zero_stage=1"]),
        ],
        "resume": [(quick, [*resumed, "run.steps=2"]), (quick, [*resumed, "run.steps=4", "--resume"])],
    }  # fmt: skip


def record(root: Path, work: Path, chosen: list[str]) -> dict[str, Any]:
    """Run the cases with the code of a checkout and collect their results."""
    start = work / "runs" / "quickstart" / "sft"
    found: dict[str, Any] = {}
    for name, commands in cases(str(start)).items():
        if name not in chosen and not (name == "quickstart" and not start.exists()):
            continue
        begun = time.perf_counter()
        for config, overrides in commands:
            train(root, work, config, overrides)
        found[name] = left_by(work / "runs" / name)
        print(f"{name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    return found


def train(root: Path, work: Path, config: str, overrides: list[str]) -> None:
    """Run one ``rlpost train`` with the code of ``root``."""
    places = (root, root / "rewards", root / "verifiers")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places)), "OMP_NUM_THREADS": "2"}
    # common overrides come last: an override of a whole section would undo them
    command = [sys.executable, "-m", "rlpost.cli", "train", str(root / config), *overrides, *COMMON, "--json"]
    done = subprocess.run(command, check=False, cwd=work, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"golden: {' '.join(overrides)} failed: {done.stderr.strip()[-2000:]}")


def left_by(run: Path) -> dict[str, Any]:
    """Weights, metrics, evaluations and transcripts of a run folder, without times and memory."""
    from safetensors.torch import load_file

    from rlpost.sync.codec import checksum

    weights = load_file(run / "model" / "model.safetensors")
    return {
        "weights": {name: checksum(value) for name, value in sorted(weights.items())},
        "metrics": [_stable(row) for row in rows(run / "metrics.jsonl")],
        "evaluations": rows(run / "evaluations.jsonl"),
        "transcripts": {
            file.name: [
                _spans_of_answers({k: v for k, v in row.items() if k not in VOLATILE_EVIDENCE}) for row in rows(file)
            ]
            for file in sorted((run / "transcripts").glob("*.jsonl"))
        },
    }


def rows(file: Path) -> list[dict[str, Any]]:
    """Objects of a JSON-lines file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def _spans_of_answers(row: dict[str, Any]) -> dict[str, Any]:
    """A transcript's row with rewards at positions in the answer, as version 0.1 wrote them."""
    begin = row.get("prompt_tokens", 0)
    reward = row["reward"] and [[max(a - begin, 0), max(b - begin, 0), *rest] for a, b, *rest in row["reward"]]
    return {**row, "reward": reward}


def _stable(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.startswith(VOLATILE_METRICS)}


def differences(before: Any, after: Any, place: str = "") -> Iterator[str]:
    """Every place where two recordings differ, with both values. New metrics and columns do not count."""
    if isinstance(before, dict) and isinstance(after, dict):
        from rlpost.observability.metrics import current_name

        if any(part in place for part in ("/metrics", "/transcripts", "/evaluations")):
            before = {current_name(name): value for name, value in before.items()}
            after = {name: value for name, value in after.items() if name in before}
        for key in sorted(before.keys() | after.keys()):
            if key not in before or key not in after:
                yield f"{place}/{key}: only {'after' if key in after else 'before'}"
            else:
                yield from differences(before[key], after[key], f"{place}/{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differences(one, other, f"{place}[{number}]")
    elif before != after:
        yield f"{place}: {json.dumps(before)[:120]} -> {json.dumps(after)[:120]}"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = arguments.add_subparsers(required=True, dest="verb")
    recording = verbs.add_parser("record")
    recording.add_argument("output", type=Path)
    recording.add_argument("--root", type=Path, default=ROOT, help="checkout whose code is run (default: this one)")
    recording.add_argument("--cases", default=",".join(cases("")), help="comma-separated (default: all)")
    comparing = verbs.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    given = arguments.parse_args()
    if given.verb == "record":
        with tempfile.TemporaryDirectory(prefix="rlpost-golden-") as work:
            found = record(given.root.resolve(), Path(work), given.cases.split(","))
        given.output.write_text(json.dumps(found, indent=1))
        return 0
    before, after = json.loads(given.before.read_text()), json.loads(given.after.read_text())
    lines = list(differences(before, after))
    print("\n".join(lines) or f"equal: {', '.join(before)}")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
