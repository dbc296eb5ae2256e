"""What a rollout batch costs on its way from the engines to the learner: memory of the driver, and time.

An engine that ends all trajectories in one step, with random tokens, stands in for vLLM, as if all had reached the
token limit together; everything after it is real: rollout, scoring and learner actors of Ray, texts, receipts, credit,
and the samples that each of two learner ranks makes of its share. Measured are the growth of the driver's private
memory while it holds the batch, and the time from the last sampled token until both ranks have their samples, that is,
until an update could start. The baseline, in the same minute, hands the same batch on as tuples of Python numbers
through the driver, from actor to actor. Prints one JSON document.

    scripts/bench_dataplane.py
    scripts/bench_dataplane.py --trajectories 64 --lengths 256 1024
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from rlpost.protocols import GenerateRequest, SamplingSettings
from rlpost.trajectory import BatchReceipt, Completion

GROUP, PROMPT, RANKS, VOCABULARY = 8, 64, 2, 500
REWARD = "def half(completions, **_):\n    return [float(i % 2) for i in range(len(completions))]\n"


class InstantEngine:
    """A `rlpost.protocols.RolloutEngine` that ends all requests in one step, with random tokens.

    It writes the time at which it sampled last into a file of the run's folder.
    """

    def __init__(self, config: Any, spec: Any):
        self.stamp = Path(config.run.output_dir) / "last_token"
        self.waiting: list[tuple[int, GenerateRequest]] = []
        self.number = 0

    def submit(self, requests: Sequence[GenerateRequest], settings: SamplingSettings) -> list[int]:
        """Queue requests."""
        first, self.number = self.number, self.number + len(requests)
        self.waiting += list(enumerate(requests, first))
        return list(range(first, self.number))

    def step(self) -> list[tuple[int, Completion]]:
        """End all requests."""
        done, self.waiting = self.waiting, []
        found = [(number, self._sampled(request)) for number, request in done]
        self.stamp.write_text(repr(time.time()))
        return found

    def abort(self, numbers: Collection[int]) -> list[tuple[int, Completion]]:
        """End what waits."""
        late, self.waiting = [number for number, _ in self.waiting if number in numbers], []
        return [(number, Completion(np.zeros(0, np.int32), None, "abort", ())) for number in late]

    def close(self) -> None:
        """Nothing was started."""

    def _sampled(self, request: GenerateRequest) -> Completion:
        source = np.random.default_rng(request.seed)
        ids = source.integers(3, VOCABULARY, request.max_tokens, dtype=np.int32)
        return Completion(ids, -source.random(len(ids), dtype=np.float32), "stop", ((0, 0, len(ids)),))

    apply = probe = parity = close


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trajectories", type=int, default=512)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=sorted(WAYS), help="measure one way in this process; used by the others")
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measured(options.way, options.trajectories, options.lengths[0], options.rounds)))
        return
    found: dict[str, Any] = {}
    for length in options.lengths:
        ways = {way: in_a_process(way, options.trajectories, length, options.rounds) for way in WAYS}
        ratios = {key: ways["receipts"][key]["median"] / ways["objects"][key]["median"] for key in ways["objects"]}
        found[f"{length} tokens"] = {**ways, "ratio": ratios, **record_bytes(length)}
    print(json.dumps({"trajectories": options.trajectories, "group": GROUP, "ranks": RANKS, **found}, indent=1))


def in_a_process(way: str, trajectories: int, length: int, rounds: int) -> dict[str, dict[str, float]]:
    """Figures of one way, whose memory another one would blur in the same process."""
    command = [sys.executable, __file__, "--way", way, "--rounds", str(rounds)]
    command += ["--trajectories", str(trajectories), "--lengths", str(length)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def measured(way: str, trajectories: int, length: int, rounds: int) -> dict[str, dict[str, float]]:
    """Figures of one way at one length."""
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        Path("reward.py").write_text(REWARD)
        model = starting_model(Path(work), length)
        with running(model, work, trajectories, length) as system:
            for number in range(rounds + 1):
                give_memory_back()
                row = WAYS[way](system, number)
                if number:  # the first round starts processes and imports
                    rows.append(row)
        os.chdir("/")
    return {key: spread([row[key] for row in rows]) for key in rows[0]}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


@dataclass
class System:
    """The running actors, with the requests of a batch."""

    rollouts: Any
    scoring: Any
    ranks: list[Any]
    objects: list[Any]
    config: Any
    prompts: list[Any]
    advantages: Any
    stamp: Path


@contextlib.contextmanager
def running(model: str, work: str, trajectories: int, length: int) -> Iterator[System]:
    """Start the actors, and end them."""
    import ray
    from rlpost.actors import env_vars
    from rlpost.actors.cluster import cluster, nodes
    from rlpost.actors.engines import RayRolloutPool
    from rlpost.actors.placement import place
    from rlpost.actors.pool import spawn
    from rlpost.actors.recovery import Supervisor
    from rlpost.actors.scorers import RayScoringPool
    from rlpost.config.load import from_dict
    from rlpost.plugins.algorithm import build_advantage
    from rlpost.plugins.ship import ship
    from rlpost.protocols import EngineSpec
    from rlpost.trajectory import TokenizedPrompt
    from rlpost.types import Prompt

    config = from_dict(
        {
            "run": {"output_dir": work},
            "model": {"path": model, "dtype": "float32"},
            "rollout": {
                "engine": f"{Path(__file__).resolve()}:InstantEngine", "group_size": GROUP, "max_tokens": length,
                "prompts_per_step": trajectories // GROUP, "logprobs": "always",
            },
            "scoring": {"rewards": [{"name": "reward.py:half"}]},
            "selfcheck": {"plugins": False},
            "learner": {"workers": RANKS, "threads": 1},
        }
    )  # fmt: skip
    shipped = ship(config)
    source = np.random.default_rng(1)
    prompts = [
        TokenizedPrompt(Prompt(str(i), text=str(i)), source.integers(3, VOCABULARY, PROMPT, dtype=np.int32))
        for i in range(trajectories // GROUP)
    ]
    with cluster(config.cluster):
        plan = place(config, nodes())
        supervisor = Supervisor(config.cluster, plan.placements, print)
        rollouts = RayRolloutPool(
            config, plan.of("rollout"), supervisor, EngineSpec(model, (), 8, length + PROMPT), shipped
        )
        scoring = RayScoringPool(config, plan.of("scoring"), supervisor, shipped, frozenset())
        ranks = [spawn(ReceivingRank, placement, env_vars.scoring()) for placement in plan.of("learner")]
        objects = [spawn(Objects, placement, env_vars.scoring()) for placement in plan.placements]
        ray.get([rollouts.begin(0), scoring.begin(0)])
        try:
            yield System(
                rollouts, scoring, ranks, objects, config, prompts, build_advantage(config), Path(work) / "last_token"
            )
        finally:
            for handle in (*rollouts.handles, *scoring.handles, *ranks, *objects):
                ray.kill(handle)


def by_receipts(system: System, number: int) -> dict[str, float]:
    """A batch on its way through the library."""
    import ray
    from rlpost.algorithms import credit
    from rlpost.rollout.sampling import requests, settings
    from rlpost.scoring.score import drop_empty_rewards

    before = private_memory()
    asked = requests(system.prompts, run_seed=1, step=number, group_size=GROUP)
    with system.scoring.queue() as queue:
        for position, group in system.rollouts.stream(asked, settings(system.config.rollout, logprobs=True)):
            queue.submit(position, group)
        scored = queue.results()
    groups = [drop_empty_rewards(scored[position]) for position in range(len(asked))]
    batch = credit.assign(groups, system.advantages, step=number).batch
    put = ray.put(batch)
    ready = ray.get([rank.receive.remote(put, i, RANKS) for i, rank in enumerate(system.ranks)])
    return figures(system, before, max(ready))


def as_objects(system: System, number: int) -> dict[str, float]:
    """The same batch as Python objects through the driver: engine, scorer, learner."""
    import ray

    engine, scorer, *ranks = system.objects
    before = private_memory()
    length, held = system.config.rollout.max_tokens, []
    asked = [(prompt.token_ids.tolist(), number * 1000 + i) for i, prompt in enumerate(system.prompts)]
    generator = engine.sample.options(num_returns="streaming").remote(asked, length, str(system.stamp))
    scored = [ray.get(scorer.score.remote(ray.get(item))) for item in generator]
    held = [one for group in scored for one in group]
    put = ray.put(held)
    ready = ray.get([rank.receive.remote(put) for rank in ranks[:RANKS]])
    return figures(system, before, max(ready))


def figures(system: System, before: float, ready: float) -> dict[str, float]:
    """Growth of the driver's memory per trajectory, and the time since the last token."""
    grown = private_memory() - before
    return {
        "driver_kib_per_trajectory": grown / 1024 / (len(system.prompts) * GROUP),
        "seconds_to_update": ready - float(system.stamp.read_text()),
    }


