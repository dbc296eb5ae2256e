"""Importance ratios. Not covered: how they enter the loss (test_losses)."""

from __future__ import annotations

import math

import pytest
import torch

from rlpost.algorithms.ratios import MAX_LOG_RATIO, importance_weights, log_ratios, truncated_importance

NEW = torch.tensor([[-1.0, -2.0, -3.0, -4.0]])
OLD = torch.tensor([[-1.5, -2.0, -2.0, -1.0]])
ALL = torch.ones(1, 4, dtype=torch.bool)
SPANS = torch.tensor([[0, 0, 1, -1]])
# differences: 0.5, 0, -1, -3


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("token", [0.5, 0.0, -1.0, -3.0]),
        # span 0: (0.5 + 0) / 2; span 1: -1; the last token is outside every span
        ("span", [0.25, 0.25, -1.0, 0.0]),
        # (0.5 + 0 - 1 - 3) / 4 = -0.875
        ("sequence", [-0.875] * 4),
    ],
)
def test_log_ratios_by_hand(level: str, expected: list[float]) -> None:
    found = log_ratios(NEW, OLD, ALL, SPANS, level)  # type: ignore[arg-type]
    torch.testing.assert_close(found, torch.tensor([expected]))


def test_masked_tokens_count_in_no_mean() -> None:
    mask = torch.tensor([[True, True, True, False]])
    # (0.5 + 0 - 1) / 3 on trained tokens, 0 on the masked one
    expected = torch.tensor([[-1 / 6, -1 / 6, -1 / 6, 0.0]])
    torch.testing.assert_close(log_ratios(NEW, OLD, mask, SPANS, "sequence"), expected)
    inside = torch.tensor([[True, False, True, True]])
    torch.testing.assert_close(log_ratios(NEW, OLD, inside, SPANS, "span"), torch.tensor([[0.5, 0.0, -1.0, 0.0]]))


