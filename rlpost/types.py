"""The records that pass from stage to stage: prompts, verdicts, rewards, training samples, weights.

Every record is frozen, slotted and picklable (it travels between Ray actors). `rlpost.trajectory` has the records of
what is rolled out. Shapes: ``L`` is the number of tokens of one sequence, prompt included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

Outcome = Literal["accepted", "rejected", "undecided"]
Channel = Literal["reward", "advantage", "exempt"]
UpdateKind = Literal["full", "adapter", "values", "diff"]
CANDIDATES, FORCED, WITHOUT_CANDIDATES = "candidates", "candidates_forced", "before_candidates"
"""Columns of a prompt that offers candidates: their names, how many are there because they are right, and what the
prompt asks without them, as text.
"""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat.

    Attributes:
        role: such as ``system``, ``user``, ``assistant`` or ``tool``.
        content: its text; None for a turn that only calls tools.
        fields: what else a chat template reads of it, as the data has it: ``tool_calls``, ``tool_call_id``, ``name``,
            ``reasoning_content``, …

    >>> Message("user", "Prove it.").as_dict()
    {'role': 'user', 'content': 'Prove it.'}
    """

    role: str
    content: str | None
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def text(self) -> str:
        """The content; empty where there is none."""
        return self.content or ""

    def as_dict(self) -> dict[str, Any]:
        """The message in the form that chat templates and TRL's reward functions read."""
        return {"role": self.role, "content": self.content, **self.fields}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question to the policy, together with the data set's columns, which the template, verifier and rewards read.

    Exactly one of ``text`` and ``messages`` is set; ``id`` is unique within its data set. A chat whose last message is
    the assistant's is continued from there (a prefill). ``tools`` are the JSON schemas of the functions that a chat's
    template describes to the policy; None for none. ``repairs`` is the id of the data set's prompt that this one asks
    again with a rejected answer (``data.repair``); None for a prompt of the data set.

    >>> Prompt(id="t1", text="∀ p : Prop, p → p :=", columns={"statement": "∀ p : Prop, p → p"}).id
    't1'
    """

    id: str
    text: str | None = None
    messages: tuple[Message, ...] | None = None
    columns: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tools: tuple[Mapping[str, Any], ...] | None = None
    repairs: str | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.messages is None):
            raise ValueError(f"prompt {self.id!r}: give either text or messages, not both and not neither")


@dataclass(frozen=True, slots=True)
class VerifyItem:
    """One answer to verify: the columns of its prompt and the model's text.

    Attributes:
        columns: columns of the prompt.
        text: what the policy wrote; of several turns, the last.
        turns: what it wrote in each turn, if there were several; else empty.

    >>> VerifyItem({"statement": "True"}, "trivial").text
    'trivial'
    """

    columns: Mapping[str, Any]
    text: str
    turns: tuple[str, ...] = ()


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

    def without_evidence(self) -> Verdict:
        """The verdict without items and evidence, which can be as long as the answer."""
        return replace(self, items=(), evidence={})


@dataclass(frozen=True, slots=True)
class SpanReward:
    """A reward for the tokens ``start`` to ``stop`` (half-open) of one trajectory, counted from its prompt's first.

    A span may cover tokens that were not sampled, such as the prompt's: these are not trained on.

    Attributes:
        start: first token of the span.
        stop: one past the last token; equal to ``start`` for a span without tokens (e.g. a missing rank), which
            counts in the group's baseline and trains no token.
        value: the reward, or the advantage itself with the channel ``advantage``.
        index: number of the part that is rewarded: 0 for the whole trajectory, the rank in a list, the number of a
            turn or tactic. Values are compared with those of the same stage and index in the group.
        channel: ``reward`` is normalised within the group, ``advantage`` is added afterwards unchanged, and ``exempt``
            takes the blame from its tokens: where all else sums to an advantage below 0, they have 0. Its value is 0.
        stage: name of the reward stage that pays for this part, which the pipeline fills in; empty for the whole
            trajectory's reward (tokens 0 to L, index 0), to which every stage may add.

    >>> SpanReward(0, 12, 1.0).index
    0
    """

    start: int
    stop: int
    value: float
    index: int = 0
    channel: Channel = "reward"
    stage: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"span [{self.start}, {self.stop}): need 0 <= start <= stop")
        if not np.isfinite(self.value):
            raise ValueError(f"span [{self.start}, {self.stop}): value {self.value!r} is not finite")
        if self.channel == "exempt" and self.value:
            raise ValueError(f"span [{self.start}, {self.stop}): an exempt span pays nothing, not {self.value!r}")


Reward = tuple[SpanReward, ...]
"""The reward of one trajectory, as spans; one whose check stayed undecided has ``None`` instead."""


@dataclass(frozen=True, slots=True)
class RewardOutput:
    """The answer of a reward stage that also logs metrics.

    Attributes:
        rewards: the new reward of each trajectory, None where it stays None.
        metrics: metrics of this group by name; the run logs their mean over groups as ``reward/<stage>/<name>``.
        extras: plain values for the transcript by name, one for each trajectory of the group.

    >>> RewardOutput([None], {"hits": 2.0}).metrics["hits"]
    2.0
    """

    rewards: Sequence[Reward | None]
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    extras: Mapping[str, Sequence[Any]] = field(default_factory=dict[str, "Sequence[Any]"])


@dataclass(frozen=True, slots=True)
class TrainSample:
    """One sequence of a trajectory with the credit of its tokens, as the learner trains on it.

    All arrays are aligned with the tokens themselves. Log-probabilities are NaN where nothing was sampled.

    Attributes:
        token_ids: ``[L]`` int32, prompt included.
        mask: ``[L]`` bool, the tokens that are trained on; follows from segments' origin, never from token identity.
        advantages: advantage of each token, ``[L]`` float32, 0 outside the mask.
        span_ids: ``[L]`` int32, the span each token belongs to for ratios and span aggregation, -1 for none.
        versions: ``[L]`` int32, the policy version that sampled each token, -1 where nothing was sampled.
        rollout_logprobs: log-probabilities under the rollout policy, as the engine reported them, ``[L]`` float32, or
            None.
        proximal_logprobs: log-probabilities under the proximal policy, the learner's at the start of the step, ``[L]``
            float32; None until the learner has computed them.
        ref_logprobs: log-probabilities under the frozen reference, ``[L]`` float32; None until computed.
        part: number of the sequence in its trajectory; only part 0 counts as a sequence in `Denominators`.
        ended: whether the policy ended the trajectory with the last sampled token, by an end token or a stop string.

    >>> mask, none = np.array([False, True, True]), np.full(3, -1, np.int32)
    >>> TrainSample(np.array([1, 5, 2]), mask, np.zeros(3, np.float32), none, none).prompt_tokens
    1
    """

    token_ids: np.ndarray
    mask: np.ndarray
    advantages: np.ndarray
    span_ids: np.ndarray
    versions: np.ndarray
    rollout_logprobs: np.ndarray | None = None
    proximal_logprobs: np.ndarray | None = None
    ref_logprobs: np.ndarray | None = None
    part: int = 0
    ended: bool = False

    @property
    def length(self) -> int:
        """Number L of tokens."""
        return len(self.token_ids)

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens before the first that is trained on, all of them if none is."""
        return int(self.mask.argmax()) if self.mask.any() else len(self.mask)


