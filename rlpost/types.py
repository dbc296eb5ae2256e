"""The records that cross a stage, and nothing else.

Every record is frozen, slotted and picklable (it travels between Ray actors). Shapes: ``T`` is the number of
sampled tokens of one completion, ``P`` the number of prompt tokens. Token ids are the record of what was sampled;
text is derived from them, never the other way round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

FinishReason = Literal["stop", "length", "abort"]
Outcome = Literal["accepted", "rejected", "undecided"]
Channel = Literal["reward", "advantage"]
UpdateKind = Literal["full", "adapter", "values", "diff"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat.

    >>> Message("user", "Prove it.").role
    'user'
    """

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the policy is asked, with everything the verifier will need.

    Exactly one of ``text`` and ``messages`` is set.

    >>> Prompt(id="t1", text="∀ p : Prop, p → p :=", columns={"statement": "∀ p : Prop, p → p"}).id
    't1'
    """

    id: str
    text: str | None = None
    messages: tuple[Message, ...] | None = None
    columns: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if (self.text is None) == (self.messages is None):
            raise ValueError(f"prompt {self.id!r}: give either text or messages, not both and not neither")


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """A prompt with its token ids ``[P]``, made once (`rlpost.data.load.tokenized_prompts`).

    >>> TokenizedPrompt(Prompt("t1", text="x"), (5, 6)).token_ids
    (5, 6)
    """

    prompt: Prompt
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled answer: the trajectory of a single turn.

    Attributes:
        prompt_id: ``Prompt.id`` it answers.
        index: position in its group, 0-based.
        prompt_ids: the prompt's token ids, ``[P]``.
        token_ids: the sampled ids, ``[T]``, the end-of-sequence token included where it was sampled.
        offsets: for each sampled token the half-open character span of ``text`` it contributes to, ``[T]``;
            tokens that share a character share its span, special tokens have a zero-length span.
        logprobs: natural-log probability of each sampled token under the engine, ``[T]``, or None.
        text: the decoded completion without special tokens.
        finish_reason: ``stop`` (end token or stop string), ``length`` (token limit), ``abort`` (cut off by us).
        policy_version: version of the weights that sampled it.
        seed: the seed of this sample.

    >>> c = Completion("t1", 0, (1, 2), (7, 2), ((0, 2), (2, 2)), (-0.1, -0.2), "ok", "stop", 0, 17)
    >>> len(c.token_ids) == len(c.offsets) == len(c.logprobs)
    True
    """

    prompt_id: str
    index: int
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    logprobs: tuple[float, ...] | None
    text: str
    finish_reason: FinishReason
    policy_version: int
    seed: int

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.token_ids):
            raise ValueError(
                f"completion of {self.prompt_id!r}: {len(self.token_ids)} tokens, {len(self.offsets)} offsets"
            )
        if self.logprobs is not None and len(self.logprobs) != len(self.token_ids):
            raise ValueError(
                f"completion of {self.prompt_id!r}: {len(self.token_ids)} tokens, {len(self.logprobs)} logprobs"
            )


@dataclass(frozen=True, slots=True)
class VerifyItem:
    """One question to a verifier: the prompt's columns and the model's text.

    >>> VerifyItem({"statement": "True"}, "trivial").text
    'trivial'
    """

    columns: Mapping[str, Any]
    text: str


