"""Weights of a model in this process, loaded by its own loader and written directly. Not covered: vLLM's loaders
(tests/integration), shards.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from rlpost.rollout.vllm.weights import LocalWeights

NAMES = ("q_proj.weight", "k_proj.weight", "norm.weight", "other.weight")


class Layer(nn.Module):
    """A layer with the rows of q and k stacked in one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.qk, self.norm, self.other = nn.Linear(3, 4), nn.Linear(3, 2), nn.Linear(3, 2)


class Model(nn.Module):
    """A model that stores ``other.weight`` with its rows reversed."""

    packed_modules_mapping = {"qk": ["q_proj", "k_proj"]}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.net = Layer()
        self.loaded: list[list[str]] = []

    def load_weights(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        given = {name.removeprefix("net."): tensor for name, tensor in tensors}
        self.loaded.append(sorted(given))
        rows = self.net.qk.weight.data
        places = {"q_proj.weight": rows[:2], "k_proj.weight": rows[2:], "norm.weight": self.net.norm.weight.data}
        for name, tensor in given.items():
            if name == "other.weight":
                self.net.other.weight.data.copy_(tensor.flip(0))
            else:
                places[name].copy_(tensor)


class Llm:
    """Calls a function with its model, as ``vllm.LLM`` does."""

    def __init__(self) -> None:
        self.model = Model()

    def apply_model(self, function: Any) -> list[Any]:
        return [function(self.model)]


def tensors(start: float, names: Iterable[str] = NAMES) -> dict[str, Tensor]:
    return {f"net.{name}": torch.arange(start + i, start + i + 6).reshape(2, 3) for i, name in enumerate(names)}


def test_only_places_that_the_loader_has_confirmed_are_written_to_directly() -> None:
    llm = Llm()
    weights = LocalWeights(llm)
    for start in (0.0, 100.0, 200.0):
        weights.load(tensors(start))
    # a tensor that the loader rearranges always goes through the loader
    assert llm.model.loaded == [sorted(NAMES), ["other.weight"], ["other.weight"]]
    new = tensors(200.0)
    assert torch.equal(llm.model.net.qk.weight, torch.cat([new["net.q_proj.weight"], new["net.k_proj.weight"]]))
    assert torch.equal(llm.model.net.norm.weight, new["net.norm.weight"])
    assert torch.equal(llm.model.net.other.weight, new["net.other.weight"].flip(0))


def test_rows_of_a_partial_update_go_through_the_loader() -> None:
    llm = Llm()
    weights = LocalWeights(llm)
    weights.load(tensors(0.0))
    weights.load(tensors(50.0, ["k_proj.weight"]))
    assert llm.model.loaded[1] == ["k_proj.weight"]
    assert torch.equal(llm.model.net.qk.weight[2:], tensors(50.0, ["k_proj.weight"])["net.k_proj.weight"])
    assert torch.equal(llm.model.net.qk.weight[:2], tensors(0.0)["net.q_proj.weight"])


def test_a_tensor_of_another_dtype_stays_with_the_loader() -> None:
    llm = Llm()
    weights = LocalWeights(llm)
    for _ in range(2):
        weights.load({"net.norm.weight": torch.ones(2, 3, dtype=torch.bfloat16)})
    assert llm.model.loaded == [["norm.weight"]] * 2


def test_a_place_that_only_looks_right_is_not_written_to() -> None:
    llm = Llm()
    weights = LocalWeights(llm)
    llm.model.net.other.weight.data.fill_(1.0)
    same = {"net.other.weight": torch.ones(2, 3)}
    weights.load(same)
    weights.load(tensors(0.0, ["other.weight"]))
    assert llm.model.loaded == [["other.weight"]] * 2
