"""The tuning settings against a model's architecture, without its weights: in a second, before anything is started."""

from __future__ import annotations

from typing import Any

import torch

from rlpost.config.schema import RunConfig
from rlpost.errors import ModelError, first_line
from rlpost.tuning.build import Targets


def check_tuning(config: RunConfig, folder: str) -> None:
    """Check what can be known of tuning settings without weights: names, patterns, and tied ends.

    The same checks come again when the learner is built, where what is trained is also compared with what is published.

    Args:
        config: the run configuration.
        folder: Hugging Face folder of the starting model.

    Raises:
        ConfigError: for settings that do not fit the model.
        ModelError: for an architecture that transformers cannot build.
        MissingPackageError: if a method's package is absent.
    """
    section = config.tuning
    if section.method == "full":
        return
    model = skeleton(folder, config.model.trust_remote_code)
    if section.method == "subnetwork":
        Targets(section.subnetwork.targets)(model)
        return
    from rlpost.tuning.lora import lora_config, plain_settings, user_keys
    from rlpost.tuning.peft_methods import check_names, peft_config

    if section.method in ("lora", "lora_xs"):
        settings = section.lora if section.method == "lora" else plain_settings(section.lora_xs)
        check_names(lora_config(settings), model, user_keys(f"tuning.{section.method}"), linear_only=True)
    else:
        check_names(peft_config(section.method.removeprefix("peft:"), section.peft), model)


def skeleton(folder: str, trust_remote_code: bool = False) -> Any:
    """A model without weights, on torch's meta device.

    Raises:
        ModelError: for an architecture that transformers cannot build.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        settings = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(settings, trust_remote_code=trust_remote_code)
        model.tie_weights()
        return model
    except (OSError, ValueError, RuntimeError, ImportError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(
            f"model.path: no causal language model can be built from {folder} ({first_line(error)})"
        ) from None
