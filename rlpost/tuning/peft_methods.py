"""PEFT methods, injected into the model in place. The only module that imports peft.

What is published is always relative to the starting model's weights, which engines hold; see `rlpost.tuning.lora`.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rlpost.errors import ConfigError, MissingPackageError, first_line
from rlpost.sync.codec import checksums
from rlpost.tuning.method import Full, GatherParameters, check_untouched

NAME = "default"


class Adapted(Full):
    """A model with one of PEFT's methods injected.

    Args:
        model: a Hugging Face causal language model; changed in place.
        config: a PEFT configuration.
    """

    def __init__(self, model: nn.Module, config: Any):
        from peft import PeftModel

        super().__init__(model)
        before = {name: p.detach().clone() for name, p in model.named_parameters()} if _may_move_base(config) else {}
        try:
            # some methods store what their layers share in the wrapper; nothing is run through it
            self.peft = PeftModel(model, config, NAME, autocast_adapter_dtype=False)
        except (ValueError, TypeError, AttributeError, NotImplementedError, KeyError) as error:
            raise ConfigError(f"tuning.{config.peft_type.value.lower()}: {first_line(error)}") from None
        self.config = config
        _, layer = next(self.layers(), (None, None))
        try:
            merged(layer)
        except (ValueError, AttributeError, NotImplementedError) as error:
            raise ConfigError(
                f"tuning.{config.peft_type.value.lower()}: its layers cannot be merged into this model's weights, "
                f"which is what engines are sent ({first_line(error)}); use another method"
            ) from None
        self.moved = any(not torch.equal(before[n], p) for n, p in self.base() if n in before)
        self.original = before if self.moved else {}
        self.can_disable_adapter = not self.moved
        self.sealed = checksums(self.base())

    def layers(self) -> Iterator[tuple[str, Any]]:
        """The adapted layers, by name."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        for name, module in self.model.named_modules():
            if isinstance(module, BaseTunerLayer) and hasattr(module, "base_layer"):
                yield name, module

    def base(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The model's own current parameters by Hugging Face name, without what was injected."""
        adapted = dict(self.layers())
        injected = {id(p) for module in adapted.values() for p in module.parameters()}
        injected -= {id(p) for module in adapted.values() for p in module.get_base_layer().parameters()}
        for name, parameter in self.model.named_parameters():
            if id(parameter) not in injected:
                yield name.replace(".base_layer.", "."), parameter

    def weights(self, gather: GatherParameters) -> Iterator[tuple[str, Tensor]]:
        """See `TuningMethod`: W + ΔW.

        A copy of one layer at a time is merged: merging and unmerging the layer itself in bfloat16 would change W (4 %
        of its entries, measured).
        """
        adapted = dict(self.layers())
        for name, parameter in self.base():
            layer = adapted.get(name.rpartition(".")[0])
            if layer is None:
                with gather([parameter]):
                    yield name, parameter.detach()
                continue
            with gather(list(layer.parameters())):
                yield name, dict(merged(layer).named_parameters())[name.rpartition(".")[2]].detach()

    def check(self) -> None:
        """See `TuningMethod`: the base must be as it was after the injection."""
        check_untouched(self.sealed, checksums(self.base()))

    def save_delta(self, folder: Path, base: str) -> None:
        """See `TuningMethod`: ``adapter/`` as PEFT writes it, to be loaded on the starting model."""
        from peft.utils import get_peft_model_state_dict

        held = get_peft_model_state_dict(self.peft, adapter_name=NAME, save_embedding_layers=False)
        config = copy.deepcopy(self.config)
        config.base_model_name_or_path, config.inference_mode = base, True
        part, whole = (getattr(config, name, None) for name in ("feedforward_modules", "target_modules"))
        if isinstance(part, set) and isinstance(whole, set):
            # IA3: PEFT has expanded the targets to full names, and refuses to load short ones next to them
            config.feedforward_modules = {name for name in whole if f".{name}".endswith(tuple(f".{p}" for p in part))}
        config.save_pretrained(str(folder / "adapter"))
        # safetensors refuses tensors that share memory
        tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in held.items()}
        save_file(tensors, folder / "adapter" / "adapter_model.safetensors")

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """See `TuningMethod`: adapters off. PEFT's own switch is not used, because it forgets what was frozen."""
        layers = [layer for _, layer in self.layers()]
        for layer in layers:
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer in layers:
                layer._disable_adapters = False


def peft_config(name: str, arguments: Mapping[str, Any]) -> Any:
    """A PEFT configuration by the name of its method.

    Raises:
        MissingPackageError: if peft cannot be imported.
        ConfigError: for a method that PEFT does not have, that cannot be injected or trained here, or an argument that
            it does not take.
    """
    try:
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
    except ImportError as error:
        raise MissingPackageError(f"peft cannot be imported ({error}); pip install peft") from error
    known = {
        kind.value.lower(): kind
        for kind in PEFT_TYPE_TO_TUNER_MAPPING
        # methods that change prompts and not weights have no target_modules
        if "target_modules" in {field.name for field in dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[kind])}
    }
    if name in _REFUSED:
        raise ConfigError(f"tuning.method: peft:{name} {_REFUSED[name]}")
    if name not in known:
        raise ConfigError(f"tuning.method: PEFT has no method {name!r} for weights; known: {', '.join(sorted(known))}")
    given = {"target_modules": "all-linear", **arguments}
    try:
        return PEFT_TYPE_TO_CONFIG_MAPPING[known[name]](task_type="CAUSAL_LM", **given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"tuning.peft: {first_line(error)}") from None


_REFUSED = {
    "adalora": "cannot allocate ranks here: it zeroes singular values that the optimizer's float32 masters restore at "
    "the next step, and its penalty is part of a loss that reinforcement learning does not use; use lora or peft:miss",
    "xlora": "gates adapters by token, which the engine cannot do; use lora",
    "pvera": "draws its scales anew at each pass, so that no two passes are of one policy; use peft:vera",
    "shadow": "answers beside the model and not through its weights; use lora",
    "adaption_prompt": "adds prompts inside the model, which the engine cannot do; use lora",
    "trainable_tokens": "adapts rows of the embedding, which are published whole; use tuning.method: subnetwork",
    "poly": "needs task ids with every prompt; use lora",
}


def merged(layer: Any) -> nn.Module:
    """A copy of an adapted layer's base layer with the adapter merged."""
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.merge()
    return twin.get_base_layer()


def _may_move_base(config: Any) -> bool:
    """Whether PEFT may change W at initialisation; assumed of every method but plain LoRA."""
    return getattr(config, "init_lora_weights", None) not in (True, "gaussian", "orthogonal")
