"""A learner from a configuration."""

from __future__ import annotations

import copy

import torch

from rlpost.config.schema import RunConfig
from rlpost.errors import ModelError
from rlpost.learner.engine import TrainEngine
from rlpost.learner.models import ScoringModel, load, without_dropout
from rlpost.learner.policy import PolicyLearner
from rlpost.learner.support import varlen_obstacle
from rlpost.learner.torch_engine import TorchEngine
from rlpost.learner.varlen import use


def build_learner(config: RunConfig, folder: str, device: torch.device) -> PolicyLearner:
    """Load the policy, and with a KL term its frozen copy, and set up the engine.

    Args:
        config: of the run.
        folder: Hugging Face folder the policy starts from.
        device: of this rank.

    Raises:
        ModelError: if the folder cannot be loaded.
    """
    model = load(folder, config.model.dtype, config.model.trust_remote_code)
    without_dropout(model)
    if config.learner.attention == "varlen":
        obstacle = varlen_obstacle(model)
        if obstacle is not None:
            raise ModelError(f"learner.attention: varlen, but {obstacle}; set it to mask")
        use(model)
    if config.learner.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    policy = ScoringModel(model, config.rollout.temperature)
    frozen = copy.deepcopy(policy) if config.algorithm.kl.coef else None
    policy.train()
    if config.learner.engine == "torch":
        engine: TrainEngine = TorchEngine(policy, config.optimizer, device)
        reference = frozen.to(device).eval().requires_grad_(False) if frozen else None
        return PolicyLearner(engine, reference, config)
    from rlpost.learner.deepspeed_engine import DeepSpeedEngine

    sharded = DeepSpeedEngine(policy, config.optimizer, config.learner, config.model.dtype, device)
    reference = sharded.freeze(frozen, config.model.dtype) if frozen else None
    return PolicyLearner(sharded, reference, config)
