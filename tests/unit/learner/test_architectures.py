"""Every causal language model of the installed transformers, built small: the learner's log-probabilities and gradients
against plain eager attention in evaluation mode, in float32, with noise in every field that has any.

The ordinary run has the usual architectures, ``-m long`` all others. With ``-s`` each prints its line of a table. Not
covered: bfloat16, GPU, code from model folders, lengths beyond a few dozen tokens, vLLM
(tests/integration/test_vllm_architectures.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from conftest import CORPUS
from rlpost.errors import ModelError
from rlpost.learner import build, trial_forward
from rlpost.learner.build import build_learner, use_varlen
from rlpost.learner.deterministic import restored
from support import architecture_checks
from support.architecture_checks import CPU, Case, Findings, compared, configured, make

TOLERANCE = 2e-5
"""Largest |Δ log p| in nats that float32 explains; measured: at most 7e-6, but gemma4 1e-5 and zamba 2e-5."""
GRADIENT = 5e-5
"""Largest difference of a gradient's entry as a share of the largest; measured: at most 2e-5 (qwen3_5_moe)."""

_USUAL = """
bert biogpt bloom codegen cohere2 deepseek_v3 falcon falcon_mamba gemma gemma2 gemma3_text glm4 gpt2 gpt_neo gpt_neox
gpt_oss granite jetmoe llama llama4_text mamba2 minimax_m3_vl_text mistral mixtral nemotron olmo2 olmo3 opt phi phi3
phimoe qwen2 qwen3 qwen3_moe qwen3_next roberta seed_oss smollm3 stablelm starcoder2 vaultgemma xglm
"""
USUAL = frozenset(_USUAL.split())

UNBUILDABLE = {
    "blt": "192957952 parameters",
    "cohere_compass_text": "expanded size of the tensor",
    "dbrx": "no attribute 'rope_theta'",
    "emu3": "Unrecognized configuration class",
    "gemma3n": "requires the timm library",
    "gemma4_assistant": "no attribute 'vocab_size'",
    "gemma4_unified_assistant": "no attribute 'vocab_size'",
    "mllama": "Unrecognized configuration class",
    "musicgen": "Validation error for field 'text_encoder'",
    "musicgen_melody": "Validation error for field 'text_encoder'",
}
"""Types that cannot be built small from their configuration class alone, or written and read again, and why."""

REFUSED = {
    "cpmant": "depends on the tokens after it",
    "prophetnet": "depends on the tokens after it",
    "xlm": "depends on the tokens after it",
    "xlnet": "depends on the tokens after it",
    "rwkv": "changes its weights in a forward pass",
}
"""Types that the learner refuses at start, with a part of what it says."""

OWN_ERROR = {"reformer": "put the model into training mode"}
"""Types whose own code refuses to compute gradients in evaluation mode."""

UNCHECKPOINTED = {"ctrl", "gpt_neox_japanese", "jetmoe", "openai-gpt"}
"""Types that transformers cannot checkpoint."""

_PACKED = """
apertus arcee aria_text axk1 bert bert-generation biogpt bitnet codegen cohere ctrl deepseek_v2 deepseek_v3 diffllama
dots1 electra ernie ernie4_5 ernie4_5_moe falcon flex_olmo fuyu gemma git glm glm4 glm4_moe glm4_moe_lite got_ocr2
gpt-sw3 gpt2 gpt_bigcode gpt_neox gpt_neox_japanese gptj granite granitemoe granitemoeshared helium hrm_text
hunyuan_v1_dense hunyuan_v1_moe hy_v3 hyperclovax jais2 jetmoe laguna lfm2 llama longcat_flash megatron-bert mellum
minicpm3 minimax_m2 nanochat nemotron olmo olmo2 olmoe opt persimmon phi qwen2 qwen2_moe qwen3 qwen3_moe rembert
roc_bert seed_oss smollm3 solar_open stablelm xglm youtu
"""
PACKED = frozenset(_PACKED.split())
"""Types that run packed as they are built here (with every kind of layer of their default configuration)."""

COMPARED = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - UNBUILDABLE.keys() - REFUSED.keys() - OWN_ERROR.keys())
CASES = [kind if kind in USUAL else pytest.param(kind, marks=pytest.mark.long) for kind in COMPARED]

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore"),  # those of architectures that nobody maintains
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    from rlpost.data.wordlevel import build

    folder = tmp_path_factory.mktemp("tokenizer")
    build(CORPUS, folder, 256)
    return str(folder)


