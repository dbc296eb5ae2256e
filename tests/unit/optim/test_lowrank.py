"""Low-rank optimizers: by hand, in special cases that are known, and against the authors' packages where installed."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from rlpost.optim.lowrank import PRESETS, LowRankAdamW, Projection, preset

SHAPES = [(12, 7), (7, 12), (9, 9)]


def matrices() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def gradients(step: int) -> list[Tensor]:
    source = torch.Generator().manual_seed(step)
    return [torch.randn(shape, generator=source) for shape in SHAPES]


def run(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], steps: int, first: int = 0) -> list[Tensor]:
    for step in range(first, first + steps):
        for parameter, gradient in zip(parameters, gradients(step), strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    return [parameter.detach().clone() for parameter in parameters]


def low(projection: Projection | None, **settings: float) -> tuple[LowRankAdamW, list[nn.Parameter]]:
    parameters = matrices()
    return LowRankAdamW([{"params": parameters, "projection": projection}], lr=1e-2, **settings), parameters


def close(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-6) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


def test_the_first_galore_step_by_hand() -> None:
    """With the gradient g = 3 e₁ e₁ᵀ Adam's first step is η g / |g|, whatever the size, times α."""
    weight = nn.Parameter(torch.zeros(3, 2))
    optimizer = LowRankAdamW([{"params": [weight], "projection": Projection(1, scale=0.25)}], lr=0.1, eps=1e-12)
    weight.grad = torch.tensor([[3.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    optimizer.step()
    assert weight.detach().tolist() == [[pytest.approx(-0.025), 0.0], [0.0, 0.0], [0.0, 0.0]]


def test_frugal_adds_the_sign_of_the_rest_by_hand() -> None:
    weight = nn.Parameter(torch.zeros(3, 2))
    frugal = Projection(1, rest="sign", rest_scale=0.5)
    optimizer = LowRankAdamW([{"params": [weight], "projection": frugal}], lr=0.1, eps=1e-12)
    weight.grad = torch.tensor([[3.0, 0.0], [0.0, -2.0], [0.0, 0.0]])
    optimizer.step()
    found = weight.detach()
    assert found[0, 0] == pytest.approx(-0.1)
    assert found[1, 1] == pytest.approx(0.05)


def test_adarankgrad_takes_the_smallest_rank_that_holds_the_energy() -> None:
    u, _ = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1)))
    values = torch.tensor([4.0, 3.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.1])
    weight = nn.Parameter(torch.zeros(12, 8))
    energy = float((values[:5] ** 2).sum() / (values**2).sum()) - 1e-4
    optimizer = LowRankAdamW([{"params": [weight], "projection": Projection(8, energy=energy)}])
    weight.grad = u[:, :8] @ values.diag()
    optimizer.step()
    assert optimizer.state[weight]["basis"].shape == (8, 5)


def test_carried_over_moments_stay_moments_in_the_new_basis() -> None:
    """With a basis of full rank, rotating the basis leaves the first moment unchanged as a matrix."""
    optimizer, parameters = low(Projection(12, gap=1, energy=1.0))
    run(optimizer, parameters, 1)
    state = optimizer.state[parameters[0]]
    before = state["exp_avg"] @ state["basis"].T
    run(optimizer, parameters, 1, first=1)
    after = state["exp_avg"] @ state["basis"].T
    torch.testing.assert_close(after, 0.9 * before + 0.1 * gradients(1)[0], rtol=1e-4, atol=1e-5)


def test_without_projection_it_is_adamw() -> None:
    """torch adds ε after the bias correction, this optimizer before it: with a tiny ε the steps are equal."""
    optimizer, parameters = low(None, eps=1e-12, weight_decay=0.1)
    other = matrices()
    plain = torch.optim.AdamW(other, lr=1e-2, eps=1e-12, weight_decay=0.0)
    found = run(optimizer, parameters, 1)
    expected = [p * (1 - 1e-3) for p in run(plain, other, 1)]
    close(found, expected)


