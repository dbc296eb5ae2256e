"""Log-probabilities of chosen tokens from logits."""

from __future__ import annotations

from torch import Tensor


def chosen_logprobs(logits: Tensor, token_ids: Tensor, temperature: float = 1.0) -> Tensor:
    r"""log softmax(logits / temperature)[token], in float32 whatever the logits' dtype.

    bfloat16 keeps 8 bits: a log-sum-exp over a vocabulary in it is off by more than a clip range (measured: mean
    |Δ log p| 0.03 to 0.09 between two correct bf16 implementations), so the sum is always taken in float32.

    Args:
        logits: ``[..., V]``.
        token_ids: ``[...]`` int64 in [0, V).
        temperature: > 0, the temperature the tokens were sampled at.

    Returns:
        ``[...]`` float32, ≤ 0.

    Raises:
        ValueError: for a temperature that is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature {temperature} must be positive (score greedy samples at 1.0)")
    scaled = logits.float() if temperature == 1.0 else logits.float() / temperature
    chosen = scaled.gather(-1, token_ids.unsqueeze(-1)).squeeze(-1)
    return chosen - scaled.logsumexp(-1)
