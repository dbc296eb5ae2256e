"""Build a learner from a configuration."""

from __future__ import annotations

import os
from typing import Any

import torch

from rlpost.config.schema import RunConfig
from rlpost.config.update_kind import kind_of
from rlpost.data.constraint import constraint_of
from rlpost.data.models import check_tying, load, try_saving
from rlpost.data.tokenizer import TextCodec
from rlpost.errors import ModelError, first_line
from rlpost.learner.coverage import Start, check_coverage
from rlpost.learner.logprob_model import LogprobModel
from rlpost.learner.model_support import varlen_unsupported_reason
from rlpost.learner.policy import PolicyLearner
from rlpost.learner.torch_engine import TorchEngine
from rlpost.learner.trial_forward import packing_is_exact, prepare_attention
from rlpost.learner.varlen import use_varlen_attention
from rlpost.protocols import TrainEngine
from rlpost.tuning.build import build_tuning


def build_learner(config: RunConfig, folder: str, device: torch.device) -> PolicyLearner:
    """Load the policy and, for a KL term, a frozen reference, and set up the engine.

    No reference is loaded where the tuning method can disable its adapter instead.

    Args:
        config: settings of model, tuning, optimizer and engine.
        folder: Hugging Face folder of the starting policy.
        device: this rank's device.

    Raises:
        ConfigError: if the tuning settings do not fit the model, or train what is not published and saved.
        ModelError: if the folder cannot be loaded, its model cannot be trained as configured, or not be saved again.
    """
    # moved before the method is applied: the tensors it derives from the weights must be on the same device
    model = load(folder, config.model.dtype, config.model.trust_remote_code).to(device)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    check_tying(model, folder)
    try_saving(model, folder)
    prepare_attention(model)
    excluded = missing_rows(model, folder, config.model.trust_remote_code)
    constraint = constraint_of(config, folder)
    start = Start.of(model) if os.environ.get("RANK", "0") == "0" else None  # one rank's check is enough
    tuning = build_tuning(config, model, folder)
    if start is not None:
        published = getattr(torch, config.model.dtype)
        check_coverage(start, tuning, kind_of(config), published, folder, config.model.trust_remote_code)
    if config.learner.attention == "varlen":
        use_varlen(model)
    if config.learner.gradient_checkpointing:
        _checkpoint_gradients(model)
    policy = LogprobModel(model, config.rollout.temperature, excluded)
    policy.train()
    reference: LogprobModel | None = None
    if config.algorithm.kl.coef and not tuning.can_disable_adapter:
        starting = load(folder, config.model.dtype, config.model.trust_remote_code)
        prepare_attention(starting)
        if config.learner.attention == "varlen":
            use_varlen(starting)
        reference = LogprobModel(starting, config.rollout.temperature, excluded)
    if config.learner.layout == "packed":
        _ = policy.packing_unsupported_reason  # found out here, while every rank still has the whole weights
    if config.learner_engine == "torch":
        engine: TrainEngine = TorchEngine(policy, tuning, config.optimizer, device, config.learner.workers)
        frozen = reference.to(device).eval().requires_grad_(False) if reference else None
        return PolicyLearner(engine, frozen, config, shapes, constraint)
    from rlpost.learner.deepspeed_engine import DeepSpeedEngine

    sharded = DeepSpeedEngine(policy, tuning, config.optimizer, config.learner, config.model.dtype, device)
    frozen = sharded.freeze(reference, config.model.dtype) if reference else None
    return PolicyLearner(sharded, frozen, config, shapes, constraint)


def missing_rows(model: Any, folder: str, trust_remote_code: bool = False) -> list[int]:
    """Ids that the model's head scores and the tokenizer in its folder lacks, ascending."""
    head = model.get_output_embeddings()
    rows = model.config.get_text_config().vocab_size if head is None else head.weight.shape[0]
    return TextCodec(folder, trust_remote_code).missing_ids(rows)


def use_varlen(model: Any) -> None:
    """Set a model to attention sequence by sequence, and try it.

    Raises:
        ModelError: if its architecture does not allow it.
    """
    reason = varlen_unsupported_reason(model)
    if reason is None:
        use_varlen_attention(model)
        if not packing_is_exact(model, varlen=True):
            reason = "a trial of it gave other log-probabilities"
    if reason is not None:
        raise ModelError(f"learner.attention: varlen, but {reason}; set it to mask")


def _checkpoint_gradients(model: Any) -> None:
    try:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    except ValueError as error:
        raise ModelError(f"learner.gradient_checkpointing: {first_line(error)} Set it to false") from None
