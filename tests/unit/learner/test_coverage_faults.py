"""Faults planted into publishing and saving are found before a run starts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rlpost.config.load import from_dict
from rlpost.config.tuning import LoraSettings
from rlpost.errors import ConfigError, ModelError
from rlpost.learner.build import build_learner
from rlpost.learner.coverage import Start, check_coverage
from rlpost.learner.moved_parameters import MovedParameters
from rlpost.sync.publish import Publisher
from rlpost.tuning import peft_methods
from rlpost.tuning.lora import Lora
from rlpost.tuning.method import Full
from rlpost.tuning.peft_methods import Adapted
from rlpost.tuning.subnetwork import Compact
from support.coverage_checks import adapt, masked
from support.small_models import small

DTYPES = ("float32", "bfloat16")


def patched_weights(patch: pytest.MonkeyPatch, change: Any) -> None:
    whole = Adapted.weights

    def weights(self: Any, gather: Any) -> Any:
        for name, tensor in whole(self, gather):
            yield from change(name, tensor)

    patch.setattr(Adapted, "weights", weights)


def biases_skipped(patch: pytest.MonkeyPatch) -> None:
    patched_weights(patch, lambda name, tensor: [] if name.endswith("bias") else [(name, tensor)])


def renamed(patch: pytest.MonkeyPatch) -> None:
    patched_weights(patch, lambda name, tensor: [(name.replace("up_proj", "w3"), tensor)])


def first_row_lost(patch: pytest.MonkeyPatch) -> None:
    def change(name: str, tensor: Tensor) -> Any:
        if name.endswith("q_proj.weight"):
            tensor = tensor.clone()
            tensor[0] = 0
        return [(name, tensor)]

    patched_weights(patch, change)


def wrong_scale(patch: pytest.MonkeyPatch) -> None:
    from peft.tuners.lora.layer import Linear

    delta = Linear.get_delta_weight
    patch.setattr(Linear, "get_delta_weight", lambda self, adapter: 0.9 * delta(self, adapter))


def not_merged(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(peft_methods, "merged", lambda layer: layer.get_base_layer())


def biases_not_saved(patch: pytest.MonkeyPatch) -> None:
    from peft import utils

    whole = utils.get_peft_model_state_dict
    patch.setattr(
        utils,
        "get_peft_model_state_dict",
        lambda *a, **k: {n: t for n, t in whole(*a, **k).items() if not n.endswith("bias")},
    )


def norms_not_saved(patch: pytest.MonkeyPatch) -> None:
    from peft import utils

    whole = utils.get_peft_model_state_dict
    patch.setattr(
        utils, "get_peft_model_state_dict", lambda *a, **k: {n: t for n, t in whole(*a, **k).items() if "norm" not in n}
    )


def base_saved(patch: pytest.MonkeyPatch) -> None:
    from rlpost.learner import coverage

    save = coverage.save_folder

    def saved(model: Any, state: Any, *rest: Any) -> None:
        save(model, {name: torch.zeros_like(t) if "q_proj.w" in name else t for name, t in state.items()}, *rest)

    patch.setattr(coverage, "save_folder", saved)


def transposed(patch: pytest.MonkeyPatch) -> None:
    patched_weights(patch, lambda name, tensor: [(name, tensor.T if "q_proj.weight" in name else tensor)])


def layers_swapped(patch: pytest.MonkeyPatch) -> None:
    other = {"0": "1", "1": "0"}
    patched_weights(
        patch, lambda name, t: [(re.sub(r"layers\.(\d)", lambda found: f"layers.{other[found[1]]}", name), t)]
    )


def through_float16(patch: pytest.MonkeyPatch) -> None:
    """Rounds weights below 6e-5 away, and what was left of bfloat16's range."""
    patched_weights(patch, lambda name, t: [(name, (t / 1e6).half().to(t.dtype) * 1e6 if "down" in name else t)])


def said_tied(patch: pytest.MonkeyPatch) -> None:
    from rlpost.learner import coverage

    save = coverage.save_folder

    def saved(model: Any, state: Any, base: Any, folder: Path) -> None:
        save(model, state, base, folder)
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**settings, "tie_word_embeddings": True}))

    patch.setattr(coverage, "save_folder", saved)


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (transposed, r"q_proj does not compute with what engines are sent"),
        (layers_swapped, r"layers\.0\.\S+ (does not compute|differs between)"),
        (through_float16, r"down_proj does not compute with what engines are sent"),
        (said_tied, r"says tie_word_embeddings, but the output head has other values"),
        (biases_skipped, r"bias is not in what engines are sent"),
        (renamed, r"up_proj\.weight is not in what engines are sent"),
        (first_row_lost, r"q_proj does not compute with what engines are sent"),
        (wrong_scale, r"does not compute with what engines are sent"),
        (not_merged, r"does not compute with what engines are sent"),
        (biases_not_saved, r"bias is trained, but PEFT does not save it with the adapter"),
        (norms_not_saved, r"norm.* is trained, but PEFT does not save it"),
        (base_saved, r"q_proj does not compute with what is saved as model/"),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_planted_faults_of_adapters(
    tiny_model: str, monkeypatch: pytest.MonkeyPatch, plant: Any, said: str, dtype: str
) -> None:
    arguments = {"bias": "all", "modules_to_save": ["model.norm"], "r": 4, "use_dora": plant is base_saved}
    adapt("llama_untied", dtype, tiny_model, **arguments)
    plant(monkeypatch)
    with pytest.raises((ConfigError, ModelError), match=said) as caught:
        adapt("llama_untied", dtype, tiny_model, **arguments)
    assert "\n" not in str(caught.value)


