r"""Log-probabilities of a distribution that is restricted to some tokens at each place, from logits of all tokens.

The allowed tokens of N places are M numbers with offsets, not N·V truth values: a place of a list allows a few tokens
of a vocabulary of a hundred thousand, so what is kept for the backward pass is small, and the softmax over the rest is
never taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Allowed:
    """The tokens allowed at each of N places.

    Attributes:
        offsets: ``[N + 1]`` int64 on the CPU, where each place's ids begin in ``ids``, and where the last one's end;
            no place is without any.
        ids: ``[M]`` int32 or int64, distinct within a place.

    >>> Allowed(torch.tensor([0, 2, 3]), torch.tensor([4, 9, 1])).part(1, 2).ids.tolist()
    [1]
    """

    offsets: Tensor
    ids: Tensor

    def part(self, start: int, stop: int) -> Allowed:
        """The places from ``start`` to ``stop``."""
        offsets = self.offsets[start : stop + 1]
        if not len(offsets):  # beyond the last place
            offsets = self.offsets[-1:]
        first, last = int(offsets[0]), int(offsets[-1])
        return Allowed(offsets - first, self.ids[first:last])

    def chosen(self, places: Tensor) -> Allowed:
        """The places with these numbers, ``[K]`` int64."""
        places = places.to(self.offsets.device)
        begin, sizes = self.offsets[places], self.offsets[places + 1] - self.offsets[places]
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
        within = torch.arange(int(offsets[-1])) - torch.repeat_interleave(offsets[:-1], sizes)
        return Allowed(offsets, self.ids[(torch.repeat_interleave(begin, sizes) + within).to(self.ids.device)])


def allowed_logprobs(logits: Tensor, token_ids: Tensor, temperature: float, allowed: Allowed) -> Tensor:
    r"""log softmax(logits / temperature) over the allowed tokens, of one of them: z_y/T - log Σ_{v ∈ A} exp(z_v/T).

    It is taken in float32 whatever the logits' dtype; see `rlpost.algorithms.logprobs.chosen_logprobs`.

    Args:
        logits: ``[N, V]``, any float dtype.
        token_ids: ``[N]`` int64 in [0, V), each allowed at its place.
        temperature: temperature > 0 that the tokens were sampled at.
        allowed: the allowed tokens A of the N places.

    Returns:
        ``[N]`` float32, ≤ 0; exactly 0 where one token is allowed.

    Raises:
        ValueError: for a temperature that is not positive, another number of places, or a token that is not allowed.
    """
    if temperature <= 0:
        raise ValueError(f"temperature {temperature} must be positive (score greedy samples at 1.0)")
    scaled, row = _scaled(logits, temperature, allowed)
    # among the float32 values, not from the logits once more: a bfloat16 gradient would be rounded twice, and that of a
    # token of probability near 1 is the difference of two numbers near 1
    places = torch.nonzero(allowed.ids == token_ids[row])[:, 0]
    if len(places) != len(token_ids):
        raise ValueError(f"{len(token_ids) - len(places)} of {len(token_ids)} tokens are not allowed at their places")
    return scaled[places] - _log_sum_exp(scaled, row, len(logits))


def allowed_moments(logits: Tensor, temperature: float, allowed: Allowed) -> Tensor:
    """`rlpost.algorithms.logprobs.surprise_moments` of the distribution over the allowed tokens.

    Args:
        logits: ``[K, V]``, any float dtype.
        temperature: temperature > 0.
        allowed: the allowed tokens of the K places.

    Returns:
        ``[2, K]`` float32: entropy in nats, and variance of -log p in nats².
    """
    scaled, row = _scaled(logits, temperature, allowed)
    logp = scaled - _log_sum_exp(scaled, row, len(logits))[row]
    # a logit of -inf has probability 0 and no part in either sum
    weighted = logp.exp() * logp.clamp(min=-1e4)
    entropy = -_sum(weighted, row, len(logits))
    square = _sum(weighted * logp.clamp(min=-1e4), row, len(logits))
    return torch.stack([entropy, (square - entropy.square()).clamp(min=0.0)])


def _scaled(logits: Tensor, temperature: float, allowed: Allowed) -> tuple[Tensor, Tensor]:
    """``[M]`` logits of the allowed tokens by temperature, in float32, and the place of each."""
    if len(allowed.offsets) != len(logits) + 1:
        raise ValueError(f"allowed tokens of {len(allowed.offsets) - 1} places for logits of {len(logits)}")
    sizes = allowed.offsets.diff()
    row = torch.repeat_interleave(torch.arange(len(logits)), sizes).to(logits.device)
    return logits[row, allowed.ids.long()].float() / temperature, row


def _log_sum_exp(values: Tensor, row: Tensor, rows: int) -> Tensor:
    largest = torch.full((rows,), float("-inf"), device=values.device)
    largest = largest.scatter_reduce(0, row, values.detach(), "amax")
    return largest + _sum((values - largest[row]).exp(), row, rows).log()


def _sum(values: Tensor, row: Tensor, rows: int) -> Tensor:
    return torch.zeros(rows, device=values.device).index_add(0, row, values)
