"""Episodes: an engine's steps and environments' replies, pumped together until trajectories are complete.

A turn of one trajectory never waits for another's: whatever an engine finishes is answered at once, and whatever an
environment answers is submitted at the engine's next step. Tokens go in as they came out: the context of a turn is the
tokens so far and those of the observation alone; what was sampled is never decoded and encoded again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from rlpost.errors import DataError, InfrastructureError, describe_error
from rlpost.protocols import (
    EnvironmentCalls,
    GenerateRequest,
    GroupRequest,
    Observation,
    Reply,
    RolloutEngine,
    SamplingSettings,
    Turn,
)
from rlpost.rollout.sampling import turn_seed
from rlpost.trajectory import (
    Completion,
    FinishReason,
    Segment,
    Status,
    Ticket,
    TokenizedPrompt,
    Trajectory,
    VersionSpan,
)
from rlpost.types import Prompt, Verdict

_TOGETHER = 8
"""Most groups that are handed out at a time: each handing out costs a message to the driver."""
_IDLE_S = 0.05
"""Wait for environments while the engine has nothing to do; short, so that the deadline is seen."""


Finished = tuple[int, tuple[Trajectory, ...]]
"""Position of a request, and its trajectories by index."""


class Codec(Protocol):
    """Text of tokens, and tokens of observations; `rlpost.data.tokenizer.TextCodec` is one."""

    def decode(self, ids: Sequence[int], stop: Sequence[str] = ()) -> tuple[str, tuple[tuple[int, int], ...]]:
        """Text of sampled ids and the character span of each."""
        ...

    def text(self, ids: Sequence[int], stop: Sequence[str] = ()) -> str:
        """The same text without the spans, which costs less."""
        ...

    def dialogue(self, prompt: Prompt) -> Dialogue:
        """The prompt's dialogue, which makes the tokens that follow a turn."""
        ...


