"""Against the calibration table (200,000 normal weights, AdamW on noise, float32 masters), and by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlpost.errors import UserError
from rlpost.sparsity import nullmodel
from rlpost.sparsity.expected import Training
from rlpost.sparsity.nullmodel import Null, adamw, bfloat16_weights, fitted, gaussian, round_bfloat16, sgd

# lr, steps, weights' standard deviation, snr; unchanged exactly and within 1e-5; from float32 weights
TABLE = [
    (1e-7, 600, 0.02, 0.0, 0.971, 1.000, 0.931),
    (1e-6, 100, 0.02, 0.0, 0.876, 0.915, None),
    (1e-6, 600, 0.02, 0.0, 0.728, 0.747, 0.643),
    (1e-6, 600, 0.05, 0.0, 0.886, 0.894, 0.804),
    (1e-6, 600, 0.02, 0.1, 0.321, 0.322, 0.304),
    (5e-6, 600, 0.02, 0.0, 0.270, 0.274, None),
    (1e-5, 600, 0.02, 0.0, 0.143, 0.145, 0.141),
    (1e-4, 600, 0.02, 0.0, 0.015, 0.015, None),
]


def codes(scale: float, seed: int = 0, count: int = 200_000) -> np.ndarray:
    weights = torch.randn(count, generator=torch.Generator().manual_seed(seed)) * scale
    return np.bincount(weights.bfloat16().view(torch.int16).numpy() & 0x7FFF, minlength=2**15) / count


@pytest.mark.parametrize(("lr", "steps", "scale", "snr", "exact", "within", "between"), TABLE)
def test_calibration(
    lr: float, steps: int, scale: float, snr: float, exact: float, within: float, between: float | None
) -> None:
    null, share = Null(adamw(lr, steps, snr=snr)), codes(scale)
    assert share @ null.unchanged("exact") == pytest.approx(exact, abs=0.01)
    assert share @ null.within("exact", 1e-5) == pytest.approx(within, abs=0.01)
    if between is not None:
        assert share @ null.unchanged("between") == pytest.approx(between, abs=0.01)


@pytest.mark.parametrize(("lr", "expected"), [(1e-6, 0.980), (1e-5, 0.850), (1e-4, 0.131)])
def test_bfloat16_weights_stick(lr: float, expected: float) -> None:
    share = codes(0.02)
    kept = bfloat16_weights(np.flatnonzero(share), lr, 600, snr=0.1, draws=8)
    assert share @ kept == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("start", ["exact", "between"])
@pytest.mark.parametrize("decay", [1.0, 0.999])
def test_closed_form_against_counting(start: str, decay: float) -> None:
    source = np.random.default_rng(0)
    weights = (source.standard_normal(400_000) * 0.02).astype(np.float32)
    if start == "exact":
        weights = round_bfloat16(weights)
    displacement = gaussian(3e-5)
    before = round_bfloat16(weights)
    delta = 3e-5 * source.standard_normal(len(weights))
    after = round_bfloat16((decay * weights.astype(np.float64) + delta).astype(np.float32))
    found = np.bincount((before.view(np.uint32) >> 16) & 0x7FFF, minlength=2**15) / len(weights)
    null = Null(displacement, decay)
    assert found @ null.unchanged(start) == pytest.approx(np.mean(before == after), abs=3e-3)  # type: ignore[arg-type]
    assert found @ null.within(start, 5e-5) == pytest.approx(np.mean(np.abs(after - before) <= 5e-5), abs=3e-3)  # type: ignore[arg-type]
    steps = np.abs((before.view(np.int32) >> 16) - (after.view(np.int32) >> 16))
    assert found @ null.within_steps(start, 2) == pytest.approx(np.mean(steps <= 2), abs=3e-3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("densities", "expected"),
    [((0.367, 0.367), (0.62, 0.62)), ((0.367, 0.146), (0.31, 0.77)), ((0.129, 0.230), (0.645, 0.36))],
)
def test_independent_runs_overlap_as_the_paper_found(
    densities: tuple[float, float], expected: tuple[float, float]
) -> None:
    """With the paper's densities, float32 weights that are log-normal mixtures, and displacements that ignore them."""
    source = torch.Generator().manual_seed(0)
    weights = 0.02 * torch.randn(200_000, generator=source) * torch.randn(200_000, generator=source).exp()
    share = np.bincount(weights.bfloat16().view(torch.int16).numpy() & 0x7FFF, minlength=2**15) / len(weights)

    def run(density: float) -> Null:
        found = fitted(np.stack([np.zeros_like(share), share * 1e6]), 1 - density)
        assert found is not None
        return Null(found)

    one, two = (run(density) for density in densities)
    both = share @ one.overlap(two, "between")
    assert (both / densities[0], both / densities[1]) == pytest.approx(expected, abs=0.03)


def test_overlap_from_between_against_counting() -> None:
    source = np.random.default_rng(1)
    weights = (source.standard_normal(300_000) * 0.02).astype(np.float32)
    before = round_bfloat16(weights)
    first, second = (
        round_bfloat16(weights + (2e-5 * source.standard_normal(len(weights))).astype(np.float32)) != before
        for _ in range(2)
    )
    found = np.bincount((before.view(np.uint32) >> 16) & 0x7FFF, minlength=2**15) / len(weights)
    null = Null(gaussian(2e-5))
    assert found @ null.overlap(null, "between") == pytest.approx(np.mean(first & second), abs=3e-3)


def test_displacements() -> None:
    assert adamw(1e-6, 600).scale == pytest.approx(1e-6 * 600**0.5, rel=0.03)
    assert sgd(1e-2, 100, gradient=1e-4).scale == pytest.approx(1e-2 * 10 * 1e-4, rel=1e-3)
    assert sgd(1e-2, 100, gradient=1e-4, snr=1.0).scale == pytest.approx(1e-6 * (100 + 100**2) ** 0.5, rel=1e-3)
    assert gaussian(2.0).scale == pytest.approx(2.0, rel=1e-3)
    assert gaussian(1.0).share_within(1.0) == pytest.approx(0.6827, abs=1e-3)
    halved = Training(lr=1e-6, steps=400, schedule="linear")
    assert halved.displacement().scale == pytest.approx(1e-6 * (400 / 3) ** 0.5, rel=0.05)
    assert Training(lr=1e-3, steps=100, weight_decay=0.1).decay == pytest.approx((1 - 1e-4) ** 100)
    linear = Training(lr=1e-3, steps=200, optimizer="sgd", gradient=1e-2, schedule="linear")
    noise = np.random.default_rng(0).standard_normal((4000, 200)) @ [linear.factor(t) for t in range(200)]
    assert linear.displacement().scale == pytest.approx(1e-5 * np.std(noise), rel=0.05)
    measured = nullmodel.measured(np.array([2.0, 0.0]), np.array([1.0, 3.0]))
    assert measured.share_within(1.0) == 0.75


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"lr": 1e-6}, "give both or neither"),
        ({"lr": -1e-6, "steps": 3}, "must be positive"),
        ({"lr": 1e-6, "steps": 3, "optimizer": "sgd"}, "standard deviation"),
        ({"masters": "bfloat16"}, "known lr and steps"),
        ({"lr": float("inf"), "steps": 3}, "must be positive"),
        ({"betas": (1.0, 0.9)}, "betas are"),
        ({"snr": float("nan")}, "finite numbers"),
    ],
)
def test_settings_that_make_no_model(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        Training(**settings)  # type: ignore[arg-type]
