"""When layers are packed and when not, with a packing that copies. vLLM's own: tests/integration/test_vllm_engine.py."""

from __future__ import annotations

import torch
from torch import nn

from rlpost.rollout.vllm.packed_linear import PackedLinear, repack

X = torch.tensor([[1.0, 2.0]])


class Packing:
    """Packs as vLLM does: multiplies with a copy of the matrix, and converts the bias to float32 if asked."""

    def __init__(self, bias_to_float: bool = False):
        self.bias_to_float = bias_to_float

    def __call__(self, layer: nn.Linear, remove_weight: bool) -> None:
        assert not remove_weight
        copy = layer.weight.detach().clone()
        if self.bias_to_float and layer.bias is not None:
            layer.bias.data = layer.bias.to(torch.float32)
        layer.cpu_linear = lambda x, weight, bias: nn.functional.linear(x, copy, bias)  # pyright: ignore


def layer(packing: Packing, dtype: torch.dtype = torch.float32, bias: bool = False) -> nn.Linear:
    made = nn.Linear(2, 1, bias=bias, dtype=dtype)
    made.weight.data = torch.tensor([[1.0, 1.0]], dtype=dtype)
    made.cpu_linear = PackedLinear(made, packing)  # pyright: ignore
    return made


def multiply(made: nn.Linear, x: torch.Tensor = X) -> float:
    return made.cpu_linear(x, made.weight, made.bias).item()  # pyright: ignore


def test_a_new_matrix_is_used_after_repacking_and_only_then() -> None:
    made = layer(Packing())
    assert multiply(made) == 3.0
    made.weight.data.fill_(10.0)
    assert multiply(made) == 3.0  # the packed copy is stale until `repack`
    assert repack(made) == 1
    assert multiply(made) == 30.0


def test_a_layer_nobody_multiplies_with_is_never_packed() -> None:
    used, unused = layer(Packing()), layer(Packing())
    multiply(used)
    assert repack(nn.ModuleList([used, unused])) == 1
    assert unused.cpu_linear.kernel is None  # pyright: ignore


def test_layers_that_share_a_matrix_are_both_repacked() -> None:
    first, second = layer(Packing()), layer(Packing())
    second.weight = first.weight
    assert [multiply(first), multiply(second)] == [3.0, 3.0]
    first.weight.data.fill_(10.0)
    assert repack(nn.ModuleList([first, second])) == 2
    assert [multiply(first), multiply(second)] == [30.0, 30.0]


def test_a_bias_that_packing_would_change_keeps_its_dtype_and_its_layer_plain() -> None:
    made = layer(Packing(bias_to_float=True), torch.bfloat16, bias=True)
    made.bias.data.fill_(0.5)
    assert multiply(made, X.bfloat16()) == 3.5
    assert made.bias.dtype == torch.bfloat16
    # a layer that stays plain uses an update at once, and repacking changes nothing
    made.bias.data.fill_(1.0)
    made.weight.data.fill_(10.0)
    assert multiply(made, X.bfloat16()) == 31.0
    repack(made)
    assert multiply(made, X.bfloat16()) == 31.0


def test_the_old_copy_is_gone_before_the_new_one_is_made() -> None:
    import weakref

    seen: list[bool] = []
    last: list[weakref.ref] = []

    def packing(made: nn.Linear, remove_weight: bool) -> None:
        seen.extend(ref() is None for ref in last[-1:])
        copy = made.weight.detach().clone()
        last.append(weakref.ref(copy))
        made.cpu_linear = lambda x, weight, bias: nn.functional.linear(x, copy, bias)  # pyright: ignore

    made = nn.Linear(2, 1, bias=False)
    made.cpu_linear = PackedLinear(made, packing)  # pyright: ignore
    multiply(made)
    for _ in range(3):
        repack(made)
    assert seen == [True] * 3
