"""Subnetwork training against dense AdamW with a mask, entry by entry."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rlpost.config.tuning import OptimizerSection
from rlpost.errors import DataError, SelfCheckError
from rlpost.optim.build import build_optimizer
from rlpost.tuning import masks
from rlpost.tuning.masks import Mask
from rlpost.tuning.subnetwork import Chooser, Compact, Hooked

STEPS, ACCUMULATED, CLIP = 25, 3, 0.05
SETTINGS = OptimizerSection(lr=1e-2, weight_decay=0.1)


def net(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def some(model: nn.Module, density: float = 0.2) -> Mask:
    return Mask({n: b for n, b in masks.random(shapes(model), density, 5).items() if n != "2.bias"})


def backward(model: nn.Module, step: int, part: int) -> None:
    source = torch.Generator().manual_seed(100 * step + part)
    x = torch.randn(4, 6, generator=source).to(next(model.parameters()).dtype)
    (model(x) ** 2).sum().backward()


def steps(model: nn.Module, tuning: Compact | Hooked, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        for part in range(ACCUMULATED):
            backward(model, step, part)
        torch.nn.utils.clip_grad_norm_([p for _, p in tuning.trained()], CLIP)
        optimizer.step()
        tuning.write_back()
        optimizer.zero_grad()


def masked_dense(mask: Mask) -> nn.Module:
    """AdamW with decay on the kept entries: gradients are masked before the norm, other entries restored each step."""
    model = net()
    base = {name: p.detach().clone() for name, p in model.named_parameters()}
    dense = {
        n: mask.tensors[n].dense() if n in mask.tensors else torch.zeros(s, dtype=bool)
        for n, s in shapes(model).items()
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=SETTINGS.lr, weight_decay=SETTINGS.weight_decay)
    for step in range(STEPS):
        for part in range(ACCUMULATED):
            backward(model, step, part)
        for name, p in model.named_parameters():
            p.grad *= dense[name]
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(torch.where(dense[name], p, base[name]))
    return model


def test_compact_is_masked_dense_adamw() -> None:
    """Norms of a vector and of a matrix with zeros are summed in different order: equal except for the last bits."""
    model = net()
    tuning = Compact(model, some(model))
    steps(model, tuning, build_optimizer(tuning.trained(), SETTINGS), 0, STEPS)
    expected = masked_dense(some(net()))
    for (name, p), (_, q) in zip(model.named_parameters(), expected.named_parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7, msg=name)


def test_compact_is_exactly_masked_dense_adamw_without_clipping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: None)
    model = net()
    tuning = Compact(model, some(model))
    steps(model, tuning, build_optimizer(tuning.trained(), SETTINGS), 0, STEPS)
    for p, q in zip(model.parameters(), masked_dense(some(net())).parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [Compact, Hooked])
def test_entries_outside_the_mask_keep_every_bit(kind: type[Compact | Hooked], dtype: torch.dtype) -> None:
    model, mask = net(dtype), some(net())
    base = {name: p.detach().clone() for name, p in model.named_parameters()}
    tuning = kind(model, mask)
    settings = SETTINGS if kind is Compact else OptimizerSection(lr=1e-2)
    steps(model, tuning, build_optimizer(tuning.trained(), settings), 0, 5)
    for name, p in model.named_parameters():
        moved = (p != base[name]).flatten()
        allowed = mask.tensors[name].dense().flatten() if name in mask.tensors else torch.zeros_like(moved)
        assert not (moved & ~allowed).any(), name
        assert moved.sum() >= 0.9 * allowed.sum(), name


def test_memory_is_of_the_kept_entries_only() -> None:
    model = net()
    tuning = Compact(model, some(model))
    optimizer = build_optimizer(tuning.trained(), SETTINGS)
    steps(model, tuning, optimizer, 0, 1)
    held = sum(t.numel() for state in optimizer.state.values() for t in state.values() if t.dim())
    assert held == 2 * some(net()).count
    assert all(p.grad is None for p in model.parameters())


def test_masters_see_what_bfloat16_rounds_away() -> None:
    model = net(torch.bfloat16)
    tuning = Compact(model, some(net()))
    optimizer = build_optimizer(tuning.trained(), OptimizerSection(lr=1e-5))
    before = {name: p.detach().clone() for name, p in tuning.trained()}
    steps(model, tuning, optimizer, 0, 40)
    moved = torch.cat([(p.detach() - before[name]).abs().flatten() for name, p in tuning.trained()])
    assert moved.min() > 0
    held = dict(model.named_parameters())
    for name, (index, values) in tuning.values().items():
        assert values.dtype == torch.bfloat16
        assert torch.equal(values, held[name].detach().flatten()[index.long()]), name


def test_disabling_the_adapter_gives_the_starting_policy() -> None:
    model = net()
    x = torch.randn(5, 6)
    first = model(x).detach()
    tuning = Compact(model, some(model), keep_base=True)
    steps(model, tuning, build_optimizer(tuning.trained(), SETTINGS), 0, 3)
    now = model(x).detach()
    with tuning.disable_adapter():
        assert torch.equal(model(x), first)
    assert torch.equal(model(x), now)
    assert not torch.equal(now, first)


def test_a_resumed_run_is_the_uninterrupted_one() -> None:
    def begun() -> tuple[nn.Module, Compact, torch.optim.Optimizer]:
        model = net()
        tuning = Compact(model, some(model), keep_base=True)
        return model, tuning, build_optimizer(tuning.trained(), SETTINGS)

    straight = begun()
    steps(*straight, 0, 6)
    first = begun()
    steps(*first, 0, 3)
    state, moments = first[1].state(), first[2].state_dict()
    second = begun()
    second[1].restore(state)
    second[2].load_state_dict(moments)
    steps(*second, 3, 6)
    assert all(torch.equal(p, q) for p, q in zip(second[0].parameters(), straight[0].parameters(), strict=True))


def test_a_mask_that_gradients_choose() -> None:
    model = net()
    chooser = Chooser(0.25, "matrix", lambda m: dict(m.named_parameters()), "b", {"mask": "gradient"})
    tuning = Compact(model, choose=chooser)
    assert tuning.trained() == []
    assert set(tuning.warmup_parameters()) == set(shapes(model))
    scores = {name: torch.arange(p.numel()).view(p.shape).float() for name, p in model.named_parameters()}
    tuning.finish_warmup(scores)
    assert tuning.warmup_parameters() == {}
    assert tuning.values()["0.bias"][0].tolist() == [6, 7]
    assert tuning.mask is not None
    assert tuning.mask.base == "b"


def test_a_mask_of_another_model_is_refused() -> None:
    with pytest.raises(DataError, match=r"the mask has '0.weight' \(2, 2\), the model \(8, 6\)"):
        Compact(net(), Mask(masks.random({"0.weight": (2, 2)}, 0.5, 1)))
    with pytest.raises(DataError, match=r"'other' .* the model no such tensor"):
        Hooked(net(), Mask(masks.random({"other": (2, 2)}, 0.5, 1)))


def test_the_small_form_is_mask_and_values(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = net()
    tuning = Compact(model, some(model))
    steps(model, tuning, build_optimizer(tuning.trained(), SETTINGS), 0, 2)
    tuning.save_delta(tmp_path, "start")
    restored, mask = net(), masks.load(tmp_path / "subnetwork" / "mask.safetensors")
    values = load_file(tmp_path / "subnetwork" / "values.safetensors")
    with torch.no_grad():
        for name, p in restored.named_parameters():
            if name in values:
                p.view(-1)[mask.tensors[name].index().long()] = values[name]
    assert all(torch.equal(p, q) for p, q in zip(restored.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("kind", [Compact, Hooked])
def test_an_entry_that_changed_outside_the_mask_is_found(kind: type[Compact | Hooked]) -> None:
    model = net()
    tuning = kind(model, some(model))
    steps(model, tuning, build_optimizer(tuning.trained(), OptimizerSection(lr=1e-2)), 0, 2)
    tuning.check()
    assert tuning.mask is not None
    outside = int((~tuning.mask.tensors["0.weight"].dense().flatten()).nonzero()[0])
    model[0].weight.data.view(-1)[outside] += 1e-6
    with pytest.raises(SelfCheckError, match=r"'0\.weight' changed where nothing may \(1 of 4 tensors\)"):
        tuning.check()


@pytest.mark.parametrize("kind", [Compact, Hooked])
def test_a_checkpoint_of_another_mask_of_the_same_size_is_refused(kind: type[Compact | Hooked]) -> None:
    state = kind(net(), some(net())).state()
    other = Mask({n: b for n, b in masks.random(shapes(net()), 0.2, 6).items() if n != "2.bias"})
    with pytest.raises(ValueError, match="its mask is another one"):
        kind(net(), other).restore(state)
