"""The actors of each kind as one object: handles, deadlines and order stay in here."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

import ray
from rlpost.actors import environment
from rlpost.actors.placement import Placement, Share
from rlpost.actors.remote import wait
from rlpost.actors.workers import LearnerWorker, RolloutWorker, ScoringWorker
from rlpost.config.schema import RunConfig
from rlpost.errors import RlpostError
from rlpost.protocols import ApplyReport, GenerateRequest, SamplingSettings
from rlpost.rollout.sampling import spread
from rlpost.scoring.score import undecided
from rlpost.types import Completion, Group, Prompt, TrainBatch, TrainSample, WeightManifest

_CLOSE_S = 15.0
_GRACE_S = 30.0
"""How much longer the driver waits than the worker it has given a deadline to."""


class ActorGroup:
    """Handles of one kind of actor.

    Args:
        kind: for messages.
        handles: the actors.
    """

    def __init__(self, kind: str, handles: Sequence[Any]):
        self.kind, self.handles = kind, list(handles)

    def call(self, method: str, *args: Any, what: str, deadline_s: float) -> list[Any]:
        """The same call on every actor; results in order."""
        refs = [getattr(handle, method).remote(*args) for handle in self.handles]
        return wait(refs, f"{self.kind}: {what}", deadline_s)

    def resident_mb(self) -> dict[str, float]:
        """Resident memory by actor."""
        values = self.call("resident_mb", what="memory", deadline_s=60.0)
        return {f"{self.kind}{i}": value for i, value in enumerate(values)}

    def kill(self) -> None:
        """End every actor's process."""
        for handle in self.handles:
            with contextlib.suppress(ValueError):  # a handle of a cluster that is already down
                ray.kill(handle)


def _spawn(cls: type, share: Share, env: dict[str, str]) -> Any:
    options = {"num_cpus": 0, "num_gpus": share.gpus, "max_restarts": 0, "runtime_env": {"env_vars": env}}
    return ray.remote(cls).options(**options).remote()


class RolloutGroup(ActorGroup):
    """The engines."""

    def __init__(self, config: RunConfig, placement: Placement):
        share = placement.rollout
        env = environment.rollout(share.threads, share.gpus > 0)
        super().__init__("rollout", [_spawn(RolloutWorker, share, env) for _ in range(config.rollout.workers)])
        self.config = config

    def setup(self, folder: str, probes: Sequence[tuple[int, ...]], seats: int, length: int) -> list[Any]:
        """Begin loading; returns the references to wait for."""
        return [handle.setup.remote(self.config, folder, probes, seats, length) for handle in self.handles]

    def generate(self, requests: Sequence[GenerateRequest], settings: SamplingSettings) -> list[list[Completion]]:
        """Completions of each request, in order, spread over the engines."""
        deadline = self.config.rollout.timeout_s
        shares = spread(requests, len(self.handles))
        refs = [
            handle.generate.remote([requests[i] for i in share], settings, deadline)
            for handle, share in zip(self.handles, shares, strict=True)
        ]
        answers = wait(refs, "rollout: generate", deadline + _GRACE_S)
        result: list[list[Completion]] = [[] for _ in requests]
        for share, completions in zip(shares, answers, strict=True):
            following = iter(completions)
            for i in share:
                result[i] = [next(following) for _ in range(requests[i].n)]
        return result

    def apply(self, update: Any) -> list[ApplyReport]:
        """Load a published version into every engine; ``update`` is a reference."""
        return self.call("apply", update, what="apply weights", deadline_s=self.config.sync.timeout_s)

    def probe(self) -> list[list[Completion]]:
        """The pinned prompts' completions of every engine."""
        return self.call("probe", what="probe", deadline_s=self.config.sync.timeout_s)


