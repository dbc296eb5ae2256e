from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlpost.sparsity.rank import rank, shuffled, update_structure


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.floats(0.0, 1.0),
    st.integers(0, 10**6),
    st.sampled_from([1.0, 1e-6, 1e5]),
)
def test_equals_the_singular_values(rows: int, columns: int, density: float, seed: int, scale: float) -> None:
    source = torch.Generator().manual_seed(seed)
    delta = (
        scale * torch.randn(rows, columns, generator=source) * (torch.rand(rows, columns, generator=source) < density)
    )
    values = torch.linalg.svdvals(delta.double())
    limit = max(rows, columns) * torch.finfo(torch.float32).eps * values.max()
    near = (values > limit / 1.01) & (values < limit * 1.01)
    if not near.any():  # there two ways of rounding may differ
        assert rank(delta) == int((values > limit).sum())


@pytest.mark.parametrize("true", [0, 1, 7, 63, 64])
def test_low_rank_is_seen(true: int) -> None:
    source = torch.Generator().manual_seed(true)
    delta = torch.randn(64, true, generator=source) @ torch.randn(true, 100, generator=source) * 1e-5
    assert rank(delta) == int(torch.linalg.matrix_rank(delta)) == true
    assert rank(delta.T) == true


def test_a_sparse_random_update_is_of_full_rank() -> None:
    """0.9 % of 512 × 512 entries: the baseline for a finding of "nearly full rank"."""
    source = torch.Generator().manual_seed(0)
    delta = torch.randn(512, 512, generator=source) * (torch.rand(512, 512, generator=source) < 0.009)
    assert rank(delta) == int(torch.linalg.matrix_rank(delta)) > 500


def test_an_update_of_one_row_has_high_row_dispersion() -> None:
    delta = torch.zeros(50, 40)
    delta[3] = 1.0
    found = update_structure(delta)
    assert (found.rank, found.changed) == (1, 40)
    assert (found.still_rows, found.still_columns) == (0.98, 0.0)
    assert found.rows is not None
    assert found.columns is not None
    assert found.rows > 20
    assert found.columns == 0.0
    assert rank(shuffled(delta, 0)) > 20
    assert shuffled(delta, 0).sum() == 40


def test_independent_entries_have_dispersion_one() -> None:
    source = torch.Generator().manual_seed(0)
    found = update_structure((torch.rand(400, 300, generator=source) < 0.2).float())
    assert found.rows == pytest.approx(1.0, abs=0.2)
    assert found.columns == pytest.approx(1.0, abs=0.2)
    assert update_structure(torch.zeros(3, 3)).rows is None


def test_what_is_no_matrix() -> None:
    with pytest.raises(ValueError, match="3 dimensions"):
        rank(torch.zeros(2, 2, 2))
    with pytest.raises(ValueError, match="not finite"):
        rank(torch.full((2, 2), torch.inf))
