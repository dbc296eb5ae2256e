"""Log-probabilities of chosen tokens from logits, and from hidden states without holding all logits at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]


def chosen_logprobs(logits: Tensor, token_ids: Tensor, temperature: float = 1.0) -> Tensor:
    r"""log softmax(logits / temperature)[token], in float32 whatever the logits' dtype.

    bfloat16 keeps 8 bits: a log-sum-exp over a vocabulary in it is off by more than a clip range (measured: mean
    |Δ log p| 0.03 to 0.09 between two correct bf16 implementations), so the sum is always taken in float32.

    Args:
        logits: ``[..., V]``, any float dtype.
        token_ids: ``[...]`` int64 in [0, V).
        temperature: temperature > 0 that the tokens were sampled at.

    Returns:
        ``[...]`` float32, ≤ 0.

    Raises:
        ValueError: for a temperature that is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature {temperature} must be positive (score greedy samples at 1.0)")
    scaled = logits.float() if temperature == 1.0 else logits.float() / temperature
    # gather and logsumexp would pass over the vocabulary three times as often
    loss = functional.cross_entropy(scaled.reshape(-1, scaled.shape[-1]), token_ids.flatten(), reduction="none")
    return -loss.view(token_ids.shape)


def surprise_moments(logits: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Mean and variance of -log p(y) for y drawn from p = softmax(logits / temperature).

    The mean is the entropy H = -Σ_y p log p of the full distribution, the variance Σ_y p (log p)² - H².

    Args:
        logits: ``[K, V]``, any float dtype; -inf for tokens that cannot be sampled.
        temperature: temperature > 0.

    Returns:
        ``[2, K]`` float32: entropy in nats, and variance in nats².
    """
    logp = functional.log_softmax(logits.float() / temperature, dim=-1)
    p = logp.exp()
    weighted = p * logp.clamp(min=-1e4)  # 0 · (-inf) would be NaN
    entropy = -weighted.sum(-1)
    square = (weighted * logp.clamp(min=-1e4)).sum(-1)
    return torch.stack([entropy, (square - entropy.square()).clamp(min=0.0)])


def chunked_logprobs(
    hidden: Tensor, head: Callable[[Tensor], Tensor], token_ids: Tensor, temperature: float, chunks: int
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

    Returns:
        ``[N]`` float32, ≤ 0.

    Raises:
        ValueError: for a temperature that is not positive.
    """

    def score(states: Tensor, ids: Tensor) -> Tensor:
        return chosen_logprobs(head(states), ids, temperature)

    size, parts = -(-len(token_ids) // chunks), list[Tensor]()
    for number in range(chunks):
        part = slice(number * size, (number + 1) * size)
        if torch.is_grad_enabled() and number < chunks - 1:
            part_of = hidden[part], token_ids[part]
            parts.append(cast(Tensor, checkpoint(score, *part_of, use_reentrant=False, preserve_rng_state=False)))
        else:
            parts.append(score(hidden[part], token_ids[part]))
    return torch.cat(parts)
