"""The classes of the actors, undecorated: plain objects that pass calls to an engine, a learner or a scorer."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import psutil

from rlpost.config.schema import EnvironmentSection, RunConfig
from rlpost.errors import InfrastructureError
from rlpost.plugins import registry
from rlpost.plugins.build import build_environment, instantiate
from rlpost.plugins.ship import Shipped, install
from rlpost.protocols import ApplyReport, EngineSpec, GroupRequest, Observation, Reply, SamplingSettings, Turn
from rlpost.system.processes import end_with_parent
from rlpost.trajectory import BatchReceipt, GroupReceipt, Receipt, Trajectory
from rlpost.types import (
    GradientFigures,
    Prompt,
    StepReport,
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
        self.codec: Any = None
        self.config: Any = None
        self.offsets = False

    def setup(self, config: RunConfig, spec: EngineSpec, offsets: bool, shipped: Shipped) -> None:
        """Load the engine that ``rollout.engine`` names; an engine of the user's is tried once."""
        from rlpost.data.tokenizer import TextCodec

        install(shipped)
        name = config.rollout.engine
        target = registry.resolve("engines", name)
        self.config, self.offsets = config, offsets
        self.codec = TextCodec(spec.model, config.model.trust_remote_code)
        self.engine = instantiate(target, (config, spec), {}, f"rollout.engine {name!r}")
        if name not in registry.BUILTIN["engines"] and config.selfcheck.plugins and spec.probes:
            from rlpost.rollout.trial_call import try_engine

            try_engine(self.engine, name, spec.probes[0])

    def stream(
        self,
        requests: Sequence[GroupRequest],
        settings: SamplingSettings,
        deadline_s: float,
        environments: Sequence[Any] = (),
    ) -> Iterator[Any]:
        """Roll out; see `rlpost.rollout.episode.stream`.

        Yields:
            For a few groups at a time two items: their trajectories, and then their positions with their receipts. The
            caller owns both, so the tokens outlive this process, and it need not fetch the first: they stay in the
            object store.
        """
        from rlpost.actors.environment_calls import RayEnvironments
        from rlpost.rollout.episode import Budget, stream

        token_ids, strings = self.codec.stop_tokens(settings.stop)
        settings = replace(settings, stop=strings, stop_token_ids=token_ids)
        section, calls, budget = self.config.environment, None, None
        if section is not None:
            calls = RayEnvironments(environments, section.timeout_s, self.config.cluster.start_timeout_s)
            budget = Budget(
                section.max_turns, self.config.trajectory_tokens_of(settings.max_tokens), section.observation_tokens
            )
        for finished in stream(
            self.engine, requests, settings, self.codec,
            deadline_s=deadline_s, offsets=self.offsets, environments=calls, budget=budget,
        ):  # fmt: skip
            yield [trajectories for _, trajectories in finished]
            yield [(place, tuple(map(Receipt.of, trajectories))) for place, trajectories in finished]

    def apply(self, update: WeightUpdate) -> ApplyReport:
        """See `RolloutEngine.apply`."""
        return self.engine.apply(update)

    def probe(self) -> list[Trajectory]:
        """See `RolloutEngine.probe`."""
        return self.engine.probe()

    def parity(self, prompts: Sequence[np.ndarray]) -> tuple[list[Trajectory], list[Trajectory]]:
        """See `RolloutEngine.parity`."""
        return self.engine.parity(prompts)

    def close(self) -> None:
        """See `RolloutEngine.close`."""
        if self.engine is not None:
            self.engine.close()


