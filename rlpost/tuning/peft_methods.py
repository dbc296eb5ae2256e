"""PEFT methods, injected into the model in place. The only module that imports peft.

What is published is always relative to the starting model's weights, which engines hold; see `rlpost.tuning.lora`.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rlpost.errors import ConfigError, MissingPackageError, first_line
from rlpost.sync.codec import checksums
from rlpost.tuning.method import Full, GatherParameters, check_untouched
from rlpost.tuning.targets import check_targets

NAME = "default"


class Adapted(Full):
    """A model with one of PEFT's methods injected.

    Besides adapted layers a configuration may name modules that are trained whole (``modules_to_save``), rows of the
    embeddings (``trainable_token_indices``) and biases (``bias``). All of them are published and saved.

    Args:
        model: a Hugging Face causal language model; changed in place.
        config: a PEFT configuration.
        keys: the user's names of the configuration's fields, for messages; others are ``tuning.peft.FIELD``.
        linear_only: adapt linear layers only.

    Raises:
        ConfigError: for names and patterns that match nothing, a method that cannot be injected or merged, or a
            configuration that trains nothing.
    """

    def __init__(self, model: nn.Module, config: Any, keys: Mapping[str, str] | None = None, linear_only: bool = False):
        from peft import PeftModel

        super().__init__(model)
        check_names(config, model, keys, linear_only)
        self.names = [name for name, _ in model.named_parameters()]
        before = {name: p.detach().clone() for name, p in model.named_parameters()} if _may_move_base(config) else {}
        method = config.peft_type.value.lower()
        try:
            with warnings.catch_warnings():
                # PEFT sets the one as it must be, and the other is of keys that it has added itself
                warnings.filterwarnings("ignore", "fan_in_fan_out is set to False")
                warnings.filterwarnings("ignore", r"The following \w+ keys did not match")
                # some methods store what their layers share in the wrapper; nothing is run through it
                self.peft = PeftModel(model, config, NAME, autocast_adapter_dtype=False)
        except (ValueError, TypeError, AttributeError, NotImplementedError, KeyError) as error:
            raise ConfigError(f"tuning.{method}: {first_line(error)}") from None
        self.config = config
        if not any(p.requires_grad for p in model.parameters()):
            raise ConfigError(f"tuning.{method}: nothing would be trained; leave out inference_mode and frozen parts")
        _, layer = next(self.layers(), (None, None))
        try:
            if layer is not None:
                merged(layer)
        except (ValueError, AttributeError, NotImplementedError) as error:
            raise ConfigError(
                f"tuning.{method}: its layers cannot be merged into this model's weights, "
                f"which is what engines are sent ({first_line(error)}); use another method"
            ) from None
        frozen = [name for name, p in self.base() if not p.requires_grad]
        self.moved = any(not torch.equal(before[n], p) for n, p in self.base() if n in before)
        self.original = before if self.moved else {}
        self.can_disable_adapter = not self.moved and len(frozen) == len(self.names)
        self.frozen = frozenset(frozen)
        self.sealed = checksums(self._sealable())

    def layers(self) -> Iterator[tuple[str, Any]]:
        """The adapted layers, by name."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        for name, module in self.model.named_modules():
            if isinstance(module, BaseTunerLayer) and hasattr(module, "base_layer"):
                yield name, module

    def base(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The model's own current parameters by Hugging Face name, without what was injected."""
        for name in self.names:
            path, _, attribute = name.rpartition(".")
            yield name, getattr(_starting(self._at(path, _starting)), attribute)

    def _sealable(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, parameter) for name, parameter in self.base() if name in self.frozen)

    def _at(self, path: str, inner: Callable[[Any], Any]) -> Any:
        """The outermost module at a path of the starting model; ``inner`` unwraps what is met on the way."""
        module: Any = self.model
        for part in path.split(".") if path else ():
            module = getattr(inner(module), part)
        return module

    def weights(self, gather: GatherParameters) -> Iterator[tuple[str, Tensor]]:
        """See `TuningMethod`: W + ΔW.

        A copy of one layer at a time is merged: merging and unmerging the layer itself in bfloat16 would change W (4 %
        of its entries, measured).
        """
        for name in self.names:
            path, _, attribute = name.rpartition(".")
            layer = _trained(self._at(path, lambda module: _starting(_trained(module))))
            with gather(list(layer.parameters())):
                held = merged(layer) if _is_adapter(layer) else layer
                yield name, getattr(held, attribute).detach().contiguous()  # an embedding is merged by columns

    def check(self) -> None:
        """See `TuningMethod`: what is frozen of the base must be as it was after the injection."""
        check_untouched(self.sealed, checksums(self._sealable()))

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
        wrapped: list[Any] = [module for module in self.model.modules() if _is_adapter(module) or _is_wrapper(module)]
        for layer in wrapped:
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer in wrapped:
                layer._disable_adapters = False


