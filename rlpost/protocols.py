"""The interfaces between stages: what the training loop asks of engines, scoring workers and learner.

The loop (`rlpost.loop`) is typed by `RolloutPool`, `ScoringPool`, `Learner` and `Supervision`. `rlpost.actors`
implements them on Ray, and tests use fakes of a few lines. The actors of a pool hold the objects of one process:
`RolloutEngine`, or `Verifier` and `RewardStage`; a learner is built on a `TrainEngine`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from rlpost.types import (
    Completion,
    GradientFigures,
    Group,
    Prompt,
    Reward,
    RewardOutput,
    TensorDelta,
    TrainBatch,
    TrainSample,
    Verdict,
    VerifyItem,
    WeightManifest,
    WeightUpdate,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


# Rollouts -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """A request for ``n`` completions of one prompt; completion ``i`` is sampled with ``seed + i``.

    >>> GenerateRequest("t1", (1, 2), 8, 1000).n
    8
    """

    prompt_id: str
    prompt_ids: tuple[int, ...]
    n: int
    seed: int


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """Sampling parameters, the same for every request of a call.

    Attributes:
        max_tokens: limit on sampled tokens.
        temperature: divisor of the logits; 0 is greedy.
        top_p: nucleus mass in (0, 1].
        top_k: number of candidate tokens kept; -1 for all.
        stop: strings that end a completion; they are cut from its text and stay in its token ids.
        logprobs: whether the log-probability of each sampled token is reported.

    >>> SamplingSettings(max_tokens=8).temperature
    1.0
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    stop: tuple[str, ...] = ()
    logprobs: bool = True


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """The model and the limits that an engine is started with, in addition to the configuration.

    Attributes:
        model: Hugging Face folder of the starting policy.
        probes: token ids of the pinned prompts that `RolloutEngine.probe` answers.
        max_num_seqs: largest number of completions that run at once.
        max_model_len: longest sequence, prompt and completion together, in tokens.

    >>> EngineSpec("model", ((1, 2),), 8, 256).max_num_seqs
    8
    """

    model: str
    probes: tuple[tuple[int, ...], ...]
    max_num_seqs: int
    max_model_len: int


@dataclass(frozen=True, slots=True)
class ApplyReport:
    """The weights that an engine holds after an update, read back from its own parameters.

    Attributes:
        version: the policy version now served.
        checksums: checksum of the engine's bytes by published Hugging Face name, or ``missing``.
        changed: number of published names whose bytes in the engine differ from before the update.
        seconds: wall-clock time to apply the update, reading back included.

    >>> ApplyReport(1, {"w": "ab"}, 1, 0.1).changed
    1
    """

    version: int
    checksums: Mapping[str, str]
    changed: int
    seconds: float


@runtime_checkable
class RolloutEngine(Protocol):
    """An inference engine in one process: it samples completions with the weights of a known policy version.

    ``rollout.engine: module:Class`` names one of your own: it is called with the `rlpost.config.schema.RunConfig` and
    an `EngineSpec`, in the process of its actor. `rlpost.rollout.stream` drives it.
    """

    def submit(self, requests: Sequence[GenerateRequest], settings: SamplingSettings) -> list[int]:
        """Queue requests; returns a new number for each."""
        ...

    def step(self) -> list[tuple[int, Completion]]:
        """Advance queued requests by one step; returns the completions that ended in it with their request numbers."""
        ...

    def abort(self, numbers: Collection[int]) -> list[tuple[int, Completion]]:
        """End these requests; returns their unfinished completions, with finish reason ``abort``."""
        ...

    def apply(self, update: WeightUpdate) -> ApplyReport:
        """Replace the weights in place, drop the prefix cache of the old ones, and read back what is now held."""
        ...

    def probe(self) -> list[Completion]:
        """Complete the pinned prompts greedily, with log-probabilities to compare with the learner's."""
        ...

    def parity(self, prompts: Sequence[tuple[int, ...]] = ()) -> tuple[list[Completion], list[Completion]]:
        """Complete pinned and given prompts greedily, with the prefix cache as it is, and again with it emptied."""
        ...

    def close(self) -> None:
        """End every process this engine started."""
        ...


