"""A training loop in this process: real learner, scorer, episodes and checks, and an engine on transformers.

What is missing is Ray and vLLM. A step of the tiny model takes a fraction of a second, so bugs can be planted by the
dozen.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlpost.algorithms.credit import train_samples
from rlpost.config.load import from_dict
from rlpost.config.schema import RunConfig
from rlpost.data.models import load
from rlpost.data.tokenizer import TextCodec
from rlpost.learner.build import build_learner
from rlpost.learner.received import received
from rlpost.loop.session import Session
from rlpost.loop.sync import Step, collect, learn, publish
from rlpost.plugins.algorithm import build_advantage
from rlpost.plugins.build import reward_needs, with_logprobs
from rlpost.protocols import EngineSpec
from rlpost.scoring.score import Scorer
from rlpost.selfcheck.memory import MemoryWatch
from rlpost.selfcheck.plain_samples import PlainSample
from rlpost.trajectory import BatchReceipt, GroupReceipt, TokenizedPrompt, Trajectory
from rlpost.types import GradientFigures, Prompt, StepReport, TrainBatch, WeightManifest
from support.fakes import FakeRollouts, FakeScoring, FakeSupervision, FakeTranscripts, same

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ("∀ p q : Prop, p → q", "∀ p q r : Prop, p ∧ q", "¬ (p ↔ q)", "p ∨ q → r", "q ↔ p", "¬ r ∧ p")


def peaked(folder: str, target: Path, factor: float = 3.0) -> str:
    """A copy of a model folder with larger weights, whose distributions depend on their context as trained ones do."""
    model = load(folder, "float32")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(factor * (2.0 if "embed" in name else 1.0))
    model.save_pretrained(target)
    for file in Path(folder).glob("tokenizer*"):
        (target / file.name).write_bytes(file.read_bytes())
    return str(target)


class LocalLearner:
    """`rlpost.protocols.Learner` around a real learner of one rank."""

    def __init__(self, config: RunConfig, folder: str):
        torch.manual_seed(0)
        self.own, self.folder = build_learner(config, folder, torch.device("cpu")), folder

    def logprobs(
        self,
        trajectories: Sequence[Trajectory],
        *,
        reference: bool = False,
        temperature: float | None = None,
        constrained: bool = True,
    ) -> list[np.ndarray]:
        samples = [sample for one in trajectories for sample in train_samples(one)]
        found = self.own.logprobs(samples, reference=reference, temperature=temperature, constrained=constrained)
        parts = iter(found[number] for number in range(len(samples)))
        return [np.concatenate([next(parts) for _ in one.sequences]) for one in trajectories]

    def proximal(self, groups: Sequence[GroupReceipt]) -> list[GroupReceipt]:
        return [dataclasses.replace(group, proximal=tuple(self.logprobs(group.tokens))) for group in groups]

    def step(self, batch: BatchReceipt) -> StepReport:
        metrics = self.own.step(TrainBatch(received(batch, same), batch.step, batch.traced))
        return StepReport(metrics, tuple(self.own.records))

    def examine(self, batch: BatchReceipt, plain: Sequence[PlainSample]) -> GradientFigures | None:
        return self.own.examine(TrainBatch(received(batch, same), batch.step), plain)

    def export(self) -> tuple[WeightManifest, Any]:
        update = self.own.export()
        assert update is not None
        return update.manifest, update

    def memory(self) -> dict[str, tuple[float, float]]:
        return {}


def configured(folder: str, judge: str, **sections: Any) -> RunConfig:
    """A configuration of a local run; ``judge`` is a verifier function."""
    tree: dict[str, Any] = {
        "run": {"steps": 8, "seed": 3},
        "model": {"path": folder, "dtype": "float32"},
        "rollout": {"group_size": 4, "prompts_per_step": 3, "max_tokens": 12, "temperature": 0.8, "logprobs": "always"},
        "scoring": {"verifier": "function", "verifier_args": {"function": judge}, "truncated": "keep"},
        "optimizer": {"lr": 1e-3},
        "learner": {"engine": "torch", "micro_tokens": 160},
        "selfcheck": {"parity_every": 2},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values}
    return from_dict(tree)


class LocalRun:
    """A session of this process, and its steps.

    Args:
        config: the configuration.
        break_engine: changes the engine before anything is sampled.
    """

    def __init__(self, config: RunConfig, break_engine: Callable[[Any], None] = lambda engine: None):
        folder = config.model.path
        assert folder is not None
        codec = TextCodec(folder, False)
        prompts = [
            TokenizedPrompt(Prompt(f"t{i}", text=text), np.array(codec.tokenizer(text)["input_ids"], np.int32))
            for i, text in enumerate(PROMPTS)
        ]
        needs = reward_needs(config)
        self.config = config = with_logprobs(config, needs)
        self.engine = _engine_class()(config, EngineSpec(folder, (prompts[0].token_ids,), 16, 256))
        break_engine(self.engine)
        self.supervision = FakeSupervision()
        self.session = Session(
            config=config,
            rollouts=FakeRollouts(self.engine, codec=codec),  # type: ignore[arg-type]
            scoring=FakeScoring(Scorer(config.scoring), frozenset(needs)),
            learner=LocalLearner(config, folder),  # type: ignore[arg-type]
            train=prompts,
            held_out=[],
            advantages=build_advantage(config),
            supervision=self.supervision,
            watch=MemoryWatch(config.selfcheck.memory_window),
            fetch=same,
            transcripts=FakeTranscripts(),
        )

    def steps(self, count: int) -> list[Step]:
        """Make steps, each with all its checks."""
        found: list[Step] = []
        self.session.publish()
        for number in range(count):
            scored = collect(self.session, number)
            found.append(learn(self.session, scored))
            publish(self.session, found[-1], scored.timer)
        return found


def _engine_class() -> Any:
    spec = importlib.util.spec_from_file_location("local_engine", ROOT / "configs/examples/transformers_engine.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TransformersEngine
