"""Requests and seeds: counter-based, so that a resumed run draws what the uninterrupted one would have drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from rlpost.config.schema import RolloutSection, RunConfig
from rlpost.protocols import GroupRequest, SamplingSettings
from rlpost.trajectory import Ticket, TokenizedPrompt

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
    return _seed_of(f"{stream}:{run_seed}:{step}:{slot}") // group_size * group_size


def turn_seed(seed: int, turn: int) -> int:
    """Seed of a turn of the trajectory with this seed: the seed itself for turn 0, else a hash of both."""
    if turn == 0:
        return seed
    return _seed_of(f"turn:{seed}:{turn}")


def proof_seed(run_seed: int, theorem: str, call: int) -> int:
    """Seed of the ``call``-th sample, 0-based, that ``rlpost prove`` draws for a theorem.

    It depends on nothing else: neither on the other theorems, nor on how many are sampled together, nor on what an
    interrupted command had settled.

    Args:
        run_seed: ``run.seed``.
        theorem: id of the theorem.
        call: number of completions that were asked for before for this theorem.
    """
    return _seed_of(f"prove:{run_seed}:{call}:{theorem}")


def _seed_of(name: str) -> int:
    """The seed that belongs to a name: a hash of it, from 0 to 2⁶² - 1."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % _SEED_SPACE


def requests(
    prompts: Sequence[TokenizedPrompt],
    *,
    run_seed: int,
    step: int,
    group_size: int,
    stream: str = "train",
    first_slot: int = 0,
) -> list[GroupRequest]:
    """One request per prompt of a batch.

    Args:
        prompts: the prompts.
        run_seed: ``run.seed``.
        step: number of the rollout batch.
        group_size: samples per prompt.
        stream: name that separates the seeds of training and evaluation.
        first_slot: number of groups that the step has asked for before.
    """
    return [
        GroupRequest(prompt, tuple(range(first, first + group_size)))
        for prompt, first in (
            (prompt, group_seed(run_seed, step, slot, group_size, stream))
            for slot, prompt in enumerate(prompts, first_slot)
        )
    ]


def admitted(asked: Sequence[GroupRequest], first: int, version: int) -> list[GroupRequest]:
    """Requests with tickets.

    Args:
        asked: the requests of a batch, in order.
        first: number of the first ticket.
        version: policy version that the engines serve.
    """
    return [
        replace(request, ticket=Ticket(number, request.prompt.prompt.id, request.seeds, version))
        for number, request in enumerate(asked, first)
    ]


def settings(section: RolloutSection, logprobs: bool) -> SamplingSettings:
    """Sampling settings of training completions, with or without their tokens' log-probabilities: the full support."""
    return SamplingSettings(
        max_tokens=section.max_tokens,
        temperature=section.temperature,
        stop=section.stop,
        logprobs=logprobs,
        constrained=section.constraint is not None,
    )


def evaluation_settings(config: RunConfig) -> SamplingSettings:
    """Sampling settings of evaluations: ``evaluation.sampling``, completed by ``rollout``."""
    given, rollout = config.evaluation.sampling, config.rollout
    return SamplingSettings(
        max_tokens=given.max_tokens or rollout.max_tokens,
        temperature=given.temperature or rollout.temperature,
        top_p=given.top_p,
        top_k=given.top_k,
        stop=rollout.stop,
        logprobs=rollout.logprobs == "always",  # a reward stage may read them
        constrained=rollout.constraint is not None,
    )


def describe(drawn: SamplingSettings) -> str:
    """Sampling settings in words, for logs and reports.

    >>> describe(SamplingSettings(max_tokens=8)), describe(SamplingSettings(8, 0.6, top_p=0.95))
    ('temperature 1, at most 8 tokens', 'temperature 0.6, top_p 0.95, at most 8 tokens')
    """
    parts = [f"temperature {drawn.temperature:g}"]
    parts += [f"top_p {drawn.top_p:g}"] if drawn.top_p < 1 else []
    parts += [f"top_k {drawn.top_k}"] if drawn.top_k > 0 else []
    return ", ".join([*parts, f"at most {drawn.max_tokens} tokens"])


def round_robin(items: Sequence[object], workers: int) -> list[list[int]]:
    """Positions of the items that each worker takes: round robin, so that neighbours in the batch run concurrently."""
    return [list(range(worker, len(items), workers)) for worker in range(workers)]
