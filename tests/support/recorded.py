"""A fixed batch: ragged lengths, two spans per completion, off-policy, so that every term of the loss is nonzero."""

from __future__ import annotations

import numpy as np

from rlpost.config.load import from_dict
from rlpost.config.schema import RunConfig
from rlpost.types import TrainBatch
from support.trajectories import sample


def batch(count: int = 7, vocabulary: int = 64, seed: int = 5) -> TrainBatch:
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        prompt, size = int(rng.integers(2, 9)), int(rng.integers(3, 20))
        old = (-np.log(vocabulary) + rng.normal(0, 0.3, size)).astype(np.float32)
        ids, completion = rng.integers(3, vocabulary, prompt), rng.integers(3, vocabulary, size)
        advantage = rng.normal()
        mask = np.arange(size) < size - (size % 2)
        columns = {
            "spans": np.arange(size) >= size // 2,
            "rollout": old + rng.normal(0, 0.3, size),
            "proximal": old,
            "reference": old + rng.normal(0, 0.5, size),
        }
        samples.append(sample(ids.tolist(), completion.tolist(), advantages=advantage, mask=mask.tolist(), **columns))
    return TrainBatch(tuple(samples), 0)


def dialogues(count: int = 6, vocabulary: int = 64, seed: int = 6) -> TrainBatch:
    """A fixed batch of two prompts, two turns each with an observation between them, a third of them further
    sequences of a trajectory.
    """
    rng, samples = np.random.default_rng(seed), []
    prompts = [rng.integers(3, vocabulary, 4).tolist() for _ in range(2)]
    for number in range(count):
        first, seen, second = (int(size) for size in rng.integers(2, 7, 3))
        mask = np.repeat([True, False, True], [first, seen, second])
        old = -np.log(vocabulary) + rng.normal(0, 0.3, len(mask))
        columns = {
            "advantages": rng.normal(size=len(mask)),
            "spans": np.repeat([0, -1, 1], [first, seen, second]),
            "rollout": np.where(mask, old + rng.normal(0, 0.3, len(mask)), np.nan),
            "proximal": np.where(mask, old, np.nan),
            "reference": np.where(mask, old + rng.normal(0, 0.5, len(mask)), np.nan),
        }
        completion = rng.integers(3, vocabulary, len(mask)).tolist()
        part = int(number % 3 == 2)
        samples.append(sample(prompts[number % 2], completion, mask=mask.tolist(), part=part, **columns))
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


def grouped(count: int = 8, version: int = 0) -> TrainBatch:
    """The fixed batch as two groups, sampled by this policy version, without old and reference log-probabilities."""
    samples = batch(count).samples
    half, changed = count // 2, []
    for i, one in enumerate(samples):
        first, size = samples[i // half * half], one.prompt_tokens
        changed.append(
            sample(
                first.token_ids[: first.prompt_tokens].tolist(),
                one.token_ids[size:].tolist(),
                advantages=one.advantages[size:].tolist(),
                spans=one.span_ids[size:].tolist(),
                mask=one.mask[size:].tolist(),
                rollout=None if one.rollout_logprobs is None else one.rollout_logprobs[size:].tolist(),
                version=version,
            )
        )
    return TrainBatch(tuple(changed), 0)
