"""The records that pass from stage to stage: prompts, completions, verdicts, rewards, training samples, weights.

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
    """One message of a chat: a role, such as ``user`` or ``assistant``, and its text.

    >>> Message("user", "Prove it.").role
    'user'
    """

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question to the policy, together with the data set's columns, which the template, verifier and rewards read.

    Exactly one of ``text`` and ``messages`` is set; ``id`` is unique within its data set.

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
    """A prompt with its token ids ``[P]``, tokenized once at the start (`rlpost.data.load.tokenized_prompts`).

    >>> TokenizedPrompt(Prompt("t1", text="x"), (5, 6)).token_ids
    (5, 6)
    """

    prompt: Prompt
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled answer to a prompt: the trajectory of a single turn.

    Attributes:
        prompt_id: ``Prompt.id`` of the prompt that it answers.
        index: position in its group, 0-based.
        prompt_ids: the prompt's token ids, ``[P]``.
        token_ids: the sampled ids, ``[T]``, the end-of-sequence token included where it was sampled.
        offsets: half-open character spans of ``text``, one per sampled token, ``[T]``; tokens that share a character
            share its span, special tokens have a zero-length span.
        logprobs: natural-log probability of each sampled token under the engine, ``[T]``, or None.
        text: the decoded completion without special tokens.
        finish_reason: ``stop`` (end token or stop string), ``length`` (token limit), ``abort`` (cut off by us).
        policy_version: version of the weights that it was sampled with.
        seed: random seed of this sample.

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
    """One answer to verify: the columns of its prompt and the model's text.

    >>> VerifyItem({"statement": "True"}, "trivial").text
    'trivial'
    """

    columns: Mapping[str, Any]
    text: str


@dataclass(frozen=True, slots=True)
class ItemVerdict:
    """The verdict on one part of a completion, located by a character span of the text (verifiers know no tokenizer).

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
    """The result of verifying one completion.

    ``accepted`` and ``rejected`` are statements about the answer; ``undecided`` is a statement about the
    verifier (a lost worker, an unreachable backend, time up without the CPU being used) and never counts as wrong.

    Attributes:
        outcome: ``accepted``, ``rejected`` or ``undecided``.
        score: 1.0 or 0.0 for a binary verifier, any finite number for a graded one, None exactly when undecided.
        reason: a code from the verifier's closed set.
        items: verdicts on parts of the completion.
        assurance: name of the check that the verdict rests on, e.g. ``elaborated`` or ``kernel_replayed``.
        evidence: plain data for people and transcripts, such as messages, axioms or matched items.
        seconds: wall-clock time of this check.
        cpu_seconds: CPU time of this check, or None where the backend cannot tell.
        backend: fingerprint of the backend that decided (name, version, hash).
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
    """A reward for the tokens ``start`` to ``stop`` (half-open) of one completion.

    Attributes:
        start: first token of the span.
        stop: one past the last token; equal to ``start`` for a span without tokens (e.g. a missing rank), which
            counts in the group's baseline and trains no token.
        value: the reward, or the advantage itself with the channel ``advantage``.
        index: values are compared with those of the same index in the group: 0 for the whole completion, the rank in
            a list, the number of a tactic.
        channel: ``reward`` is normalised within the group, ``advantage`` is added afterwards unchanged.

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
"""The reward of one completion, as spans; a completion whose check stayed undecided has ``None`` instead."""


