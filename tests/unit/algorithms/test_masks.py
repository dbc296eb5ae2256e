"""Counting and summing over spans. Not covered: ratios and weights made of them."""

from __future__ import annotations

import pytest
import torch

from rlpost.algorithms.masks import check_shapes, span_counts, span_sums, whole

MASK = torch.tensor([[True, True, False, True, True]])
IDS = torch.tensor([[2, 2, 2, 0, -1]])
VALUES = torch.tensor([[1.0, 2.0, 100.0, 4.0, 8.0]])


def test_counts_by_hand() -> None:
    # span 2 has two trained tokens, span 0 one; masked tokens and those outside count 0
    assert span_counts(MASK, IDS).tolist() == [[2, 2, 0, 1, 0]]


def test_sums_by_hand() -> None:
    assert span_sums(VALUES, MASK, IDS).tolist() == [[3.0, 3.0, 0.0, 4.0, 0.0]]


def test_spans_of_different_rows_are_summed_separately() -> None:
    values = torch.tensor([[1.0, 2.0], [4.0, 8.0]])
    ids = torch.zeros(2, 2, dtype=torch.long)
    assert span_sums(values, torch.ones(2, 2, dtype=torch.bool), ids).tolist() == [[3.0, 3.0], [12.0, 12.0]]


def test_without_tokens_there_is_nothing_to_sum() -> None:
    empty = torch.zeros(2, 0, dtype=torch.bool)
    assert span_counts(empty, torch.zeros(2, 0, dtype=torch.long)).shape == (2, 0)


def test_whole_makes_each_completion_one_span() -> None:
    assert whole(MASK).tolist() == [[0, 0, -1, 0, 0]]


def test_the_gradient_of_a_sum_reaches_trained_tokens_only() -> None:
    values = VALUES.clone().requires_grad_()
    span_sums(values, MASK, IDS).sum().backward()
    assert values.grad is not None
    # each of the two members of span 2 appears in two outputs
    assert values.grad.tolist() == [[2.0, 2.0, 0.0, 1.0, 0.0]]


def test_nan_under_the_mask_reaches_no_sum() -> None:
    values = VALUES.masked_fill(~MASK, float("nan")).requires_grad_()
    found = span_sums(values, MASK, IDS)
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert values.grad is not None
    assert torch.isfinite(values.grad).all()


@pytest.mark.parametrize("mask", [torch.ones(2, 3), torch.ones(3, dtype=torch.bool)])
def test_a_mask_of_another_kind_is_refused(mask: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="mask must be bool"):
        check_shapes(mask)
