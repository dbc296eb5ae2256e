"""Smoke test of vLLM (sample two tokens), which ``rlpost doctor`` runs with the folder of a tiny model."""

from __future__ import annotations

import sys

from rlpost.system.smoke_test import begin, doing, found


def main(folder: str) -> None:
    """Load an engine and sample."""
    doing("importing vllm")
    import numpy as np
    import vllm

    from rlpost.rollout.episode import greedy
    from rlpost.rollout.vllm.engine import VllmEngine
    from rlpost.rollout.vllm.load import VllmSettings

    doing("loading a tiny model")
    settings = VllmSettings(model=folder, dtype="float32", max_model_len=128, kv_cache_mb=64, max_num_seqs=8)
    engine = VllmEngine(settings)
    doing("generating a token")
    [trajectory] = greedy(engine, [np.array([3, 4], np.int32)], 2)
    found(f"{vllm.__version__} loaded a tiny model and sampled {trajectory.sampled} tokens")


if __name__ == "__main__":
    begin()
    main(sys.argv[1])