def test_apollo_scales_the_whole_gradient_by_columns() -> None:
    weight = nn.Parameter(torch.zeros(6, 4))
    optimizer = LowRankAdamW(
        [{"params": [weight], "projection": replace(PRESETS["apollo"], rank=2, scale=4.0)}], lr=1.0
    )
    gradient = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    weight.grad = gradient.clone()
    optimizer.step()
    ratio = weight.detach() / gradient
    torch.testing.assert_close(ratio, ratio[:, :1].expand(6, 4))
    seen = gradient @ optimizer.state[weight]["basis"]
    # the first Adam direction has entries ±1: its norm is √2 for a rank of 2
    rate = math.sqrt(1 - 0.999) / (1 - 0.9) * (1 - 0.9) / math.sqrt(1 - 0.999)
    expected = -2.0 * rate * math.sqrt(2) / seen.norm(dim=1)
    torch.testing.assert_close(ratio[:, 0], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["fira", "apollo"])
def test_the_norm_of_a_scaled_gradient_grows_slowly(name: str) -> None:
    weight = nn.Parameter(torch.zeros(6, 4))
    optimizer = LowRankAdamW([{"params": [weight], "projection": preset(name, rank=2)}])
    norms = []
    for size in (1.0, 50.0, 2000.0):
        weight.grad = torch.randn(6, 4, generator=torch.Generator().manual_seed(3)) * size
        optimizer.step()
        norms.append(float(optimizer.state[weight]["norm"]))
    assert all(later <= 1.0101 * earlier for earlier, later in pairwise(norms))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_resumed_optimizer_goes_on_exactly(name: str) -> None:
    projection = preset(name, rank=4, gap=3)
    straight, parameters = low(projection)
    expected = run(straight, parameters, 8)
    first, parameters = low(projection)
    run(first, parameters, 4)
    stored = io.BytesIO()
    torch.save(first.state_dict(), stored)
    stored.seek(0)
    second, other = low(projection)
    with torch.no_grad():
        for one, two in zip(other, parameters, strict=True):
            one.copy_(two)
    second.load_state_dict(torch.load(stored, weights_only=True))
    found = run(second, other, 4, first=4)
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_descends(name: str) -> None:
    torch.manual_seed(1)
    weight, target = nn.Parameter(torch.zeros(20, 10)), torch.randn(20, 10)
    optimizer = LowRankAdamW([{"params": [weight], "projection": preset(name, rank=6, gap=5)}], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss = ((weight - target) ** 2).mean()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.15 * float((target**2).mean())


def test_what_zero_has_flattened_is_refused() -> None:
    with pytest.raises(ValueError, match="1 dimension"):
        LowRankAdamW([{"params": [nn.Parameter(torch.zeros(12))], "projection": Projection(4)}])


@pytest.mark.parametrize(
    ("package", "made", "ours"),
    [
        (
            "galore_torch.adamw",
            lambda m, p: m.AdamW(
                [{"params": p, "rank": 4, "update_proj_gap": 3, "scale": 0.25, "proj_type": "std"}],
                lr=1e-2,
                weight_decay=0.1,
                no_deprecation_warning=True,
            ),
            Projection(4, gap=3, scale=0.25),
        ),
        (
            "fira.fira_adamw",
            lambda m, p: m.AdamW(
                [{"params": p, "rank": 4, "update_proj_gap": 3, "alpha": 1.0, "proj_type": "std"}],
                lr=1e-2,
                weight_decay=0.1,
                no_deprecation_warning=True,
            ),
            Projection(4, gap=3, rest="scaled"),
        ),
    ],
)
def test_step_for_step_as_the_authors_package(package: str, made: Callable, ours: Projection) -> None:
    module = pytest.importorskip(package, exc_type=ImportError)
    optimizer, parameters = low(ours, weight_decay=0.1)
    theirs = matrices()
    reference = made(module, theirs)
    for step in range(30):
        found, expected = run(optimizer, parameters, 1, step), run(reference, theirs, 1, step)
        # weight decay rounds once or twice
        close(found, expected, 2e-6)