class Dialogue(Protocol):
    """The messages of one trajectory so far.

    Attributes:
        unknown: number of observed tokens so far that stand for text which the tokenizer does not know.
    """

    unknown: int

    def observe(self, answer: str | None, last: int | None, observation: Observation) -> tuple[np.ndarray, bool]:
        """Token ids that follow a turn with this text, and whether they are a whole new context instead.

        ``answer`` and ``last``, the last sampled token, are None for an observation before the first turn.

        Raises:
            DataError: for an observation that does not fit the prompt.
        """
        ...


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits on a trajectory with an environment.

    Attributes:
        turns: largest number of policy turns.
        tokens: largest number of tokens after the prompt, sampled and observed; where history is rewritten, by which a
            sequence may be longer than the first prompt.
        observation: largest number of tokens of one observation; the rest is cut off.

    >>> Budget(4, 64, 16).turns
    4
    """

    turns: int
    tokens: int
    observation: int


def stream(
    engine: RolloutEngine,
    requests: Sequence[GroupRequest],
    settings: SamplingSettings,
    codec: Codec,
    *,
    deadline_s: float | None = None,
    offsets: bool = False,
    environments: EnvironmentCalls | None = None,
    budget: Budget | None = None,
) -> Iterator[list[Finished]]:
    """Roll out, and yield each request's trajectories as soon as all of them are complete.

    Trajectories that are unfinished at the deadline are yielded with status ``aborted`` and what they have so far.

    Args:
        engine: an engine in this process.
        requests: prompts with the seeds of their groups.
        settings: sampling settings.
        codec: the policy's tokenizer.
        deadline_s: seconds from now; None for no limit.
        offsets: keep the character spans of sampled tokens.
        environments: the environments that answer; None: every trajectory has one turn.
        budget: limits of trajectories with an environment.

    Yields:
        Groups that have become complete, in the order they did: `_TOGETHER` if as many end in one step, else fewer.
    """
    end = math.inf if deadline_s is None else time.monotonic() + deadline_s
    run = _Run(engine, settings, codec, offsets, environments, budget)
    try:
        run.begin(requests)
        while run.open and time.monotonic() <= end:
            yield from run.pump()
    finally:  # also if the caller stops iterating early
        run.abort()
    yield from run.take()


def each(finished: Iterable[list[Finished]]) -> Iterator[Finished]:
    """The groups of `stream` one by one."""
    return (group for several in finished for group in several)


def _step(engine: RolloutEngine, own: Container[int]) -> list[tuple[int, Completion]]:
    """What the engine ends in a step; all of it must be the caller's own.

    Raises:
        InfrastructureError: for a request that somebody else submitted and would wait for forever.
    """
    ended = engine.step()
    if others := [number for number, _ in ended if number not in own]:
        raise InfrastructureError(
            f"rollout: the engine ended request {others[0]}, which was not submitted here; it serves one call at a time"
        )
    return ended


class _Run:
    """All episodes of one call of `stream`."""

    def __init__(
        self,
        engine: RolloutEngine,
        settings: SamplingSettings,
        codec: Codec,
        offsets: bool,
        environments: EnvironmentCalls | None,
        budget: Budget | None,
    ):
        self.engine, self.settings, self.codec, self.offsets = engine, settings, codec, offsets
        self.environments = environments
        self.budget = budget or Budget(1, settings.max_tokens, 0)
        self.episodes: dict[int, Episode] = {}
        self.sampling: dict[int, int] = {}
        """Number of each running engine request, with the key of its episode."""
        self.asking: set[int] = set()
        """Keys of the episodes that wait for their environment."""
        self.groups: list[dict[int, Trajectory]] = []
        self.sizes: list[int] = []
        self.complete: list[int] = []

    @property
    def open(self) -> int:
        """Number of episodes that are not over."""
        return len(self.episodes)

    def begin(self, requests: Sequence[GroupRequest]) -> None:
        """Start all episodes."""
        for place, request in enumerate(requests):
            self.groups.append({})
            self.sizes.append(len(request.seeds))
            for index, seed in enumerate(request.seeds):
                key = len(self.episodes)
                dialogue = self.codec.dialogue(request.prompt.prompt) if self.environments else None
                self.episodes[key] = Episode(
                    place, index, seed, request.ticket, dialogue, [np.asarray(request.prompt.token_ids, np.int32)]
                )
                if self.environments is not None:
                    # one seed for the whole group: siblings are compared, so they meet the same environment
                    self.environments.begin(key, request.prompt.prompt.columns, request.seeds[0])
                    self.asking.add(key)
        if self.environments is None:
            self._sample(list(self.episodes))

    def pump(self) -> Iterator[list[Finished]]:
        """Advance the engine by a step, and take what environments have answered; yields groups that are complete."""
        if self.sampling:
            for number, completion in _step(self.engine, self.sampling):
                self._sampled(self.sampling.pop(number), completion)
                yield from self.take(_TOGETHER)
        if self.environments is not None and self.asking:
            ready = [self._answered(*one) for one in self.environments.answers(0.0 if self.sampling else _IDLE_S)]
            self._sample([key for key in ready if key is not None])
        yield from self.take()

    def take(self, least: int = 1) -> Iterator[list[Finished]]:
        """Groups that have become complete since the last call, if there are at least as many."""
        while len(self.complete) >= least:
            done, self.complete = self.complete[:_TOGETHER], self.complete[_TOGETHER:]
            yield [self._group(place) for place in done]

    def _group(self, place: int) -> Finished:
        members, self.groups[place] = self.groups[place], {}
        return place, tuple(members[index] for index in range(self.sizes[place]))

    def abort(self) -> None:
        """End all episodes that are not over, with what they have."""
        if self.sampling:
            for number, completion in self.engine.abort(list(self.sampling)):
                key = self.sampling.pop(number, None)
                if key is not None:
                    self._add_turn(self.episodes[key], completion)
        for key in list(self.episodes):
            self._finish(key, "aborted")

    def _sample(self, keys: Sequence[int]) -> None:
        """Submit the next turn of some episodes."""
        requests = [
            GenerateRequest(
                self.episodes[key].context(),
                min(self.settings.max_tokens, self._room(self.episodes[key])),
                turn_seed(self.episodes[key].seed, self.episodes[key].turn),
            )
            for key in keys
        ]
        if requests:
            self.sampling |= dict(zip(self.engine.submit(requests, self.settings), keys, strict=True))

    def _room(self, episode: Episode) -> int:
        return self.budget.tokens - episode.after_prompt

    def _sampled(self, key: int, completion: Completion) -> None:
        episode = self.episodes[key]
        turn = self._add_turn(episode, completion)
        if completion.finish == "abort":
            self._finish(key, "aborted")
        elif completion.finish == "length":
            self._finish(key, "length")
        elif self.environments is None:
            self._finish(key, "done")
        else:
            self.environments.reply(key, turn)
            self.asking.add(key)

    def _add_turn(self, episode: Episode, completion: Completion) -> Turn:
        stop = self.settings.stop if completion.finish == "stop" else ()
        ids, offsets = completion.token_ids.tolist(), None
        if not set(self.settings.stop_token_ids).isdisjoint(ids[:-1]):
            raise InfrastructureError(
                f"rollout: an answer goes on after one of the tokens {list(self.settings.stop_token_ids)}, which "
                "rollout.stop names; the engine must end answers at SamplingSettings.stop_token_ids"
            )
        if self.offsets:
            text, spans = self.codec.decode(ids, stop)
            offsets = np.asarray(spans, np.int32).reshape(-1, 2)
        else:
            text = self.codec.text(ids, stop)
        episode.sampled(completion, text, offsets)
        turn = Turn(episode.turn, text, episode.turn + 1 >= self.budget.turns)
        episode.turn += 1
        return turn

    def _answered(self, key: int, answer: Observation | Reply | Exception | None) -> int | None:
        """Take an environment's answer; returns the key if the policy's turn is next."""
        episode = self.episodes.get(key)
        self.asking.discard(key)
        if episode is None:
            return None
        if isinstance(answer, Exception):
            return self._failed(key, answer)
        if isinstance(answer, Reply):
            episode.rewarded(answer)
            if answer.done:
                self._finish(key, "done")
                return None
            answer = answer.observation
        if episode.turn >= self.budget.turns:
            self._finish(key, "turns")
            return None
        if answer is not None:
            try:
                self._observe(episode, answer)
            except DataError as error:
                return self._failed(key, error)
        if self._room(episode) < 1:
            self._finish(key, "length")
            return None
        return key

    def _failed(self, key: int, error: Exception) -> None:
        """Leave a trajectory undecided: its environment failed, which says nothing about the policy."""
        said = {"messages": [describe_error(error)]}
        self.episodes[key].verdict = Verdict("undecided", None, "environment_failed", evidence=said)
        self._finish(key, "aborted")

    def _observe(self, episode: Episode, observation: Observation) -> None:
        assert episode.dialogue is not None
        last = int(episode.ids[-1][-1]) if episode.answer is not None and len(episode.ids[-1]) else None
        ids, rewritten = episode.dialogue.observe(episode.answer, last, observation)
        text = observation if isinstance(observation, str) else "\n".join(m.text for m in observation)
        roles = ("user",) if isinstance(observation, str) else tuple(m.role for m in observation)
        if rewritten:
            episode.restarted(ids, roles)
        else:
            cut = max(min(self.budget.observation, self._room(episode)), 0)
            episode.observed(ids[:cut], text, "length" if len(ids) > cut else None, roles)

    def _finish(self, key: int, status: Status) -> None:
        episode = self.episodes.pop(key)
        self.asking.discard(key)
        if self.environments is not None:
            self.environments.end(key)
        members = self.groups[episode.place]
        members[episode.index] = episode.trajectory(status, self.settings.logprobs)
        if len(members) == self.sizes[episode.place]:
            self.complete.append(episode.place)


@dataclass(slots=True)
class Episode:
    """A trajectory in the making.

    Attributes:
        place: position of its request.
        index: position in its group.
        seed: seed of its first turn.
        ticket: admission of its group.
        dialogue: the messages so far; None without an environment.
        ids: token ids so far, in pieces.
    """

    place: int
    index: int
    seed: int
    ticket: Ticket | None
    dialogue: Dialogue | None
    ids: list[np.ndarray]
    turn: int = 0
    answer: str | None = None
    verdict: Verdict | None = None
    length: int = field(init=False)
    start: int = 0
    """First token of the present sequence."""
    prompt: int = field(init=False)
    """Number of tokens of the prompt."""
    logprobs: list[tuple[int, np.ndarray]] = field(default_factory=list[tuple[int, np.ndarray]])
    versions: list[VersionSpan] = field(default_factory=list[VersionSpan])
    segments: list[Segment] = field(default_factory=list[Segment])

    def __post_init__(self) -> None:
        self.length = self.prompt = len(self.ids[0])
        self.segments.append(Segment("prompt", 0, self.length, -1))

    @property
    def after_prompt(self) -> int:
        """Number of tokens by which the present sequence is longer than the prompt."""
        return self.length - self.start - self.prompt

    def context(self) -> np.ndarray:
        """Token ids of the present sequence so far."""
        whole = self.ids[0] if len(self.ids) == 1 else np.concatenate(self.ids)
        return whole[self.start :]

    def sampled(self, completion: Completion, text: str, offsets: np.ndarray | None) -> None:
        """Append a turn of the policy."""
        begin, size = self.length, len(completion.token_ids)
        if completion.logprobs is not None:
            self.logprobs.append((begin, completion.logprobs))
        for version, start, stop in completion.versions:
            if self.versions and self.versions[-1][0] == version and self.versions[-1][2] == begin + start:
                self.versions[-1] = (version, self.versions[-1][1], begin + stop)
            else:
                self.versions.append((version, begin + start, begin + stop))
        self._append(completion.token_ids)
        self.segments.append(Segment("policy", begin, begin + size, self.turn, text, offsets, completion.finish))
        self.answer = text

    def rewarded(self, reply: Reply) -> None:
        """Note the environment's reward for the last turn, whether it failed, and the verdict so far."""
        if reply.verdict is not None:
            self.verdict = reply.verdict
        reward = None if reply.reward is None else float(reply.reward)
        self.segments[-1] = replace(self.segments[-1], reward=reward, failed=reply.failed)

    def observed(self, ids: np.ndarray, text: str, finish: FinishReason | None, roles: tuple[str, ...]) -> None:
        """Append an observation."""
        begin, turn = self.length, max(self.turn - 1, 0)
        self._append(ids)
        self.segments.append(Segment("environment", begin, self.length, turn, text, finish=finish, roles=roles))

    def restarted(self, ids: np.ndarray, roles: tuple[str, ...]) -> None:
        """Go on in a further sequence with this prompt; if nothing was sampled yet, replace the present prompt."""
        if not self.turn:
            self.ids, self.segments, self.length = [], [], 0
        self.start = self.length
        self._append(ids)
        self.segments.append(Segment("prompt", self.start, self.length, self.turn - 1, roles=roles))

    def trajectory(self, status: Status, logprobs: bool) -> Trajectory:
        """The finished trajectory."""
        segments = self.segments
        if segments[-1].origin != "policy" and self.turn == 0:  # ended before its first turn
            segments = [*segments, Segment("policy", self.length, self.length, 0, "", finish="abort")]
        values = None
        if logprobs:
            values = np.full(self.length, np.nan, np.float32)
            for begin, part in self.logprobs:
                values[begin : begin + len(part)] = part
        return Trajectory(
            ticket=self.ticket,
            index=self.index,
            token_ids=np.concatenate(self.ids).astype(np.int32, copy=False),
            logprobs=values,
            versions=tuple(self.versions),
            segments=tuple(segments),
            status=status,
            verdict=self.verdict,
            unknown=self.dialogue.unknown if self.dialogue is not None else 0,
        )

    def _append(self, ids: np.ndarray) -> None:
        self.ids.append(np.asarray(ids, np.int32))
        self.length += len(ids)