@dataclass(frozen=True, slots=True)
class RewardOutput:
    """The answer of a reward stage that also logs metrics.

    Attributes:
        rewards: the new reward of each completion, None where it stays None.
        metrics: metrics of this group by name; the run logs their mean over groups as ``reward/<stage>/<name>``.

    >>> RewardOutput([None], {"hits": 2.0}).metrics["hits"]
    2.0
    """

    rewards: Sequence[Reward | None]
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Group:
    """All completions of one prompt, with their verdicts and rewards; every tuple runs parallel to ``completions``.

    Attributes:
        prompt: the prompt that all completions answer.
        completions: the sampled answers.
        verdicts: the verifier's verdicts, None for a completion that no verifier has checked.
        rewards: the rewards after the reward stages that have run so far, None where undecided. A truncated
            completion that counts as wrong gets 0 after the stages that do not need the learner; until then None.
        learner_logprobs: log-probabilities ``[T]`` of each completion under the policy that sampled it, computed by the
            learner for reward stages that need them; empty otherwise.
        stage_rewards: per reward stage, the amount it added to the sum of each completion's rewards; None where the
            completion has no reward.
        metrics: metrics that reward stages have reported, by ``<stage>/<name>``.

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
    """One completion with its advantages, as the learner trains on it.

    Attributes:
        prompt_ids: token ids of the prompt, ``[P]`` int64.
        completion_ids: token ids of the completion, ``[T]`` int64.
        advantages: advantage of each token, ``[T]`` float32.
        span_ids: ``[T]`` int64, the span each token belongs to for ratios and span aggregation, -1 for none.
        mask: ``[T]`` bool, the tokens that are trained on; set from positions, never from token identity.
        rollout_logprobs: log-probabilities that the engine reported, ``[T]`` float32, or None.
        policy_version: version of the weights that it was sampled with.
        old_logprobs: log-probabilities under the policy at the start of the step, ``[T]`` float32; None until the
            learner has computed them.
        ref_logprobs: log-probabilities under the frozen reference, ``[T]`` float32; None until computed.

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
        """Tokens of prompt and completion together."""
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True, slots=True)
class Denominators:
    """Counts over a whole (mini)batch, the same on every rank; losses divide by these and by nothing else.

    Attributes:
        tokens: number of trained tokens.
        sequences: number of completions with at least one trained token.
        spans: number of (completion, span id) pairs with at least one trained token.
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
    """The samples of one rollout batch; ``step`` is the number of the batch, 0-based.

    >>> TrainBatch((), 0).step
    0
    """

    samples: tuple[TrainSample, ...]
    step: int


@dataclass(frozen=True, slots=True)
class TensorPayload:
    """A tensor as plain bytes, little-endian and row-major, which a process can hold without torch.

    ``dtype`` is torch's name (``float32``, ``bfloat16``, …); ``data`` is ``uint8 [bytes]``.

    >>> TensorPayload("float32", (1,), np.zeros(4, np.uint8)).nbytes
    4
    """

    dtype: str
    shape: tuple[int, ...]
    data: np.ndarray

    @property
    def nbytes(self) -> int:
        """Size of the data in bytes."""
        return int(self.data.nbytes)


@dataclass(frozen=True, slots=True)
class WeightManifest:
    """The description of a published version, against which the canary checks what an engine holds.

    Attributes:
        base_version: the version that a partial update is applied to; -1 for the model folder that engines start from.
        new_version: the version after the update.
        kind: form of the payload; see `WeightUpdate`.
        checksums: checksum of the bytes of every tensor that an engine must hold after the update, by name. For an
            adapter they include the base model's tensors: an adapter on another base is another policy.
        nbytes: size of the payload in bytes, positions included.
        shapes: shape of each tensor in ``checksums``, by name.
        carries_positions: whether the update carries positions that later updates of the kind ``values`` rely on.

    >>> WeightManifest(0, 1, "full", {"w": "ab"}, 4, {"w": (1,)}).new_version
    1
    """

    base_version: int
    new_version: int
    kind: UpdateKind
    checksums: Mapping[str, str]
    nbytes: int
    shapes: Mapping[str, tuple[int, ...]]
    carries_positions: bool = False


@dataclass(frozen=True, slots=True)
class WeightUpdate:
    """A published version of the weights: its manifest and the tensors, by Hugging Face name.

    ``payload`` holds whole tensors (``full``), the two matrices of each adapted module (``adapter``, scaled so that the
    change is their product), or one-dimensional ``values`` or ``diff``: the new values at the positions in ``index``.
    With ``diff``, a tensor of which more than ``sync.diff_density`` changed is sent whole. With ``values``, only the
    first update of a learner carries positions.

    >>> WeightUpdate(WeightManifest(0, 1, "full", {}, 0, {}), {}).manifest.kind
    'full'
    """

    manifest: WeightManifest
    payload: Mapping[str, TensorPayload]
    index: Mapping[str, TensorPayload] = field(default_factory=dict[str, TensorPayload])


@dataclass(frozen=True, slots=True)
class GradientSketch:
    """A loss and a sketch of its gradient: at most 2048 numbers per tensor, by a fixed random linear projection that
    preserves inner products on average, so that gradients can be compared without keeping them.

    >>> GradientSketch(0.5, {"w": np.array([3.0, 4.0])}).norm
    5.0
    """

    loss: float
    gradient: Mapping[str, np.ndarray]

    @property
    def norm(self) -> float:
        """Estimate of the norm of the whole gradient."""
        return math.sqrt(sum(float(np.square(part, dtype=np.float64).sum()) for part in self.gradient.values()))


@dataclass(frozen=True, slots=True)
class GradientFigures:
    """Loss and gradient of the same few samples, computed in three ways; see `rlpost.learner.gradient_check`.

    Attributes:
        samples: number of samples.
        own: result in the run's own layout (packing, shared prompts, chunks).
        single: result of one sample at a time.
        plain: result of plain torch, without the engine; None on ranks other than 0, and where parameters are sharded.

    >>> GradientFigures(0, GradientSketch(0.0, {}), GradientSketch(0.0, {}), None).plain is None
    True
    """

    samples: int
    own: GradientSketch
    single: GradientSketch
    plain: GradientSketch | None


@dataclass(frozen=True, slots=True)
class TensorDelta:
    """How one tensor has changed: since the version that was compared before it, and since the start of the run.

    *Cast* is the weight rounded to bfloat16; *stored* is the weight in the published dtype.

    Attributes:
        entries: number of entries of the tensor.
        stepped: entries whose cast differs from the version before.
        changed: entries whose cast differs from the start.
        cancelled: entries whose cast has changed at some time and is now as at the start.
        stored_stepped: entries whose stored value differs from the version before.
        stored_changed: entries whose stored value differs from the start.
        step_norm: Euclidean norm of the difference to the version before.
        norm: Euclidean norm of the difference to the start.
        angle: angle between the weights of the version before and now, in radians; 0 for a tensor that is zero.
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