def give_memory_back() -> None:
    """Return what is free to the operating system, so that growth is seen."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def private_memory() -> float:
    """Bytes of this process that it shares with nobody."""
    return float(psutil.Process().memory_full_info().uss)


def record_bytes(length: int) -> dict[str, float]:
    """Bytes per token of the records, text left out."""
    from rlpost.algorithms.credit import train_samples
    from rlpost.trajectory import one_turn

    ids = np.arange(length, dtype=np.int32) % VOCABULARY
    prompt = np.arange(PROMPT, dtype=np.int32)
    one = one_turn(prompt, ids, offsets=np.zeros((length, 2)), logprobs=np.zeros(length, np.float32))
    [sample] = train_samples(one)
    arrays = [getattr(sample, name) for name in sample.__slots__]
    held = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
    # two columns are filled in by the learner
    return {
        "trajectory_bytes_per_token": len(pickle.dumps(one)) / one.length,
        "sample_bytes_per_token": held / one.length + 2 * 4,
    }


class ReceivingRank:
    """A learner rank that makes the samples of its share and trains on none of them."""

    def end_with_node(self) -> None:
        """End with the node."""
        from rlpost.system.processes import end_with_parent

        end_with_parent()

    def receive(self, batch: BatchReceipt, rank: int, ranks: int) -> float:
        """Make this rank's samples; returns the time when they are there."""
        from rlpost.actors.handles import fetch
        from rlpost.learner.packing import Layout, plan_pass, sample_indices
        from rlpost.learner.received import received

        samples = received(batch, fetch)
        plan = plan_pass(
            range(len(samples)), samples.sizes, ranks, Layout(packed=True, share_prompts=True, micro_tokens=8192)
        )
        own = [samples[index] for micro in plan[rank] for index in sample_indices(micro)]
        assert own
        return time.time()


