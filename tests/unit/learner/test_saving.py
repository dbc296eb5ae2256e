"""Writing a trained model's folder, and knowing at the start that it can be written. Not covered: DeepSpeed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from rlpost.data.models import load, save_folder
from rlpost.data.tokenizer import TextCodec
from rlpost.errors import ModelError
from rlpost.learner.build import build_learner
from support.recorded import config as configured

CPU = torch.device("cpu")
TORCH = {"engine": "torch", "micro_tokens": 40}


def test_a_generation_config_that_transformers_refuses_is_carried_over_unread(tiny_model: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    written = '{"do_sample": false, "temperature": 0.6, "top_p": 0.95, "eos_token_id": [1, 2],\n "own": 3}'
    (folder / "generation_config.json").write_text(written)
    with pytest.raises(ValueError, match="GenerationConfig is invalid"):
        load(folder, "float32").save_pretrained(str(tmp_path / "plain"))
    learner = build_learner(configured(str(folder), learner=TORCH), str(folder), CPU)
    for target in ("once", "twice"):
        learner.save_model(str(tmp_path / target), str(folder))
        assert (tmp_path / target / "generation_config.json").read_text() == written
    again = dict(load(tmp_path / "once", "float32").named_parameters())
    assert all(torch.equal(again[name], tensor) for name, tensor in learner.weights())
    (folder / "generation_config.json").unlink()
    learner.save_model(str(tmp_path / "thrice"), str(folder))
    assert not (tmp_path / "thrice" / "generation_config.json").exists()


def test_several_chat_templates_go_with_the_model(tiny_model: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    model, codec = load(folder, "float32"), TextCodec(folder)
    codec.tokenizer.chat_template = {"default": "{{ 1 }}", "tool_use": "{{ 2 }}"}
    codec.tokenizer.save_pretrained(str(folder))
    save_folder(model, model.state_dict(), folder, tmp_path / "saved")
    assert TextCodec(tmp_path / "saved").tokenizer.chat_template == {"default": "{{ 1 }}", "tool_use": "{{ 2 }}"}


def test_a_model_that_cannot_be_saved_again_is_refused_at_the_start(
    tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: a configuration that transformers reads and refuses to write."""
    from transformers import LlamaConfig

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("Some parameters do not belong here.\nFound: temperature")

    monkeypatch.setattr(LlamaConfig, "save_pretrained", refuse)
    message = f"model.path: {tiny_model} cannot be saved again (Some parameters do not belong here.); repair it"
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        build_learner(configured(tiny_model, learner=TORCH), tiny_model, CPU)
    assert "\n" not in str(caught.value)


def test_the_written_configuration_has_the_rates_of_noise_that_were_given(tiny_model: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "attention_dropout": 0.25, "resid_pdrop": 0.5}))
    config = configured(str(folder), learner={**TORCH, "gradient_checkpointing": True})
    learner = build_learner(config, str(folder), CPU)
    model = learner.engine.module.model
    assert (model.config.attention_dropout, model.config.resid_pdrop) == (0.0, 0.0)
    learner.save_model(str(tmp_path / "out"), str(folder))
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (written["attention_dropout"], written["resid_pdrop"]) == (0.25, 0.5)
    assert (model.config.attention_dropout, model.config.resid_pdrop) == (0.0, 0.0)