@dataclass(frozen=True, slots=True)
class Denominators:
    """Counts over a whole (mini)batch, the same on every rank; losses divide by these and by nothing else.

    Attributes:
        tokens: number of trained tokens.
        sequences: number of trajectories with at least one trained token.
        spans: number of (sequence, span id) pairs with at least one trained token; or sequences times
            ``algorithm.spans_per_completion``, where that is set.
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
    """The samples of one rollout batch.

    Attributes:
        samples: the samples.
        step: number of the batch, 0-based.
        traced: numbers of the samples whose treatment is recorded token by token, see `TracedSample`.

    >>> TrainBatch((), 0).step
    0
    """

    samples: Sequence[TrainSample]
    step: int
    traced: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Differences:
    """Sums over tokens of d = log p proximal - log p rollout, in nats: of d, |d|, d² and e^d - 1.

    >>> (Differences(1, 0.5, 0.5, 0.25, 0.65) + Differences(1, -0.5, 0.5, 0.25, -0.39)).mean
    0.0
    """

    tokens: float = 0.0
    signed: float = 0.0
    absolute: float = 0.0
    square: float = 0.0
    excess: float = 0.0

    def __add__(self, other: Differences) -> Differences:
        return Differences(
            self.tokens + other.tokens,
            self.signed + other.signed,
            self.absolute + other.absolute,
            self.square + other.square,
            self.excess + other.excess,
        )

    @property
    def mean(self) -> float:
        """Mean of d; 0 without tokens."""
        return self.signed / max(self.tokens, 1.0)

    @property
    def mean_absolute(self) -> float:
        """Mean of |d|; 0 without tokens."""
        return self.absolute / max(self.tokens, 1.0)


@dataclass(frozen=True, slots=True)
class Surprise:
    """Sums over some sampled tokens y, each with the distribution p that the learner gives its place.

    Attributes:
        tokens: number of tokens.
        entropy: sum of the entropies H of p, in nats.
        excess: sum of -log p(y) - H, whose expectation is 0 if p is what y was drawn from.
        variance: variance of that sum.

    >>> Surprise(2.0, 1.0, 0.1, 0.5).excess
    0.1
    """

    tokens: float = 0.0
    entropy: float = 0.0
    excess: float = 0.0
    variance: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class TracedSample:
    """What one update did with one sample, token by token: ``[L]`` float32 each, NaN outside the trained tokens.

    Attributes:
        logprobs: log-probabilities under the policy at the update.
        proximal: those that the loss took for the proximal policy.
        reference: those of the reference, or None without a KL term.
        advantages: the advantages that the loss was given.
        gradient: derivative of the update's loss by ``logprobs``.

    >>> row = np.zeros(2, np.float32)
    >>> TracedSample(row, row, None, row, row).gradient.tolist()
    [0.0, 0.0]
    """

    logprobs: np.ndarray
    proximal: np.ndarray
    reference: np.ndarray | None
    advantages: np.ndarray
    gradient: np.ndarray


@dataclass(frozen=True, slots=True)
class UpdateRecord:
    """What self-checks look at of one optimizer update, over all ranks.

    Attributes:
        epoch: the pass over the batch, 0-based.
        first: whether the policy was still the one that the step began with.
        indices: numbers of the samples of the minibatch, as its micro-batches hold them.
        differences: by class of position, see `rlpost.selfcheck.mismatch.CLASSES`; empty where the engine reported no
            log-probabilities.
        untrained: sampled tokens of the minibatch, by the engine's report, that were not trained on.
        surprise: of the trained tokens, estimated from some that are drawn at random.
        traced: what was done with the samples of the batch that were to be traced.

    >>> UpdateRecord(0, True, (0, 1), {}, 0, Surprise(), {}).epoch
    0
    """

    epoch: int
    first: bool
    indices: tuple[int, ...]
    differences: Mapping[str, Differences]
    untrained: int
    surprise: Surprise
    traced: Mapping[int, TracedSample]


@dataclass(frozen=True, slots=True)
class StepReport:
    """The result of all updates of a rollout batch: metrics, and what self-checks look at.

    >>> StepReport({"updates": 1.0}).updates
    ()
    """

    metrics: dict[str, float]
    updates: tuple[UpdateRecord, ...] = ()


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
