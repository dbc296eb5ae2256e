"""Token weights. Not covered: where the counts come from (tests/unit/learner/test_packing.py)."""

from __future__ import annotations

import pytest
import torch

from rlpost.algorithms.aggregation import token_weights
from rlpost.types import Denominators

MASK = torch.tensor([[True, True, True, False], [True, False, False, False], [False, False, False, False]])
SPANS = torch.tensor([[0, 0, 1, -1], [0, -1, -1, -1], [0, 0, -1, -1]])
COUNTS = Denominators(tokens=4, sequences=2, spans=3, max_tokens=8)


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("token", [1 / 4, 1 / 4, 1 / 4, 0], [1 / 4, 0, 0, 0]),
        ("sequence", [1 / 6, 1 / 6, 1 / 6, 0], [1 / 2, 0, 0, 0]),
        ("sequence_sum", [1 / 2, 1 / 2, 1 / 2, 0], [1 / 2, 0, 0, 0]),
        ("span", [1 / 6, 1 / 6, 1 / 3, 0], [1 / 3, 0, 0, 0]),
        ("constant", [1 / 16, 1 / 16, 1 / 16, 0], [1 / 16, 0, 0, 0]),
    ],
)
def test_weights_by_hand(kind: str, first: list[float], second: list[float]) -> None:
    found = token_weights(MASK, SPANS, kind, COUNTS)  # type: ignore[arg-type]
    torch.testing.assert_close(found, torch.tensor([first, second, [0.0] * 4]))


@pytest.mark.parametrize("kind", ["token", "sequence", "span"])
def test_the_weights_of_a_mean_sum_to_one(kind: str) -> None:
    assert token_weights(MASK, SPANS, kind, COUNTS).sum() == pytest.approx(1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["token", "sequence", "sequence_sum", "span", "constant"])
def test_the_weights_of_an_empty_minibatch_are_zero(kind: str) -> None:
    off = torch.zeros(2, 3, dtype=torch.bool)
    found = token_weights(off, torch.full((2, 3), -1), kind, Denominators(0, 0, 0, 0))  # type: ignore[arg-type]
    assert found.abs().sum() == 0


def test_trained_tokens_outside_every_span_weigh_nothing_under_span() -> None:
    ids = torch.tensor([[0, -1, -1, -1]])
    found = token_weights(MASK[:1], ids, "span", Denominators(3, 1, 1, 8))
    assert found.tolist() == [[1.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("kind", ["token", "sequence", "sequence_sum", "span", "constant"])
def test_a_rows_weights_do_not_depend_on_its_neighbours_or_padding(kind: str) -> None:
    whole = token_weights(MASK, SPANS, kind, COUNTS)  # type: ignore[arg-type]
    alone = token_weights(MASK[:1, :3], SPANS[:1, :3], kind, COUNTS)  # type: ignore[arg-type]
    torch.testing.assert_close(whole[:1, :3], alone)


def test_a_mask_that_is_not_boolean_is_refused() -> None:
    with pytest.raises(ValueError, match="mask must be bool"):
        token_weights(MASK.float(), SPANS, "token", COUNTS)
