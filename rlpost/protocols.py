"""The verbs between the stages. Implementations live elsewhere; actors carry them; tests use small fakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from rlpost.types import (
    Completion,
    Group,
    Prompt,
    Reward,
    TrainBatch,
    TrainSample,
    Verdict,
    VerifyItem,
    WeightManifest,
    WeightUpdate,
)


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
        temperature: 0 is greedy.
        top_p: nucleus mass in (0, 1].
        top_k: -1 for all.
        max_tokens: limit on sampled tokens.
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
    """Samples completions under a versioned policy."""

    def generate(self, requests: Sequence[GenerateRequest], settings: SamplingSettings) -> list[Completion]:
        """All completions, in request order, ``n`` for each request."""
        ...

    def apply(self, update: WeightUpdate) -> ApplyReport:
        """Replace the weights in place, forget everything cached under the old ones, and read back what is held."""
        ...

    def probe(self) -> list[Completion]:
        """Greedy completions of pinned prompts with log-probabilities, for comparison with the learner."""
        ...

    def parity(self, prompts: Sequence[tuple[int, ...]] = ()) -> tuple[list[Completion], list[Completion]]:
        """The pinned and the given prompts answered with the prefix cache as it is, and again with it emptied."""
        ...


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
    """What a verifier's own gate found."""

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
    """What the stage must find filled in beside verdicts: ``engine_logprobs`` (``Completion.logprobs``) or
    ``learner_logprobs`` (``Group.learner_logprobs``, for which it waits until the learner has scored the batch); empty
    for most."""

    def __call__(self, group: Group) -> Sequence[Reward | None]:
        """The new reward of each completion; None stays None."""
        ...


class Learner(Protocol):
    """Owns the trained weights, on however many ranks."""

    def logprobs(
        self, samples: Sequence[TrainSample], *, reference: bool = False, temperature: float | None = None
    ) -> list[np.ndarray]:
        """Log-probabilities ``[T]`` of each sample's completion tokens, in order."""
        ...

    def step(self, batch: TrainBatch) -> dict[str, float]:
        """All updates of one rollout batch; returns metrics."""
        ...

    def export(self) -> tuple[WeightManifest, object]:
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