class SkipsNorms(Full):
    def weights(self, gather: Any) -> Any:
        return ((name, tensor) for name, tensor in super().weights(gather) if "norm" not in name)


class SendsTheStart(Full):
    def __init__(self, model: Any):
        super().__init__(model)
        self.kept = {name: p.detach().clone() for name, p in model.named_parameters()}

    def weights(self, gather: Any) -> Any:
        return iter(self.kept.items())


class TrainsBesides(Full):
    def __init__(self, model: Any):
        super().__init__(model)
        self.extra = nn.Parameter(torch.ones(3))

    def trained(self) -> Any:
        return [*super().trained(), ("gate", self.extra)]


class SharesMemory(Full):
    def trained(self) -> Any:
        own = super().trained()
        return [*own, ("view", nn.Parameter(own[0][1].data.T))]


class ForgetsItsMasters(Compact):
    def state(self) -> Any:
        return {**super().state(), "values": {}}


class NeverWritesBack(Compact):
    def write_back(self) -> None:
        pass


class ForgetsAValue(Compact):
    def values(self) -> Any:
        return dict(list(super().values().items())[1:])


class StaleTail(Full):
    def __init__(self, model: Any):
        super().__init__(model)
        self.kept = {name: p.detach()[-1:].clone() for name, p in model.named_parameters()}

    def weights(self, gather: Any) -> Any:
        for name, tensor in super().weights(gather):
            yield name, torch.cat([tensor[:-1], self.kept[name]])


class RoundsSaved(Compact):
    def save_delta(self, folder: Path, base: str) -> None:
        super().save_delta(folder, base)
        file = folder / "subnetwork" / "values.safetensors"
        save_file({name: (8 * tensor).round() / 8 for name, tensor in load_file(file).items()}, file)


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (SkipsNorms, "full", "norm.* is not in what engines are sent"),
        (SendsTheStart, "full", "differs between the learner and what engines are sent"),
        (SendsTheStart, "diff", "differs between the learner and what engines are sent"),
        (TrainsBesides, "full", "gate is trained, but is in no layer whose weights are published"),
        (SharesMemory, "full", r"model\.embed_tokens\.weight and view are two trained parameters in one memory"),
        (ForgetsItsMasters, "full", "is trained, but is in no checkpoint"),
        (NeverWritesBack, "full", "is trained, but what engines are sent does not change"),
        (StaleTail, "full", "differs between the learner and what engines are sent"),
        (masked(ForgetsAValue), "values", "differs between the learner and what engines are sent"),
        (masked(RoundsSaved), "values", "differs between the learner and what is saved as the method's own files"),
    ],
)
def test_planted_faults_of_whole_weights(tiny_model: str, make: Any, kind: str, said: str) -> None:
    model = small("qwen_tied")
    start = Start.of(model)
    with pytest.raises(ConfigError, match=said):
        check_coverage(start, make(model), kind, torch.float32, tiny_model)


def test_a_lora_folder_with_another_scale_is_found(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def save_delta(self: Any, folder: Path, base: str) -> None:
        original(self, folder, base)
        file = folder / "adapter" / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "lora_alpha": 3}))

    original = Lora.save_delta
    monkeypatch.setattr(Lora, "save_delta", save_delta)
    model = small("qwen_tied")
    start = Start.of(model)
    with pytest.raises(ConfigError, match="does not compute with what is saved as the method's own files"):
        check_coverage(start, Lora(model, LoraSettings(r=4)), "adapter", torch.float32, tiny_model)


def test_every_part_of_a_large_tensor_is_tried() -> None:
    model = nn.Linear(1000, 300, bias=False)
    before = model.weight.detach().clone()
    with MovedParameters(Full(model), model), torch.no_grad():
        moved = model.weight != before
        assert moved.any(1).all()
        assert moved[-1, -1]
        assert moved.sum() <= 2**16
    assert torch.equal(model.weight, before)


def test_an_adapter_of_half_the_layers_is_found(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def _adapter(self: Any, version: int) -> Any:
        update = original(self, version)
        for name in [name for name in update.payload if "layers.1." in name]:
            del update.payload[name]
        return update

    original = Publisher._adapter
    monkeypatch.setattr(Publisher, "_adapter", _adapter)
    model = small("qwen_tied")
    start = Start.of(model)
    with pytest.raises(ConfigError, match=r"model\.layers\.1.* does not compute with what engines are sent"):
        check_coverage(start, Lora(model, LoraSettings(r=4)), "adapter", torch.float32, tiny_model)


def test_a_learner_is_checked_when_it_is_built(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong_scale(monkeypatch)
    tuning = {"method": "peft:lora", "peft": {"r": 4}}
    given = {"model": {"path": tiny_model, "dtype": "bfloat16"}, "scoring": {"verifier": "function"}, "tuning": tuning}
    with pytest.raises(ConfigError, match="what engines are sent"):
        build_learner(from_dict({**given, "learner": {"engine": "torch"}}), tiny_model, torch.device("cpu"))
