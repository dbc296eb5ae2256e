"""Trajectories: everything that is rolled out, token by token, and the receipts that the driver holds of it.

A trajectory is a prompt, what the policy sampled, and what an environment wrote. A prompt with one answer is the
trajectory of one turn. Shapes: ``L`` is the number of tokens of a trajectory, prompt included. Token ids are the record
of what was sampled; text is derived from them, never the other way round.

Tokens stay where they were sampled: the driver handles receipts, whose size does not grow with the tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np

from rlpost.types import Prompt, Reward, Verdict

FinishReason = Literal["stop", "length", "abort"]
Origin = Literal["prompt", "policy", "environment"]
Status = Literal["done", "length", "turns", "aborted"]

VersionSpan = tuple[int, int, int]
"""(version, start, stop): the tokens ``start`` to ``stop`` were sampled by this policy version."""


class ByValue:
    """Equality of records that hold arrays: all fields are equal, NaN equals NaN."""

    __slots__ = ()
    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))  # pyright: ignore[reportArgumentType]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) != isinstance(other, np.ndarray):
        return False
    if isinstance(one, np.ndarray):
        exact = one.dtype == other.dtype and one.shape == other.shape
        return exact and bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
    return bool(one == other)


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedPrompt(ByValue):
    """A prompt with its token ids ``[P]`` int32, tokenized once at the start (`rlpost.data.load.tokenized_prompts`).

    >>> TokenizedPrompt(Prompt("t1", text="x"), np.array([5, 6], np.int32)).token_ids.tolist()
    [5, 6]
    """

    prompt: Prompt
    token_ids: np.ndarray


@dataclass(frozen=True, slots=True)
class Ticket:
    """The admission of a group: which prompt is rolled out, with which seeds, under which policy version.

    Tickets are numbered in the order of admission over the whole run, also across resumes. Those of the data set's
    prompts follow its order; between them are those of prompts from the pool of ``data.repair``. Evaluations and probes
    have none.

    Attributes:
        number: 0-based.
        prompt_id: ``Prompt.id``, which for a prompt of the pool names the answer that it asks again.
        seeds: seed of each trajectory of the group.
        version: policy version that the engines served when the group was admitted.

    >>> Ticket(0, "t1", (16, 17), 0).seeds
    (16, 17)
    """

    number: int
    prompt_id: str
    seeds: tuple[int, ...]
    version: int


@dataclass(frozen=True, slots=True, eq=False)
class Completion(ByValue):
    """What an engine sampled for one request.

    Attributes:
        token_ids: the sampled ids, ``[T]`` int32, the end-of-sequence token included where it was sampled.
        logprobs: natural-log probability of each sampled token, ``[T]`` float32; None if they were not asked for.
        finish: ``stop`` (end token or stop string), ``length`` (token limit), ``abort`` (cut off by us).
        versions: the policy versions that sampled it: spans that cover ``[0, T)`` in order.

    Raises:
        ValueError: if log-probabilities or versions do not fit the tokens.

    >>> Completion(np.array([7, 2], np.int32), None, "stop", ((0, 0, 2),)).finish
    'stop'
    """

    token_ids: np.ndarray
    logprobs: np.ndarray | None
    finish: FinishReason
    versions: tuple[VersionSpan, ...]

    def __post_init__(self) -> None:
        size = len(self.token_ids)
        if self.logprobs is not None and len(self.logprobs) != size:
            raise ValueError(f"a completion has {size} tokens and {len(self.logprobs)} log-probabilities")
        ends = [0, *(stop for _, _, stop in self.versions)]
        if [start for _, start, _ in self.versions] != ends[:-1] or ends[-1] != size:
            raise ValueError(f"the versions {self.versions} of a completion do not cover its {size} tokens")


@dataclass(frozen=True, slots=True, eq=False)
class Segment(ByValue):
    """A stretch of a trajectory's tokens that have one origin.

    Attributes:
        origin: ``prompt``, ``policy`` (sampled, and trained on) or ``environment`` (observed, never trained on).
        start: first token.
        stop: one past the last token.
        turn: number of the turn, 0-based; an observation has that of the policy turn it answers; -1 for the prompt.
        text: the text of the tokens without special tokens, cut at a stop string; empty for the prompt.
        offsets: half-open character spans of ``text``, ``[n, 2]`` int32; tokens that share a character share its span,
            special tokens have one of length zero. None unless a reward stage asks for them.
        finish: how a sampled turn ended; ``length`` for an observation that was cut to its budget.
        reward: the environment's reward for a policy turn; None if it gave none.
        failed: whether the environment called a policy turn a failure; None if it was not asked.
        roles: roles of the messages that an observation was given as, a user's where it was text; a prompt that was
            rewritten for an observation has them too.

    >>> Segment("policy", 3, 5, 0, "ok", finish="stop").stop
    5
    """

    origin: Origin
    start: int
    stop: int
    turn: int
    text: str = ""
    offsets: np.ndarray | None = None
    finish: FinishReason | None = None
    reward: float | None = None
    failed: bool | None = None
    roles: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.offsets is not None and len(self.offsets) != self.stop - self.start:
            raise ValueError(f"a segment has {self.stop - self.start} tokens and {len(self.offsets)} offsets")


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory(ByValue):
    """A prompt with all that follows it, token by token.

    Where a chat template rewrites earlier messages, the tokens of the next turn do not begin with those so far. The
    trajectory then continues in a further *sequence*, which begins with another segment of origin ``prompt``.

    Attributes:
        ticket: the group's admission; None for evaluations and probes.
        index: position in its group, 0-based.
        token_ids: ``[L]`` int32, all sequences one after the other.
        logprobs: log-probability of each token under the engine, ``[L]`` float32, NaN where nothing was sampled; None
            if they were not asked for.
        versions: policy versions of the sampled tokens, in order.
        segments: cover ``[0, L)`` in order, beginning with the prompt.
        status: ``done``; ``length``: cut at a limit on tokens; ``turns``: cut at the limit on turns; ``aborted``: cut
            off by us or by a failure.
        verdict: the environment's verdict on the whole; None if it gave none.
        unknown: number of observed tokens that stand for text which the tokenizer does not know.

    >>> one_turn((1, 2), (7, 3), "ok").mask.tolist()
    [False, False, True, True]
    """

    ticket: Ticket | None
    index: int
    token_ids: np.ndarray
    logprobs: np.ndarray | None
    versions: tuple[VersionSpan, ...]
    segments: tuple[Segment, ...]
    status: Status
    verdict: Verdict | None = None
    unknown: int = 0

    def __post_init__(self) -> None:
        ends = [0, *(segment.stop for segment in self.segments)]
        if [segment.start for segment in self.segments] != ends[:-1] or ends[-1] != len(self.token_ids):
            raise ValueError(f"segments end at {ends[1:]} in a trajectory of {len(self.token_ids)} tokens")
        if not self.segments or self.segments[0].origin != "prompt":
            raise ValueError("a trajectory begins with its prompt")
        if self.logprobs is not None and len(self.logprobs) != len(self.token_ids):
            raise ValueError(
                f"a trajectory has {len(self.token_ids)} tokens and {len(self.logprobs)} log-probabilities"
            )

    @property
    def length(self) -> int:
        """Number L of all tokens."""
        return len(self.token_ids)

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens of the prompt."""
        return self.segments[0].stop

    @property
    def turns(self) -> tuple[Segment, ...]:
        """The segments that the policy sampled; at least one, which may be empty."""
        return tuple(segment for segment in self.segments if segment.origin == "policy")

    @property
    def sampled(self) -> int:
        """Number of sampled tokens."""
        return sum(segment.stop - segment.start for segment in self.turns)

    @property
    def mask(self) -> np.ndarray:
        """``[L]`` bool, true for sampled tokens; follows from the segments' origin, never from token identity."""
        mask = np.zeros(self.length, bool)
        for segment in self.turns:
            mask[segment.start : segment.stop] = True
        return mask

    @property
    def text(self) -> str:
        """All text after the prompt, the environment's included; of a single turn, the policy's answer."""
        return "".join(segment.text for segment in self.segments)

    @property
    def answer(self) -> str:
        """The text of the last turn."""
        turns = self.turns
        return turns[-1].text if turns else ""

    @property
    def sequences(self) -> tuple[tuple[int, int], ...]:
        """Half-open token spans of the sequences, one unless a chat template has rewritten earlier messages."""
        starts = [segment.start for segment in self.segments if segment.origin == "prompt"]
        return tuple(zip(starts, [*starts[1:], self.length], strict=True))


