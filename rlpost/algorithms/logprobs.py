"""Log-probabilities of chosen tokens from logits, and from hidden states without holding all logits at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

from rlpost.algorithms.allowed import Allowed, allowed_logprobs


def chosen_logprobs(
    logits: Tensor, token_ids: Tensor, temperature: float = 1.0, excluded: Tensor | None = None
) -> Tensor:
    r"""log softmax(logits / temperature)[token], in float32 whatever the logits' dtype.

    bfloat16 keeps 8 bits: a log-sum-exp over a vocabulary in it is off by more than a clip range (measured: mean
    |Δ log p| 0.03 to 0.09 between two correct bf16 implementations), so the sum is always taken in float32.

    Args:
        logits: ``[..., V]``, any float dtype.
        token_ids: ``[...]`` int64 in [0, V).
        temperature: temperature > 0 that the tokens were sampled at.
        excluded: ``[E]`` int64, ids that cannot be sampled: the softmax is over all others, and theirs is -inf. None
            changes nothing, not even a rounding.

    Returns:
        ``[...]`` float32, ≤ 0.

    Raises:
        ValueError: for a temperature that is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature {temperature} must be positive (score greedy samples at 1.0)")
    scaled = logits.float() if temperature == 1.0 else logits.float() / temperature
    if excluded is not None:
        # the caller's logits stay as they are; a copy that was made here needs no second one
        fill = scaled.index_fill if scaled is logits else scaled.index_fill_
        scaled = fill(-1, excluded, float("-inf"))
    # gather and logsumexp would pass over the vocabulary three times as often
    loss = functional.cross_entropy(scaled.reshape(-1, scaled.shape[-1]), token_ids.flatten(), reduction="none")
    return -loss.view(token_ids.shape)


def surprise_moments(logits: Tensor, temperature: float = 1.0, excluded: Tensor | None = None) -> Tensor:
    r"""Mean and variance of -log p(y) for y drawn from p = softmax(logits / temperature).

    The mean is the entropy H = -Σ_y p log p of the full distribution, the variance Σ_y p (log p)² - H².

    Args:
        logits: ``[K, V]``, any float dtype.
        temperature: temperature > 0.
        excluded: ``[E]`` int64, ids that cannot be sampled; see `chosen_logprobs`.

    Returns:
        ``[2, K]`` float32: entropy in nats, and variance in nats².
    """
    scaled = logits.float() / temperature
    if excluded is not None:
        scaled = scaled.index_fill(-1, excluded, float("-inf"))
    logp = functional.log_softmax(scaled, dim=-1)
    p = logp.exp()
    weighted = p * logp.clamp(min=-1e4)  # 0 · (-inf) would be NaN
    entropy = -weighted.sum(-1)
    square = (weighted * logp.clamp(min=-1e4)).sum(-1)
    return torch.stack([entropy, (square - entropy.square()).clamp(min=0.0)])


def chunked_logprobs(
    hidden: Tensor,
    head: Callable[[Tensor], Tensor],
    token_ids: Tensor,
    temperature: float,
    chunks: int,
    excluded: Tensor | None = None,
    allowed: Allowed | None = None,
) -> Tensor:
    r"""log softmax(head(hidden) / temperature)[token], with the logits of one chunk in memory at a time.

    The logits are the largest tensor of an update (N·V numbers, and as many again for their gradient). Here the logits
    of a chunk are dropped after the forward pass and computed again in the backward pass (Chen et al. 2016, "Training
    deep nets with sublinear memory cost"), at the cost of one more multiplication with the head. Only the last chunk,
    whose backward pass comes first, keeps its logits.

    Args:
        hidden: ``[N, H]``, the states that predict the tokens.
        head: function from states ``[n, H]`` to logits ``[n, V]``, row by row.
        token_ids: ``[N]`` int64 in [0, V).
        temperature: temperature > 0 that the tokens were sampled at.
        chunks: number > 0 of chunks, and of calls of ``head`` in the forward pass; more than N leave some empty.
        excluded: ``[E]`` int64, ids that cannot be sampled; see `chosen_logprobs`.
        allowed: the tokens that can be sampled at each of the N places; see `allowed_logprobs`, which does without
            ``excluded``. None for all.

    Returns:
        ``[N]`` float32, ≤ 0.

    Raises:
        ValueError: for a temperature that is not positive.
    """

    def score(states: Tensor, ids: Tensor, those: Allowed | None) -> Tensor:
        if those is not None:
            return allowed_logprobs(head(states), ids, temperature, those)
        return chosen_logprobs(head(states), ids, temperature, excluded)

    size, parts = -(-len(token_ids) // chunks), list[Tensor]()
    for number in range(chunks):
        part = slice(number * size, (number + 1) * size)
        part_of = hidden[part], token_ids[part], allowed.part(part.start, part.stop) if allowed else None
        if torch.is_grad_enabled() and number < chunks - 1:
            parts.append(cast(Tensor, checkpoint(score, *part_of, use_reentrant=False, preserve_rng_state=False)))
        else:
            parts.append(score(*part_of))
    return torch.cat(parts)
