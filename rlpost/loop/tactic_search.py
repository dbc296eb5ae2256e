"""Best-first search over tactics: the policy proposes, Lean's goals tell states apart, the verifier has the last word.

A policy of whole proofs reads its usual prompt and the tactics so far, token by token as it sampled them, and is
stopped at the end of the next tactic. A policy from state to tactic reads the goals alone (``prove.state_template``).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rlpost.algorithms.best_first import Frontier, Node
from rlpost.config.schema import RunConfig
from rlpost.data.load import make_prompts
from rlpost.data.prompts import fill
from rlpost.errors import DataError, UserError
from rlpost.loop.prove import Codec, Engines, Search
from rlpost.protocols import GroupRequest, ProofStep, SamplingSettings, Tactics
from rlpost.rollout.sampling import evaluation_settings
from rlpost.trajectory import GroupReceipt, Receipt, TokenizedPrompt, Trajectory, one_turn
from rlpost.types import Prompt

_FENCE = "```"


@dataclass(frozen=True, slots=True)
class Place:
    """A state of a proof with the way that led to it.

    Attributes:
        state: state of `rlpost.protocols.Tactics`.
        goals: its goals.
        tactics: the tactics from the beginning.
        ids: tokens sampled since the opening.
        text: their text.
        start: where in the text the next tactic begins; what follows may be its beginning.
    """

    state: Any
    goals: str
    tactics: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()
    text: str = ""
    start: int = 0


@dataclass(frozen=True, slots=True)
class Draft:
    """A sampled tactic.

    Attributes:
        tactic: its text.
        after: the place that follows if it succeeds; its state is still the one before.
        stop: where in the text the tactic ends.
        ended: whether the policy ended its answer here.
    """

    tactic: str
    after: Place
    stop: int
    ended: bool


class WholeProofPolicy:
    """A policy of whole proofs, stopped after each tactic.

    Args:
        config: separators, opening and token limits.
        codec: the policy's tokenizer.
        positions: largest number of tokens that the engine takes.
    """

    def __init__(self, config: RunConfig, codec: Codec, positions: int):
        self.config, self.codec, self.positions = config, codec, positions
        drawn = evaluation_settings(config)
        self.room = drawn.max_tokens
        self.separator = next(filter(None, map(self._written, config.prove.separators)), ())
        """Tokens of the first separator that the vocabulary has; none if it has none."""
        self.ends = (*config.prove.separators, *config.rollout.stop)
        limit = min(config.prove.tactic_tokens, drawn.max_tokens)
        self.settings: SamplingSettings = replace(drawn, logprobs=True, max_tokens=limit, stop=self.ends)

    def _written(self, separator: str) -> tuple[int, ...]:
        try:
            return self.codec.encode_opening(separator)
        except DataError:
            return ()

    def opening(self, prompt: Prompt) -> str:
        """The text with which the answer begins, before the first tactic."""
        return fill(opening_template(self.config, prompt), prompt.columns, f"prove.opening, theorem {prompt.id!r}")

    def begun(self, prompt: Prompt) -> tuple[int, ...]:
        """Tokens of the opening.

        Raises:
            UserError: if the vocabulary lacks some.
        """
        try:
            return self.codec.encode_opening(self.opening(prompt))
        except DataError as error:
            raise UserError(
                f"prove.method best_first: {error}, with which a block of tactics begins: this model cannot write "
                "tactics; use --method sampling, or set prove.opening"
            ) from None

    def context(self, prompt: TokenizedPrompt, place: Place) -> np.ndarray | None:
        """What the policy reads in a place; None if no tactic fits after it."""
        after = np.asarray((*self.begun(prompt.prompt), *place.ids), np.int32)
        ids = np.concatenate([np.asarray(prompt.token_ids, np.int32), after])
        return ids if len(place.ids) < self.room and len(ids) < self.positions else None

    def draft(self, place: Place, sampled: Sequence[int]) -> Draft | None:
        """The tactic in what was sampled; None if it cannot be told from what stood before."""
        ids = (*place.ids, *sampled)
        text = self.codec.text(ids)
        if not text.startswith(place.text):  # the decoder has changed its mind about the tokens before
            return None
        found = [(at, len(end)) for end in self.ends if (at := text.find(end, len(place.text))) >= 0]
        stop, width = min(found, default=(len(text), 0))
        if not found:  # an end token: what follows begins after a separator, as after any other tactic
            while ids and self.codec.text(ids[:-1]) == text:
                ids = ids[:-1]
            ids = (*ids, *self.separator)
            text = self.codec.text(ids)
            width = len(text) - stop
        tactic = text[place.start : stop]
        after = replace(place, ids=ids, text=text, start=stop + width)
        return Draft(tactic, after, stop, ended=not found or _FENCE in tactic)

    def answer(self, prompt: Prompt, draft: Draft) -> str | None:
        """The answer as the policy would have written it in one go."""
        whole = self.opening(prompt) + draft.after.text[: draft.stop]
        return f"{whole}\n{_FENCE}" if whole.count(_FENCE) % 2 else whole


class StatePolicy:
    """A policy from state to tactic: its prompt holds the goals, its answer is one tactic.

    Args:
        config: template and token limits.
        codec: the policy's tokenizer, which encodes prompts too.
        positions: largest number of tokens that the engine takes.
    """

    def __init__(self, config: RunConfig, codec: Any, positions: int):
        self.codec, self.limit = codec, min(config.prove.state_tokens, positions - 1)
        self.section = config.data.model_copy(
            update={"template": config.prove.state_template, "chat_template": None, "last_assistant": "refuse"}
        )
        drawn, self.stop = evaluation_settings(config), config.rollout.stop
        limit = min(config.prove.tactic_tokens, drawn.max_tokens)
        self.settings: SamplingSettings = replace(drawn, logprobs=True, max_tokens=limit)

    def context(self, prompt: TokenizedPrompt, place: Place) -> np.ndarray | None:
        """See `WholeProofPolicy.context`."""
        row = {**prompt.prompt.columns, "state": place.goals}
        [asked] = make_prompts(self.section, [row], "prove.state_template")
        ids = np.asarray(self.codec.encode(asked), np.int32)
        return ids if len(ids) <= self.limit else None

    def draft(self, place: Place, sampled: Sequence[int]) -> Draft:
        """See `WholeProofPolicy.draft`."""
        text = self.codec.text(sampled, self.stop)
        return Draft(text.strip(), place, len(text), ended=True)

    def answer(self, prompt: Prompt, draft: Draft) -> None:
        """Nothing: no prompt of the policy asks for a whole proof."""


def opening_template(config: RunConfig, prompt: Prompt) -> str:
    """``prove.opening``, or what suits the prompt: nothing after ``by`` and a line break, a line break after ``by``, a
    block of code for chats, `` by`` elsewhere.
    """
    if config.prove.opening is not None:
        return config.prove.opening
    if config.scoring.verifier_args.get("form") == "tactic":
        return "\n" if (prompt.text or "").endswith("by") else ""
    return f"{_FENCE}lean\n{{formal}}\n" if prompt.messages is not None else " by"


@dataclass(slots=True, eq=False)
class TacticSearch(Search):
    """The search for one theorem: its open states, and the one that is being expanded."""

    frontier: Frontier[Place] = field(default_factory=Frontier[Place])
    node: Node[Place] | None = None


@dataclass(slots=True, eq=False)
class _Step:
    """A draft of a search, with the log-probability of the way up to its end."""

    search: TacticSearch
    draft: Draft
    logprob: float


class BestFirst:
    """`rlpost.loop.prove.Method`: one state of each theorem is expanded per round, all in one batch.

    Args:
        config: the run configuration.
        engines: what it calls.
        policy: makes contexts of places and tactics of samples.
        tactics: Lean, step by step.
    """

    def __init__(self, config: RunConfig, engines: Engines, policy: WholeProofPolicy | StatePolicy, tactics: Tactics):
        self.config, self.engines, self.policy, self.tactics = config, engines, policy, tactics

    def start(self, prompt: TokenizedPrompt) -> TacticSearch:
        """See `rlpost.loop.prove.Method`."""
        section = self.config.prove
        search = TacticSearch(
            prompt, section, self.config.run.seed, frontier=Frontier(section.alpha, section.max_depth)
        )
        first = self.tactics.begin(prompt.prompt.columns)
        if first.kind != "open":
            search.end("undecided" if first.kind == "undecided" else "unreadable", first.detail)
        elif not self._push(search, Place(first.state, first.goals), 0.0, 0, first.goals):
            search.end("exhausted", "the prompt leaves no room for a tactic")
        return search

    def request(self, search: TacticSearch) -> GroupRequest | None:
        """See `rlpost.loop.prove.Method`."""
        search.node = search.frontier.pop()
        if search.node is None and search.section.reopen:
            search.frontier.reopen()
            search.node = search.frontier.pop()
        if search.node is None:
            search.end("exhausted", f"no state is left to expand after {search.calls} model calls")
            return None
        ids = self.policy.context(search.prompt, search.node.state)
        assert ids is not None  # `_push` has seen it
        return GroupRequest(TokenizedPrompt(search.prompt.prompt, ids), search.seeds())

    def round(self, asked: Sequence[tuple[TacticSearch, GroupRequest]]) -> None:
        """See `rlpost.loop.prove.Method`."""
        groups = self.engines.generate([request for _, request in asked], self.policy.settings)
        steps: list[_Step] = []
        for (search, _), group in zip(asked, groups, strict=True):
            search.heard(group)
            steps += self._drafts(search, group)
        results = self._run(steps)
        proved: dict[int, list[_Step]] = {}
        for step, result in zip(steps, results, strict=True):
            step.search.states += 1
            if result.kind == "proved":
                proved.setdefault(id(step.search), []).append(step)
            else:
                self._open(step, result)
        self._verify([found for search, _ in asked if (found := proved.get(id(search)))])

    def _drafts(self, search: TacticSearch, group: GroupReceipt) -> list[_Step]:
        """The distinct tactics of a group, each written in its likeliest way; those that were cut are left out."""
        assert search.node is not None
        best: dict[Hashable, _Step] = {}
        for trajectory, receipt in zip(self.engines.fetch(group.tokens), group.trajectories, strict=True):
            if receipt.status != "done":
                continue
            draft = self.policy.draft(search.node.state, trajectory.token_ids[trajectory.mask].tolist())
            if draft is None or receipt.logprob is None:
                continue
            step = _Step(search, draft, search.node.logprob + receipt.logprob)
            known = best.setdefault((draft.tactic, draft.ended), step)
            if step.logprob > known.logprob:
                best[draft.tactic, draft.ended] = step
        return list(best.values())

    def _run(self, steps: Sequence[_Step]) -> list[ProofStep]:
        """Results of all steps; what Lean could not decide is tried once more."""
        pairs = [(step.draft.after.state, step.draft.tactic) for step in steps]
        results = self.tactics.run(pairs)
        again = [i for i, result in enumerate(results) if result.kind == "undecided"]
        for i, result in zip(again, self.tactics.run([pairs[i] for i in again]) if again else (), strict=True):
            results[i] = result
        return results

    def _open(self, step: _Step, result: ProofStep) -> None:
        """Keep what a step leads to for later, if anything."""
        search, draft = step.search, step.draft
        assert search.node is not None
        depth = search.node.depth + 1
        before = search.node.state
        if result.kind == "undecided":
            search.doubt = search.doubt or f"Lean could not decide a tactic ({result.detail})"
        elif result.kind == "open":
            place = replace(
                draft.after, state=result.state, goals=result.goals, tactics=(*before.tactics, draft.tactic)
            )
            self._push(search, place, step.logprob, depth, result.goals)
        elif result.kind == "unfinished" and not draft.ended:
            begun = replace(draft.after, start=before.start)
            self._push(search, begun, step.logprob, depth, (before.goals, draft.tactic))
        elif result.kind == "blank" and not draft.ended:
            self._push(search, draft.after, step.logprob, depth, (before.goals, len(draft.after.ids)))

    def _push(self, search: TacticSearch, place: Place, logprob: float, depth: int, key: Hashable) -> bool:
        fits = self.policy.context(search.prompt, place) is not None
        return fits and search.frontier.push(key, place, logprob, depth)

    def _verify(self, found: Sequence[Sequence[_Step]]) -> None:
        """Give the proofs that Lean's steps have found to the verifier: as the policy would have written them, and as
        they were run.
        """
        groups: list[GroupReceipt] = []
        for steps in found:
            prompt, answers = steps[0].search.prompt, list[Trajectory]()
            for step in steps:
                before = step.search.node
                assert before is not None
                texts = (
                    self.policy.answer(prompt.prompt, step.draft),
                    self.tactics.answer((*before.state.tactics, step.draft.tactic)),
                )
                for text in texts:
                    if text is not None:
                        answers.append(one_turn(prompt.token_ids, (), text, index=len(answers)))
            groups.append(GroupReceipt(None, prompt.prompt, tuple(map(Receipt.of, answers)), tuple(answers)))
        if not groups:
            return
        for steps, scored in zip(found, self.engines.score(groups), strict=True):
            steps[0].search.attempts += len(steps)
            steps[0].search.judged(scored, lambda one=scored: [each.answer for each in one.tokens])
