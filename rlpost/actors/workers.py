"""The classes of the actors, undecorated: plain objects that pass calls to an engine, a learner or a scorer."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import psutil

from rlpost.config.schema import RunConfig, ScoringSection
from rlpost.errors import InfrastructureError
from rlpost.plugins import registry
from rlpost.plugins.build import instantiate
from rlpost.plugins.ship import Shipped, install
from rlpost.protocols import ApplyReport, EngineSpec, GenerateRequest, SamplingSettings
from rlpost.rollout.stream import stream
from rlpost.system.processes import end_with_parent
from rlpost.types import (
    Completion,
    GradientFigures,
    Group,
    Prompt,
    TensorDelta,
    TrainBatch,
    TrainSample,
    WeightManifest,
    WeightUpdate,
)


def free_port(address: str) -> int:
    """A port of this machine on which nobody listens, between 20000 and 32000.

    That is below the ports that the kernel assigns by itself (from 32768 on Linux), one of which could go to another
    process before it is used.

    Raises:
        InfrastructureError: if a hundred in a row are taken, or the address is not this machine's.
    """
    problem: OSError | None = None
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
                return port
            except OSError as error:
                problem = error
    raise InfrastructureError(f"no port from 20000 to 32000 can be used at {address}: {problem}")


class Worker:
    """The methods that every actor has."""

    def end_with_node(self) -> None:
        """End this process with its node: Ray's own check takes seconds, or fails if the process is too busy."""
        end_with_parent()

    def memory_mb(self) -> tuple[float, float]:
        """Resident memory of the actor's process in MiB, and the part of it that is not shared.

        Pages of Ray's object store count as resident in every process that has read them, and stay until others need
        the space: they are no sign of a leak.
        """
        found = psutil.Process().memory_info()
        return found.rss / 2**20, (found.rss - getattr(found, "shared", 0)) / 2**20


class RolloutWorker(Worker):
    """The actor of a rollout engine."""

    def __init__(self) -> None:
        self.engine: Any = None

    def setup(self, config: RunConfig, spec: EngineSpec, shipped: Shipped) -> None:
        """Load the engine that ``rollout.engine`` names; an engine of the user's is tried once."""
        install(shipped)
        name = config.rollout.engine
        target = registry.resolve("engines", name)
        self.engine = instantiate(target, (config, spec), {}, f"rollout.engine {name!r}")
        if name not in registry.BUILTIN["engines"] and config.selfcheck.plugins and spec.probes:
            from rlpost.rollout.trial_call import try_engine

            try_engine(self.engine, name, spec.probes[0])

    def stream(
        self, requests: Sequence[GenerateRequest], settings: SamplingSettings, deadline_s: float
    ) -> Iterator[tuple[int, list[Completion]]]:
        """See `rlpost.rollout.stream.stream`."""
        yield from stream(self.engine, requests, settings, deadline_s)

    def apply(self, update: WeightUpdate) -> ApplyReport:
        """See `RolloutEngine.apply`."""
        return self.engine.apply(update)

    def probe(self) -> list[Completion]:
        """See `RolloutEngine.probe`."""
        return self.engine.probe()

    def parity(self, prompts: Sequence[tuple[int, ...]]) -> tuple[list[Completion], list[Completion]]:
        """See `RolloutEngine.parity`."""
        return self.engine.parity(prompts)

    def close(self) -> None:
        """See `RolloutEngine.close`."""
        if self.engine is not None:
            self.engine.close()


class LearnerWorker(Worker):
    """The actor of one data-parallel rank of the learner."""

    def __init__(self) -> None:
        self.learner: Any = None
        self.folder = ""

    def rendezvous(self, together: bool) -> tuple[str, int]:
        """Address and free port on this actor's machine for the ranks' process group.

        Args:
            together: whether all ranks are on this machine, and so use the loopback address.
        """
        import ray

        address = "127.0.0.1" if together else ray.util.get_node_ip_address()
        return address, free_port(address)

    def setup(self, config: RunConfig, folder: str, shipped: Shipped, address: str, port: int) -> None:
        """Build model and optimizer, and join the process group."""
        install(shipped)
        os.environ.update(MASTER_ADDR=address, MASTER_PORT=str(port))
        import torch

        from rlpost.learner.build import build_learner

        torch.manual_seed(config.run.seed)
        device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
        self.learner, self.folder = build_learner(config, folder, device), folder

    def logprobs(
        self, samples: Sequence[TrainSample], reference: bool, temperature: float | None
    ) -> dict[int, np.ndarray]:
        """See `rlpost.learner.policy.PolicyLearner.logprobs`."""
        return self.learner.logprobs(samples, reference=reference, temperature=temperature)

    def examine(self, batch: TrainBatch) -> GradientFigures | None:
        """See `PolicyLearner.examine`."""
        return self.learner.examine(batch)

    def step(self, batch: TrainBatch) -> dict[str, float]:
        """See `PolicyLearner.step`."""
        return self.learner.step(batch)

    def export(self) -> tuple[WeightManifest | None, WeightUpdate | None]:
        """The manifest, for the driver, and the whole update, which goes to the engines without passing the driver."""
        update = self.learner.export()
        return (update.manifest, update) if update else (None, None)

    def snapshot(self) -> tuple[WeightManifest | None, WeightUpdate | None]:
        """The version that was published last, with every tensor whatever the kind of update; returns as `export`."""
        update = self.learner.snapshot()
        return (update.manifest, update) if update else (None, None)

    def changes(self) -> dict[str, TensorDelta]:
        """See `PolicyLearner.changes`."""
        return self.learner.changes()

    def save(self, folder: str) -> None:
        """See `PolicyLearner.save`."""
        self.learner.save(folder)

    def load(self, folder: str) -> int:
        """See `PolicyLearner.load`."""
        return self.learner.load(folder)

    def save_model(self, folder: str) -> None:
        """See `PolicyLearner.save_model`."""
        self.learner.save_model(folder, self.folder)

    def close(self) -> None:
        """Leave the process group."""
        if self.learner is not None:
            self.learner.engine.close()


class ScoringWorker(Worker):
    """The actor of a verifier and the reward pipeline."""

    def __init__(self) -> None:
        self.scorer: Any = None

    def setup(self, section: ScoringSection, shipped: Shipped) -> None:
        """Build the verifier and the reward stages."""
        from rlpost.scoring.score import Scorer

        self.scorer = Scorer(section, shipped)

    def preflight(self, prompts: Sequence[Prompt], conformance: bool, trials: bool) -> str:
        """See `rlpost.scoring.score.Scorer.preflight`."""
        return self.scorer.preflight(prompts, conformance, trials)

    def score(self, groups: Sequence[Group]) -> list[Group]:
        """See `rlpost.scoring.score.Scorer.score`."""
        return self.scorer.score(groups)

    def finish(self, groups: Sequence[Group]) -> list[Group]:
        """See `rlpost.scoring.score.Scorer.finish`."""
        return self.scorer.finish(groups)

    def close(self) -> None:
        """End the processes of the verifier."""
        if self.scorer is not None:
            self.scorer.close()
