"""Does an engine answer from keys and values that an older policy wrote?

It answers the same prompts twice, with its prefix cache as it is and with the cache emptied. vLLM caches whole blocks
only, so the prompts must be longer than a block; those of the current rollouts have just left theirs in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlpost.algorithms.diagnostics import mismatch
from rlpost.types import Completion


def stale_cache(as_is: Sequence[Completion], fresh: Sequence[Completion]) -> float:
    """Mean |log p as it is - log p with an emptied cache| in nats per token, while both continue the same tokens.

    The first token in which they differ is included: there each side reports its own most likely token, and two maxima
    differ by no more than the two distributions do at some token.

    Args:
        as_is: greedy completions with the cache as it is.
        fresh: greedy completions of the same prompts with the cache emptied.

    Raises:
        ValueError: if the completions are not of the same prompts, or lack log-probabilities.
    """
    if [c.prompt_ids for c in as_is] != [c.prompt_ids for c in fresh]:
        raise ValueError("the engine's two rounds of completions are of different prompts")
    lengths = [_shared(a.token_ids, b.token_ids) for a, b in zip(as_is, fresh, strict=True)]
    first, second = (
        [row[:n] for row, n in zip(reported_logprobs(side), lengths, strict=True)] for side in (as_is, fresh)
    )
    return mismatch(first, second).mean


def reported_logprobs(completions: Sequence[Completion]) -> list[list[float]]:
    """The engine's log-probabilities of each completion.

    Raises:
        ValueError: for a completion that has none.
    """
    rows = [list(completion.logprobs or ()) for completion in completions]
    for completion, row in zip(completions, rows, strict=True):
        if len(row) != len(completion.token_ids):
            raise ValueError(f"the engine gave no log-probabilities of {completion.prompt_id!r}")
    return rows


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of positions that two token sequences reach with the same tokens before them.

    >>> _shared((1, 2, 3), (1, 2, 3)), _shared((1, 2, 3), (1, 9, 9)), _shared((1,), (1, 2))
    (3, 2, 1)
    """
    shortest = min(len(first), len(second))
    return next((i + 1 for i in range(shortest) if first[i] != second[i]), shortest)
