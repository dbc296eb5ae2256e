"""Softmax over the allowed tokens: by hand, against a dense mask, its gradient, and in chunks."""

from __future__ import annotations

import math

import pytest
import torch

from rlpost.algorithms.allowed import Allowed, allowed_logprobs, allowed_moments
from rlpost.algorithms.logprobs import chosen_logprobs, chunked_logprobs, surprise_moments


def drawn(places: int, tokens: int, seed: int) -> tuple[Allowed, torch.Tensor, torch.Tensor]:
    """Allowed tokens of some places, one of them at each, and the same as a mask ``[N, V]``."""
    source = torch.Generator().manual_seed(seed)
    mask = torch.rand(places, tokens, generator=source) < 0.3
    mask[torch.arange(places), torch.randint(tokens, (places,), generator=source)] = True
    mask[0] = False
    mask[0, 3] = True  # a forced token
    rows = [torch.nonzero(row)[:, 0] for row in mask]
    chosen = torch.stack([row[torch.randint(len(row), (1,), generator=source)[0]] for row in rows])
    offsets = torch.tensor([0, *(len(row) for row in rows)]).cumsum(0)
    return Allowed(offsets, torch.cat(rows).int()), chosen, mask


def test_the_softmax_is_over_the_allowed_tokens() -> None:
    # exp(log 1, log 2, log 3, log 4) = 1, 2, 3, 4; of the tokens 1 and 3 the second has 4 of 6
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).log()
    allowed = Allowed(torch.tensor([0, 2]), torch.tensor([1, 3]))
    assert allowed_logprobs(logits, torch.tensor([3]), 1.0, allowed).tolist() == pytest.approx([math.log(4 / 6)])
    # at temperature 1/2 weights are squared: 16 of 20
    assert allowed_logprobs(logits, torch.tensor([3]), 0.5, allowed).tolist() == pytest.approx([math.log(16 / 20)])
    entropy, variance = allowed_moments(logits, 1.0, allowed)[:, 0].tolist()
    p, q = 2 / 6, 4 / 6
    assert entropy == pytest.approx(-p * math.log(p) - q * math.log(q), rel=1e-5)
    assert variance == pytest.approx(p * math.log(p) ** 2 + q * math.log(q) ** 2 - entropy**2, rel=1e-4)


def test_a_forced_token_is_certain_and_moves_nothing() -> None:
    logits = torch.randn(1, 9, requires_grad=True)
    found = allowed_logprobs(logits, torch.tensor([4]), 0.7, Allowed(torch.tensor([0, 1]), torch.tensor([4])))
    assert found.item() == 0.0
    (slope,) = torch.autograd.grad(found.sum(), logits)
    assert slope.abs().max() == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1.0, 0.7, 3.0])
def test_it_is_that_of_a_dense_mask(dtype: torch.dtype, temperature: float) -> None:
    allowed, chosen, mask = drawn(40, 50, 1)
    logits = (torch.randn(40, 50, generator=torch.Generator().manual_seed(2)) * 6).to(dtype).requires_grad_()
    dense = (logits.float() / temperature).masked_fill(~mask, -torch.inf).log_softmax(-1)
    expected = dense.gather(1, chosen[:, None])[:, 0]
    found = allowed_logprobs(logits, chosen, temperature, allowed)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=2e-6)
    weights = torch.arange(40.0)
    (slope,) = torch.autograd.grad((found * weights).sum(), logits)
    (plain,) = torch.autograd.grad((expected * weights).sum(), logits)
    torch.testing.assert_close(slope, plain, atol=1e-5, rtol=1e-2 if dtype is torch.bfloat16 else 1e-5)
    assert (slope[~mask] == 0).all()
    masked = logits.detach().float().masked_fill(~mask, -torch.inf)
    torch.testing.assert_close(
        allowed_moments(logits.detach(), temperature, allowed),
        surprise_moments(masked, temperature),
        atol=1e-4,
        rtol=1e-4,
    )


def test_all_tokens_allowed_is_the_full_softmax() -> None:
    logits, chosen = torch.randn(6, 11), torch.tensor([0, 10, 3, 3, 7, 1])
    every = Allowed(torch.arange(7) * 11, torch.arange(11).repeat(6))
    torch.testing.assert_close(allowed_logprobs(logits, chosen, 0.9, every), chosen_logprobs(logits, chosen, 0.9))


@pytest.mark.parametrize("chunks", [1, 2, 3, 7, 40, 64])
def test_chunks_change_nothing(chunks: int) -> None:
    allowed, chosen, _ = drawn(40, 50, 4)
    head = torch.nn.Linear(8, 50)
    hidden = torch.randn(40, 8, requires_grad=True)
    whole = allowed_logprobs(head(hidden), chosen, 0.7, allowed)
    found = chunked_logprobs(hidden, head, chosen, 0.7, chunks, torch.tensor([49]), allowed)
    torch.testing.assert_close(found, whole)
    (slope,), (plain,) = (torch.autograd.grad(one.square().sum(), hidden, retain_graph=True) for one in (found, whole))
    torch.testing.assert_close(slope, plain)


def test_logits_that_are_not_finite_have_no_part() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 0.0, 5.0]])
    allowed = Allowed(torch.tensor([0, 3]), torch.tensor([0, 1, 2]))
    assert allowed_logprobs(logits, torch.tensor([2]), 1.0, allowed).item() == pytest.approx(-math.log(2))
    assert allowed_moments(logits, 1.0, allowed)[:, 0].tolist() == pytest.approx([math.log(2), 0.0], abs=1e-6)


def test_places_are_taken_by_number() -> None:
    allowed, _, mask = drawn(12, 20, 7)
    chosen = allowed.chosen(torch.tensor([11, 0, 5]))
    for row, place in enumerate((11, 0, 5)):
        part = chosen.ids[chosen.offsets[row] : chosen.offsets[row + 1]]
        assert part.tolist() == torch.nonzero(mask[place])[:, 0].tolist()
    assert allowed.part(3, 3).ids.numel() == 0
    assert allowed.part(50, 60).offsets.tolist() == [0]


def test_what_does_not_fit_is_refused() -> None:
    allowed, chosen, _ = drawn(4, 9, 0)
    with pytest.raises(ValueError, match="must be positive"):
        allowed_logprobs(torch.zeros(4, 9), chosen, 0.0, allowed)
    with pytest.raises(ValueError, match="allowed tokens of 4 places for logits of 5"):
        allowed_logprobs(torch.zeros(5, 9), torch.zeros(5, dtype=torch.long), 1.0, allowed)
    forced = Allowed(torch.tensor([0, 1, 2]), torch.tensor([4, 5]))
    with pytest.raises(ValueError, match="1 of 2 tokens are not allowed at their places"):
        allowed_logprobs(torch.zeros(2, 9), torch.tensor([4, 4]), 1.0, forced)
