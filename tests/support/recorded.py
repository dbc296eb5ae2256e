"""A fixed batch: ragged lengths, two spans per completion, off-policy, so that every term of the loss is nonzero."""

from __future__ import annotations

import dataclasses

import numpy as np

from rlpost.config.load import from_dict
from rlpost.config.schema import RunConfig
from rlpost.types import TrainBatch, TrainSample


def batch(count: int = 7, vocabulary: int = 64, seed: int = 5) -> TrainBatch:
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        prompt, size = int(rng.integers(2, 9)), int(rng.integers(3, 20))
        old = (-np.log(vocabulary) + rng.normal(0, 0.3, size)).astype(np.float32)
        samples.append(
            TrainSample(
                prompt_ids=rng.integers(3, vocabulary, prompt),
                completion_ids=rng.integers(3, vocabulary, size),
                advantages=np.repeat(rng.normal(), size).astype(np.float32),
                span_ids=(np.arange(size) >= size // 2).astype(np.int64),
                mask=np.arange(size) < size - (size % 2),
                rollout_logprobs=(old + rng.normal(0, 0.3, size)).astype(np.float32),
                policy_version=0,
                proximal_logprobs=old,
                ref_logprobs=(old + rng.normal(0, 0.5, size)).astype(np.float32),
            )
        )
    return TrainBatch(tuple(samples), 0)


def config(folder: str, **sections: dict) -> RunConfig:
    tree: dict = {
        "model": {"path": folder, "dtype": "float32"},
        "scoring": {"verifier": "function"},
        "rollout": {"max_tokens": 24},
        "algorithm": {"kl": {"coef": 0.1}, "importance": {"mode": "truncate"}, "clip": [0.2, 0.3]},
        "optimizer": {"lr": 1e-3, "grad_clip": 0.5},
        "learner": {"micro_tokens": 40},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values}
    return from_dict(tree)


def grouped(count: int = 8) -> TrainBatch:
    """The fixed batch as two groups, without old and reference log-probabilities."""
    samples = batch(count).samples
    half = count // 2
    changed = [
        dataclasses.replace(
            s, prompt_ids=samples[i // half * half].prompt_ids, proximal_logprobs=None, ref_logprobs=None
        )
        for i, s in enumerate(samples)
    ]
    return TrainBatch(tuple(changed), 0)