class MemoryReporting(Protocol):
    """A group of actors whose memory the run monitors."""

    def memory(self) -> dict[str, tuple[float, float]]:
        """Resident memory of each actor in MiB, and the part of it that is not shared, by actor name."""
        ...


class RolloutPool(MemoryReporting, Protocol):
    """All rollout engines, as the loop sees them."""

    def stream(
        self, requests: Sequence[GenerateRequest], settings: SamplingSettings
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Yield the position of a request with its ``n`` completions, as soon as all of them are finished."""
        ...

    def generate(self, requests: Sequence[GenerateRequest], settings: SamplingSettings) -> list[list[Completion]]:
        """Return the completions of each request, in request order."""
        ...

    def apply(self, update: Any, manifest: WeightManifest) -> list[ApplyReport]:
        """Load a published version into every engine; ``update`` is the handle from `Learner.export`."""
        ...

    def probe(self) -> list[list[Completion]]:
        """`RolloutEngine.probe` of every engine."""
        ...

    def parity(self, prompts: Sequence[tuple[int, ...]]) -> list[tuple[list[Completion], list[Completion]]]:
        """`RolloutEngine.parity` of every engine."""
        ...


# Scoring --------------------------------------------------------------------------------------------------------------


@runtime_checkable
class Verifier(Protocol):
    """Verifies answers. Verdicts come in input order; equal items are checked once."""

    @property
    def fingerprint(self) -> str:
        """Name, version and settings that verdicts depend on; part of every cache key."""
        ...

    def verify_batch(self, items: Sequence[VerifyItem]) -> list[Verdict]:
        """Return one verdict for each item."""
        ...

    def close(self) -> None:
        """End every process this verifier started."""
        ...


class Report(Protocol):
    """The result of a verifier's own conformance test."""

    @property
    def failures(self) -> Sequence[object]:
        """Gold answers that it did not accept and cheats that it did; empty if it passed."""
        ...

    def summary(self) -> str:
        """One line with the figures and the first failure."""
        ...


@runtime_checkable
class ReviewingVerifier(Protocol):
    """A verifier that can also comment on an answer without a known right one, as in a conversation."""

    def review(self, columns: Mapping[str, Any], text: str) -> Verdict:
        """Return a verdict whose items describe each part of the answer; its outcome means nothing."""
        ...


@runtime_checkable
class SelfTestingVerifier(Protocol):
    """A verifier with checks of its own, which run before it is used for training or evaluation."""

    def conformance(self) -> Report:
        """Verify gold answers and known cheats."""
        ...

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Raise `rlpost.errors.DataError` for prompts whose answers it cannot verify."""
        ...


class RewardStage(Protocol):
    """One stage of the reward pipeline: takes a group with its rewards so far and returns the new rewards."""

    needs: tuple[str, ...]
    """Log-probabilities that the stage reads: ``rollout_logprobs`` (`Completion.logprobs`), ``learner_logprobs``
    (`Group.learner_logprobs`: the stage and all after it run once the learner has computed them). Empty for most."""

    def __call__(self, group: Group) -> Sequence[Reward | None] | RewardOutput:
        """Return the new reward of each completion, where None stays None; a `RewardOutput` adds metrics to log."""
        ...


class ScoringQueue(Protocol):
    """A queue of groups that scoring workers verify and reward while others are still being sampled."""

    def submit(self, position: int, group: Group) -> None:
        """Queue a group for verification and rewards."""
        ...

    def results(self) -> dict[int, Group]:
        """Wait until all submitted groups are scored; returns them by position."""
        ...


class ScoringPool(MemoryReporting, Protocol):
    """All scoring workers, as the loop sees them."""

    needs: frozenset[str]
    """Union of the reward stages' `RewardStage.needs`."""

    def queue(self) -> AbstractContextManager[ScoringQueue]:
        """Open a queue that takes groups one by one while others are being scored."""
        ...

    def score(self, groups: Sequence[Group]) -> list[Group]:
        """Score groups whose completions are all there; returns them in order."""
        ...

    def finish(self, groups: Sequence[Group]) -> list[Group]:
        """Run the stages that need `Group.learner_logprobs`, which is filled in; returns the groups in order."""
        ...


# Learning -------------------------------------------------------------------------------------------------------------


class Learner(MemoryReporting, Protocol):
    """The owner of the trained weights: it computes log-probabilities and updates, on one or more ranks."""

    def logprobs(
        self, samples: Sequence[TrainSample], *, reference: bool = False, temperature: float | None = None
    ) -> list[np.ndarray]:
        """Compute log-probabilities ``[T]`` of each sample's completion tokens; returns them in order.

        ``reference``: under the frozen reference. ``temperature``: None for the sampling temperature.
        """
        ...

    def step(self, batch: TrainBatch) -> dict[str, float]:
        """Make all updates of one rollout batch; returns metrics."""
        ...

    def examine(self, batch: TrainBatch) -> GradientFigures | None:
        """Compute loss and gradient of a few samples in several ways; None if no sample has an advantage."""
        ...

    def changes(self) -> dict[str, TensorDelta]:
        """Compare each published tensor with the last call of this method and with the start of the run."""
        ...

    def export(self) -> tuple[WeightManifest, Any]:
        """Publish the current weights: the manifest, and a handle that engines resolve to a `WeightUpdate`."""
        ...

    def save(self, folder: str) -> None:
        """Write a resumable checkpoint."""
        ...

    def load(self, folder: str) -> int:
        """Continue from a checkpoint; returns the policy version."""
        ...

    def save_model(self, folder: str) -> None:
        """Write a Hugging Face folder."""
        ...

    def restart(self, error: Exception) -> None:
        """Start all ranks again from the starting model; ``error`` says how they were lost."""
        ...


class Supervision(Protocol):
    """The bookkeeping of lost and replaced actors."""

    @property
    def lost(self) -> Mapping[str, int]:
        """Number of actors lost so far, by kind."""
        ...

    def take_replaced(self) -> list[str]:
        """Return the names of the actors replaced since the last call."""
        ...

    def log(self, text: str, /) -> object:
        """Show a line to the user."""
        ...


@dataclass(frozen=True, slots=True)
class Applied:
    """One optimizer update: the gradient norm before clipping, and whether the update was skipped because of it."""

    grad_norm: float
    skipped: bool


class TrainEngine(Protocol):
    """Forward, backward and optimizer on one data-parallel rank. All ranks call every method in the same order."""

    rank: int
    world: int
    device: torch.device
    module: Any
    """The policy, a `rlpost.learner.logprob_model.LogprobModel`."""
    tuning: Any
    """The `rlpost.tuning.method.TuningMethod` that says which weights of the module are trained."""
    optimizer: Any
    replicated: bool
    """Whether every rank holds all parameters."""

    def forward(self, *inputs: Tensor, **options: Any) -> Tensor:
        """Compute log-probabilities; arguments as of `rlpost.learner.logprob_model.LogprobModel.forward`."""
        ...

    def backward(self, loss: Tensor, last: bool) -> None:
        """Accumulate gradients; ``last`` marks the minibatch's final micro-batch. Ranks' gradients are *summed*."""
        ...

    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the accumulated gradients of the optimizer's parameters by name, after `backward`, before `apply`."""
        ...

    def discard(self) -> None:
        """Drop accumulated gradients, so that training goes on as if they had never been computed."""
        ...

    def apply(self, lr: float) -> Applied:
        """Make one optimizer update with the accumulated gradients, then clear them."""
        ...

    def gathered(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
        """Open a block in which these parameters are unsharded on every rank."""
        ...

    def add_over_ranks(self, tensor: Tensor) -> None:
        """All-reduce a tensor in place: it becomes its sum over all ranks."""
        ...

    def sum_over_ranks(self, values: dict[str, float]) -> dict[str, float]:
        """Return the sums of the values over all ranks; every rank passes the same keys."""
        ...

    def share_over_ranks(self, found: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """Return the union of all ranks' results, by sample number."""
        ...

    def save(self, folder: str, state: dict[str, Any]) -> None:
        """Write parameters, optimizer state and ``state`` into a checkpoint folder."""
        ...

    def load(self, folder: str) -> dict[str, Any]:
        """Read a checkpoint folder back; returns ``state``."""
        ...

    def close(self) -> None:
        """Leave the process group."""
        ...
