"""The clipped policy-gradient loss by hand. Not covered: the named recipes (tests/unit/config/test_recipes.py)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from rlpost.algorithms.losses import LossInputs, LossSettings, policy_loss
from rlpost.algorithms.surrogates import clipped
from rlpost.types import Denominators

AGGREGATIONS = ("token", "sequence", "sequence_sum", "span", "constant")
LEVELS = ("token", "span", "sequence")


def make(new: list, old: list, advantages: list, mask: list | None = None, spans: list | None = None) -> LossInputs:
    logprobs = torch.tensor(new, requires_grad=True)
    return LossInputs(
        logprobs=logprobs,
        proximal_logprobs=torch.tensor(old),
        advantages=torch.tensor(advantages),
        mask=torch.ones(logprobs.shape, dtype=torch.bool) if mask is None else torch.tensor(mask),
        span_ids=torch.zeros(logprobs.shape, dtype=torch.long) if spans is None else torch.tensor(spans),
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "slope"),
    # min(ρA, clip(ρ, 0.8, 1.3) A); the slope is dℓ/d log ρ = -ρA where the clip is idle, 0 where it binds
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.2, 1.0, -1.2, -1.2),
        (1.5, 1.0, -1.3, 0.0),  # above, good: stop pushing
        (1.5, -1.0, 1.5, 1.5),  # above, bad: push back
        (0.5, 1.0, -0.5, -0.5),  # below, good: pull up
        (0.5, -1.0, 0.8, 0.0),  # below, bad: stop pushing
    ],
)
def test_the_surrogate_by_hand(ratio: float, advantage: float, expected: float, slope: float) -> None:
    log_ratio = torch.tensor([[math.log(ratio)]], requires_grad=True)
    loss = clipped(log_ratio, torch.tensor([[advantage]]), 0.2, 0.3).loss
    loss.sum().backward()
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert log_ratio.grad is not None
    assert log_ratio.grad.item() == pytest.approx(slope, rel=1e-6)


def test_without_clip_room_the_on_policy_gradient_is_still_reinforce() -> None:
    log_ratio = torch.zeros(1, 1, requires_grad=True)
    clipped(log_ratio, torch.tensor([[3.0]]), 0.0, 0.0).loss.sum().backward()
    assert log_ratio.grad is not None
    assert log_ratio.grad.item() == -3.0


def test_the_loss_and_its_figures_by_hand() -> None:
    log2 = math.log(2)
    inputs = make([[-1.0, -1.0, -1.0], [-1.0, 0.0, 0.0]], [[-1.0, -1.0 - log2, -1.0 + log2], [-1.0, 0.0, 0.0]],
                  [[1.0, 1.0, -1.0], [-2.0, 0.0, 0.0]], [[True] * 3, [True, False, False]])  # fmt: skip
    loss, sums = policy_loss(inputs, LossSettings(), Denominators(4, 2, 2, 8))
    # ratios 1, 2, 1/2 | 1; per token -1, -1.2 (clipped), 0.8 (clipped) | 2; sum 0.6 over 4 tokens
    assert loss.item() == pytest.approx(0.6 / 4)
    found = {key: float(value) for key, value in sums.items()}
    # mean ratio (1 + 2 + 0.5 + 1) / 4
    assert found == pytest.approx({"loss": 0.15, "clip_frac/low": 0.25, "clip_frac/high": 0.25, "ratio": 4.5 / 4})
    loss.backward()
    grad = inputs.logprobs.grad
    assert grad is not None
    torch.testing.assert_close(grad, torch.tensor([[-0.25, 0.0, 0.0], [0.5, 0.0, 0.0]]))


def test_the_importance_weight_multiplies_the_surrogate_but_not_the_divergence() -> None:
    inputs = replace(
        make([[-1.0]], [[-1.0]], [[1.0]]),
        rollout_logprobs=torch.tensor([[-1.0 - math.log(1.5)]]),
        ref_logprobs=torch.tensor([[-2.0]]),
    )
    settings = LossSettings(importance_cap=2.0, kl_coef=0.5, kl_kind="k1")
    loss, sums = policy_loss(inputs, settings, Denominators(1, 1, 1, 1))
    # 1.5 · (-1) + 0.5 · (-1 - -2)
    assert loss.item() == pytest.approx(-1.5 + 0.5)
    assert float(sums["importance"]) == pytest.approx(1.5)
    assert float(sums["kl"]) == pytest.approx(1.0)


def test_missing_figures_are_asked_for() -> None:
    inputs, counts = make([[-1.0]], [[-1.0]], [[1.0]]), Denominators(1, 1, 1, 1)
    with pytest.raises(ValueError, match=r"rollout\.logprobs: auto"):
        policy_loss(inputs, LossSettings(importance_cap=2.0), counts)
    with pytest.raises(ValueError, match="reference"):
        policy_loss(inputs, LossSettings(kl_coef=0.1), counts)


@pytest.mark.parametrize("aggregate", AGGREGATIONS)
@pytest.mark.parametrize("ratio", LEVELS)
def test_nan_under_the_mask_leaks_neither_value_nor_gradient(aggregate: str, ratio: str) -> None:
    nan = math.nan
    clean = make([[-1.0, -2.0, 0.0]], [[-1.5, -1.0, 0.0]], [[1.0, -1.0, 0.0]], [[True, True, False]], [[0, 1, -1]])
    dirty = make([[-1.0, -2.0, nan]], [[-1.5, -1.0, nan]], [[1.0, -1.0, nan]], [[True, True, False]], [[0, 1, -1]])
    settings = LossSettings(ratio=ratio, aggregate=aggregate, kl_coef=0.1, importance_cap=2.0)  # type: ignore[arg-type]
    results = []
    for inputs, bad in ((clean, 0.0), (dirty, nan)):
        full = replace(
            inputs, rollout_logprobs=torch.tensor([[-1.1, -2.0, bad]]), ref_logprobs=torch.tensor([[-1.0, -1.0, bad]])
        )
        loss, sums = policy_loss(full, settings, Denominators(2, 1, 2, 4))
        loss.backward()
        results.append((loss.item(), {k: float(v) for k, v in sums.items()}, inputs.logprobs.grad))
    assert results[0][0] == results[1][0]
    assert results[0][1] == results[1][1]
    assert results[0][2] is not None
    torch.testing.assert_close(results[0][2], results[1][2], atol=0, rtol=0)
    assert results[0][2][0, 2] == 0


@pytest.mark.parametrize("aggregate", AGGREGATIONS)
@pytest.mark.parametrize("ratio", LEVELS)
def test_a_fully_masked_sample_has_zero_gradient_and_backward_runs(aggregate: str, ratio: str) -> None:
    inputs = make([[-1.0, -2.0]], [[-1.5, -1.0]], [[1.0, -1.0]], [[False, False]], [[-1, -1]])
    settings = LossSettings(ratio=ratio, aggregate=aggregate)  # type: ignore[arg-type]
    loss, _ = policy_loss(inputs, settings, Denominators(0, 0, 0, 4))
    loss.backward()
    assert loss.item() == 0
    assert inputs.logprobs.grad is not None
    assert inputs.logprobs.grad.abs().max() == 0


@pytest.mark.parametrize("aggregate", AGGREGATIONS)
def test_on_policy_all_ratio_levels_have_the_same_gradient_for_constant_advantages(aggregate: str) -> None:
    grads = []
    for ratio in LEVELS:
        inputs = make([[-1.0, -2.0, -0.5], [-1.0, -1.0, 0.0]], [[-1.0, -2.0, -0.5], [-1.0, -1.0, 0.0]],
                      [[1.0] * 3, [-2.0, -2.0, 0.0]], [[True] * 3, [True, True, False]], [[0] * 3, [0, 0, -1]])  # fmt: skip
        settings = LossSettings(ratio=ratio, aggregate=aggregate)  # type: ignore[arg-type]
        policy_loss(inputs, settings, Denominators(5, 2, 2, 4))[0].backward()
        grads.append(inputs.logprobs.grad)
    for other in grads[1:]:
        torch.testing.assert_close(grads[0], other)


def test_span_aggregation_differs_from_token_where_spans_differ_in_length() -> None:
    grads = {}
    for aggregate in ("token", "span"):
        inputs = make([[-1.0] * 4], [[-1.0] * 4], [[1.0] * 4], spans=[[0, 0, 0, 1]])
        policy_loss(inputs, LossSettings(ratio="span", aggregate=aggregate), Denominators(4, 1, 2, 4))[0].backward()
        assert inputs.logprobs.grad is not None
        grads[aggregate] = inputs.logprobs.grad.tolist()
    # token: -1/4 each; span: -1/2 per span, spread over 3 tokens and over 1
    assert grads["token"] == [pytest.approx([-0.25] * 4)]
    assert grads["span"] == [pytest.approx([-1 / 6] * 3 + [-1 / 2])]


@pytest.mark.parametrize("aggregate", AGGREGATIONS)
@pytest.mark.parametrize("ratio", LEVELS)
def test_the_gradient_agrees_with_finite_differences(aggregate: str, ratio: str) -> None:
    torch.manual_seed(0)
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    spans = torch.tensor([[0, 0, 1, -1], [0, 1, -1, -1]])
    old = torch.randn(2, 4, dtype=torch.float64)
    start = old + 0.1 * torch.randn(2, 4, dtype=torch.float64)
    settings = LossSettings(ratio=ratio, aggregate=aggregate, kl_coef=0.3, clip_low=0.5, clip_high=0.5)  # type: ignore[arg-type]
    advantages, ref = torch.randn(2, 4, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)

    def loss(x: torch.Tensor) -> torch.Tensor:
        inputs = LossInputs(
            logprobs=x, proximal_logprobs=old, advantages=advantages, mask=mask, span_ids=spans, ref_logprobs=ref
        )
        return policy_loss(inputs, settings, Denominators(5, 2, 4, 4))[0]

    # the token weights are float32 constants, so the function is smooth and exact in float64
    assert torch.autograd.gradcheck(loss, (start.requires_grad_(),))


def test_rank_grpos_divisor_counts_missing_ranks_as_the_paper_does() -> None:
    # a list of three ranks and one of two, N = 3: each rank weighs 1/(2 · 3), not 1/5
    gradients = {}
    for spans in (5, 6):
        given = make([[-1.0] * 4, [-1.0] * 4], [[-1.0] * 4, [-1.0] * 4], [[1.0] * 4, [1.0] * 4],
                     [[True] * 4, [True, True, True, False]], [[0, 0, 1, 2], [0, 0, 1, -1]])  # fmt: skip
        policy_loss(given, LossSettings(ratio="span", aggregate="span"), Denominators(7, 2, spans, 8))[0].backward()
        assert given.logprobs.grad is not None
        gradients[spans] = given.logprobs.grad.tolist()
    assert gradients[6][0] == pytest.approx([-1 / 12, -1 / 12, -1 / 6, -1 / 6])
    assert gradients[6][1] == pytest.approx([-1 / 12, -1 / 12, -1 / 6, 0.0])
    assert gradients[5][1] == pytest.approx([-1 / 10, -1 / 10, -1 / 5, 0.0])