def one_turn(
    prompt_ids: Sequence[int] | np.ndarray,
    token_ids: Sequence[int] | np.ndarray,
    text: str = "",
    *,
    offsets: Sequence[tuple[int, int]] | np.ndarray | None = None,
    logprobs: Sequence[float] | np.ndarray | None = None,
    finish: FinishReason = "stop",
    version: int = 0,
    index: int = 0,
    ticket: Ticket | None = None,
) -> Trajectory:
    """The trajectory of a prompt and one answer.

    >>> one_turn((1, 2), (7, 3), "ok", logprobs=(-0.5, -0.25)).logprobs.tolist()[2:]
    [-0.5, -0.25]
    """
    begin, size = len(prompt_ids), len(token_ids)
    ids = np.concatenate([np.asarray(prompt_ids, np.int32), np.asarray(token_ids, np.int32)])
    values = None
    if logprobs is not None:
        values = np.concatenate([np.full(begin, np.nan, np.float32), np.asarray(logprobs, np.float32)])
    spans = None if offsets is None else np.asarray(offsets, np.int32).reshape(-1, 2)
    status: dict[FinishReason, Status] = {"stop": "done", "length": "length", "abort": "aborted"}
    return Trajectory(
        ticket=ticket,
        index=index,
        token_ids=ids,
        logprobs=values,
        versions=((version, begin, begin + size),) if size else (),
        segments=(
            Segment("prompt", 0, begin, -1),
            Segment("policy", begin, begin + size, 0, text, spans, finish),
        ),
        status=status[finish],
    )


