"""Names and patterns of tuning settings that match nothing are refused, each one, with what was meant."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from rlpost.config.load import from_dict
from rlpost.config.tuning import LoraSettings, LoraXsSettings
from rlpost.errors import ConfigError
from rlpost.tuning.build import Targets
from rlpost.tuning.dry_run import check_tuning, skeleton
from rlpost.tuning.lora import Lora
from rlpost.tuning.lora_xs import LoraXs
from rlpost.tuning.peft_methods import check_names, peft_config
from support.small_models import small


def said(act: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def peft(kind: str, method: str = "lora", **arguments: Any) -> None:
    check_names(peft_config(method, arguments), small(kind))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("q_proj", "v_prj"), "tuning.lora.targets: 'v_prj' names no layer of this model; did you mean 'v_proj'"),
        (("q_poj", "v_prj"), "'q_poj', 'v_prj' name no layer"),
        (("q_proj", "embed_tokens"), "'embed_tokens' names Embedding, which is no linear layer; leave it out"),
        (("q_proj", "norm"), "'norm' names Qwen2RMSNorm, which is no linear layer; leave it out"),
        (("mlp",), "'mlp' names Qwen2MLP, which is no linear layer; name those in it: gate_proj, up_proj, down_proj"),
        (("q_proj", "lm_head"), "lm_head shares its weight; a tied head cannot be adapted apart from the embeddings"),
        ((".*q_proj",), "'.*q_proj' names no layer of this model"),
        (("c_attn",), "'c_attn' names no layer of this model; there are q_proj, k_proj"),
        (("model.layers.7.self_attn.q_proj",), "names no layer of this model; did you mean"),
    ],
)
def test_targets_of_lora(targets: tuple[str, ...], message: str) -> None:
    assert message in said(lambda: Lora(small("qwen_tied"), LoraSettings(targets=targets)))


def test_lora_xs_names_its_own_key() -> None:
    message = said(lambda: LoraXs(small("qwen_tied"), LoraXsSettings(targets=("v_prj",), r=2)))
    assert message.startswith("tuning.lora_xs.targets: 'v_prj'")


def test_experts_have_no_plain_adapter() -> None:
    message = said(lambda: Lora(small("mixtral"), LoraSettings()))
    assert "tuning.lora.targets: 'all-linear' includes this model's experts" in message
    assert "q_proj, k_proj, v_proj, o_proj" in message
    assert len(Lora(small("mixtral"), LoraSettings(targets=("q_proj",))).trained()) == 4


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rank_pattern", {"q_proj": 4, "v_prj": 8}, "rank_pattern: 'v_prj' matches no adapted layer; did you mean"),
        ("alpha_pattern", {"lm_head": 4}, "alpha_pattern: 'lm_head' matches no adapted layer"),
        ("rank_pattern", {".*_proj": 4, "q_proj": 8}, "rank_pattern: 'q_proj' has no effect, as keys before it match"),
        ("rank_pattern", {"q_proj(": 4}, "rank_pattern: 'q_proj(' is no regular expression"),
    ],
)
def test_patterns_of_lora(field: str, value: dict, message: str) -> None:
    assert f"tuning.lora.{message}" in said(lambda: Lora(small("qwen_tied"), LoraSettings(**{field: value})))


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("llama_untied", {"modules_to_save": ["score"]}, "modules_to_save: 'score' names no layer"),
        ("llama_untied", {"modules_to_save": ["lm_head", "classifier"]}, "modules_to_save: 'classifier' names no"),
        ("llama_untied", {"exclude_modules": ["q_prj"]}, "exclude_modules: 'q_prj' names no layer"),
        ("llama_untied", {"exclude_modules": r".*\.q_prj"}, "exclude_modules: no layer's full name is matched by"),
        (
            "llama_untied",
            {"target_modules": ["q_proj", "v_proj"], "exclude_modules": ["q_proj"]},
            "target_modules: nothing is left of 'q_proj' after exclude_modules",
        ),
        (
            "llama_untied",
            {"target_modules": ["q_proj"], "layers_to_transform": [1, 24]},
            "layers_to_transform: 24 names no layer with targets; those have the numbers 0 to 1",
        ),
        (
            "llama_untied",
            {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "h"},
            "target_modules: nothing is left of 'q_proj'",
        ),
        (
            "llama_untied",
            {"target_modules": r"layers\.\d+\.self_attn\.(q|v)_proj"},
            "target_modules: no layer's full name is matched by the regular expression",
        ),
        ("llama_untied", {"target_modules": "(q_proj"}, "target_modules: '(q_proj' is no regular expression"),
        ("llama_untied", {"target_parameters": ["experts.w1"]}, "target_parameters: 'experts.w1' names no parameter"),
        ("llama_untied", {"trainable_token_indices": [3, 96]}, "trainable_token_indices: 96 is no row of the emb"),
        ("llama_untied", {"trainable_token_indices": {"wte": [3]}}, "trainable_token_indices: 'wte' names no layer"),
        ("phi3", {"target_modules": ["q_proj", "k_proj"]}, "'k_proj', 'q_proj' name no layer of this model; did you"),
        ("gpt2", {"target_modules": ["c_attn", "q_proj"]}, "target_modules: 'q_proj' names no layer"),
        ("gpt2", {"target_modules": ["wte"]}, "transformer.wte shares its weight; tied embeddings cannot be"),
        ("opt", {"target_modules": ["q_proj", "out_project"]}, "'out_project' names no layer of this model; did you"),
        ("mixtral", {"target_modules": ["gate_proj"]}, "target_modules: 'gate_proj' names no layer"),
        (
            "qwen_tied",
            {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True},
            "or train both as one tensor (modules_to_save: [embed_tokens], ensure_weight_tying: true)",
        ),
        ("gemma_tied", {"modules_to_save": ["embed_tokens", "lm_head"]}, "tied embeddings cannot be adapted apart"),
        ("qwen_tied", {"target_modules": ".*(q_proj|lm_head)"}, "a tied head cannot be adapted apart"),
        ("qwen_tied", {"layer_replication": [[0, 2], [1, 2]]}, "layer_replication: makes a model of other layers"),
    ],
)
def test_names_of_peft(kind: str, arguments: dict, message: str) -> None:
    assert message in said(lambda: peft(kind, **arguments))


def test_feedforward_modules_of_ia3() -> None:
    given = {"target_modules": ".*_proj", "feedforward_modules": ".*down_prj"}
    assert "feedforward_modules: no layer's full name" in said(lambda: peft("llama_untied", "ia3", **given))


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("llama_untied", {"target_modules": "all-linear", "rank_pattern": {"q_proj": 4, "model.layers.0.*": 2}}),
        ("llama_untied", {"target_modules": ["self_attn.q_proj", "model.layers.1.mlp.up_proj"]}),
        ("llama_untied", {"target_modules": r"model\.layers\.\d+\.self_attn\.(q|v)_proj"}),
        ("llama_untied", {"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": "layers"}),
        ("llama_untied", {"modules_to_save": ["embed_tokens", "lm_head"]}),
        ("qwen_tied", {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
        ("gpt2", {"target_modules": ["c_attn", "attn.c_proj"]}),
        ("phi3", {"target_modules": ["qkv_proj", "gate_up_proj"]}),
        ("mixtral", {"target_modules": ["w1", "w2", "w3"]}),
        ("opt", {"target_modules": ["project_out", "q_proj"]}),
    ],
)
def test_names_that_match_are_taken(kind: str, arguments: dict) -> None:
    peft(kind, **arguments)


def test_what_was_given_is_not_changed() -> None:
    given = {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}
    peft("qwen_tied", **given)
    assert given == {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}


def test_each_word_of_a_subnetwork_names_a_tensor() -> None:
    model: nn.Module = small("llama_untied")
    message = said(lambda: Targets(("q_proj", "up_prj"))(model))
    assert message.startswith(
        "tuning.subnetwork.targets: 'up_prj' names no tensor of this model; did you mean 'up_proj"
    )
    assert set(Targets(("layers.1.mlp", "q_proj.bias"))(model)) == {
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.1.self_attn.q_proj.bias",
        *(f"model.layers.1.mlp.{name}_proj.weight" for name in ("gate", "up", "down")),
    }


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        ({"method": "peft:lora", "peft": {"target_modules": ["lm_head", "q_proj"]}}, "a tied head cannot be"),
        ({"method": "lora", "lora": {"targets": ["v_prj"]}}, "tuning.lora.targets: 'v_prj' names no layer"),
        ({"method": "lora_xs", "lora_xs": {"targets": ["v_prj"]}}, "tuning.lora_xs.targets: 'v_prj' names"),
        ({"method": "subnetwork", "subnetwork": {"targets": ["v_prj"]}}, "tuning.subnetwork.targets: 'v_prj'"),
    ],
)
def test_a_dry_run_needs_no_weights(tiny_model: str, tuning: dict, message: str) -> None:
    given = {"model": {"path": tiny_model}, "scoring": {"verifier": "function"}, "tuning": tuning}
    assert message in said(lambda: check_tuning(from_dict(given), tiny_model))
    assert {p.device.type for p in skeleton(tiny_model).parameters()} == {"meta"}
