"""Log-probabilities from logits. Not covered: which positions' logits are taken (tests/unit/learner)."""

from __future__ import annotations

import math

import pytest
import torch

from rlpost.algorithms.logprobs import chosen_logprobs

# softmax of log 1, log 2, log 5 is 1/8, 2/8, 5/8
LOGITS = torch.tensor([[0.0, math.log(2), math.log(5)]])


@pytest.mark.parametrize(("token", "p"), [(0, 1 / 8), (1, 2 / 8), (2, 5 / 8)])
def test_by_hand(token: int, p: float) -> None:
    assert chosen_logprobs(LOGITS, torch.tensor([token])).item() == pytest.approx(math.log(p), abs=1e-6)


def test_temperature_divides_the_logits() -> None:
    # at 1/2 the odds are squared: 1, 4, 25 of 30
    assert chosen_logprobs(LOGITS, torch.tensor([2]), 0.5).item() == pytest.approx(math.log(25 / 30), abs=1e-6)


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
