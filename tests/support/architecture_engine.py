"""An engine on a model folder against the learner's model, in a process of its own; prints JSON findings."""

from __future__ import annotations

import json
import sys

import numpy as np
import torch

from rlpost.config.load import from_dict
from rlpost.learner.build import build_learner
from rlpost.protocols import GenerateRequest, SamplingSettings
from rlpost.rollout.episode import complete
from rlpost.rollout.vllm.engine import VllmEngine, VllmSettings
from rlpost.trajectory import one_turn
from rlpost.types import TrainSample


def compared(folder: str) -> dict[str, float]:
    """Largest |Δ log p| of sampled tokens between engine and learner, which runs as in training, and how likely they are."""
    config = from_dict(
        {
            "model": {"path": folder, "dtype": "float32"},
            "scoring": {"verifier": "function"},
            "learner": {"engine": "torch", "gradient_checkpointing": True},
        }
    )
    learner = build_learner(config, folder, torch.device("cpu"))
    engine = VllmEngine(VllmSettings(model=folder, dtype="float32", max_model_len=96, kv_cache_mb=64))
    source = np.random.default_rng(0)
    asked = [GenerateRequest(source.integers(5, 60, size).astype(np.int32), 24, size) for size in (3, 9, 20, 40)]
    answers = complete(engine, asked, SamplingSettings(max_tokens=0), 300.0)
    engine.close()
    rolled = [one_turn(r.token_ids, c.token_ids, logprobs=c.logprobs) for r, c in zip(asked, answers, strict=True)]
    samples = [
        TrainSample(
            token_ids=one.token_ids,
            mask=one.mask,
            advantages=np.zeros(len(one.mask), np.float32),
            span_ids=np.zeros(len(one.mask), np.int32),
            versions=np.zeros(len(one.mask), np.int32),
            rollout_logprobs=one.logprobs,
        )
        for one in rolled
    ]
    found = learner.logprobs(samples)
    pairs = [(found[i][one.mask], one.logprobs[one.mask]) for i, one in enumerate(rolled) if one.logprobs is not None]
    apart = np.concatenate([abs(own - engines) for own, engines in pairs])
    likely = np.exp(np.concatenate([engines for _, engines in pairs]))
    return {"largest": float(apart.max()), "tokens": len(apart), "mean_probability": float(likely.mean())}


if __name__ == "__main__":
    print(json.dumps(compared(sys.argv[1])))