@pytest.mark.parametrize("level", ["token", "span", "sequence"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nothing_under_the_mask_leaks(level: str, bad: float) -> None:
    mask = torch.tensor([[True, False, True, False]])
    new = torch.where(mask, NEW, bad).requires_grad_()
    old = torch.where(mask, OLD, bad)
    found = log_ratios(new, old, mask, SPANS, level)  # type: ignore[arg-type]
    found.exp().sum().backward()
    assert torch.isfinite(found).all()
    assert new.grad is not None
    assert torch.isfinite(new.grad).all()
    assert (new.grad[~mask] == 0).all()


def test_the_sequence_ratios_gradient_is_shared_by_all_tokens() -> None:
    new = NEW.clone().requires_grad_()
    # every one of 4 outputs is the mean of 4 inputs: each input moves each output by 1/4
    log_ratios(new, OLD, ALL, SPANS, "sequence").sum().backward()
    assert new.grad is not None
    torch.testing.assert_close(new.grad, torch.ones(1, 4))


def test_a_huge_ratio_stays_finite_in_float32() -> None:
    found = log_ratios(
        torch.tensor([[-1.0, -500.0]]), torch.tensor([[-500.0, -1.0]]), ALL[:, :2], SPANS[:, :2], "token"
    )
    assert found.tolist() == [[MAX_LOG_RATIO, -MAX_LOG_RATIO]]
    assert torch.isfinite(found.exp()).all()


def test_spans_of_different_rows_do_not_mix() -> None:
    new, old = torch.tensor([[1.0, 1.0], [3.0, 5.0]]), torch.zeros(2, 2)
    ids = torch.tensor([[0, 0], [0, 1]])
    expected = torch.tensor([[1.0, 1.0], [3.0, 5.0]])
    torch.testing.assert_close(log_ratios(new, old, torch.ones(2, 2, dtype=torch.bool), ids, "span"), expected)


def test_agreement_with_a_slow_loop() -> None:
    torch.manual_seed(0)
    new, old = torch.randn(5, 9), torch.randn(5, 9)
    mask, ids = torch.rand(5, 9) > 0.3, torch.randint(-1, 3, (5, 9))
    for level in ("token", "span", "sequence"):
        found = log_ratios(new, old, mask, ids, level)
        for b in range(5):
            for t in range(9):
                expected = 0.0
                if mask[b, t]:
                    if level == "token":
                        group = [t]
                    elif level == "sequence":
                        group = [s for s in range(9) if mask[b, s]]
                    else:
                        group = [s for s in range(9) if mask[b, s] and ids[b, s] == ids[b, t] and ids[b, t] >= 0]
                    expected = sum(float(new[b, s] - old[b, s]) for s in group) / len(group) if group else 0.0
                assert float(found[b, t]) == pytest.approx(expected, abs=1e-5)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="expected shape"):
        log_ratios(NEW, OLD[:, :3], ALL, SPANS, "token")


def test_truncated_importance_by_hand() -> None:
    # exp(-1 - -1) = 1; exp(-1 - -1.5) = 1.6487; exp(-1 - -3) = 7.389 capped at 2; masked: 1
    learner = torch.tensor([[-1.0, -1.0, -1.0, math.nan]])
    engine = torch.tensor([[-1.0, -1.5, -3.0, math.nan]])
    mask = torch.tensor([[True, True, True, False]])
    found = truncated_importance(learner, engine, mask, 2.0)
    torch.testing.assert_close(found, torch.tensor([[1.0, math.exp(0.5), 2.0, 1.0]]))


def test_truncated_importance_caps_what_the_engine_thought_impossible() -> None:
    found = truncated_importance(torch.tensor([[-1.0]]), torch.tensor([[-math.inf]]), ALL[:, :1], 2.0)
    assert found.item() == 2.0


def test_truncated_importance_carries_no_gradient() -> None:
    learner = torch.zeros(1, 2, requires_grad=True)
    assert not truncated_importance(learner, torch.ones(1, 2), ALL[:, :2], 2.0).requires_grad


@pytest.mark.parametrize("cap", [0.0, -1.0])
def test_a_cap_that_is_not_positive_is_refused(cap: float) -> None:
    with pytest.raises(ValueError, match="cap"):
        truncated_importance(NEW, OLD, ALL, cap)


LOG2 = math.log(2)


@pytest.mark.parametrize(
    ("kind", "level", "low", "expected"),
    # weights 1, 2, 4, 1/4 and, of the second row, 2 alone; products 2 and 2
    [
        ("truncate", "token", None, [[1, 2, 3, 0.25], [2, 1, 1, 1]]),
        ("truncate", "token", 0.5, [[1, 2, 3, 0.5], [2, 1, 1, 1]]),
        ("mask", "token", None, [[1, 2, 0, 0.25], [2, 1, 1, 1]]),
        ("mask", "token", 0.5, [[1, 2, 0, 0], [2, 1, 1, 1]]),
        ("truncate", "sequence", None, [[2] * 4, [2, 1, 1, 1]]),
        ("mask", "sequence", 0.5, [[2] * 4, [2, 1, 1, 1]]),
        ("mask", "sequence", 2.5, [[0] * 4, [0, 1, 1, 1]]),
    ],
)
def test_importance_weights_by_hand(kind: str, level: str, low: float | None, expected: list) -> None:
    learner = torch.tensor([[0.0, LOG2, 2 * LOG2, -2 * LOG2], [LOG2, math.nan, math.nan, math.nan]])
    mask = torch.tensor([[True] * 4, [True, False, False, False]])
    found = importance_weights(learner, torch.zeros(2, 4), mask, cap=3.0, low=low, kind=kind, level=level)  # type: ignore[arg-type]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32))


def test_a_sequences_weight_is_the_product_over_its_trained_tokens_alone() -> None:
    mask = torch.tensor([[True, False, True]])
    found = importance_weights(
        torch.tensor([[LOG2, 9.0, -LOG2 / 2]]), torch.zeros(1, 3), mask, cap=9.0, level="sequence"
    )
    torch.testing.assert_close(found, torch.tensor([[2**0.5, 1.0, 2**0.5]]))


def test_what_the_engine_thought_impossible_is_masked() -> None:
    engine = torch.tensor([[-math.inf, -1.0]])
    learner = torch.tensor([[-1.0, -1.0]])
    assert importance_weights(learner, engine, ALL[:, :2], cap=5.0, kind="mask").tolist() == [[0.0, 1.0]]
    whole = importance_weights(learner, engine, ALL[:, :2], cap=5.0, kind="mask", level="sequence")
    assert whole.tolist() == [[0.0, 0.0]]


def test_long_sequences_keep_their_digits_in_half_precision() -> None:
    # 4000 differences of 2^-10: their sum is 3.90625; bfloat16 would stop adding at 0.25
    learner = torch.full((1, 4000), 2.0**-10, dtype=torch.bfloat16)
    mask = torch.ones(1, 4000, dtype=torch.bool)
    found = importance_weights(learner, torch.zeros_like(learner), mask, cap=100.0, level="sequence")
    assert found[0, 0].item() == pytest.approx(math.exp(4000 * 2**-10), rel=1e-5)
    level = log_ratios(learner, torch.zeros_like(learner), mask, torch.zeros(1, 4000, dtype=torch.long), "sequence")
    assert level[0, 0].item() == pytest.approx(2**-10, rel=1e-5)


@pytest.mark.parametrize("low", [-0.1, 2.0, 3.0])
def test_a_lower_limit_that_is_not_below_the_cap_is_refused(low: float) -> None:
    with pytest.raises(ValueError, match="lower importance limit"):
        importance_weights(NEW, OLD, ALL, cap=2.0, low=low)
