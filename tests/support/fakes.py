"""Stand-ins for collaborators of the code under test: an engine without a model, pools and a learner without Ray."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from rlpost.protocols import ApplyReport, GenerateRequest, SamplingSettings
from rlpost.rollout.stream import generate, stream
from rlpost.scoring.score import Scorer
from rlpost.types import (
    Completion,
    GradientFigures,
    Group,
    TensorDelta,
    TrainBatch,
    TrainSample,
    WeightManifest,
    WeightUpdate,
)

Answer = Callable[[str, random.Random], str]
"""Maps (prompt id, random generator) to the text of a completion."""


class FakeEngine:
    """A `rlpost.protocols.RolloutEngine` that answers from a script, reproducibly from the request's seed.

    Args:
        answer: the script; the answer becomes one token per character.
    """

    def __init__(self, answer: Answer):
        self.answer = answer
        self.version = 0
        self.checksums: dict[str, str] = {}
        self.waiting: list[tuple[int, Completion]] = []
        self.numbers = 0

    def submit(self, requests: Sequence[GenerateRequest], settings: SamplingSettings) -> list[int]:
        """Queue ``n`` scripted completions per request, cut at ``max_tokens``."""
        first, self.numbers = self.numbers, self.numbers + len(requests)
        for number, request in enumerate(requests, first):
            self.waiting += [(number, self._one(request, index, settings)) for index in range(request.n)]
        return list(range(first, self.numbers))

    def step(self) -> list[tuple[int, Completion]]:
        """Finish the completion submitted last, so that no caller relies on the order."""
        return [self.waiting.pop()] if self.waiting else []

    def abort(self, numbers: Collection[int]) -> list[tuple[int, Completion]]:
        """Abort the unfinished completions of these requests; they have no tokens."""
        late = [(n, c) for n, c in self.waiting if n in numbers]
        self.waiting = [(n, c) for n, c in self.waiting if n not in numbers]
        return [
            (n, Completion(c.prompt_id, c.index, c.prompt_ids, (), (), None, "", "abort", self.version, c.seed))
            for n, c in late
        ]

    def apply(self, update: WeightUpdate) -> ApplyReport:
        """Store version and checksums as published."""
        new = dict(update.manifest.checksums)
        changed = sum(self.checksums.get(name) != value for name, value in new.items())
        self.checksums, self.version = new, update.manifest.new_version
        return ApplyReport(self.version, new, changed, 0.0)

    def probe(self) -> list[Completion]:
        """One fixed completion."""
        asked = [GenerateRequest("probe", (1,), 1, 0)]
        return generate(self, asked, SamplingSettings(max_tokens=4, temperature=0.0))

    def parity(self, prompts: Sequence[tuple[int, ...]] = ()) -> tuple[list[Completion], list[Completion]]:
        """The probe twice, as there is no cache."""
        return self.probe(), self.probe()

    def close(self) -> None:
        """Nothing was started."""

    def _one(self, request: GenerateRequest, index: int, settings: SamplingSettings) -> Completion:
        seed = request.seed + index
        text = self.answer(request.prompt_id, random.Random(seed))
        stopped = len(text) < settings.max_tokens
        text = text[: settings.max_tokens]
        ids = tuple(ord(c) for c in text) + ((0,) if stopped else ())
        spans = tuple((i, i + 1) for i in range(len(text))) + (((len(text), len(text)),) if stopped else ())
        logprobs = tuple(-1.0 for _ in ids) if settings.logprobs else None
        reason = "stop" if stopped else "length"
        return Completion(
            request.prompt_id, index, request.prompt_ids, ids, spans, logprobs, text, reason, self.version, seed
        )


class FakeRollouts:
    """`rlpost.protocols.RolloutPool` over engines of this process.

    Args:
        *engines: at least one engine; requests go to the first.
    """

    def __init__(self, *engines: FakeEngine):
        self.engines = engines
        self.asked: list[tuple[list[GenerateRequest], SamplingSettings]] = []

    def stream(
        self, requests: Sequence[GenerateRequest], settings: SamplingSettings
    ) -> Iterator[tuple[int, list[Completion]]]:
        self.asked.append((list(requests), settings))
        yield from stream(self.engines[0], requests, settings)

    def generate(self, requests: Sequence[GenerateRequest], settings: SamplingSettings) -> list[list[Completion]]:
        found = dict(self.stream(requests, settings))
        return [found[place] for place in range(len(requests))]

    def apply(self, update: WeightUpdate, manifest: WeightManifest) -> list[ApplyReport]:
        return [engine.apply(update) for engine in self.engines]

    def probe(self) -> list[list[Completion]]:
        return [engine.probe() for engine in self.engines]

    def parity(self, prompts: Sequence[tuple[int, ...]]) -> list[tuple[list[Completion], list[Completion]]]:
        return [engine.parity(prompts) for engine in self.engines]

    def memory(self) -> dict[str, tuple[float, float]]:
        return {f"rollout{i}": (100.0, 50.0) for i in range(len(self.engines))}


class FakeScoring:
    """`rlpost.protocols.ScoringPool` over a real scorer of this process."""

    def __init__(self, scorer: Scorer, needs: frozenset[str] = frozenset()):
        self.scorer, self.needs = scorer, needs
        self.finished: list[int] = []

    @contextmanager
    def queue(self) -> Iterator[FakeScoring]:
        self.scored: dict[int, Group] = {}
        yield self

    def submit(self, position: int, group: Group) -> None:
        self.scored[position] = self.score([group])[0]

    def results(self) -> dict[int, Group]:
        return self.scored

    def score(self, groups: Sequence[Group]) -> list[Group]:
        return self.scorer.score(groups)

    def finish(self, groups: Sequence[Group]) -> list[Group]:
        self.finished.append(len(groups))
        return self.scorer.finish(groups)

    def memory(self) -> dict[str, tuple[float, float]]:
        return {"scoring0": (20.0, 10.0)}


class FakeLearner:
    """`rlpost.protocols.Learner` whose only weight is a number that each step raises by one.

    It gives every token the log-probability that `FakeEngine` reports, minus ``off``.
    """

    def __init__(self, off: float = 0.0):
        self.off, self.weight, self.version = off, 0, 0
        self.batches: list[TrainBatch] = []
        self.asked: list[int] = []
        self.figures: GradientFigures | None = None
        self.frozen = False

    def logprobs(
        self, samples: Sequence[TrainSample], *, reference: bool = False, temperature: float | None = None
    ) -> list[np.ndarray]:
        self.asked.append(len(samples))
        return [np.full(len(s.completion_ids), -1.0 - self.off, np.float32) for s in samples]

    def step(self, batch: TrainBatch) -> dict[str, float]:
        self.batches.append(batch)
        self.version += 1
        self.weight += not self.frozen
        return {"updates": 1.0, "loss": 0.0, "grad_norm": 1.0, "lr": 0.1}

    def examine(self, batch: TrainBatch) -> GradientFigures | None:
        return self.figures

    def changes(self) -> dict[str, TensorDelta]:
        return {"w": TensorDelta(1, 1, 1, 0, 1, 1, 1.0, 1.0, 0.0)}

    def export(self) -> tuple[WeightManifest, Any]:
        sums: Mapping[str, str] = {"w": str(self.weight)}
        manifest = WeightManifest(self.version - 1, self.version, "full", sums, 4, {"w": (1,)})
        return manifest, WeightUpdate(manifest, {})

    def save(self, folder: str) -> None: ...

    def load(self, folder: str) -> int:
        return self.version

    def save_model(self, folder: str) -> None: ...

    def restart(self, error: Exception) -> None: ...

    def memory(self) -> dict[str, tuple[float, float]]:
        return {"learner0": (200.0, 100.0)}


class FakeSupervision:
    """`rlpost.protocols.Supervision` of actors that are never lost."""

    def __init__(self) -> None:
        self.lost: dict[str, int] = {}
        self.lines: list[str] = []

    def take_replaced(self) -> list[str]:
        return []

    def log(self, text: str, /) -> None:
        self.lines.append(text)
