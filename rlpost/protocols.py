"""The seams: what each stage asks of the next, and nothing more.

The loop (`rlpost.loop`) is typed by `RolloutPool`, `ScoringPool`, `Learner` and `Supervision`; `rlpost.actors` makes
the Ray-backed ones, and tests use fakes of a few lines. A pool carries the objects of one process: `RolloutEngine`,
`Verifier` and `RewardStage`; a learner is built on a `TrainEngine`.
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
    """Sample ``n`` completions of one prompt; sample ``i`` uses ``seed + i``.

    >>> GenerateRequest("t1", (1, 2), 8, 1000).n
    8
    """

    prompt_id: str
    prompt_ids: tuple[int, ...]
    n: int
    seed: int


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How tokens are drawn.

    Attributes:
        max_tokens: limit on sampled tokens.
        temperature: 0 is greedy.
        top_p: nucleus mass in (0, 1].
        top_k: candidates kept; -1 for all.
        stop: strings that end a completion; they are cut from its text and stay in its token ids.
        logprobs: report the log-probability of each sampled token.

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
    """What an engine has to be ready for, beyond the configuration.

    Attributes:
        model: Hugging Face folder of the starting policy.
        probes: token ids of the prompts that `RolloutEngine.probe` answers.
        max_num_seqs: completions that may run at once.
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
    """What an engine holds after an update, read back from its own parameters.

    Attributes:
        version: the policy version now served.
        checksums: for each published Hugging Face name the checksum of the engine's bytes, or ``missing``.
        changed: published names whose bytes in the engine differ from before the update.
        seconds: time to apply, reading back included.

    >>> ApplyReport(1, {"w": "ab"}, 1, 0.1).changed
    1
    """

    version: int
    checksums: Mapping[str, str]
    changed: int
    seconds: float


@runtime_checkable
class RolloutEngine(Protocol):
    """Samples completions under a versioned policy, in one process.

    ``rollout.engine: module:Class`` names one of your own: it is called with the `rlpost.config.schema.RunConfig` and
    an `EngineSpec`, in the process of its actor. `rlpost.rollout.stream` drives it.
    """

    def submit(self, requests: Sequence[GenerateRequest], settings: SamplingSettings) -> list[int]:
        """Queue requests; one number for each, never used before."""
        ...

    def step(self) -> list[tuple[int, Completion]]:
        """Advance what is queued by one step; the completions that ended in it, with their requests' numbers."""
        ...

    def abort(self, numbers: Collection[int]) -> list[tuple[int, Completion]]:
        """End what these requests still lack: completions with finish reason ``abort``."""
        ...

    def apply(self, update: WeightUpdate) -> ApplyReport:
        """Replace the weights in place, forget everything cached under the old ones, and read back what is held."""
        ...

    def probe(self) -> list[Completion]:
        """Greedy completions of the pinned prompts with log-probabilities, for comparison with the learner."""
        ...

    def parity(self, prompts: Sequence[tuple[int, ...]] = ()) -> tuple[list[Completion], list[Completion]]:
        """The pinned and the given prompts answered with the prefix cache as it is, and again with it emptied."""
        ...

    def close(self) -> None:
        """End every process this engine started."""
        ...


class MemoryReporting(Protocol):
    """Actors whose memory the run watches."""

    def memory(self) -> dict[str, tuple[float, float]]:
        """By actor, resident memory in MiB and the part of it that is the actor's own."""
        ...


