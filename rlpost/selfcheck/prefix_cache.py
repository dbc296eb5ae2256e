"""Does an engine answer from keys and values that an older policy wrote?

It answers the same prompts twice, with its prefix cache as it is and with the cache emptied. vLLM caches whole blocks
only, so the prompts must be longer than a block; those of the current rollouts have just left theirs in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlpost.algorithms.diagnostics import mismatch
from rlpost.trajectory import Trajectory


def stale_cache(as_is: Sequence[Trajectory], fresh: Sequence[Trajectory]) -> float:
    """Mean |log p as it is - log p with an emptied cache| in nats per token, while both continue the same tokens.

    The first token in which they differ is included: there each side reports its own most likely token, and two maxima
    differ by no more than the two distributions do at some token.

    Args:
        as_is: greedy completions with the cache as it is.
        fresh: greedy completions of the same prompts with the cache emptied.

    Raises:
        ValueError: if the completions are not of the same prompts, or lack log-probabilities.
    """
    sides = [[_split(one) for one in side] for side in (as_is, fresh)]
    if [prompt for prompt, _ in sides[0]] != [prompt for prompt, _ in sides[1]]:
        raise ValueError("the engine's two rounds of completions are of different prompts")
    lengths = [_shared(a, b) for (_, a), (_, b) in zip(*sides, strict=True)]
    first, second = (
        [row[:n] for row, n in zip(reported_logprobs(side), lengths, strict=True)] for side in (as_is, fresh)
    )
    return mismatch(first, second).mean


def reported_logprobs(completions: Sequence[Trajectory]) -> list[list[float]]:
    """The engine's log-probabilities of the sampled tokens of each completion.

    Raises:
        ValueError: for a completion that has none.
    """
    rows: list[list[float]] = []
    for number, one in enumerate(completions):
        if one.logprobs is None:
            raise ValueError(f"the engine gave no log-probabilities of completion {number}")
        rows.append(one.logprobs[one.mask].tolist())
    return rows


def _split(trajectory: Trajectory) -> tuple[list[int], list[int]]:
    """Token ids of the prompt, and of what follows it."""
    ids, begin = trajectory.token_ids.tolist(), trajectory.prompt_tokens
    return ids[:begin], ids[begin:]


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of positions that two token sequences reach with the same tokens before them.

    >>> _shared((1, 2, 3), (1, 2, 3)), _shared((1, 2, 3), (1, 9, 9)), _shared((1,), (1, 2))
    (3, 2, 1)
    """
    shortest = min(len(first), len(second))
    return next((i + 1 for i in range(shortest) if first[i] != second[i]), shortest)