class LearnerGroup(ActorGroup):
    """The data-parallel ranks. Every verb is called on all of them together."""

    def __init__(self, config: RunConfig, placement: Placement):
        share, world = placement.learner, config.learner.workers
        self.one_machine = config.cluster.address == "local"
        handles = [
            _spawn(
                LearnerWorker, share, environment.learner(share.threads, share.gpus > 0, rank, world, self.one_machine)
            )
            for rank in range(world)
        ]
        super().__init__("learner", handles)
        self.config = config

    def setup(self, folder: str) -> list[Any]:
        """Begin loading; returns the references to wait for."""
        meeting = self.handles[0].rendezvous.remote(self.one_machine)
        address, port = wait([meeting], "learner: rendezvous", self.config.cluster.start_timeout_s)[0]
        return [handle.setup.remote(self.config, folder, address, port) for handle in self.handles]

    def logprobs(
        self, samples: Sequence[TrainSample], *, reference: bool = False, temperature: float | None = None
    ) -> list[np.ndarray]:
        """Log-probabilities of every sample's completion tokens, in order."""
        shared = ray.put(list(samples))
        found: dict[int, np.ndarray] = {}
        for part in self._call("logprobs", shared, reference, temperature, what="log-probabilities"):
            found.update(part)
        return [found[row] for row in range(len(samples))]

    def step(
        self, batch: TrainBatch, old: Sequence[np.ndarray] | None, ref: Sequence[np.ndarray] | None
    ) -> dict[str, float]:
        """All updates of a batch; see `rlpost.learner.policy.PolicyLearner.step`."""
        return self._call("step", *(ray.put(part) for part in (batch, old, ref)), what="update")[0]

    def export(self) -> tuple[WeightManifest, Any]:
        """The manifest of the current version, and a reference to the update itself."""
        options = {"num_returns": 2}
        refs = [handle.export.options(**options).remote() for handle in self.handles]
        wait([manifest for manifest, _ in refs], "learner: export", self.config.learner.timeout_s)
        return ray.get(refs[0][0]), refs[0][1]

    def save(self, folder: str) -> None:
        """Write a resumable checkpoint."""
        self._call("save", folder, what="write checkpoint")

    def load(self, folder: str) -> int:
        """Continue from a checkpoint; returns the policy version."""
        return self._call("load", folder, what="read checkpoint")[0]

    def save_model(self, folder: str) -> None:
        """Write a Hugging Face folder."""
        self._call("save_model", folder, what="write model")

    def close(self) -> None:
        """Leave the process group together; a rank that is gone keeps the others from it, and is killed with them."""
        with contextlib.suppress(RlpostError):
            self.call("close", what="close", deadline_s=_CLOSE_S)

    def _call(self, method: str, *args: Any, what: str) -> list[Any]:
        return self.call(method, *args, what=what, deadline_s=self.config.learner.timeout_s)


class ScoringGroup(ActorGroup):
    """The scoring workers."""

    def __init__(self, config: RunConfig, placement: Placement):
        env = environment.scoring()
        super().__init__(
            "scoring", [_spawn(ScoringWorker, placement.scoring, env) for _ in range(config.scoring.workers)]
        )
        self.config = config

    def setup(self) -> list[Any]:
        """Begin starting the verifiers; returns the references to wait for."""
        return [handle.setup.remote(self.config) for handle in self.handles]

    def examine(self, prompts: Sequence[Prompt]) -> list[Any]:
        """Begin examining the verifiers, each on its share of the prompts; returns the references to wait for.

        Each resolves to one line about the verifier: see `rlpost.scoring.score.Scorer.examine`.
        """
        conformance = self.config.selfcheck.conformance
        shares = spread(prompts, len(self.handles))
        return [
            handle.examine.remote([prompts[i] for i in share], conformance)
            for handle, share in zip(self.handles, shares, strict=True)
        ]

    def score(self, groups: Sequence[Group]) -> list[Group]:
        """Judge groups, spread over the workers; what stays undecided is tried again on the next worker."""
        result = self._pass(groups, shift=0)
        for attempt in range(1, self.config.scoring.retries + 1):
            again = [i for i, group in enumerate(result) if _worth_retrying(group)]
            if not again:
                break
            for i, group in zip(again, self._pass([groups[i] for i in again], shift=attempt), strict=True):
                if undecided(group) < undecided(result[i]):
                    result[i] = group
        return result

    def close(self) -> None:
        """End the verifiers' processes; those of a worker that is gone have died with it."""
        with contextlib.suppress(RlpostError):
            self.call("close", what="close", deadline_s=_CLOSE_S)

    def _pass(self, groups: Sequence[Group], shift: int) -> list[Group]:
        workers = len(self.handles)
        shares = spread(groups, workers)
        refs = [
            self.handles[(worker + shift) % workers].score.remote([groups[i] for i in share])
            for worker, share in enumerate(shares)
        ]
        answers = wait(refs, "scoring: score", self.config.scoring.batch_timeout_s)
        result: dict[int, Group] = {}
        for share, scored in zip(shares, answers, strict=True):
            result.update(zip(share, scored, strict=True))
        return [result[i] for i in range(len(groups))]


def _worth_retrying(group: Group) -> bool:
    aborted = sum(completion.finish_reason == "abort" for completion in group.completions)
    return undecided(group) > aborted