def complete(
    engine: RolloutEngine, requests: Sequence[GenerateRequest], settings: SamplingSettings, deadline_s: float
) -> list[Completion]:
    """Completions of single requests, in order; those that are unfinished at the deadline are aborted."""
    places = {number: place for place, number in enumerate(engine.submit(requests, settings))}
    found: dict[int, Completion] = {}
    end = time.monotonic() + deadline_s
    while len(found) < len(places) and time.monotonic() <= end:
        found |= {places[number]: completion for number, completion in _step(engine, places)}
    late = [number for number, place in places.items() if place not in found]
    found |= {places[number]: completion for number, completion in (engine.abort(late) if late else [])}
    return [found[place] for place in range(len(places))]


def greedy(engine: RolloutEngine, prompts: Sequence[np.ndarray], tokens: int) -> list[Trajectory]:
    """Greedy completions of prompts, with log-probabilities and without texts; for `RolloutEngine.probe`."""
    settings = SamplingSettings(max_tokens=tokens, temperature=0.0)
    nameless = Prompt("probe", text="")
    asked = [GroupRequest(TokenizedPrompt(nameless, np.asarray(ids, np.int32)), (0,)) for ids in prompts]
    found = dict(each(stream(engine, asked, settings, _NoText())))
    return [found[place][0] for place in range(len(prompts))]


class _NoText:
    """A codec for probes, whose texts nobody reads."""

    def decode(self, ids: Sequence[int], stop: Sequence[str] = ()) -> tuple[str, tuple[tuple[int, int], ...]]:
        return "", ((0, 0),) * len(ids)

    def text(self, ids: Sequence[int], stop: Sequence[str] = ()) -> str:
        return ""

    def dialogue(self, prompt: Prompt) -> Dialogue:
        raise NotImplementedError
