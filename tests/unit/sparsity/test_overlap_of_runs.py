from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rlpost.errors import DataError, UserError
from rlpost.sparsity.overlap import overlaps
from tests.support.checkpoints import model, write

WIDTH = 192


def runs(tmp_path: Path, after: list[dict[str, Tensor]], before: dict[str, Tensor]) -> tuple[Path, list[Path]]:
    return write(tmp_path / "base", before), [write(tmp_path / f"run{k}", one) for k, one in enumerate(after)]


def noise(before: dict[str, Tensor], seed: int, scale: float = 2.5e-5) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    return {n: (t.float() + scale * torch.randn(t.shape, generator=source)).to(t.dtype) for n, t in before.items()}


def test_against_sets(tmp_path: Path) -> None:
    before = model(width=40)
    base, paths = runs(tmp_path, [noise(before, 1), noise(before, 2), noise(before, 3, 1e-4)], before)
    found, left_out = overlaps(base, paths)
    assert left_out == {}
    assert [(one.first, one.second) for one in found] == [
        tuple(map(str, (paths[i], paths[j]))) for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    a, b = (
        {(n, i) for n, t in noise(before, s).items() for i in (t != before[n]).flatten().nonzero().flatten().tolist()}
        for s in (1, 2)
    )
    one = found[0]
    assert one.changed == (len(a), len(b))
    assert one.both == len(a & b)
    assert one.share_of_first == len(a & b) / len(a)
    assert one.share_of_second == len(a & b) / len(b)
    assert one.jaccard == len(a & b) / len(a | b)
    total = sum(t.numel() for t in before.values())
    assert one.expected["density"] == pytest.approx(len(a) * len(b) / total)
    assert one.chance("density")[0] == pytest.approx(len(b) / total)
    expected = 0.0
    for name, tensor in before.items():
        octave = (tensor.view(torch.int16).int() >> 7) & 0xFF
        for e in octave.unique():
            here = octave == e
            one_run, two_run = ((noise(before, s)[name] != tensor) & here for s in (1, 2))
            expected += int(one_run.sum()) * int(two_run.sum()) / int(here.sum())
    assert one.expected["magnitude"] == pytest.approx(expected)


def test_noise_exceeds_density_chance_but_not_the_matched_one(tmp_path: Path) -> None:
    before = model(width=WIDTH)
    base, paths = runs(tmp_path, [noise(before, 1), noise(before, 2)], before)
    (one,), _ = overlaps(base, paths)
    assert one.share_of_first is not None
    density, matched = one.chance("density")[0], one.chance("magnitude")[0]
    assert density is not None
    assert matched is not None
    assert one.share_of_first > 1.8 * density
    # magnitudes within an octave still differ: where half of the octave changes, its smaller half does more often
    assert one.share_of_first == pytest.approx(matched, abs=0.012)
    assert one.share_of_first == pytest.approx(one.chance("noise")[0], abs=0.006)


def test_a_common_subnetwork_exceeds_both(tmp_path: Path) -> None:
    before = model(width=WIDTH)
    source = torch.Generator().manual_seed(9)
    chosen = {n: torch.rand(t.shape, generator=source) < 0.2 for n, t in before.items()}
    after = [{n: torch.where(chosen[n], t, before[n]) for n, t in noise(before, s).items()} for s in (1, 2)]
    base, paths = runs(tmp_path, after, before)
    (one,), _ = overlaps(base, paths)
    assert one.excess is not None
    assert one.error is not None
    assert one.error_by_tensor is not None
    assert one.excess == (one.both - one.expected["magnitude"]) / one.changed[0]
    assert one.excess > 10 * one.error
    assert one.excess > 3 * one.error_by_tensor


def test_the_standard_error_is_that_of_independent_runs(tmp_path: Path) -> None:
    source = np.random.default_rng(0)
    from rlpost.sparsity.overlap import Strata, overlap_of

    total, first, second = np.array([500, 2000]), np.array([100, 900]), np.array([300, 50])
    unit = np.array([0, 1])
    octave = np.array([120, 120])
    drawn = [source.hypergeometric(first, total - first, second) for _ in range(4000)]
    error = overlap_of("a", "b", Strata(total, first, second, drawn[0], unit, octave)).error
    assert error is not None
    assert np.std([both.sum() for both in drawn]) / 1000 == pytest.approx(error, rel=0.05)


def test_the_share_of_a_run_without_changes_is_none(tmp_path: Path) -> None:
    before = model()
    base, paths = runs(tmp_path, [dict(before), noise(before, 1)], before)
    (one,), _ = overlaps(base, paths)
    assert one.share_of_first is None
    assert one.share_of_second == 0.0
    assert one.excess is None


def test_bad_input(tmp_path: Path) -> None:
    before = model()
    base, paths = runs(tmp_path, [noise(before, 1), {"other.weight": torch.ones(2)}], before)
    with pytest.raises(UserError, match="give 2 to"):
        overlaps(base, paths[:1])
    with pytest.raises(DataError, match="are the same"):
        overlaps(base, [paths[0], paths[0]])
    with pytest.raises(DataError, match="share no tensor"):
        overlaps(base, paths)
    broken = write(
        tmp_path / "nan", {**before, "model.norm.weight": torch.full((48,), torch.nan, dtype=torch.bfloat16)}
    )
    with pytest.raises(DataError, match="NaN or infinite"):
        overlaps(base, [paths[0], broken])
    lacking = write(tmp_path / "lacking", {n: t for n, t in noise(before, 4).items() if n != "model.norm.weight"})
    _, left_out = overlaps(base, [paths[0], lacking])
    assert left_out == {"model.norm.weight": "not in every checkpoint"}


def test_padding_that_stays_zero_does_not_affect_the_noise_chance(tmp_path: Path) -> None:
    before = model(width=WIDTH)
    before["padding"] = torch.zeros(400, WIDTH, dtype=torch.bfloat16)
    after = [{**noise(before, seed), "padding": before["padding"]} for seed in (1, 2)]
    base, paths = runs(tmp_path, after, before)
    (one,), _ = overlaps(base, paths)
    assert one.share_of_first == pytest.approx(one.chance("noise")[0], abs=0.006)


def test_runs_in_bfloat16_begin_from_what_was_rounded(tmp_path: Path) -> None:
    source = torch.Generator().manual_seed(0)
    before = {"w": 0.02 * torch.randn(400, 400, generator=source)}
    after = [noise({"w": before["w"].bfloat16()}, seed) for seed in (1, 2)]
    base, paths = runs(tmp_path, after, before)
    (one,), _ = overlaps(base, paths)
    assert one.share_of_first == pytest.approx(one.chance("noise")[0], abs=0.01)