class EnvironmentWorker(Worker):
    """The actor of environments, one object for each trajectory. Ray starts it again by itself, with nothing open.

    Args:
        section: the environment and its arguments.
        shipped: the user's own code.
    """

    def __init__(self, section: EnvironmentSection, shipped: Shipped):
        from rlpost.rollout.environments import EnvironmentHost

        self.end_with_node()
        install(shipped)
        self.host = EnvironmentHost(lambda: build_environment(section))

    def ready(self) -> None:
        """Open what all environments here share, so that no deadline of an answer pays for it."""
        self.host.verifier()

    def identity(self) -> tuple[int, float, float]:
        """Number of this process, and its memory as `memory_mb`."""
        return (os.getpid(), *self.memory_mb())

    def trial(self, prompt: Prompt, name: str) -> float:
        """See `rlpost.plugins.trial_environment.try_environment`."""
        from rlpost.plugins.trial_environment import try_environment

        return try_environment(self.host.make, name, prompt)

    def preflight(self, prompts: Sequence[Prompt], name: str, conformance: bool) -> str:
        """Test the verifier behind the environments, if there is one; see `rlpost.scoring.preflight.check_verifier`."""
        from rlpost.scoring.preflight import check_verifier

        verifier = self.host.verifier()
        return "" if verifier is None else check_verifier(verifier, f"environment {name!r}", prompts, conformance)

    def play(self, key: Any, row: Mapping[str, Any], seed: int, turns: Sequence[Turn]) -> Observation | Reply | None:
        """Begin a trajectory and answer its turns; returns the last answer. Used to play a lost one again, too."""
        answer: Observation | Reply | None = self.host.begin(key, row, seed)
        for turn in turns:
            answer = self.host.reply(key, turn)
        return answer

    def reply(self, key: Any, turn: Turn) -> Reply:
        """Answer a turn."""
        return self.host.reply(key, turn)

    def end(self, key: Any) -> None:
        """Close the environment of a trajectory."""
        self.host.end(key)

    def close(self) -> None:
        """Close all environments, and the verifier behind them."""
        self.host.close()


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
        self, samples: Sequence[TrainSample], reference: bool, temperature: float | None, constrained: bool
    ) -> dict[int, np.ndarray]:
        """See `rlpost.learner.policy.PolicyLearner.logprobs`."""
        return self.learner.logprobs(samples, reference=reference, temperature=temperature, constrained=constrained)

    def proximal(self, batch: BatchReceipt) -> dict[int, np.ndarray]:
        """Log-probabilities under the current policy of this rank's share of a batch, by number of the sample."""
        return self.learner.logprobs(self._samples(batch))

    def examine(self, batch: BatchReceipt, plain: Sequence[Any]) -> GradientFigures | None:
        """See `PolicyLearner.examine`."""
        return self.learner.examine(TrainBatch(self._samples(batch), batch.step), plain)

    def step(self, batch: BatchReceipt) -> StepReport:
        """See `PolicyLearner.step`; the records are rank 0's."""
        metrics = self.learner.step(TrainBatch(self._samples(batch), batch.step, batch.traced))
        return StepReport(metrics, tuple(self.learner.records) if self.learner.engine.rank == 0 else ())

    def _samples(self, batch: BatchReceipt) -> Any:
        """The batch's samples, whose tokens are fetched when this rank first uses them."""
        from rlpost.actors.handles import Fetcher
        from rlpost.learner.received import received

        return received(batch, Fetcher())

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

    def setup(self, config: RunConfig, shipped: Shipped) -> None:
        """Build the verifier and the reward stages."""
        from rlpost.scoring.score import Scorer

        self.scorer = Scorer(config.scoring, shipped, config.environment is not None, config.run.steps)

    def preflight(self, prompts: Sequence[Prompt], conformance: bool, trials: bool) -> str:
        """See `rlpost.scoring.score.Scorer.preflight`."""
        return self.scorer.preflight(prompts, conformance, trials)

    def unverifiable(self, prompts: Sequence[Prompt]) -> list[str | None]:
        """See `rlpost.scoring.score.Scorer.unverifiable`."""
        return self.scorer.unverifiable(prompts)

    def score(self, groups: Sequence[GroupReceipt]) -> Any:
        """Score groups, whose trajectories are fetched here; see `rlpost.scoring.score.Scorer.score`.

        Returns:
            The groups with verdicts (without evidence) and rewards, and then for each group the full verdicts.
        """
        from rlpost.actors.handles import Fetcher
        from rlpost.scoring.receipts import opened, receipt_of

        fetch = Fetcher()
        scored = self.scorer.score([opened(group, fetch) for group in groups])
        light = [receipt_of(group, full) for group, full in zip(groups, scored, strict=True)]
        return (light, *(full.verdicts for full in scored))

    def finish(self, groups: Sequence[GroupReceipt]) -> list[GroupReceipt]:
        """See `rlpost.scoring.score.Scorer.finish`."""
        from rlpost.actors.handles import Fetcher
        from rlpost.scoring.receipts import opened, receipt_of

        fetch = Fetcher()
        finished = self.scorer.finish([opened(group, fetch) for group in groups])
        return [receipt_of(group, full) for group, full in zip(groups, finished, strict=True)]

    def baselines(self, train: Sequence[Prompt], prompts: Sequence[Prompt], places: int, teacher: str | None) -> Any:
        """See `rlpost.scoring.score.Scorer.baselines`."""
        return self.scorer.baselines(train, prompts, places, teacher)

    def close(self) -> None:
        """End the processes of the verifier."""
        if self.scorer is not None:
            self.scorer.close()