@dataclass(frozen=True, slots=True)
class ItemVerdict:
    """A verdict on one part of a completion, located by character span (verifiers know no tokenizer).

    >>> ItemVerdict(0, 5, "accepted", 1.0, "hit").score
    1.0
    """

    start: int
    stop: int
    outcome: Outcome
    score: float
    reason: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier found.

    ``accepted`` and ``rejected`` are statements about the answer; ``undecided`` is a statement about the
    verifier (a lost worker, a backend away, wall clock gone without the CPU being used) and never counts as wrong.

    Attributes:
        outcome: accepted, rejected or undecided.
        score: 1.0 or 0.0 for a binary verifier, any finite number for a graded one, None exactly when undecided.
        reason: a code from the verifier's closed set.
        items: verdicts on parts of the completion.
        assurance: what the verdict rests on, e.g. ``elaborated`` or ``kernel_replayed``.
        evidence: messages, axioms, matched items: plain data for people and transcripts.
        seconds: wall-clock time of this check.
        cpu_seconds: CPU time of this check, or None where the backend cannot tell.
        backend: fingerprint of what decided (name, version, hash).
        cached: whether the verdict was taken from a cache.
        queued_seconds: wall-clock time this check waited for a worker of the backend.

    >>> Verdict("undecided", None, "crashed").score is None
    True
    """

    outcome: Outcome
    score: float | None
    reason: str
    items: tuple[ItemVerdict, ...] = ()
    assurance: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict[str, Any])
    seconds: float = 0.0
    cpu_seconds: float | None = None
    backend: str = ""
    cached: bool = False
    queued_seconds: float = 0.0

    def __post_init__(self) -> None:
        if (self.outcome == "undecided") != (self.score is None):
            raise ValueError(f"verdict {self.reason!r}: outcome {self.outcome} cannot go with score {self.score!r}")
        if self.score is not None and not np.isfinite(self.score):
            raise ValueError(f"verdict {self.reason!r}: score {self.score!r} is not finite")


@dataclass(frozen=True, slots=True)
class SpanReward:
    """A value for the tokens ``start`` to ``stop`` (half-open) of one completion.

    Attributes:
        start: first token of the span.
        stop: one past the last token; equal to ``start`` for a span without tokens (e.g. a missing rank), which
            takes part in the group's baseline and moves no token.
        value: the reward.
        index: what groups are normalised by: 0 for the whole completion, the rank in a list, the tactic's number.
        channel: ``reward`` is normalised within the group, ``advantage`` is added afterwards as it is.

    >>> SpanReward(0, 12, 1.0).index
    0
    """

    start: int
    stop: int
    value: float
    index: int = 0
    channel: Channel = "reward"

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"span [{self.start}, {self.stop}): need 0 <= start <= stop")
        if not np.isfinite(self.value):
            raise ValueError(f"span [{self.start}, {self.stop}): value {self.value!r} is not finite")


Reward = tuple[SpanReward, ...]
"""The reward of one completion; a completion that could not be judged has ``None`` in its place."""


@dataclass(frozen=True, slots=True)
class RewardOutput:
    """What a reward stage answers when it has figures to be logged besides rewards.

    Attributes:
        rewards: the new reward of each completion, None where it stays None.
        metrics: figures of this group; the run logs their mean over groups as ``reward/<stage>/<name>``.

    >>> RewardOutput([None], {"hits": 2.0}).metrics["hits"]
    2.0
    """

    rewards: Sequence[Reward | None]
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Group:
    """The completions of one prompt with what became of them; all tuples run parallel to ``completions``.

    Attributes:
        prompt: what was asked.
        completions: the sampled answers.
        verdicts: of the verifier, None where nobody judged.
        rewards: after the reward stages that have run so far.
        learner_logprobs: log-probabilities ``[T]`` of each completion under the policy that sampled it, computed by the
            learner for reward stages that need them; empty otherwise.
        stage_rewards: by reward stage, what it added to the sum of each completion's rewards; None where undecided.
        metrics: figures that reward stages added, ``<stage>/<name>``.

    >>> p = Prompt("t1", text="x")
    >>> Group(p, (), (), ()).rewards
    ()
    """

    prompt: Prompt
    completions: tuple[Completion, ...]
    verdicts: tuple[Verdict | None, ...] = ()
    rewards: tuple[Reward | None, ...] = ()
    learner_logprobs: tuple[np.ndarray, ...] = ()
    stage_rewards: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict[str, tuple[float | None, ...]])
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class TrainSample:
    """One completion, ready for the learner.

    Attributes:
        prompt_ids: ``[P]`` int64.
        completion_ids: ``[T]`` int64.
        advantages: ``[T]`` float32.
        span_ids: ``[T]`` int64, the span each token belongs to for ratios and span aggregation, -1 for none.
        mask: ``[T]`` bool, the tokens that are trained on; set from positions, never from token identity.
        rollout_logprobs: ``[T]`` float32 as the engine reported them, or None.
        policy_version: version that sampled it.
        old_logprobs: ``[T]`` float32 under the policy at the start of the update, filled in by the learner's pre-pass.
        ref_logprobs: ``[T]`` float32 under the frozen reference, filled in likewise.

    >>> one = np.ones(2, np.float32)
    >>> TrainSample(np.array([1]), np.array([5, 2]), one, np.zeros(2, np.int64), np.ones(2, bool), None, 0).length
    3
    """

    prompt_ids: np.ndarray
    completion_ids: np.ndarray
    advantages: np.ndarray
    span_ids: np.ndarray
    mask: np.ndarray
    rollout_logprobs: np.ndarray | None
    policy_version: int
    old_logprobs: np.ndarray | None = None
    ref_logprobs: np.ndarray | None = None

    @property
    def length(self) -> int:
        """Prompt and completion together, in tokens."""
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True, slots=True)
class Denominators:
    """Counts over a whole (mini)batch, on every rank the same; losses divide by these and by nothing else.

    Attributes:
        tokens: trained tokens.
        sequences: completions with at least one trained token.
        spans: (completion, span id) pairs with at least one trained token.
        max_tokens: the constant length of Dr. GRPO's aggregation.

    >>> Denominators(10, 2, 2, 64).tokens
    10
    """

    tokens: int
    sequences: int
    spans: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class TrainBatch:
    """The samples of one rollout step. ``step`` counts rollout batches.

    >>> TrainBatch((), 0).step
    0
    """

    samples: tuple[TrainSample, ...]
    step: int


@dataclass(frozen=True, slots=True)
class TensorPayload:
    """A tensor as plain bytes that every process can hold without torch: little-endian, row-major.

    ``dtype`` is torch's name (``float32``, ``bfloat16``, …); ``data`` is ``uint8 [bytes]``.

    >>> TensorPayload("float32", (1,), np.zeros(4, np.uint8)).nbytes
    4
    """

    dtype: str
    shape: tuple[int, ...]
    data: np.ndarray

    @property
    def nbytes(self) -> int:
        """Size on the wire."""
        return int(self.data.nbytes)


@dataclass(frozen=True, slots=True)
class WeightManifest:
    """What a published version must look like once applied.

    Attributes:
        base_version: the version that an incomplete update changes; -1 for the model folder that engines start from.
        new_version: the version it makes.
        kind: what the payload is; see `WeightUpdate`.
        checksums: for each name that an engine must then hold, the checksum of its bytes. Of an adapter these are the
            base's tensors too: an adapter on another base is another policy.
        nbytes: size of the payload, positions included.
        shapes: of those names.
        declares: whether it tells positions that later values rely on.

    >>> WeightManifest(0, 1, "full", {"w": "ab"}, 4, {"w": (1,)}).new_version
    1
    """

    base_version: int
    new_version: int
    kind: UpdateKind
    checksums: Mapping[str, str]
    nbytes: int
    shapes: Mapping[str, tuple[int, ...]]
    declares: bool = False


@dataclass(frozen=True, slots=True)
class WeightUpdate:
    """A published version: the manifest and the tensors, in Hugging Face names.

    ``payload`` holds whole tensors (``full``), the two matrices of each adapted module (``adapter``, scaled so that the
    change is their product), or one-dimensional ``values`` or ``diff``: new values at the positions in ``index``, or a
    whole tensor where nearly all of it changed. Of ``values`` only the first update of a learner carries positions.

    >>> WeightUpdate(WeightManifest(0, 1, "full", {}, 0, {}), {}).manifest.kind
    'full'
    """

    manifest: WeightManifest
    payload: Mapping[str, TensorPayload]
    index: Mapping[str, TensorPayload] = field(default_factory=dict[str, TensorPayload])


@dataclass(frozen=True, slots=True)
class GradientSketch:
    """A loss, and its gradient in a few thousand numbers per tensor: a fixed linear projection that keeps inner
    products on average, so that gradients can be compared of which none is held.

    >>> GradientSketch(0.5, {"w": np.array([3.0, 4.0])}).norm
    5.0
    """

    loss: float
    gradient: Mapping[str, np.ndarray]

    @property
    def norm(self) -> float:
        """Estimate of the gradient's norm."""
        return math.sqrt(sum(float(np.square(part, dtype=np.float64).sum()) for part in self.gradient.values()))


