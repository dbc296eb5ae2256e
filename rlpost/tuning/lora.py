r"""LoRA: the method, and the export of an adapter as the folder that PEFT and vLLM load.

The published adapter is always relative to the starting model's weights, which engines hold. Some initialisations
(PiSSA, OLoRA) move a part of W into B A; PEFT then calls the rest the base. Their adapter is published as the
difference from its initial value: ΔW = s (B A − B₀ A₀) = s [B, −B₀] [A; A₀], of twice the rank.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rlpost.config.tuning import LoraSettings, LoraXsSettings
from rlpost.tuning.method import Adapter, GatherParameters, unsharded
from rlpost.tuning.peft_methods import NAME, Adapted, peft_config


class Lora(Adapted):
    """LoRA, whose adapter can be sent to engines unmerged.

    Args:
        model: a Hugging Face causal language model; changed in place.
        settings: rank, scale, targets and initialisation.
        section: section of the configuration that the settings are from, for messages.

    Raises:
        ConfigError: as `Adapted` does, and for targets that are not linear layers.
    """

    def __init__(self, model: nn.Module, settings: LoraSettings, section: str = "tuning.lora"):
        super().__init__(model, lora_config(settings), user_keys(section), linear_only=True)
        self.first = {name: _product(layer) for name, layer in self.layers()} if self.moved else {}
        for _, layer in self.layers():
            layer.lora_A[NAME].weight.requires_grad_(not settings.freeze_a)

    def adapter(self, gather: GatherParameters) -> Adapter:
        """The plain adapter relative to the starting model's weights."""
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for name, layer in self.layers():
            with gather(list(layer.parameters())):
                a, b = _product(layer)
            if name in self.first:
                a0, b0 = self.first[name]
                a, b = torch.cat([a, a0.to(a)]), torch.cat([b, -b0.to(b)], 1)
            found[name] = a, b
        return Adapter(found, max((a.shape[0] for a, _ in found.values()), default=0))

    def state(self) -> dict[str, Any]:
        """See `TuningMethod`."""
        return {"first": {name: list(pair) for name, pair in self.first.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `TuningMethod`."""
        self.first = {name: (a, b) for name, (a, b) in state["first"].items()}

    def save_delta(self, folder: Path, base: str) -> None:
        """See `TuningMethod`: ``adapter/``, which PEFT and vLLM load on the starting model."""
        save_adapter(folder / "adapter", self.adapter(unsharded), base)


def user_keys(section: str) -> dict[str, str]:
    """The user's names of PEFT's fields, by the section of the configuration."""
    names = {"target_modules": "targets", "rank_pattern": "rank_pattern", "alpha_pattern": "alpha_pattern"}
    return {field: f"{section}.{name}" for field, name in names.items()}


def plain_settings(settings: LoraXsSettings) -> LoraSettings:
    """The plain LoRA that LoRA-XS is built on."""
    return LoraSettings(r=settings.r, alpha=settings.alpha, targets=settings.targets)


def lora_config(settings: LoraSettings) -> Any:
    """PEFT's configuration of LoRA."""
    return peft_config(
        "lora",
        {
            "r": settings.r,
            "lora_alpha": settings.alpha,
            "target_modules": _targets(settings.targets),
            "use_rslora": settings.rslora,
            "init_lora_weights": True if settings.init == "default" else settings.init,
            "rank_pattern": dict(settings.rank_pattern),
            "alpha_pattern": dict(settings.alpha_pattern),
        },
    )


def save_adapter(folder: Path, adapter: Adapter, base: str) -> None:
    """Write a LoRA folder that PEFT and vLLM can load.

    Matrices of a smaller rank are padded with zeros, and their scale is in B, so that the largest rank is the only
    setting needed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted({name.rpartition(".")[2] for name in adapter.matrices})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": adapter.rank,
        "lora_alpha": adapter.rank,
        "target_modules": names,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1))
    tensors: dict[str, Tensor] = {}
    for name, (a, b) in adapter.matrices.items():
        missing = adapter.rank - a.shape[0]
        tensors[f"base_model.model.{name}.lora_A.weight"] = nn.functional.pad(a, (0, 0, 0, missing)).cpu().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = nn.functional.pad(b, (0, missing)).cpu().contiguous()
    save_file(tensors, folder / "adapter_model.safetensors")


def _product(layer: Any) -> tuple[Tensor, Tensor]:
    """A and s B of a LoRA layer, as copies."""
    a, b = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
    return a.detach().clone(), b.detach() * layer.scaling[NAME]


def _targets(given: str | tuple[str, ...]) -> str | list[str]:
    return given if isinstance(given, str) else list(given)