@pytest.mark.parametrize("kind", CASES)
def test_the_learner_computes_what_plain_transformers_does(kind: str, tokenizer: str, tmp_path: Path) -> None:
    checkpointing = kind not in UNCHECKPOINTED
    found = compared(make(kind, tokenizer, tmp_path / "model"), checkpointing)
    print(f"\n{row(kind, found)}", end="")
    assert max(found.apart.values()) < TOLERANCE, found
    assert found.gradient < GRADIENT, found
    assert found.recomputed == checkpointing
    assert (found.reason is None) == (kind in PACKED), found.reason


def row(kind: str, found: Findings) -> str:
    """A line of the table: type, layout and why, attention, largest |Δ log p|, largest Δ of a gradient."""
    layout = f"padded: {found.reason}" if found.reason else "packed" + ", varlen" * ("varlen" in found.apart)
    figures = f"{max(found.apart.values()):.1e} | {found.gradient:.1e}"
    return f"| {kind} | {layout} | {found.attention} | {figures} |"


@pytest.mark.parametrize("kind", sorted(UNBUILDABLE))
def test_what_cannot_be_built_is_known_by_name_and_reason(kind: str, tokenizer: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=UNBUILDABLE[kind]):
        Case(make(kind, tokenizer, tmp_path / "model"))


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_what_the_learner_refuses_it_refuses_at_start_in_one_line(kind: str, tokenizer: str, tmp_path: Path) -> None:
    folder = make(kind, tokenizer, tmp_path / "model")
    with pytest.raises(ModelError, match=REFUSED[kind]) as caught:
        build_learner(configured(folder), folder, CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", sorted(OWN_ERROR))
def test_what_transformers_does_not_train_so_says_so(kind: str, tokenizer: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=OWN_ERROR[kind]):
        Case(make(kind, tokenizer, tmp_path / "model"))


def test_a_model_of_the_kind_of_bert_that_sees_the_future_is_refused(tokenizer: str, tmp_path: Path) -> None:
    from transformers import AutoConfig

    folder = make("bert", tokenizer, tmp_path / "model")
    config = AutoConfig.from_pretrained(folder)
    config.is_decoder = False
    config.save_pretrained(folder)
    with pytest.raises(ModelError, match="is_decoder: true"):
        build_learner(configured(folder), folder, CPU)


@pytest.mark.parametrize("kind", ["opt", "llama", "mixtral", "bloom"])
def test_noise_is_off_without_gradient_checkpointing_too(kind: str, tokenizer: str, tmp_path: Path) -> None:
    found = compared(make(kind, tokenizer, tmp_path / "model"), checkpointing=False)
    assert max(found.apart.values()) < TOLERANCE
    assert not found.recomputed


NOISY = ["opt", "starcoder2", "seed_oss", "falcon", "bloom", "xglm", "biogpt", "gpt_neo", "mixtral", "phimoe", "gpt2"]


@pytest.mark.parametrize("kind", NOISY)
def test_the_noise_that_is_switched_off_was_there(kind: str, tokenizer: str, tmp_path: Path) -> None:
    """Planted: a learner whose model is in training mode, with the rates of its folder."""
    case = Case(make(kind, tokenizer, tmp_path / "model"), checkpointing=False)
    case.module.train()
    assert case.apart() < TOLERANCE
    case.model.train()
    assert case.apart() > 0.01


@pytest.mark.parametrize("kind", ["opt", "falcon"])
def test_the_layers_that_checkpointing_puts_into_training_mode_would_be_noisy(
    kind: str, tokenizer: str, tmp_path: Path
) -> None:
    """Planted: rates of noise that are not set to zero; here they act in the layers themselves, not in their parts."""
    case = Case(make(kind, tokenizer, tmp_path / "model"))
    assert case.apart() < TOLERANCE
    with restored(case.module.zeroed):
        assert case.apart() > 0.01
    assert case.apart() < TOLERANCE


@pytest.mark.parametrize("kind", ["gemma2", "vaultgemma"])
def test_capped_attention_scores_are_eager_because_sdpa_drops_the_cap(
    kind: str, tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(kind, tokenizer, tmp_path / "model")
    sharpen(folder)
    case = Case(folder)
    assert case.model.config._attn_implementation == "eager"
    assert case.apart() < TOLERANCE
    case.model.config.layer_types = ["full_attention"] * len(case.model.config.layer_types)
    with pytest.raises(ModelError, match="varlen, but its attention computes more than torch's"):
        use_varlen(case.model)
    monkeypatch.setattr(build, "prepare_attention", lambda model: None)
    planted = Case(folder)
    assert planted.model.config._attn_implementation == "sdpa"
    assert planted.apart() > 0.01


def sharpen(folder: str) -> None:
    """Make attention scores as large as the cap."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("q_proj.weight"):
                parameter.mul_(30)
    model.save_pretrained(folder)


@pytest.mark.parametrize("kind", ["gpt_neo", "mistral", "roberta"])
def test_what_runs_padded_would_be_wrong_packed(kind: str, tokenizer: str, tmp_path: Path) -> None:
    """Planted: windows counted by places in the row, and positions that do not begin at zero."""
    case = Case(make(kind, tokenizer, tmp_path / "model"))
    assert case.apart() < TOLERANCE
    assert case.apart(packed=True, share_prompts=True) > 0.01


def test_windows_are_known_by_any_name(tokenizer: str, tmp_path: Path) -> None:
    case = Case(make("llama", tokenizer, tmp_path / "model"))
    assert case.module.packing_unsupported_reason is None
    for name in ("window_size", "local_attention", "attention_window_size", "sparse_attention_stride"):
        setattr(case.model.config, name, 8)
        assert f"({name}: 8)" in str(build.LogprobModel(case.model).packing_unsupported_reason)
        delattr(case.model.config, name)
    case.model.config.index_topk = 4
    assert "(index_topk: 4)" in str(build.LogprobModel(case.model).packing_unsupported_reason)


def test_a_head_with_more_to_it_is_found_by_trial(tokenizer: str, tmp_path: Path) -> None:
    """bert's head transforms the states before its matrix, which no field of its configuration says."""
    case = Case(make("bert", tokenizer, tmp_path / "model"))
    assert not case.module.head_separate
    case.module.head_separate = True
    assert case.apart() > 0.1


def test_variable_length_attention_that_layers_do_not_pass_on_is_refused(tokenizer: str, tmp_path: Path) -> None:
    folder = make("nemotron", tokenizer, tmp_path / "model")
    with pytest.raises(ModelError, match="varlen, but a trial of it gave other log-probabilities; set it to mask"):
        build_learner(configured(folder, attention="varlen"), folder, CPU)


def test_a_model_without_gradient_checkpointing_is_refused_in_one_line(tokenizer: str, tmp_path: Path) -> None:
    folder = make("ctrl", tokenizer, tmp_path / "model")
    with pytest.raises(
        ModelError, match=r"gradient_checkpointing: CTRLLMHeadModel does not support .* Set it to false"
    ):
        build_learner(configured(folder, gradient_checkpointing=True), folder, CPU)


@pytest.mark.parametrize(("dtype", "small", "large"), [("float32", 5e-4, 3e-3), ("bfloat16", 0.04, 0.09)])
def test_trials_tell_rounding_from_difference(dtype: str, small: float, large: float) -> None:
    """Tolerance 8 eps + 0.001 of the largest logit, which is 4: 0.004 in float32 and 0.25 in bfloat16."""
    logits = torch.tensor([[[4.0, -1.0], [2.0, -4.0]]], dtype=getattr(torch, dtype))
    moved = logits.clone()
    moved[..., 0] += 4 * large
    assert trial_forward.differ(moved, logits)
    moved[0, 0] = logits[0, 0]  # one position that agrees: a router that chose otherwise at the other
    assert not trial_forward.differ(moved, logits)
    moved = logits.clone()
    moved[..., 0] += 4 * small
    assert not trial_forward.differ(moved, logits)


def test_the_reference_is_as_deterministic_as_the_policy(tokenizer: str, tmp_path: Path) -> None:
    folder = make("opt", tokenizer, tmp_path / "model")
    samples = architecture_checks.samples(architecture_checks.TextCodec(folder))
    learner = build_learner(configured_with_kl(folder), folder, CPU)
    own, reference = learner.logprobs(samples), learner.logprobs(samples, reference=True)
    for number, one in enumerate(samples):
        assert abs(own[number][one.mask] - reference[number][one.mask]).max() < TOLERANCE


def configured_with_kl(folder: str) -> Any:
    from rlpost.config.load import from_dict

    return from_dict(
        {
            "model": {"path": folder, "dtype": "float32"},
            "scoring": {"verifier": "function"},
            "algorithm": {"kl": {"coef": 0.1}},
            "learner": {"engine": "torch", "gradient_checkpointing": True},
        }
    )
