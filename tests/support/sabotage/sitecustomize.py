"""Plants the bug that $RLPOST_SABOTAGE names, as soon as the module concerned has been imported.

Every Python process whose PYTHONPATH names this folder imports this file, actors included. Each bug is one that
libraries of this kind have really had: nothing crashes, the curves just look a little worse.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Any

import trained_tokens


def stale_lm_head(module: Any) -> None:
    """The packed copy of the tied output matrix is not rebuilt after a sync."""
    repack = module.PackedLinear.repack

    def all_but_the_head(self: Any) -> None:
        if "Linear" in type(self.layer).__name__:
            repack(self)

    module.PackedLinear.repack = all_but_the_head


def stale_prefix_cache(module: Any) -> None:
    """The engine keeps the prefix cache of the previous policy."""
    module.VllmEngine._drop_cache = lambda self: None


def update_lost_in_the_engine(module: Any) -> None:
    """The engine receives the tensors and does not load them."""
    module.LocalWeights.load = lambda self, tensors: None


def update_not_sent(module: Any) -> None:
    """Nothing reaches the engine, which reports success: as with an adapter that was saved under an old name."""

    def apply(self: Any, update: Any) -> Any:
        self.version = update.manifest.new_version
        return module.ApplyReport(self.version, dict(update.manifest.checksums), 1, 0.0)

    module.VllmEngine.apply = apply


def update_lost_in_the_learner(module: Any) -> None:
    """The optimizer updates other tensors than those that are published."""
    applied = module.DeepSpeedEngine.apply

    def apply(self: Any, lr: float) -> Any:
        before = [parameter.detach().clone() for parameter in self.module.parameters()]
        result = applied(self, lr)
        for parameter, value in zip(self.module.parameters(), before, strict=True):
            parameter.data.copy_(value)
        return result

    module.DeepSpeedEngine.apply = apply


def observed_tokens_trained(module: Any) -> None:
    """What an environment wrote is trained on, as if the policy had sampled it."""

    def mask(self: Any) -> Any:
        found = module.np.ones(self.length, bool)
        found[: self.prompt_tokens] = False
        return found

    module.Trajectory.mask = property(mask)


def mask_off_by_one(module: Any) -> None:
    """The mask of each turn that follows an observation begins one token early and ends one token early."""

    def mask(self: Any) -> Any:
        found = module.np.zeros(self.length, bool)
        for turn in self.turns:
            early = int(turn.turn > 0)
            found[turn.start - early : turn.stop - early] = True
        return found

    module.Trajectory.mask = property(mask)


def observation_taken_for_sampled(module: Any) -> None:
    """An observation's segment is recorded as the policy's own."""
    observed = module.Episode.observed

    def wrong(self: Any, *arguments: Any) -> None:
        observed(self, *arguments)
        last = self.segments[-1]
        self.segments[-1] = module.Segment("policy", last.start, last.stop, last.turn, last.text)

    module.Episode.observed = wrong


def loss_halved(module: Any) -> None:
    """The loss is halved before the backward pass: a mean over two in place of a sum."""
    backward = module.DeepSpeedEngine.backward
    module.DeepSpeedEngine.backward = lambda self, loss, last: backward(self, loss * 0.5, last=last)


def loss_divided_by_micro_batches(module: Any) -> None:
    """The accumulation divides a loss that the global counts have already normalised."""
    accumulate = module.ModelPasses.accumulate

    def divided(self: Any, batch: Any, update: Any, *rest: Any) -> Any:
        backward, parts = self.engine.backward, len(update.micro[self.engine.rank])
        self.engine.backward = lambda loss, last: backward(loss / parts, last=last)
        try:
            return accumulate(self, batch, update, *rest)
        finally:
            del self.engine.backward

    module.ModelPasses.accumulate = divided


def reference_is_the_policy(module: Any) -> None:
    """The KL term compares the policy with itself."""
    module.ModelPasses._reference = lambda self: (self.engine.forward, contextlib.nullcontext())


PLACES: dict[str, tuple[str, Callable[[Any], None]]] = {
    "stale_lm_head": ("rlpost.rollout.vllm.packed_linear", stale_lm_head),
    "stale_prefix_cache": ("rlpost.rollout.vllm.engine", stale_prefix_cache),
    "update_lost_in_the_engine": ("rlpost.rollout.vllm.weights", update_lost_in_the_engine),
    "update_not_sent": ("rlpost.rollout.vllm.engine", update_not_sent),
    "update_lost_in_the_learner": ("rlpost.learner.deepspeed_engine", update_lost_in_the_learner),
    "observed_tokens_trained": ("rlpost.trajectory", observed_tokens_trained),
    "mask_off_by_one": ("rlpost.trajectory", mask_off_by_one),
    "observation_taken_for_sampled": ("rlpost.rollout.episode", observation_taken_for_sampled),
    "loss_halved": ("rlpost.learner.deepspeed_engine", loss_halved),
    "reference_is_the_policy": ("rlpost.learner.passes", reference_is_the_policy),
    "loss_divided_by_micro_batches": ("rlpost.learner.passes", loss_divided_by_micro_batches),
}


class Saboteur(importlib.abc.MetaPathFinder):
    """Lets a module be found as usual and plants the bug once it has run."""

    def __init__(self, name: str, breaks: Callable[[Any], None]):
        self.name, self.breaks = name, breaks

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        run = spec.loader.exec_module

        def run_and_break(module: Any) -> None:
            run(module)
            self.breaks(module)

        spec.loader.exec_module = run_and_break  # pyright: ignore[reportAttributeAccessIssue]
        return spec


PLACES |= trained_tokens.PLACES

if wanted := os.environ.get("RLPOST_SABOTAGE"):
    sys.meta_path.insert(0, Saboteur(*PLACES[wanted]))