@dataclass(frozen=True, slots=True)
class GradientFigures:
    """Loss and gradient of a few samples, computed in three ways; see `rlpost.learner.gradient_check`.

    Attributes:
        samples: how many.
        own: as the run lays them out.
        single: one sample at a time.
        plain: with plain torch; None where it cannot be run, on sharded parameters.

    >>> GradientFigures(0, GradientSketch(0.0, {}), GradientSketch(0.0, {}), None).plain is None
    True
    """

    samples: int
    own: GradientSketch
    single: GradientSketch
    plain: GradientSketch | None


@dataclass(frozen=True, slots=True)
class TensorDelta:
    """A tensor's movement, or several tensors' together.

    Attributes:
        entries: of the tensor.
        stepped: entries whose cast differs from the version looked at before.
        changed: entries whose cast differs from the start.
        cancelled: entries whose cast was changed once and is as at the start.
        stored_stepped: entries whose published value differs from the version before.
        stored_changed: entries whose published value differs from the start.
        step_norm: of the difference to the version before.
        norm: of the difference to the start.
        angle: between the weights of the version before and now, radians; 0 for a tensor that is zero.
    """

    entries: int
    stepped: int
    changed: int
    cancelled: int
    stored_stepped: int
    stored_changed: int
    step_norm: float
    norm: float
    angle: float