def digest(data: bytes) -> bytes:
    """A hash of 16 bytes."""
    return hashlib.blake2b(data, digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the driver holds of a trajectory: everything that planning and metrics need, and no token.

    Attributes:
        index: position in its group.
        status: see `Trajectory`.
        sequences: see `Trajectory.sequences`.
        turns: half-open token spans of the sampled turns.
        versions: see `Trajectory`.
        contexts: for each sequence, a digest of the token ids before its first sampled one; sequences with equal
            contexts can share their computation.
        text: digest of the text, to count distinct answers.
        tokens: digest of all token ids: equal texts may have been sampled as different tokens.
        logprob: log-probability of everything that was sampled, as the engine reported it; None if it did not.
        failed: number of turns that an environment called failures; None if none answered.
        unknown: see `Trajectory`.

    >>> Receipt.of(one_turn((1, 2), (7, 3), "ok")).sampled
    2
    """

    index: int
    status: Status
    sequences: tuple[tuple[int, int], ...]
    turns: tuple[tuple[int, int], ...]
    versions: tuple[VersionSpan, ...]
    contexts: tuple[bytes, ...]
    text: bytes
    tokens: bytes
    logprob: float | None = None
    failed: int | None = None
    unknown: int = 0

    @classmethod
    def of(cls, trajectory: Trajectory) -> Receipt:
        """The receipt of a trajectory."""
        turns = tuple((segment.start, segment.stop) for segment in trajectory.turns)
        judged = [segment.failed for segment in trajectory.turns if segment.failed is not None]
        begins = [first for first, last in turns if first < last]
        contexts = [
            trajectory.token_ids[start : min((begin for begin in begins if start <= begin < stop), default=stop)]
            for start, stop in trajectory.sequences
        ]
        return cls(
            index=trajectory.index,
            status=trajectory.status,
            sequences=trajectory.sequences,
            turns=turns,
            versions=trajectory.versions,
            contexts=tuple(digest(np.ascontiguousarray(ids, np.int32).tobytes()) for ids in contexts),
            text=digest(trajectory.text.encode("utf-8", "surrogatepass")),
            tokens=digest(np.ascontiguousarray(trajectory.token_ids, np.int32).tobytes()),
            logprob=None if trajectory.logprobs is None else float(np.nansum(trajectory.logprobs, dtype=np.float64)),
            failed=sum(judged) if judged else None,
            unknown=trajectory.unknown,
        )

    @property
    def length(self) -> int:
        """Number of all tokens."""
        return self.sequences[-1][1]

    @property
    def sampled(self) -> int:
        """Number of sampled tokens."""
        return sum(stop - start for start, stop in self.turns)


@dataclass(frozen=True, slots=True)
class Group:
    """All trajectories of one prompt with their verdicts and rewards, as reward stages get them.

    Every tuple runs parallel to ``trajectories``.

    Attributes:
        prompt: the prompt that all trajectories begin with.
        trajectories: the members of the group.
        verdicts: the verdicts, None for a trajectory that nothing has checked.
        rewards: the rewards after the reward stages that have run so far, None where undecided. A truncated trajectory
            that counts as wrong is None for every stage and gets its reward after them (`rlpost.scoring.truncation`).
        learner_logprobs: log-probabilities ``[L]`` of each trajectory under the policy that sampled it, computed by the
            learner for reward stages that need them, NaN where nothing was sampled; empty otherwise.
        stage_rewards: per reward stage, the amount it added to the sum of each trajectory's rewards; None where the
            trajectory has no reward.
        metrics: metrics that reward stages have reported, by ``<stage>/<name>``.
        extras: plain values that reward stages noted for the transcript, by ``<stage>/<name>``.

    >>> Group(Prompt("t1", text="x"), ()).rewards
    ()
    """

    prompt: Prompt
    trajectories: tuple[Trajectory, ...]
    verdicts: tuple[Verdict | None, ...] = ()
    rewards: tuple[Reward | None, ...] = ()
    learner_logprobs: tuple[np.ndarray, ...] = ()
    stage_rewards: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict[str, tuple[float | None, ...]])
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    extras: Mapping[str, tuple[Any, ...]] = field(default_factory=dict[str, "tuple[Any, ...]"])


@dataclass(frozen=True, slots=True)
class GroupReceipt:
    """What the driver holds of a group: receipts, verdicts without their evidence, rewards, and handles of the rest.

    Attributes:
        ticket: the group's admission; None for evaluations.
        prompt: the prompt that all trajectories begin with.
        trajectories: receipts of the members.
        tokens: handle of the trajectories, a tuple of `Trajectory`.
        verdicts: as in `Group`, without items and evidence; empty before scoring.
        rewards: as in `Group`.
        stage_rewards: as in `Group`.
        metrics: as in `Group`.
        extras: as in `Group`.
        evidence: handle of the full verdicts, a tuple parallel to ``trajectories``; None before scoring.
        proximal: handle of the learner's log-probabilities, a tuple of arrays as ``Group.learner_logprobs``; None if
            they were not computed.

    >>> GroupReceipt(None, Prompt("t1", text="x"), (), ()).verdicts
    ()
    """

    ticket: Ticket | None
    prompt: Prompt
    trajectories: tuple[Receipt, ...]
    tokens: Any
    verdicts: tuple[Verdict | None, ...] = ()
    rewards: tuple[Reward | None, ...] = ()
    stage_rewards: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict[str, tuple[float | None, ...]])
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    extras: Mapping[str, tuple[Any, ...]] = field(default_factory=dict[str, "tuple[Any, ...]"])
    evidence: Any = None
    proximal: Any = None


@dataclass(frozen=True, slots=True)
class SampleReceipt:
    """What the driver holds of a training sample: one sequence of a trajectory, and the credit of its tokens.

    Attributes:
        receipt: receipt of the trajectory.
        tokens: handle of its group's trajectories.
        part: number of the sequence in the trajectory; only part 0 counts as a sequence in `Denominators`.
        reward: the spans of the trajectory.
        advantages: one advantage per span.
        proximal: handle of the group's log-probabilities under the learner, or None; see `GroupReceipt`.

    >>> SampleReceipt(Receipt.of(one_turn((1,), (7, 3))), (), 0, (), ()).sampled
    2
    """

    receipt: Receipt
    tokens: Any
    part: int
    reward: Reward
    advantages: tuple[float, ...]
    proximal: Any = None

    @property
    def span(self) -> tuple[int, int]:
        """The half-open token span of the sequence."""
        return self.receipt.sequences[self.part]

    @property
    def context(self) -> bytes:
        """Digest of the token ids before the first sampled one."""
        return self.receipt.contexts[self.part]

    @property
    def turns(self) -> list[tuple[int, int]]:
        """The sampled stretches of the sequence, as positions in the trajectory."""
        start, stop = self.span
        return [turn for turn in self.receipt.turns if start <= turn[0] and turn[1] <= stop and turn[0] < turn[1]]

    @property
    def sampled(self) -> int:
        """Number of sampled tokens."""
        return sum(stop - start for start, stop in self.turns)


@dataclass(frozen=True, slots=True)
class BatchReceipt:
    """What the driver holds of a rollout batch for the learner; attributes as of `rlpost.types.TrainBatch`.

    >>> BatchReceipt((), 0).step
    0
    """

    samples: tuple[SampleReceipt, ...]
    step: int
    traced: frozenset[int] = frozenset()
