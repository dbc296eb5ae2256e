"""Looking for proofs of many theorems at once: rounds of one call to the engines and one to the verifier."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rlpost.config.schema import ProveSection, RunConfig
from rlpost.evaluation.proofs import ProofOutcome
from rlpost.loop.evaluate import Fetch, Generate, Score
from rlpost.protocols import GroupRequest, SamplingSettings
from rlpost.rollout.sampling import evaluation_settings, proof_seed
from rlpost.trajectory import GroupReceipt, TokenizedPrompt

_AT_ONCE = 512
"""Completions per round: bounds memory, and the work that one deadline has to cover."""


class Codec(Protocol):
    """Text of tokens, and tokens of an opening; `rlpost.data.tokenizer.TextCodec` is one."""

    def text(self, ids: Sequence[int], stop: Sequence[str] = ()) -> str:
        """Text of sampled ids, cut at a stop string."""
        ...

    def encode_opening(self, text: str) -> tuple[int, ...]:
        """Token ids of the text with which an answer begins."""
        ...


@dataclass(frozen=True, slots=True)
class Engines:
    """What a search calls.

    Attributes:
        generate: returns the group of each request.
        score: returns groups with verdicts.
        fetch: resolves the handles in receipts.
    """

    generate: Generate
    score: Score
    fetch: Fetch


@dataclass(slots=True, eq=False)
class Search:
    """The search for a proof of one theorem: what it has used up, and how it ended.

    Attributes:
        prompt: the theorem's row as a prompt.
        section: budgets.
        seed: ``run.seed``.
        begun: time at which it began, of the monotonic clock.
        outcome: None while it runs.
        proof: the answer that the verifier accepted.
        detail: why there is none, for people.
        doubt: why a check that might have ended it failed; a search that then ends without a proof is undecided.
        attempts: whole proofs that were given to the verifier.
        calls: completions asked for.
        tokens: tokens sampled.
        states: tactics that Lean ran.
        seconds: wall-clock time until it was over.
    """

    prompt: TokenizedPrompt
    section: ProveSection
    seed: int
    begun: float = field(default_factory=time.monotonic)
    outcome: ProofOutcome | None = None
    proof: str | None = None
    detail: str = ""
    doubt: str = ""
    attempts: int = 0
    calls: int = 0
    tokens: int = 0
    states: int = 0
    seconds: float = 0.0

    def end(self, outcome: ProofOutcome, detail: str = "", proof: str | None = None) -> None:
        """Settle the theorem."""
        if outcome in ("not_proved", "exhausted") and self.doubt:
            outcome, detail = "undecided", self.doubt
        self.outcome, self.detail, self.proof = outcome, detail, proof
        self.seconds = time.monotonic() - self.begun

    def spent(self) -> str | None:
        """The budget that is used up, None if there is some left."""
        if self.calls >= self.section.attempts:
            return f"{self.calls} model calls"
        passed = time.monotonic() - self.begun
        return f"{passed:.0f} seconds" if self.section.seconds is not None and passed >= self.section.seconds else None

    def seeds(self) -> tuple[int, ...]:
        """Seeds of the next completions, as many as the budget allows; they count as asked for."""
        count = min(self.section.width, self.section.attempts - self.calls)
        self.calls += count
        return tuple(proof_seed(self.seed, self.prompt.prompt.id, self.calls - count + i) for i in range(count))

    def heard(self, group: GroupReceipt) -> None:
        """Count what was sampled; a completion that was cut off by us may have been a proof."""
        self.tokens += sum(receipt.sampled for receipt in group.trajectories)
        if any(receipt.status == "aborted" for receipt in group.trajectories):
            self.doubt = self.doubt or "a completion was cut off; raise rollout.timeout_s"

    def judged(self, scored: GroupReceipt, texts: Callable[[], Sequence[str]]) -> None:
        """End with the first accepted answer of a scored group, if there is one."""
        verdicts = scored.verdicts
        accepted = next((i for i, one in enumerate(verdicts) if one is not None and one.outcome == "accepted"), None)
        if accepted is not None:
            self.end("proved", proof=texts()[accepted])
        elif doubtful := next((one for one in verdicts if one is None or one.outcome == "undecided"), None):
            self.doubt = self.doubt or f"the verifier could not decide ({doubtful.reason})"


class Method(Protocol):
    """A way to look for proofs."""

    def start(self, prompt: TokenizedPrompt) -> Search:
        """Begin with a theorem; the search may be over at once."""
        ...

    def request(self, search: Any) -> GroupRequest | None:
        """What to sample next, or None once the search was ended because there is nothing."""
        ...

    def round(self, asked: Sequence[tuple[Any, GroupRequest]]) -> None:
        """Sample, check, and end the searches that have found a proof."""
        ...


class WholeProofs:
    """Sampling of whole proofs, ``prove.width`` of each theorem at a time, scored as in training."""

    def __init__(self, config: RunConfig, engines: Engines):
        self.config, self.engines = config, engines
        self.settings: SamplingSettings = evaluation_settings(config)

    def start(self, prompt: TokenizedPrompt) -> Search:
        """See `Method`."""
        return Search(prompt, self.config.prove, self.config.run.seed)

    def request(self, search: Search) -> GroupRequest:
        """See `Method`."""
        return GroupRequest(search.prompt, search.seeds())

    def round(self, asked: Sequence[tuple[Search, GroupRequest]]) -> None:
        """See `Method`."""
        groups = self.engines.generate([request for _, request in asked], self.settings)
        for (search, _), group in zip(asked, groups, strict=True):
            search.heard(group)
        for (search, _), scored in zip(asked, self.engines.score(groups), strict=True):
            search.attempts += len(scored.trajectories)
            search.judged(scored, lambda one=scored: [each.answer for each in self.engines.fetch(one.tokens)])


def prove(
    theorems: Sequence[TokenizedPrompt],
    method: Method,
    section: ProveSection,
    settled: Callable[[Search], object],
) -> None:
    """Look for proofs of all theorems, as many at a time as fill the engines.

    What is found for a theorem does not depend on the others, except through ``prove.seconds``.

    Args:
        theorems: rows as prompts.
        method: the way to look for proofs.
        section: budgets.
        settled: called with every search as soon as it is over.
    """
    waiting, active = deque(theorems), list[Search]()
    at_once = max(_AT_ONCE // section.width, 1)
    while waiting or active:
        while waiting and len(active) < at_once:
            active.append(method.start(waiting.popleft()))
        asked: list[tuple[Search, GroupRequest]] = []
        for search in active:
            if search.outcome is None and (spent := search.spent()) is not None:
                search.end("not_proved", f"no proof within {spent}")
            if search.outcome is None and (request := method.request(search)) is not None:
                asked.append((search, request))
        if asked:
            method.round(asked)
        for search in active:
            if search.outcome is not None:
                settled(search)
        active = [search for search in active if search.outcome is None]
