"""What is trained is what is published and saved: what users configure passes, and planted faults are found."""

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
from rlpost.config.tuning import LoraSettings, LoraXsSettings
from rlpost.data.models import check_tying, load
from rlpost.errors import ConfigError, DataError, ModelError
from rlpost.learner.build import build_learner
from rlpost.learner.coverage import Start, check_coverage
from rlpost.learner.moved_parameters import MovedParameters
from rlpost.learner.replaced_modules import Replaced
from rlpost.sync.publish import Publisher
from rlpost.tuning import masks, peft_methods
from rlpost.tuning.lora import Lora
from rlpost.tuning.lora_xs import LoraXs
from rlpost.tuning.masks import Mask
from rlpost.tuning.method import Full, unsharded
from rlpost.tuning.peft_methods import Adapted, peft_config
from rlpost.tuning.subnetwork import Compact, Hooked
from support.small_models import KINDS, small

DTYPES = ("float32", "bfloat16")
MOSTLY_NARROW = (pytest.param("float32", marks=pytest.mark.long), "bfloat16")


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(torch.arange(5, 15)[None]).logits


def check(model: Any, start: Start, tuning: Any, kind: str, folder: str) -> None:
    """Check, and see that every bit of the model is as it was."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    owned = [(name, p.detach().clone()) for name, p in tuning.trained()]
    try:
        check_coverage(start, tuning, kind, next(model.parameters()).dtype, folder)
    finally:
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
        assert all(torch.equal(one, p) for (_, one), (_, p) in zip(owned, tuning.trained(), strict=True))


def adapt(kind: str, dtype: str, folder: str, method: str = "lora", **arguments: Any) -> Adapted:
    model = small(kind, dtype)
    start = Start.of(model)
    tuning = Adapted(model, peft_config(method, arguments))
    check(model, start, tuning, "full", folder)
    return tuning


@pytest.mark.parametrize("dtype", MOSTLY_NARROW)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model(tiny_model: str, kind: str, dtype: str) -> None:
    for make, update in ((Full, "diff"), (Compact, "full"), (_masked(Compact), "values"), (_masked(Hooked), "values")):
        model = small(kind, dtype)
        start = Start.of(model)
        check(model, start, make(model), update, tiny_model)
    adapt(kind, dtype, tiny_model, r=4)


def _masked(make: Any) -> Any:
    def made(model: Any) -> Any:
        shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        return make(model, Mask(masks.random(shapes, 0.2, 0)))

    return made


@pytest.mark.parametrize("dtype", MOSTLY_NARROW)
@pytest.mark.parametrize("kind", ["qwen_tied", "llama_untied", "gpt2", "phi3", "opt"])
@pytest.mark.parametrize(
    "settings", [LoraSettings(r=4), LoraSettings(init="pissa", rslora=True, r=4), LoraXsSettings(r=3)]
)
def test_plain_adapters(tiny_model: str, kind: str, settings: Any, dtype: str) -> None:
    model = small(kind, dtype)
    start = Start.of(model)
    tuning = LoraXs(model, settings) if isinstance(settings, LoraXsSettings) else Lora(model, settings)
    check(model, start, tuning, "adapter", tiny_model)


@pytest.mark.parametrize("dtype", MOSTLY_NARROW)
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("qwen_tied", {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
        ("gemma_tied", {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True, "use_rslora": True}),
        ("qwen_tied", {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [3, 90]}}),
        ("gemma_tied", {"target_modules": ["q_proj"], "trainable_token_indices": [5]}),
        ("llama_untied", {"modules_to_save": ["embed_tokens", "lm_head"], "target_modules": ["q_proj"]}),
        ("llama_untied", {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
        ("llama_untied", {"trainable_token_indices": {"lm_head": [3], "embed_tokens": [5]}}),
        ("llama_untied", {"modules_to_save": ["mlp"], "target_modules": ["q_proj"], "use_dora": True}),
        ("llama_untied", {"modules_to_save": ["norm"], "target_modules": ["q_proj"], "bias": "all"}),
        ("llama_untied", {"target_modules": ["q_proj", "lm_head"], "init_lora_weights": "pissa"}),
        ("gpt2", {"target_modules": ["c_attn"]}),
        ("mixtral", {"target_modules": ["w1", "w2", "w3"]}),
        ("qwen_moe", {"target_modules": ["q_proj"], "target_parameters": ["experts.gate_up_proj"]}),
        ("opt", {"target_modules": ["project_out", "q_proj"]}),
    ],
)
def test_what_users_configure_is_published_rightly(tiny_model: str, kind: str, arguments: dict, dtype: str) -> None:
    tuning = adapt(kind, dtype, tiny_model, **arguments)
    fresh = small(kind, dtype)
    source = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _, parameter in tuning.trained():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=source).to(parameter))
        for name, tensor in tuning.weights(unsharded):
            fresh.get_parameter(name).copy_(tensor)
    moved = logits(tuning.model)
    assert not torch.allclose(logits(small(kind, dtype)), moved, atol=0.05)
    torch.testing.assert_close(logits(fresh), moved, atol=0.1 if dtype == "bfloat16" else 2e-5, rtol=0.05)
    tuning.check()


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("miss", {"r": 8}),
        ("vera", {}),
        ("oft", {"oft_block_size": 8}),
        ("hira", {}),
        ("road", {"group_size": 8}),
        ("ia3", {}),
        ("ln_tuning", {}),
        ("unilora", {}),
        ("tinylora", {}),
        ("fourierft", {"n_frequency": 100}),
    ],
)
def test_other_methods(tiny_model: str, method: str, arguments: dict) -> None:
    adapt("llama_untied", "bfloat16", tiny_model, method, **arguments)


@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inference_mode": True}, "nothing would be trained"),
        ({"target_modules": ["q_proj", "up_proj"], "lora_bias": True}, "cannot be published (Impossible to merge LoRA"),
    ],
)
def test_what_cannot_be_published_is_refused(tiny_model: str, arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        adapt("llama_untied", "float32", tiny_model, **arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tied_head_by_another_way(tiny_model: str, dtype: str) -> None:
    """Injected without the check of names: the weights themselves tell."""
    model = small("qwen_tied", dtype)
    start = Start.of(model)
    tuning = Adapted(model, peft_config("lora", {"target_modules": ["q_proj"]}))
    tuning.model.lm_head = nn.Linear(32, 96, bias=False, dtype=model.dtype)
    with pytest.raises(ConfigError, match="lm_head"):
        check_coverage(start, tuning, "full", model.dtype, tiny_model)


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
        (_masked(ForgetsAValue), "values", "differs between the learner and what engines are sent"),
        (_masked(RoundsSaved), "values", "differs between the learner and what is saved as the method's own files"),
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


def test_a_module_that_no_text_reaches_is_said(caplog: pytest.LogCaptureFixture) -> None:
    one = Replaced("vision", nn.Identity(), nn.Conv2d(1, 1, 1))
    one.settle(None)  # type: ignore[arg-type]
    one.observe()
    assert one.apart({}, torch.float32) is None
    assert "no text reaches vision" in caplog.text


def test_a_mask_without_entries_is_refused(tiny_model: str) -> None:
    given = {
        "model": {"path": tiny_model, "dtype": "float32"},
        "scoring": {"verifier": "function"},
        "learner": {"engine": "torch"},
        "tuning": {
            "method": "subnetwork",
            "subnetwork": {"mask": "difference", "before": tiny_model, "after": tiny_model},
        },
    }
    with pytest.raises((ConfigError, DataError), match="keeps no entry, so nothing would be trained"):
        build_learner(from_dict(given), tiny_model, torch.device("cpu"))


def copied(tiny_model: str, folder: Path, tied: bool, change: Any) -> str:
    for file in Path(tiny_model).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "tie_word_embeddings": tied}))
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return str(folder)


def other_head(tensors: dict[str, Tensor]) -> None:
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 0.1


def test_an_untied_head_under_a_tied_configuration(tiny_model: str, tmp_path: Path) -> None:
    folder = copied(tiny_model, tmp_path, True, other_head)
    given = {"model": {"path": folder, "dtype": "bfloat16"}, "scoring": {"verifier": "function"}}
    with pytest.raises(ModelError, match="says tie_word_embeddings, but the output head has other values"):
        build_learner(from_dict({**given, "learner": {"engine": "torch"}}), folder, torch.device("cpu"))


def test_the_same_head_untied_by_the_configuration_is_taken(tiny_model: str, tmp_path: Path) -> None:
    check_tying(load(copied(tiny_model, tmp_path, False, other_head), "float32"), tmp_path)


def test_a_head_shared_in_memory_under_an_untied_configuration(tiny_model: str, tmp_path: Path) -> None:
    model = load(copied(tiny_model, tmp_path, False, other_head), "float32")
    model.lm_head.weight = model.model.embed_tokens.weight
    with pytest.raises(ModelError, match="says tie_word_embeddings: false, but LlamaForCausalLM has one tensor"):
        check_tying(model, tmp_path)


def test_a_missing_head_is_not_drawn_at_random(tiny_model: str, tmp_path: Path) -> None:
    folder = copied(tiny_model, tmp_path, False, lambda tensors: None)
    with pytest.raises(ModelError, match=r"lacks 1 of the model's tensors, e\.g\. lm_head\.weight"):
        load(folder, "float32")


def test_tensors_without_a_place_are_counted(tiny_model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def add(tensors: dict[str, Tensor]) -> None:
        tensors["model.vision.weight"] = torch.ones(3)

    load(copied(tiny_model, tmp_path, True, add), "float32")
    assert "holds 1 tensors that LlamaForCausalLM has no place for, e.g. model.vision.weight" in caplog.text
