"""Models that vLLM cannot serve are told from their configuration, in seconds and without an engine.

Not covered: GPUs, tensor parallelism.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig

from rlpost.config.load import from_dict
from rlpost.loop.model_faults import model_faults
from rlpost.tuning.dry_run import skeleton

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.filterwarnings("ignore:fan_in_fan_out")]
SMALL = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
         "num_key_value_heads": 2, "vocab_size": 96, "max_position_embeddings": 64}  # fmt: skip
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **SMALL}
GPT2 = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 64, "n_head": 2, "n_layer": 1,
        "vocab_size": 96, "n_positions": 64}  # fmt: skip


def found(folder: Path, model: dict[str, Any], **sections: Any) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model))
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors")  # vLLM looks at the headers
    tree: dict[str, Any] = {"model": {"path": str(folder), "dtype": "float32"}, "scoring": {"verifier": "function"}}
    return list(model_faults(from_dict({**tree, **sections}), str(folder)))


CASES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("head", {**LLAMA, "num_attention_heads": 4, "num_key_value_heads": 4}, {}, "heads of size 16"),
    ("names", GPT2, {}, "c_attn.weight"),
    ("adapters", GPT2, {"tuning": {"method": "lora", "lora": {"targets": ["c_attn"]}}}, "sync.kind"),
    ("unknown", {"model_type": "gpt_neo", "architectures": ["GPTNeoForCausalLM"], "hidden_size": 64, "num_layers": 1,
                 "num_heads": 2, "attention_types": [[["global"], 1]], "vocab_size": 96,
                 "max_position_embeddings": 64}, {}, "GPTNeoForCausalLM"),
    ("length", LLAMA, {"rollout": {"max_model_len": 512, "max_tokens": 8}}, ""),
    ("shards", LLAMA, {"rollout": {"tensor_parallel": 3}}, "3 processes cannot share 2"),
    ("neox", {"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"], **SMALL}, {}, "gpt_neox.embed_in.weight"),
    ("good", LLAMA, {}, ""),
    ("lora", LLAMA, {"tuning": {"method": "lora"}}, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "model", "sections", "part"), CASES[:2], ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_model_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    model: dict[str, Any],
    sections: dict[str, Any],
    part: str,
) -> None:
    monkeypatch.setenv("RLPOST_CACHE", str(tmp_path / "cache"))
    lines = found(tmp_path / name, model, **sections)
    assert any(part in line for line in lines) if part else not lines, lines
    assert not any("\n" in line for line in lines)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "model", "sections", "part"), CASES[2:], ids=lambda v: v if isinstance(v, str) else ""
)
def test_further_models_are_judged(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    model: dict[str, Any],
    sections: dict[str, Any],
    part: str,
) -> None:
    test_a_model_is_refused(tmp_path, monkeypatch, name, model, sections, part)
    kept = list((tmp_path / "cache/engine_checks").glob("*")) if (tmp_path / "cache").exists() else []
    assert bool(kept) is (part == "")


def test_a_model_without_weights_takes_no_memory(tmp_path: Path) -> None:
    big = {**LLAMA, "hidden_size": 8192, "num_attention_heads": 64, "num_hidden_layers": 2, "intermediate_size": 28672}
    (tmp_path / "config.json").write_text(json.dumps(big))
    model = skeleton(str(tmp_path))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert AutoConfig.from_pretrained(tmp_path).hidden_size == 8192