class RolloutPool(MemoryReporting, Protocol):
    """The engines, as the loop sees them."""

    def stream(
        self, requests: Sequence[GenerateRequest], settings: SamplingSettings
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Position of a request and its ``n`` completions, as soon as all of them are there."""
        ...

    def generate(self, requests: Sequence[GenerateRequest], settings: SamplingSettings) -> list[list[Completion]]:
        """The completions of each request, in request order."""
        ...

    def apply(self, update: Any, manifest: WeightManifest) -> list[ApplyReport]:
        """Bring a published version into every engine; ``update`` is the handle that `Learner.export` gave."""
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
    """Judges answers. Verdicts come in input order; equal items are checked once."""

    @property
    def fingerprint(self) -> str:
        """Name, version and settings of what decides; part of every cache key."""
        ...

    def verify_batch(self, items: Sequence[VerifyItem]) -> list[Verdict]:
        """One verdict for each item."""
        ...

    def close(self) -> None:
        """End every process this verifier started."""
        ...


class Report(Protocol):
    """What a verifier's own conformance test found."""

    @property
    def failures(self) -> Sequence[object]:
        """Gold answers it did not accept and cheats it did; empty where it may judge."""
        ...

    def summary(self) -> str:
        """One line with the figures and the first failure."""
        ...


@runtime_checkable
class Reviewing(Protocol):
    """A verifier that can say something about an answer where nobody knows the right one, as in a conversation."""

    def review(self, columns: Mapping[str, Any], text: str) -> Verdict:
        """A verdict whose items say what each part of the answer is; its outcome means nothing."""
        ...


@runtime_checkable
class SelfExamining(Protocol):
    """A verifier that can show what it is worth. Asked before anything is trained or evaluated on its word."""

    def conformance(self) -> Report:
        """Judge answers whose outcome is known."""
        ...

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Raise `rlpost.errors.DataError` for prompts whose answers it could not judge."""
        ...


class RewardStage(Protocol):
    """One stage of the reward pipeline: sees a group and what it was worth so far, returns what it is worth now."""

    needs: tuple[str, ...]
    """What the stage reads besides texts and verdicts: ``rollout_logprobs`` (`Completion.logprobs`),
    ``learner_logprobs`` (`Group.learner_logprobs`: the stage and all after it wait for the learner). Empty for most."""

    def __call__(self, group: Group) -> Sequence[Reward | None] | RewardOutput:
        """The new reward of each completion, where None stays None; a `RewardOutput` adds figures to be logged."""
        ...


class ScoringQueue(Protocol):
    """Groups on their way through the scoring workers."""

    def submit(self, position: int, group: Group) -> None:
        """Queue a group for verification and rewards."""
        ...

    def results(self) -> dict[int, Group]:
        """Every submitted group by position, once all are scored."""
        ...


class ScoringPool(MemoryReporting, Protocol):
    """The scoring workers, as the loop sees them."""

    needs: frozenset[str]
    """What the reward stages need, all together; see `RewardStage.needs`."""

    def queue(self) -> AbstractContextManager[ScoringQueue]:
        """A queue that takes groups one by one while others are being scored."""
        ...

    def score(self, groups: Sequence[Group]) -> list[Group]:
        """Score groups that are complete, in order."""
        ...

    def finish(self, groups: Sequence[Group]) -> list[Group]:
        """Run the stages that wait for `Group.learner_logprobs`, which is filled in, in order."""
        ...


# Learning -------------------------------------------------------------------------------------------------------------


class Learner(MemoryReporting, Protocol):
    """Owns the trained weights, on however many ranks."""

    def logprobs(
        self, samples: Sequence[TrainSample], *, reference: bool = False, temperature: float | None = None
    ) -> list[np.ndarray]:
        """Log-probabilities ``[T]`` of each sample's completion tokens, in order."""
        ...

    def step(self, batch: TrainBatch) -> dict[str, float]:
        """All updates of one rollout batch; returns metrics."""
        ...

    def examine(self, batch: TrainBatch) -> GradientFigures | None:
        """Loss and gradient of a few samples computed in several ways; None where no sample has an advantage."""
        ...

    def changes(self) -> dict[str, TensorDelta]:
        """What changed in each published tensor since this was last asked, and since the start."""
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
        """Start again from the starting model after the loss that ``error`` tells of."""
        ...


class Supervision(Protocol):
    """Who replaces lost actors."""

    @property
    def lost(self) -> Mapping[str, int]:
        """By kind, how many actors were lost so far."""
        ...

    def take_replaced(self) -> list[str]:
        """Names of the actors replaced since this was last asked."""
        ...

    def log(self, text: str, /) -> object:
        """Tell whoever watches the run."""
        ...


@dataclass(frozen=True, slots=True)
class Applied:
    """An optimizer update: the gradient norm before clipping, and whether the update was skipped as non-finite."""

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
    """What of the module is trained, a `rlpost.tuning.method.TuningMethod`."""
    optimizer: Any
    replicated: bool
    """Whether every rank holds all parameters."""

    def forward(self, *inputs: Tensor, **options: Any) -> Tensor:
        """Log-probabilities; arguments of `rlpost.learner.logprob_model.LogprobModel.forward`."""
        ...

    def backward(self, loss: Tensor, last: bool) -> None:
        """Accumulate gradients; ``last`` marks the minibatch's final micro-batch. Ranks' gradients are *summed*."""
        ...

    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """Accumulated gradients of what the optimizer owns, by name, between the last `backward` and `apply`."""
        ...

    def discard(self) -> None:
        """Forget what was accumulated, so that training goes on as if it had never been computed."""
        ...

    def apply(self, lr: float) -> Applied:
        """One optimizer update with what was accumulated, which is then cleared."""
        ...

    def gathered(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
        """A block in which parameters are whole on every rank."""
        ...

    def add_over_ranks(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all ranks."""
        ...

    def sum_over_ranks(self, values: dict[str, float]) -> dict[str, float]:
        """Sums of the values over all ranks; every rank passes the same keys."""
        ...

    def share_over_ranks(self, found: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """What all ranks found together, by sample."""
        ...

    def save(self, folder: str, state: dict[str, Any]) -> None:
        """Write parameters, optimizer and ``state``."""
        ...

    def load(self, folder: str) -> dict[str, Any]:
        """Read them back; returns ``state``."""
        ...

    def close(self) -> None:
        """Leave the process group."""
        ...
