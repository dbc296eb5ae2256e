"""What catalog-constrained decoding costs, and how many invalid lists it leaves.

Everything is measured in one process, with an untrained model of a recipe's size. `lists`: lists sampled under the
constraint at temperature 1, judged by the catalog verifier; and some without it. `rollout`: a step's groups under the
constraint, and requests without it that sample as many tokens each. `learner`: one step on the same answers, scored
under the constraint and without. Rounds alternate, and times are the shortest of them, as CPU seconds and seconds;
`cost` is the share that the constraint adds.

    scripts/bench_constrained.py configs/recommender_constrained_cpu.yaml --lists 5000 --rounds 3
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rlpost.actors import env_vars

os.environ.update(env_vars.rollout(int(os.environ.get("OMP_NUM_THREADS", "1")), gpu=False))

import numpy as np
import torch

from rlpost.algorithms.credit import train_samples
from rlpost.commands.sft import read_pairs, starting_folder
from rlpost.config.load import load
from rlpost.config.schema import RunConfig
from rlpost.data.load import tokenized_prompts
from rlpost.data.tokenizer import TextCodec
from rlpost.learner.build import build_learner
from rlpost.plugins.build import build_verifier
from rlpost.protocols import EngineSpec, GenerateRequest, SamplingSettings, Verifier
from rlpost.rollout.episode import complete
from rlpost.rollout.vllm.engine import build_engine
from rlpost.trajectory import one_turn
from rlpost.types import TrainBatch, TrainSample, VerifyItem

_DEADLINE_S = 3600.0
Times = tuple[float, float]
"""CPU seconds and seconds."""


def timed(call: Callable[[], Any]) -> tuple[Any, Times]:
    """Result of a call, and its times."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = call()
    return found, (time.process_time() - cpu, time.perf_counter() - wall)


def compared(rounds: Sequence[tuple[Times, Times]]) -> dict[str, Any]:
    """Shortest times with and without the constraint, and the share that it adds."""
    best = {
        name: [min(one[side][part] for one in rounds) for part in (0, 1)]
        for side, name in enumerate(("constrained", "unconstrained"))
    }
    cost = [a / b - 1 for a, b in zip(best["constrained"], best["unconstrained"], strict=True)]
    rounded = {name: [round(value, 3) for value in values] for name, values in best.items()}
    return rounded | {"cost": [round(value, 4) for value in cost]}


class Bench:
    """An engine, a learner and a verifier of a configuration, with an untrained model."""

    def __init__(self, config: RunConfig, folder: str):
        self.config, self.codec = config, TextCodec(folder)
        self.prompts = [one.token_ids for one in tokenized_prompts(config, folder, training=True)[0]]
        longest = max(map(len, self.prompts)) + config.rollout.max_tokens
        self.engine: Any = build_engine(config, EngineSpec(folder, (), 256, longest))
        torch.manual_seed(config.run.seed)
        self.learner = build_learner(config, folder, torch.device("cpu"))
        judge = build_verifier(config.scoring.model_copy(update={"verifier_args": self._judge()}))
        assert judge is not None
        self.judge: Verifier = judge

    def _judge(self) -> dict[str, Any]:
        return dict(self.config.scoring.verifier_args) | {"relevant_required": False}

    def sample(self, count: int, constrained: bool, lengths: Sequence[int] | None = None) -> list[Any]:
        """Completions of the prompts in turn, each of the recipe's length or of its own."""
        most = self.config.rollout.max_tokens
        settings = SamplingSettings(max_tokens=most, constrained=constrained)
        asked = [
            GenerateRequest(self.prompts[i % len(self.prompts)], lengths[i] if lengths else most, 1000 + i)
            for i in range(count)
        ]
        return complete(self.engine, asked, settings, _DEADLINE_S)

    def judged(self, answers: Sequence[Any]) -> dict[str, Any]:
        """Shares of lists that are not exactly N distinct items, and what they have instead."""
        size = self.config.rollout.constraint.arguments.get("size", 10)  # type: ignore[union-attr]
        texts = [self.codec.text(one.token_ids.tolist()) for one in answers]
        verdicts = self.judge.verify_batch([VerifyItem({}, text) for text in texts])
        reasons = [[item.reason for item in verdict.items] for verdict in verdicts]
        wrong = [
            row != ["in_catalog"] * size or one.finish != "stop" for row, one in zip(reasons, answers, strict=True)
        ]
        items = {name for verdict in verdicts for name in verdict.evidence["items"] if name is not None}
        return {
            "lists": len(answers),
            "invalid": sum(wrong),
            "duplicates": sum(row.count("duplicate") for row in reasons),
            "outside": sum(row.count("out_of_catalog") + row.count("unparsable") for row in reasons),
            "exact_length": sum(len(row) == size for row in reasons) / len(reasons),
            "coverage": len(items),
            "tokens": sum(len(one.token_ids) for one in answers),
        }

    def samples(self, answers: Sequence[Any]) -> tuple[TrainSample, ...]:
        """Training samples of the answers, with advantages drawn at random."""
        draw, found = np.random.default_rng(0), list[TrainSample]()
        for i, one in enumerate(answers):
            rolled = one_turn(self.prompts[i % len(self.prompts)], one.token_ids, logprobs=one.logprobs)
            [sample] = train_samples(rolled)
            credit = np.where(sample.mask, draw.normal(), 0.0).astype(np.float32)
            versions = np.where(sample.mask, self.learner.counters.version, -1).astype(np.int32)
            found.append(dataclasses.replace(sample, advantages=credit, versions=versions))
        return tuple(found)

    def learned(self, answers: Sequence[Any], constrained: bool) -> Times:
        """Times of a learner's step on these answers."""
        passes, samples = self.learner.passes, self.samples(answers)
        kept = passes.constraint
        passes.constraint = kept if constrained else None
        try:
            return timed(lambda: self.learner.step(TrainBatch(samples, 0)))[1]
        finally:
            passes.constraint = kept

    def steps(self, rounds: int) -> dict[str, Any]:
        """Rollout and learner of a step, with and without the constraint."""
        count = self.config.rollout.group_size * self.config.rollout.prompts_per_step
        rollouts, learners = [], []
        for number in range(rounds + 1):
            bound, first = timed(lambda: self.sample(count, True))
            lengths = [len(one.token_ids) for one in bound]
            second = timed(lambda lengths=lengths: self.sample(count, False, lengths))[1]
            third, fourth = self.learned(bound, True), self.learned(bound, False)
            if number:  # the first round warms up
                rollouts.append((first, second))
                learners.append((third, fourth))
        both = [
            tuple((a[0] + b[0], a[1] + b[1]) for a, b in zip(one, other, strict=True))
            for one, other in zip(rollouts, learners, strict=True)
        ]
        return {"rollout": compared(rollouts), "learner": compared(learners), "step": compared(both)}  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", help="a recipe with rollout.constraint and model.scratch")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--lists", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    config = load(given.config, [*given.overrides, "learner.engine=torch", "rollout.logprobs=always"]).config
    assert config.sft is not None
    work = Path(tempfile.mkdtemp(prefix="rlpost-bench-"))
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where DeepSpeed announces itself
            bench = Bench(config, str(starting_folder(config, read_pairs(config, config.sft), work)))
            lists = {
                "constrained": bench.judged(bench.sample(given.lists, True)),
                "unconstrained": bench.judged(bench.sample(min(given.lists, 500), False)),
            }
            steps = bench.steps(given.rounds)
        print(json.dumps({"config": given.config, "lists": lists, **steps}, indent=1))
        bench.engine.close()
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
