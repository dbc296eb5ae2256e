"""Build a tuning method from a configuration."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlpost.config.schema import RunConfig
from rlpost.config.tuning import SubnetworkSettings
from rlpost.data.models import load
from rlpost.errors import ConfigError
from rlpost.tuning import masks
from rlpost.tuning.masks import Mask, TensorMask
from rlpost.tuning.method import Full, TuningMethod
from rlpost.tuning.names import not_there
from rlpost.tuning.subnetwork import Chooser, Compact, Hooked

_log = logging.getLogger(__name__)


def build_tuning(config: RunConfig, model: nn.Module, folder: str) -> TuningMethod:
    """Apply the configured tuning method to a loaded model, on its device and before an engine takes it.

    Random initial values (A of LoRA) depend on the run's seed only, so every rank draws the same.

    Args:
        config: tuning settings, learner engine, dtype, seed and KL coefficient.
        model: the starting model; adapters are injected into it.
        folder: folder the model was loaded from, for messages.

    Raises:
        ConfigError: for targets or arguments that do not fit the model.
        DataError: for a mask that cannot be read or belongs to another model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        return _build(config, model, folder)


def _build(config: RunConfig, model: nn.Module, folder: str) -> TuningMethod:
    section = config.tuning
    if section.method == "full":
        # plain torch has no float32 masters, without which bfloat16 rounds small updates away
        masters = config.learner_engine == "torch" and config.model.dtype == "bfloat16"
        return Compact(model) if masters else Full(model)
    if section.method == "subnetwork":
        return _subnetwork(config, model, folder)
    from rlpost.tuning.lora import Lora
    from rlpost.tuning.peft_methods import Adapted, peft_config

    if section.method == "lora":
        return Lora(model, section.lora)
    if section.method == "lora_xs":
        from rlpost.tuning.lora_xs import LoraXs

        return LoraXs(model, section.lora_xs)
    return Adapted(model, peft_config(section.method.removeprefix("peft:"), section.peft))


def _subnetwork(config: RunConfig, model: nn.Module, folder: str) -> TuningMethod:
    section = config.tuning.subnetwork
    base = masks.weights_hash(model.named_parameters())
    how: dict[str, Any] = {"mask": section.mask, "density": section.density, "scope": section.scope}
    mask: Mask | None = None
    choose: Chooser | None = None
    if section.mask in ("gradient", "fisher"):
        how |= {"warmup_steps": section.warmup_steps, "seed": config.run.seed}
        choose = Chooser(section.density, section.scope, Targets(section.targets), base, how)
    elif section.mask == "file":
        mask = masks.load(str(section.file))
        if mask.base and mask.base != base:
            _log.warning("tuning.subnetwork.file: %s was made for other weights than %s", section.file, folder)
    else:
        mask = Mask(_made(section, model, config, how), base, how)
    if mask is not None and not mask.count:
        raise ConfigError(
            f"tuning.subnetwork.mask: {section.mask} keeps no entry, so nothing would be trained; {_why(section)}"
        )
    if section.engine == "hook":
        return Hooked(model, mask, choose)
    return Compact(model, mask, choose, keep_base=bool(config.algorithm.kl.coef))


def _why(section: SubnetworkSettings) -> str:
    if section.mask == "difference":
        return f"{section.before} and {section.after} hold the same weights, give others"
    return f"give another file than {section.file}" if section.mask == "file" else "choose another mask"


def _made(
    section: SubnetworkSettings, model: nn.Module, config: RunConfig, how: dict[str, Any]
) -> Mapping[str, TensorMask]:
    """The mask's entries by tensor, for criteria that need no gradients."""
    if section.mask == "difference":
        how |= {"before": section.before, "after": section.after}
        before, after = (_weights(str(one), config) for one in (section.before, section.after))
        return masks.difference(before, after)
    chosen = {name: parameter.detach() for name, parameter in Targets(section.targets)(model).items()}
    if section.mask == "random":
        how["seed"] = config.run.seed
        like = None if section.like is None else masks.load(section.like)
        share = section.density if like is None else {n: b.count / max(b.size, 1) for n, b in like.tensors.items()}
        shapes = {name: tuple(tensor.shape) for name, tensor in chosen.items()}
        if like is not None:
            shapes = {name: bits.shape for name, bits in like.tensors.items() if bits.count}
        return masks.random(shapes, share, config.run.seed)
    sign = 1.0 if section.mask == "magnitude" else -1.0
    return masks.top({n: sign * tensor.abs() for n, tensor in chosen.items()}, section.density, section.scope)


def _weights(folder: str, config: RunConfig) -> dict[str, Tensor]:
    """A checkpoint's tensors, in the run's dtype, in which weights are published."""
    model = load(folder, config.model.dtype, config.model.trust_remote_code)
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


@dataclass(frozen=True, slots=True)
class Targets:
    """Parameters that may have mask entries: ``all``, ``all-linear``, or those whose name contains a given word.

    >>> sorted(Targets(("bias",))(nn.Linear(1, 1)))
    ['bias']
    """

    given: str | tuple[str, ...]

    def __call__(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The selected parameters by name, in the model's order.

        Raises:
            ConfigError: if there are none, or a word is in no name.
        """
        named = dict(model.named_parameters())
        if self.given == "all-linear":
            head: Any = getattr(model, "get_output_embeddings", lambda: None)()
            linear = {n for n, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}
            named = {name: p for name, p in named.items() if name.rpartition(".")[0] in linear}
        elif not isinstance(self.given, str):
            not_there("tuning.subnetwork.targets", self.given, list(named), _contains, "tensor")
            named = {name: p for name, p in named.items() if any(word in name for word in self.given)}
        if not named:
            raise ConfigError(f"tuning.subnetwork.targets: {self.given!r} names no tensor of this model")
        return named


def _contains(name: str, word: str) -> bool:
    return word in name
