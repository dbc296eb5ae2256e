"""Updates of each kind, applied by hand to a copy of the weights."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlpost.config.update_kind import adapter_rank, engine_rank, kind_of
from rlpost.sync.codec import checksum, decode
from rlpost.sync.publish import Publisher, changed
from rlpost.tuning import masks
from rlpost.tuning.masks import Mask
from rlpost.tuning.method import Full
from rlpost.tuning.subnetwork import Compact
from rlpost.types import WeightUpdate
from support.tuning_checks import configured


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))


def publisher(kind: str, tuning: Full, dtype: torch.dtype = torch.bfloat16, **settings: float) -> Publisher:
    return Publisher(kind, tuning, dtype, lambda _: nullcontext(), writes=True, **settings)  # pyright: ignore


def apply(held: dict[str, Tensor], update: WeightUpdate, known: dict[str, np.ndarray]) -> None:
    """Apply an update to the weights as an engine does."""
    known |= {name: decode(index).numpy() for name, index in update.index.items()}
    for name, payload in update.payload.items():
        if update.manifest.kind == "full" or name not in known:
            held[name] = decode(payload).clone()
        else:
            held[name].view(-1)[torch.from_numpy(known[name]).long()] = decode(payload)
    assert update.manifest.checksums == {name: checksum(tensor) for name, tensor in held.items()}


def start(model: nn.Module, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    return {name: p.detach().to(dtype).clone() for name, p in model.named_parameters()}


def test_a_difference_is_of_bits() -> None:
    old = torch.tensor([0.0, 1.0, float("nan"), 2.0, 3.0]).bfloat16()
    new = torch.tensor([-0.0, 1.0, float("nan"), 2.5, 3.0]).bfloat16()
    assert changed(old, new).tolist() == [0, 3]
    assert changed(old, old.clone()).tolist() == []


def test_differences_follow_one_another() -> None:
    model = net()
    held, made = start(model), publisher("diff", Full(model))
    first = made.update(0)
    assert (first.manifest.kind, set(first.payload)) == ("full", set(held))
    apply(held, first, {})
    model[0].weight.data[1, 2] += 1.0
    model[0].bias.data[3] += 1e-9  # below the resolution of bfloat16
    model[1].bias.data += 1.0  # all entries change: sent whole
    second = made.update(1)
    assert {name: len(p.data) for name, p in second.payload.items()} == {"0.weight": 2, "1.bias": 6}
    assert {name: decode(p).tolist() for name, p in second.index.items()} == {"0.weight": [8]}
    assert second.manifest.nbytes == 2 + 6 + 4
    apply(held, second, {})
    model[0].weight.data[1, 2] += 1.0
    apply(held, made.update(2), {})
    assert made.update(3).payload == {}


def test_a_snapshot_is_what_the_next_difference_is_of() -> None:
    model = net()
    made = publisher("diff", Full(model))
    made.update(0)
    model[0].weight.data[0, 0] += 1.0
    made.update(1)
    late = start(net())
    apply(late, made.full(1), {})
    model[0].weight.data[0, 1] += 1.0
    apply(late, made.update(2), {})


def test_after_a_restore_nothing_is_taken_for_known() -> None:
    model = net()
    made = publisher("diff", Full(model))
    made.update(0)
    made.forget()
    assert made.update(0).manifest.kind == "full"
    mask = Mask(masks.random({n: tuple(p.shape) for n, p in model.named_parameters()}, 0.3, 1))
    values = publisher("values", Compact(model, mask))
    assert values.update(0).manifest.carries_positions
    values.forget()
    assert values.update(0).manifest.carries_positions


def test_positions_are_told_once_and_values_are_absolute() -> None:
    model = net()
    mask = Mask({"0.weight": masks.random({"0.weight": (8, 6)}, 0.25, 1)["0.weight"]})
    tuning = Compact(model, mask)
    held, known, made = start(net()), {}, publisher("values", tuning)
    first = made.update(0)
    assert (first.manifest.carries_positions, set(first.index), len(first.payload["0.weight"].data)) == (
        True,
        {"0.weight"},
        24,
    )
    apply(held, first, known)
    tuning.kept["0.weight"].values.data += 0.5
    tuning.write_back()
    lost = made.update(1)
    tuning.kept["0.weight"].values.data += 0.5
    tuning.write_back()
    second = made.update(2)
    assert (second.manifest.carries_positions, second.index, second.manifest.nbytes) == (False, {}, 24)
    assert lost.payload.keys() == second.payload.keys()
    apply(held, second, known)  # without the update before


def test_ranks_that_do_not_send_make_no_update() -> None:
    model = net()
    for kind in ("full", "diff"):
        made = Publisher(kind, Full(model), torch.float32, lambda _: nullcontext(), writes=False)
        assert made.update(0) is None


@pytest.mark.parametrize(
    ("change", "kind", "rank"),
    [
        ({}, "full", None),
        ({"tuning": {"method": "lora"}}, "adapter", 16),
        ({"tuning": {"method": "lora", "lora": {"r": 24}}}, "adapter", 32),
        ({"tuning": {"method": "lora", "lora": {"r": 8, "init": "pissa"}}}, "adapter", 16),
        ({"tuning": {"method": "lora", "lora": {"r": 8, "rank_pattern": {"q_proj": 40}}}}, "adapter", 64),
        ({"tuning": {"method": "lora", "lora": {"r": 512, "init": "olora"}}}, "full", None),
        ({"tuning": {"method": "lora_xs"}}, "adapter", 16),
        ({"tuning": {"method": "lora"}, "sync": {"kind": "full"}}, "full", None),
        ({"tuning": {"method": "lora"}, "rollout": {"max_tokens": 16, "tensor_parallel": 2}}, "full", None),
        ({"tuning": {"method": "peft:miss"}}, "full", None),
        ({"tuning": {"method": "subnetwork"}}, "values", None),
        ({"tuning": {"method": "subnetwork"}, "sync": {"kind": "diff"}}, "diff", None),
    ],
)
def test_the_update_kind_follows_the_tuning_method(change: dict, kind: str, rank: int | None) -> None:
    config = configured("m", change)
    assert (kind_of(config), engine_rank(config)) == (kind, rank)
    assert adapter_rank(config) >= 1