def _is_adapter(module: Any) -> bool:
    """Whether a module is one of PEFT's adapted layers."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return isinstance(module, BaseTunerLayer) and hasattr(module, "base_layer")


def _is_wrapper(module: Any) -> bool:
    """Whether a module wraps one that is trained whole, or some of its rows."""
    from peft.utils.other import AuxiliaryTrainingWrapper

    return isinstance(module, AuxiliaryTrainingWrapper)


def _starting(module: Any) -> Any:
    """The starting model's module in whatever was put around it."""
    while True:
        if _is_wrapper(module):
            module = module.original_module
        elif _is_adapter(module):
            module = module.get_base_layer()
        else:
            return module


def _trained(module: Any) -> Any:
    """What acts in a wrapper's place: the trained copy of ``modules_to_save``, the adapter of single rows."""
    if not _is_wrapper(module):
        return module
    rows = getattr(module, "token_adapter", None)
    return module.modules_to_save[NAME] if rows is None else rows


def check_names(
    config: Any, model: nn.Module, keys: Mapping[str, str] | None = None, linear_only: bool = False
) -> None:
    """See `rlpost.tuning.targets.check_targets`, by the names that PEFT turns the user's into."""
    check_targets(_converted(config, model), model, keys or {}, linear_only, given=config)


def _converted(config: Any, model: Any) -> Any:
    """A copy of a configuration with the names of transformers 4 turned into those of this model.

    Experts were modules then and are one tensor now; PEFT does the same when it injects.
    """
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
    from transformers.conversion_mapping import get_model_conversion_mapping

    held = copy.deepcopy(config)
    convert_peft_config_for_transformers(held, model, get_model_conversion_mapping(model))
    return held


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
    for argument, reason in _REFUSED_ARGUMENTS.items():
        if arguments.get(argument):
            raise ConfigError(f"tuning.peft.{argument}: {reason}; leave it out")
    given = {"target_modules": "all-linear", **arguments}
    try:
        return PEFT_TYPE_TO_CONFIG_MAPPING[known[name]](task_type="CAUSAL_LM", **copy.deepcopy(given))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"tuning.peft: {first_line(error)}") from None


_REFUSED_ARGUMENTS = {
    "layer_replication": "makes a model of other layers than engines have loaded",
    "alora_invocation_tokens": "switches the adapter on by token, which cannot be merged into weights",
}
_REFUSED = {
    "adalora": "cannot allocate ranks here: it zeroes singular values that the optimizer's float32 masters restore at "
    "the next step, and its penalty is part of a loss that reinforcement learning does not use; use lora or peft:miss",
    "xlora": "gates adapters by token, which the engine cannot do; use lora",
    "pvera": "draws its scales anew at each pass, so that no two passes are of one policy; use peft:vera",
    "shadow": "answers beside the model and not through its weights; use lora",
    "adaption_prompt": "adds prompts inside the model, which the engine cannot do; use lora",
    "trainable_tokens": "adapts rows of the embedding and nothing else; use peft:lora with trainable_token_indices",
    "poly": "needs task ids with every prompt; use lora",
}


def merged(layer: Any) -> nn.Module:
    """A copy of an adapted layer's base layer with the adapter merged."""
    twin = copy.deepcopy(layer)
    around = [twin]
    while _is_adapter(around[-1].base_layer):  # two parameters of a module are adapted by two layers around it
        around.append(around[-1].base_layer)
    with torch.no_grad():
        for one in reversed(around):
            one.merge()
    return twin.get_base_layer()


def _may_move_base(config: Any) -> bool:
    """Whether PEFT may change W at initialisation; assumed of every method but plain LoRA."""
    return getattr(config, "init_lora_weights", None) not in (True, "gaussian", "orthogonal")
