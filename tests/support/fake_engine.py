"""A rollout engine without a model, for unit tests of everything around one."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from rlpost.protocols import ApplyReport, GenerateRequest, SamplingSettings
from rlpost.types import Completion, WeightUpdate


class FakeEngine:
    """Answers with the words of a script, reproducibly from the request's seed.

    Args:
        answer: (prompt id, random generator) to text; one token per character.
    """

    def __init__(self, answer: Callable[[str, random.Random], str]):
        self.answer = answer
        self.version = 0
        self.checksums: dict[str, str] = {}

    def generate(self, requests: Sequence[GenerateRequest], settings: SamplingSettings) -> list[Completion]:
        """``n`` scripted completions per request, cut at ``max_tokens``."""
        return [self._one(r, i, settings) for r in requests for i in range(r.n)]

    def apply(self, update: WeightUpdate) -> ApplyReport:
        """Note the version; hold exactly what was published."""
        new = dict(update.manifest.checksums)
        changed = sum(self.checksums.get(name) != value for name, value in new.items())
        self.checksums, self.version = new, update.manifest.new_version
        return ApplyReport(self.version, new, changed, 0.0)

    def probe(self) -> list[Completion]:
        """One fixed completion."""
        return self.generate([GenerateRequest("probe", (1,), 1, 0)], SamplingSettings(max_tokens=4, temperature=0.0))

    def parity(self, prompts: Sequence[tuple[int, ...]] = ()) -> tuple[list[Completion], list[Completion]]:
        """The probe twice: there is no cache."""
        return self.probe(), self.probe()

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
