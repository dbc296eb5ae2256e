"""The learner's engine on DeepSpeed: ZeRO 0 to 3, float32, or bfloat16 with float32 masters.

Besides the smoke test, the only module that imports deepspeed.
"""

from __future__ import annotations

import math
import os
import pickle
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlpost.config.schema import LearnerSection
from rlpost.config.tuning import OptimizerSection
from rlpost.errors import CheckpointError, MissingPackageError, first_line
from rlpost.learner.logprob_model import LogprobModel
from rlpost.learner.ranks import leave, shares, sums
from rlpost.learner.torch_engine import set_rate, settings_kept
from rlpost.optim.build import build_optimizer
from rlpost.optim.movement import Owned, owned_by
from rlpost.protocols import Applied
from rlpost.tuning.method import TuningMethod

_TAG = "learner"
_BEFORE_FIRST_MICRO_STEP = {1: -1, 2: -1, 3: 0}
"""By ZeRO stage, ``micro_step_id`` of DeepSpeed's optimizer before the first backward pass."""


class DeepSpeedEngine:
    """`rlpost.protocols.TrainEngine` on DeepSpeed.

    The process group's environment (``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``, ``MASTER_PORT``) must be set.

    Args:
        module: the policy, with the same weights on every rank.
        tuning: the tuning method, which names the trained parameters.
        optimizer: optimizer and gradient clipping.
        learner: ZeRO stage and offloading.
        dtype: ``float32``, or ``bfloat16`` with float32 masters, which runs at ZeRO stage 1 or higher.
        device: this rank's device.
    """

    def __init__(
        self,
        module: LogprobModel,
        tuning: TuningMethod,
        optimizer: OptimizerSection,
        learner: LearnerSection,
        dtype: str,
        device: torch.device,
    ):
        deepspeed = _deepspeed()
        self.rank, self.world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.device = device
        self.stage = max(learner.zero_stage, 1) if dtype == "bfloat16" else learner.zero_stage
        self.replicated = self.stage < 3
        module = module.to(device)
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=module,
            optimizer=build_optimizer(tuning.trained(), optimizer),
            config=_config(self.stage, dtype, optimizer.grad_clip, learner),
        )
        self.module: LogprobModel = module
        self.tuning = tuning

    def forward(self, *inputs: Tensor, **options: Any) -> Tensor:
        """See `TrainEngine`."""
        return self.engine(*inputs, **options)

    def backward(self, loss: Tensor, last: bool) -> None:
        """See `TrainEngine`."""
        self.engine.set_gradient_accumulation_boundary(last)
        # DeepSpeed averages over ranks; the loss is already divided by global counts, so gradients must be summed
        self.engine.backward(loss * self.world, scale_wrt_gas=False)

    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """See `TrainEngine`."""
        from deepspeed.utils import safe_get_full_grad

        for name, parameter in self.tuning.trained():
            gradient = parameter.grad if self.stage == 0 else safe_get_full_grad(parameter)
            if gradient is not None:
                yield name, gradient.detach().float()

    def discard(self) -> None:
        """See `TrainEngine`."""
        self.engine.zero_grad()
        self.optimizer.zero_grad(set_to_none=True)
        if self.stage == 0:
            return
        # what DeepSpeed's optimizers do when they skip an update; zero_grad alone leaves the ranks' sums
        self.optimizer.micro_step_id = _BEFORE_FIRST_MICRO_STEP[self.stage]
        self.optimizer.reset_cpu_buffers()
        for offloaded in ("_offload_accumulated_param_ids", "_offload_boundary_param_ids"):
            getattr(self.optimizer, offloaded, set()).clear()
        if self.stage == 3:
            self.optimizer.averaged_gradients = {}
            return
        for held in (self.optimizer.averaged_gradients, self.optimizer.all_grad_tensors):
            for group in held:
                held[group] = None

    def apply(self, lr: float) -> Applied:
        """See `TrainEngine`."""
        set_rate(self.optimizer, lr)
        if self.stage > 0:
            self.engine.step()
            norm = self.engine.get_global_grad_norm()
            value = math.nan if norm is None else float(norm)
            skipped = bool(getattr(self.optimizer, "overflow", False)) or not math.isfinite(value)
            return Applied(value, skipped)
        # unsharded float32 has no optimizer wrapper that checks the gradients
        norm = float(torch.nn.utils.get_total_norm([p.grad for _, p in self.tuning.trained() if p.grad is not None]))
        skipped = not math.isfinite(norm)
        if skipped:
            self.engine.zero_grad()
            self.engine.optimizer.zero_grad(set_to_none=True)
        else:
            self.engine.step()
        return Applied(norm, skipped)

    def owned(self) -> list[Owned]:
        """See `TrainEngine`: whole parameters, or this rank's flat partitions of the masters."""
        wrapper = self.optimizer
        if self.stage < 3:
            return owned_by(wrapper if self.stage == 0 else wrapper.optimizer, collects=self.stage == 0)
        # stage 3 hands its subgroups to the optimizer one at a time
        inner = wrapper.optimizer
        return [
            Owned(values, inner.state.get(values, {}), inner.param_groups[wrapper.sub_group_to_group_id[number]])
            for number, values in enumerate(wrapper.fp32_partitioned_groups_flat)
            if values is not None  # it is on disk
        ]

    def master(self, name: str) -> Tensor:
        """See `TrainEngine`; all ranks take part."""
        from deepspeed.utils import safe_get_full_fp32_param

        parameter = dict(self.tuning.trained())[name]
        found = parameter if self.stage == 0 else safe_get_full_fp32_param(parameter)
        assert found is not None, f"DeepSpeed has no master of {name}"
        return found.detach()

    def gathered(self, parameters: Sequence[torch.nn.Parameter]) -> AbstractContextManager[object]:
        """See `TrainEngine`."""
        import deepspeed

        return deepspeed.zero.GatheredParameters(list(parameters)) if self.stage == 3 else nullcontext()

    def add_over_ranks(self, tensor: Tensor) -> None:
        """See `TrainEngine`."""
        if self.world > 1:
            torch.distributed.all_reduce(tensor)

    def sum_over_ranks(self, values: dict[str, float]) -> dict[str, float]:
        """See `TrainEngine`."""
        return sums(values, self.world, self.device)

    def share_over_ranks(self, found: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """See `TrainEngine`."""
        return shares(found, self.world)

    def save(self, folder: str, state: dict[str, Any]) -> None:
        """See `TrainEngine`."""
        self.engine.save_checkpoint(folder, tag=_TAG, client_state={"rlpost": state})

    def load(self, folder: str) -> dict[str, Any]:
        """See `TrainEngine`."""
        try:
            # at stage 0 the optimizer's own, else that inside of DeepSpeed's wrapper, whose groups are the same objects
            with settings_kept(getattr(self.optimizer, "optimizer", self.optimizer)):
                path, client = self.engine.load_checkpoint(folder, tag=_TAG)
        except (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError, AssertionError) as error:
            raise CheckpointError(
                f"{folder}: DeepSpeed cannot read the checkpoint ({first_line(error)}); resume from an earlier one, or "
                "with the learner settings it was written with"
            ) from None
        if path is None or "rlpost" not in client:
            raise CheckpointError(
                f"{folder}: DeepSpeed finds no checkpoint there that fits; resume with the learner.workers and "
                "learner.zero_stage it was written with"
            )
        return client["rlpost"]

    def freeze(self, module: LogprobModel, dtype: str) -> torch.nn.Module:
        """A reference model on this rank's device, sharded like the policy at ZeRO stage 3."""
        module = module.to(self.device).eval().requires_grad_(False)
        if self.stage < 3:
            return module
        engine, *_ = _deepspeed().initialize(model=module, config=_config(3, dtype, None, None))
        engine.eval()  # returns nothing, unlike a module's
        return engine

    def close(self) -> None:
        """See `TrainEngine`."""
        self.engine.destroy()
        leave()


def _config(stage: int, dtype: str, grad_clip: float | None, learner: LearnerSection | None) -> dict[str, Any]:
    """DeepSpeed's configuration; without ``learner`` nothing is offloaded."""
    sharding: dict[str, Any] = {"stage": stage, "overlap_comm": False}
    if learner is not None and learner.offload_optimizer:
        sharding["offload_optimizer"] = learner.offload_optimizer
    if learner is not None and learner.offload_parameters:
        sharding["offload_param"] = learner.offload_parameters
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "zero_optimization": sharding,
        "zero_allow_untested_optimizer": True,
        # DeepSpeed's own CPU optimizer is compiled with g++ at start
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": dtype == "bfloat16"},
        "gradient_clipping": grad_clip or 0.0,
        "steps_per_print": 10**9,
    }


def _deepspeed() -> Any:
    try:
        import deepspeed
    except ImportError as error:
        raise MissingPackageError(
            f"DeepSpeed cannot be imported ({error}); pip install 'rlpost[cpu]' or 'rlpost[gpu]', or set "
            "learner.engine: torch"
        ) from error
    if not torch.distributed.is_initialized():
        cpu = not torch.cuda.is_available()
        if cpu:
            # init_distributed would compile a shared-memory collective with g++ (51 s), and a killed build leaves a
            # lock on which every later process waits forever; gloo does not need it. The module must be taken from
            # sys.modules: `import deepspeed.comm.torch as x` binds the real torch.
            sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # pyright: ignore[reportAttributeAccessIssue]
        deepspeed.init_distributed("gloo" if cpu else "nccl", verbose=False)
    return deepspeed