@dataclass(frozen=True)
class Answer:
    """A completion as Python objects."""

    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    logprobs: tuple[float, ...]
    text: str


class Objects(ReceivingRank):
    """The baseline's engine, scorer and learner rank."""

    def sample(self, asked: Sequence[tuple[list[int], int]], length: int, stamp: str) -> Iterator[list[Answer]]:
        """Groups of random completions."""
        drawn: list[tuple[list[int], np.ndarray, np.ndarray]] = []
        for prompt, seed in asked:
            for member in range(GROUP):
                source = np.random.default_rng(seed * GROUP + member)
                drawn.append((prompt, source.integers(3, VOCABULARY, length), -source.random(length)))
        Path(stamp).write_text(repr(time.time()))
        for start in range(0, len(drawn), GROUP):
            group = drawn[start : start + GROUP]
            yield [self._answer(prompt, ids.tolist(), values.tolist()) for prompt, ids, values in group]

    @staticmethod
    def _answer(prompt: list[int], ids: list[int], values: list[float]) -> Answer:
        spans = tuple((i, i + 1) for i in range(len(ids)))
        return Answer(tuple(prompt), tuple(ids), spans, tuple(values), "x" * len(ids))

    def score(self, group: list[Answer]) -> list[Answer]:
        """Give the group back."""
        return group

    def receive(self, batch: list[Answer]) -> float:  # type: ignore[override]
        """Make arrays of the whole batch, as each rank did; returns the time when they are there."""
        made = [
            (np.asarray(one.prompt), np.asarray(one.ids), np.asarray(one.logprobs, np.float32), np.zeros(len(one.ids)))
            for one in batch
        ]
        assert made
        return time.time()


def starting_model(work: Path, length: int) -> str:
    """A tiny model folder with a tokenizer of words."""
    from rlpost.config.schema import ScratchModel
    from rlpost.data import models, wordlevel

    folder = work / "model"
    size = wordlevel.build([" ".join(f"w{i}" for i in range(VOCABULARY))], folder, length + PROMPT)
    shape = ScratchModel(hidden_size=32, heads=1, layers=1, max_positions=length + PROMPT)
    models.build_scratch(shape, size, folder, 1)
    return str(folder)


WAYS: dict[str, Callable[[System, int], dict[str, float]]] = {"receipts": by_receipts, "objects": as_objects}

if __name__ == "__main__":
    main()
