"""Seeds of samples: counter-based, so that a resumed run draws what the uninterrupted one would have drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from rlpost.config.schema import RolloutSection
from rlpost.protocols import GenerateRequest, SamplingSettings

_SEED_SPACE = 2**62
"""vLLM takes seeds as signed 64-bit integers; 2⁶² leaves room for the samples' offsets in a group."""


def group_seed(run_seed: int, step: int, slot: int, group_size: int, stream: str = "train") -> int:
    """Seed of the first sample of a group; sample ``i`` uses this plus ``i``.

    It is a hash of (stream, run seed, step, slot), rounded down to a multiple of the group size so that two groups
    never share only some of their seeds.

    Args:
        run_seed: ``run.seed``.
        step: number of the rollout batch.
        slot: position of the prompt in the batch; two occurrences of a prompt in a batch draw differently.
        group_size: samples per prompt.
        stream: name that separates the seeds of training and evaluation.
    """
    digest = hashlib.blake2b(f"{stream}:{run_seed}:{step}:{slot}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % _SEED_SPACE // group_size * group_size


def requests(
    prompts: Sequence[tuple[str, tuple[int, ...]]], *, run_seed: int, step: int, group_size: int, stream: str = "train"
) -> list[GenerateRequest]:
    """One request per prompt of a batch.

    Args:
        prompts: (prompt id, prompt token ids).
        run_seed: ``run.seed``.
        step: number of the rollout batch.
        group_size: samples per prompt.
        stream: name that separates the seeds of training and evaluation.
    """
    return [
        GenerateRequest(name, ids, group_size, group_seed(run_seed, step, slot, group_size, stream))
        for slot, (name, ids) in enumerate(prompts)
    ]


def settings(section: RolloutSection, logprobs: bool) -> SamplingSettings:
    """Sampling settings of training completions, with or without their tokens' log-probabilities."""
    return SamplingSettings(
        max_tokens=section.max_tokens,
        temperature=section.temperature,
        top_p=section.top_p,
        top_k=section.top_k,
        stop=section.stop,
        logprobs=logprobs,
    )


def round_robin(items: Sequence[object], workers: int) -> list[list[int]]:
    """Positions of the items that each worker takes: round robin, so that neighbours in the batch run concurrently."""
    return [list(range(worker, len(items), workers)) for worker in range(workers)]
