"""Log-probabilities from logits. Not covered: which positions' logits are taken (tests/unit/learner)."""

from __future__ import annotations

import math

import pytest
import torch

from rlpost.algorithms.logprobs import chosen_logprobs, chunked_logprobs

# softmax of log 1, log 2, log 5 is 1/8, 2/8, 5/8
LOGITS = torch.tensor([[0.0, math.log(2), math.log(5)]])


@pytest.mark.parametrize(("token", "p"), [(0, 1 / 8), (1, 2 / 8), (2, 5 / 8)])
def test_by_hand(token: int, p: float) -> None:
    assert chosen_logprobs(LOGITS, torch.tensor([token])).item() == pytest.approx(math.log(p), abs=1e-6)


def test_temperature_divides_the_logits() -> None:
    # at 1/2 the odds are squared: 1, 4, 25 of 30
    assert chosen_logprobs(LOGITS, torch.tensor([2]), 0.5).item() == pytest.approx(math.log(25 / 30), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("temperature", "first", "second"), [(1.0, 1 / 3, 2 / 3), (0.5, 1 / 5, 4 / 5)])
def test_excluded_ids_are_left_out_of_the_softmax(
    dtype: torch.dtype, temperature: float, first: float, second: float
) -> None:
    """Without the third, odds of 1 : 2 are left; at temperature 1/2 they are 1 : 4. The logits stay as they were."""
    logits = LOGITS.clone().to(dtype).requires_grad_()
    before = logits.detach().clone()
    rows = logits.expand(3, 3)
    found = chosen_logprobs(rows, torch.tensor([0, 1, 2]), temperature, torch.tensor([2]))
    # log 2 in bfloat16 is 0.6914, not 0.6931
    expected = torch.tensor([math.log(first), math.log(second)])
    torch.testing.assert_close(found[:2], expected, atol=1e-6 if dtype == torch.float32 else 4e-3, rtol=0)
    assert found[2] == -math.inf
    assert torch.equal(logits, before)
    found[0].backward()
    # (1 - p, -q, 0) / temperature
    expected = torch.tensor([[(1 - first) / temperature, -second / temperature, 0.0]])
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.float(), expected, atol=1e-2 if dtype == torch.bfloat16 else 1e-6, rtol=0)


@pytest.mark.parametrize("chunks", [1, 2, 5])
def test_excluded_ids_are_left_out_of_every_chunk(chunks: int) -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(5, 4, requires_grad=True), torch.nn.Linear(4, 7)
    ids, excluded, known = torch.tensor([0, 2, 6, 2, 0]), torch.tensor([1, 3, 4, 5]), torch.tensor([0, 2, 6])
    found = chunked_logprobs(hidden, head, ids, 0.7, chunks, excluded)
    found.sum().backward()
    own, hidden.grad = hidden.grad, None
    kept = (hidden @ head.weight[known].T + head.bias[known]) / 0.7
    expected = kept.log_softmax(-1)[torch.arange(5), torch.tensor([0, 1, 2, 1, 0])]
    expected.sum().backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(own, hidden.grad)


def test_excluding_nothing_changes_no_bit() -> None:
    torch.manual_seed(0)
    logits, ids = torch.randn(6, 50), torch.arange(6)
    assert torch.equal(chosen_logprobs(logits, ids, 0.9), chosen_logprobs(logits, ids, 0.9, None))


def test_a_constant_on_all_logits_changes_nothing() -> None:
    a, b = chosen_logprobs(LOGITS, torch.tensor([1])), chosen_logprobs(LOGITS + 500.0, torch.tensor([1]))
    assert a.item() == pytest.approx(b.item(), abs=1e-4)


def test_the_sum_is_taken_in_float32_for_bfloat16_logits() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 5000).bfloat16()
    found = chosen_logprobs(logits, torch.arange(4))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, logits.double().log_softmax(-1)[range(4), range(4)].float(), atol=1e-5, rtol=0)


def test_the_gradient_is_one_minus_p_and_minus_p() -> None:
    logits = LOGITS.clone().requires_grad_()
    chosen_logprobs(logits, torch.tensor([1])).sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[-1 / 8, 6 / 8, -5 / 8]]))


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        chosen_logprobs(LOGITS, torch.tensor([0]), temperature)
