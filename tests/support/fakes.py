"""Stand-ins for collaborators of the code under test: an engine without a model, pools and a learner without Ray."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from rlpost.data.dialogue import TextDialogue
from rlpost.observability import transcripts
from rlpost.protocols import (
    ApplyReport,
    EnvironmentCalls,
    GenerateRequest,
    GroupRequest,
    Observation,
    Reply,
    SamplingSettings,
    Turn,
)
from rlpost.rollout.environments import EnvironmentHost
from rlpost.rollout.episode import Budget, each, greedy, stream
from rlpost.scoring.receipts import answers_of, opened, receipt_of
from rlpost.scoring.score import Scorer
from rlpost.trajectory import BatchReceipt, Completion, GroupReceipt, Receipt, Trajectory, VersionSpan
from rlpost.types import GradientFigures, Prompt, StepReport, TensorDelta, Verdict, WeightManifest, WeightUpdate

Answer = Callable[[str, random.Random], str]
"""Maps (context, random generator) to the text of a completion."""


class CharCodec:
    """A codec with one token per character; token 0 ends a completion."""

    def decode(self, ids: Sequence[int], stop: Sequence[str] = ()) -> tuple[str, tuple[tuple[int, int], ...]]:
        text = "".join(map(chr, ids)).rstrip("\0")
        spans = tuple((min(i, len(text)), min(i + 1, len(text))) for i in range(len(ids)))
        return text, spans

    def text(self, ids: Sequence[int], stop: Sequence[str] = ()) -> str:
        return self.decode(ids, stop)[0]

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        return tuple(map(ord, prompt.text or ""))

    def encode_opening(self, text: str) -> tuple[int, ...]:
        return tuple(map(ord, text))

    def dialogue(self, prompt: Prompt) -> TextDialogue:
        return TextDialogue(lambda text, **_: {"input_ids": list(map(ord, text))})


class FakeEngine:
    """A `rlpost.protocols.RolloutEngine` that answers from a script, reproducibly from the request's seed.

    Args:
        answer: the script, given the context as text; the answer becomes one token per character.
        tokens_per_step: tokens by which each request advances in a step; None ends the one submitted last, so that no
            caller relies on the order.
    """

    def __init__(self, answer: Answer, tokens_per_step: int | None = None):
        self.answer, self.tokens_per_step = answer, tokens_per_step
        self.version = 0
        self.checksums: dict[str, str] = {}
        self.waiting: dict[int, _Script] = {}
        self.numbers = 0
        self.contexts: list[str] = []

    def submit(self, requests: Sequence[GenerateRequest], settings: SamplingSettings) -> list[int]:
        """Queue a scripted completion per request, cut at its limit."""
        first, self.numbers = self.numbers, self.numbers + len(requests)
        for number, request in enumerate(requests, first):
            context = "".join(map(chr, request.token_ids))
            self.contexts.append(context)
            text = self.answer(context, random.Random(request.seed)) + "\0"
            ends = [at + len(one) for one in settings.stop if (at := text.find(one)) >= 0]
            text = text[: min(ends)] if ends else text
            self.waiting[number] = _Script(text[: request.max_tokens], text, settings.logprobs)
        return list(range(first, self.numbers))

    def step(self) -> list[tuple[int, Completion]]:
        """Advance."""
        if not self.waiting:
            return []
        if self.tokens_per_step is None:
            number, script = self.waiting.popitem()
            script.advance(len(script.said), self.version)
            return [(number, script.completion())]
        for script in self.waiting.values():
            script.advance(self.tokens_per_step, self.version)
        done = [number for number, script in self.waiting.items() if script.reached == len(script.said)]
        return [(number, self.waiting.pop(number).completion()) for number in done]

    def abort(self, numbers: Collection[int]) -> list[tuple[int, Completion]]:
        """End these requests with what they have said so far."""
        return [(n, self.waiting.pop(n).completion("abort")) for n in list(self.waiting) if n in numbers]

    def apply(self, update: WeightUpdate) -> ApplyReport:
        """Store version and checksums as published."""
        new = dict(update.manifest.checksums)
        changed = sum(self.checksums.get(name) != value for name, value in new.items())
        self.checksums, self.version = new, update.manifest.new_version
        return ApplyReport(self.version, new, changed, 0.0)

    def probe(self) -> list[Trajectory]:
        """One fixed completion."""
        return greedy(self, [np.array([1])], 4)

    def parity(self, prompts: Sequence[np.ndarray] = ()) -> tuple[list[Trajectory], list[Trajectory]]:
        """The probe twice, as there is no cache."""
        return self.probe(), self.probe()

    def close(self) -> None:
        """Nothing was started."""


@dataclasses.dataclass(slots=True)
class _Script:
    said: str
    whole: str
    logprobs: bool
    reached: int = 0
    versions: list[VersionSpan] = dataclasses.field(default_factory=list)

    def advance(self, tokens: int, version: int) -> None:
        start, self.reached = self.reached, min(self.reached + tokens, len(self.said))
        self.versions.append((version, start, self.reached))

    def completion(self, finish: Any = None) -> Completion:
        ids = np.array([ord(c) for c in self.said[: self.reached]], np.int32)
        values = np.full(len(ids), -1.0, np.float32) if self.logprobs else None
        finish = finish or ("stop" if self.said == self.whole else "length")
        return Completion(ids, values, finish, tuple(self.versions))


class LocalEnvironments:
    """`rlpost.protocols.EnvironmentCalls` on a host of this process.

    Args:
        host: the environments.
    """

    def __init__(self, host: EnvironmentHost):
        self.host = host
        self._answers: list[tuple[int, Observation | Reply | Exception | None]] = []

    def begin(self, key: int, row: Mapping[str, Any], seed: int) -> None:
        """See `EnvironmentCalls`."""
        self._call(key, lambda: self.host.begin(key, row, seed))

    def reply(self, key: int, turn: Turn) -> None:
        """See `EnvironmentCalls`."""
        self._call(key, lambda: self.host.reply(key, turn))

    def answers(self, timeout_s: float) -> list[tuple[int, Observation | Reply | Exception | None]]:
        """See `EnvironmentCalls`."""
        found, self._answers = self._answers, []
        if not found:
            time.sleep(timeout_s)
        return found

    def end(self, key: int) -> None:
        """See `EnvironmentCalls`."""
        self.host.end(key)

    def _call(self, key: int, ask: Callable[[], Observation | Reply | None]) -> None:
        try:
            self._answers.append((key, ask()))
        except Exception as error:  # whatever the user's code raises leaves this trajectory undecided
            self._answers.append((key, error))


class FakeRollouts:
    """`rlpost.protocols.RolloutPool` over engines of this process.

    Args:
        *engines: at least one engine; requests go to the first.
        environments: environments that answer the policy's turns, with their budget.
        codec: tokenizer; None: one token per character.
    """

    def __init__(
        self,
        *engines: FakeEngine,
        environments: EnvironmentCalls | None = None,
        budget: Budget | None = None,
        codec: CharCodec | None = None,
    ):
        self.engines, self.environments, self.budget = engines, environments, budget
        self.codec = codec or CharCodec()
        self.asked: list[tuple[list[GroupRequest], SamplingSettings]] = []

    def stream(
        self, requests: Sequence[GroupRequest], settings: SamplingSettings
    ) -> Iterator[tuple[int, GroupReceipt]]:
        self.asked.append((list(requests), settings))
        found = stream(
            self.engines[0], requests, settings, self.codec, environments=self.environments, budget=self.budget
        )
        for place, trajectories in each(found):
            request = requests[place]
            receipts = tuple(map(Receipt.of, trajectories))
            yield place, GroupReceipt(request.ticket, request.prompt.prompt, receipts, trajectories)

    def generate(self, requests: Sequence[GroupRequest], settings: SamplingSettings) -> list[GroupReceipt]:
        found = dict(self.stream(requests, settings))
        return [found[place] for place in range(len(requests))]

    def apply(self, update: WeightUpdate, manifest: WeightManifest) -> list[ApplyReport]:
        return [engine.apply(update) for engine in self.engines]

    def probe(self) -> list[list[Trajectory]]:
        return [engine.probe() for engine in self.engines]

    def parity(self, prompts: Sequence[np.ndarray]) -> list[tuple[list[Trajectory], list[Trajectory]]]:
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
        self.scored: dict[int, GroupReceipt] = {}
        yield self

    def submit(self, position: int, group: GroupReceipt) -> None:
        self.scored[position] = self.score([group])[0]

    def results(self) -> dict[int, GroupReceipt]:
        return self.scored

    def score(self, groups: Sequence[GroupReceipt]) -> list[GroupReceipt]:
        scored = self.scorer.score([opened(group, same) for group in groups])
        return [
            dataclasses.replace(receipt_of(group, full), evidence=full.verdicts)
            for group, full in zip(groups, scored, strict=True)
        ]

    def finish(self, groups: Sequence[GroupReceipt]) -> list[GroupReceipt]:
        self.finished.append(len(groups))
        finished = self.scorer.finish([opened(group, same) for group in groups])
        return [receipt_of(group, full) for group, full in zip(groups, finished, strict=True)]

    def baselines(
        self, train: Sequence[Prompt], prompts: Sequence[Prompt], places: int, teacher: str | None
    ) -> dict[str, list[Verdict]]:
        return self.scorer.baselines(train, prompts, places, teacher)

    def memory(self) -> dict[str, tuple[float, float]]:
        return {"scoring0": (20.0, 10.0)}


def same(handle: Any) -> Any:
    """Resolve a handle that is the thing itself."""
    return handle


class FakeTranscripts:
    """`rlpost.protocols.TranscriptWriter` in this process."""

    def write(self, path: str, groups: Sequence[GroupReceipt], advantages: Sequence[Sequence[float | None]]) -> None:
        rows = (
            row
            for group, values in zip(groups, advantages, strict=True)
            for row in transcripts.lines(opened(group, same), group.ticket, values)
        )
        transcripts.write(path, rows)

    def answers(
        self, groups: Sequence[GroupReceipt], members: Sequence[Sequence[int]]
    ) -> list[list[tuple[str, tuple[str, ...]]]]:
        return [answers_of(group, row, same) for group, row in zip(groups, members, strict=True)]

    def finish(self) -> None: ...


class FakeLearner:
    """`rlpost.protocols.Learner` whose only weight is a number that each step raises by one.

    It gives every token the log-probability that `FakeEngine` reports, minus ``off``.
    """

    def __init__(self, off: float = 0.0):
        self.off, self.weight, self.version = off, 0, 0
        self.batches: list[BatchReceipt] = []
        self.asked: list[int] = []
        self.figures: GradientFigures | None = None
        self.frozen = False

    def logprobs(
        self,
        trajectories: Sequence[Trajectory],
        *,
        reference: bool = False,
        temperature: float | None = None,
        constrained: bool = True,
    ) -> list[np.ndarray]:
        self.asked.append(len(trajectories))
        return [np.where(one.mask, np.float32(-1.0 - self.off), np.float32(np.nan)) for one in trajectories]

    def proximal(self, groups: Sequence[GroupReceipt]) -> list[GroupReceipt]:
        return [dataclasses.replace(group, proximal=tuple(self.logprobs(group.tokens))) for group in groups]

    def step(self, batch: BatchReceipt) -> StepReport:
        self.batches.append(batch)
        self.version += 1
        self.weight += not self.frozen
        return StepReport({"updates": 1.0, "loss": 0.0, "grad_norm": 1.0, "lr": 0.1, "moved": 1.0})

    def examine(self, batch: BatchReceipt, plain: Sequence[Any]) -> GradientFigures | None:
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
