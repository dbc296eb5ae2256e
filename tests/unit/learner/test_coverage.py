"""What is trained is what is published and saved: what users configure passes, what contradicts itself is refused."""

from __future__ import annotations

import json
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
from rlpost.learner.replaced_modules import Replaced
from rlpost.tuning.lora import Lora
from rlpost.tuning.lora_xs import LoraXs
from rlpost.tuning.method import Full, unsharded
from rlpost.tuning.peft_methods import Adapted, peft_config
from rlpost.tuning.subnetwork import Compact, Hooked
from support.coverage_checks import adapt, check, masked
from support.small_models import KINDS, small

DTYPES = ("float32", "bfloat16")
MOSTLY_NARROW = (pytest.param("float32", marks=pytest.mark.long), "bfloat16")


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(torch.arange(5, 15)[None]).logits


@pytest.mark.parametrize("dtype", MOSTLY_NARROW)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model(tiny_model: str, kind: str, dtype: str) -> None:
    for make, update in ((Full, "diff"), (Compact, "full"), (masked(Compact), "values"), (masked(Hooked), "values")):
        model = small(kind, dtype)
        start = Start.of(model)
        check(model, start, make(model), update, tiny_model)
    adapt(kind, dtype, tiny_model, r=4)


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


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("qwen_tied", {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
        ("qwen_tied", {"trainable_token_indices": {"embed_tokens": [5, 7, 90]}}),
        ("llama_untied", {"modules_to_save": ["lm_head", "norm"], "use_dora": True}),
        ("llama_untied", {"bias": "all"}),
    ],
)
def test_the_starting_policy_comes_back_or_is_known_to_be_lost(tiny_model: str, kind: str, arguments: dict) -> None:
    """A KL term's reference is the model with its adapters off."""
    first = logits(small(kind))
    tuning = adapt(kind, "float32", tiny_model, **arguments)
    with torch.no_grad():
        for _, parameter in tuning.trained():
            parameter.add_(0.3)
    assert not torch.allclose(logits(tuning.model), first)
    assert tuning.can_disable_adapter == ("bias" not in arguments)
    with tuning.disable_adapter():
        assert torch.equal(logits(tuning.model), first) == tuning.can_disable_adapter
    assert not torch.allclose(logits(tuning.model), first)
