"""Divergence estimates. Not covered: the coefficient (test_losses)."""

from __future__ import annotations

import math

import pytest
import torch

from rlpost.algorithms.kl import MAX_LOG_DIFFERENCE, kl_estimate

ON = torch.ones(1, 2, dtype=torch.bool)
POLICY, REFERENCE = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-2.0, -1.5]])
# d = log ref - log policy = -1, 0.5


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("k1", [1.0, -0.5]),
        ("k2", [0.5, 0.125]),
        # e^-1 - 1 + 1 = 0.36788; e^0.5 - 1 - 0.5 = 0.14872
        ("k3", [math.exp(-1), math.exp(0.5) - 1.5]),
    ],
)
def test_estimates_by_hand(kind: str, expected: list[float]) -> None:
    torch.testing.assert_close(kl_estimate(POLICY, REFERENCE, ON, kind), torch.tensor([expected]))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_equal_policies_have_no_divergence(kind: str) -> None:
    assert kl_estimate(POLICY, POLICY, ON, kind).abs().max() == 0  # type: ignore[arg-type]


def test_k3_is_never_negative() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(40, 25), torch.randn(40, 25)
    assert (kl_estimate(a, b, torch.ones(40, 25, dtype=torch.bool), "k3") >= 0).all()


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(kind: str) -> None:
    # exact expectation over a two-letter alphabet: KL(p || q) = 0.8 log(0.8/0.5) + 0.2 log(0.2/0.5)
    p, q = torch.tensor([[0.8, 0.2]], dtype=torch.float64), torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    expected = float((p * (p / q).log()).sum())
    found = float((p * kl_estimate(p.log(), q.log(), ON, kind)).sum())  # type: ignore[arg-type]
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("kind", "slope"),
    # with d = ref - x: k1' = 1, k2' = -d, k3' = 1 - e^d
    [("k1", [1.0, 1.0]), ("k2", [1.0, -0.5]), ("k3", [1 - math.exp(-1), 1 - math.exp(0.5)])],
)
def test_gradients_by_hand(kind: str, slope: list[float]) -> None:
    x = POLICY.clone().requires_grad_()
    kl_estimate(x, REFERENCE, ON, kind).sum().backward()  # type: ignore[arg-type]
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.tensor([slope]))


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_nan_under_the_mask_leaks_neither_value_nor_gradient(kind: str) -> None:
    mask = torch.tensor([[True, False]])
    x = torch.tensor([[-1.0, math.nan]], requires_grad=True)
    found = kl_estimate(x, torch.tensor([[-2.0, math.nan]]), mask, kind)  # type: ignore[arg-type]
    found.sum().backward()
    assert found[0, 1] == 0
    assert x.grad is not None
    assert x.grad[0, 1] == 0
    assert torch.isfinite(x.grad).all()


def test_k3_is_capped_for_a_token_the_policy_abandoned() -> None:
    found = kl_estimate(torch.tensor([[-300.0]]), torch.tensor([[-1.0]]), ON[:, :1], "k3")
    assert found.item() == pytest.approx(math.exp(MAX_LOG_DIFFERENCE) - 1 - MAX_LOG_DIFFERENCE, rel=1e-6)
