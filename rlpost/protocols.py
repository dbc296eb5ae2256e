"""The interfaces between stages: what the training loop asks of engines, scoring workers and learner.

The loop (`rlpost.loop`) is typed by `RolloutPool`, `ScoringPool`, `Learner` and `Supervision`. `rlpost.actors`
implements them on Ray, and tests use fakes of a few lines. The actors of a pool hold the objects of one process:
`RolloutEngine`, or `Verifier` and `RewardStage`; a learner is built on a `TrainEngine`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from rlpost.trajectory import (
    BatchReceipt,
    ByValue,
    Completion,
    Group,
    GroupReceipt,
    Ticket,
    TokenizedPrompt,
    Trajectory,
)
from rlpost.types import (
    GradientFigures,
    Message,
    Prompt,
    Reward,
    RewardOutput,
    StepReport,
    TensorDelta,
    Verdict,
    VerifyItem,
    WeightManifest,
    WeightUpdate,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


# Rollouts -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class GenerateRequest(ByValue):
    """A request to an engine for one completion.

    Attributes:
        token_ids: the context, ``[P]`` int32: the prompt, and all turns so far.
        max_tokens: limit on sampled tokens.
        seed: seed of the random numbers; equal requests with equal seeds are answered alike by the same weights.

    >>> GenerateRequest(np.array([1, 2], np.int32), 8, 1000).max_tokens
    8
    """

    token_ids: np.ndarray
    max_tokens: int
    seed: int


@dataclass(frozen=True, slots=True)
class GroupRequest:
    """A request to the engines for a group: one trajectory for each seed.

    Attributes:
        prompt: the prompt; an environment reads its columns.
        seeds: seed of each trajectory's first turn, from which those of later turns are derived.
        ticket: admission of the group; None for evaluations.

    >>> GroupRequest(TokenizedPrompt(Prompt("t1", text="x"), np.array([1], np.int32)), (16, 17)).ticket
    """

    prompt: TokenizedPrompt
    seeds: tuple[int, ...]
    ticket: Ticket | None = None


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """Sampling parameters, the same for every request of a call.

    Attributes:
        max_tokens: limit on sampled tokens of one turn.
        temperature: divisor of the logits; 0 is greedy.
        top_p: nucleus mass in (0, 1].
        top_k: number of candidate tokens kept; -1 for all.
        stop: strings that end a completion; they are cut from its text and stay in its token ids.
        stop_token_ids: token ids that end a completion, next to the model's own end tokens; they stay in its token ids.
            Special tokens have no text, so a stop string that is one stands here.
        logprobs: whether the log-probability of each sampled token is reported.
        constrained: whether only tokens are sampled that ``rollout.constraint`` allows, before temperature, ``top_p``
            and ``top_k`` act; log-probabilities are those of the distribution over them. Probes are not constrained.

    >>> SamplingSettings(max_tokens=8).temperature
    1.0
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    stop: tuple[str, ...] = ()
    logprobs: bool = True
    stop_token_ids: tuple[int, ...] = ()
    constrained: bool = False


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """The model and the limits that an engine is started with, in addition to the configuration.

    Attributes:
        model: Hugging Face folder of the starting policy.
        probes: token ids of the pinned prompts that `RolloutEngine.probe` answers.
        max_num_seqs: largest number of completions that run at once.
        max_model_len: longest sequence, prompt and all turns together, in tokens.

    >>> EngineSpec("model", (np.array([1, 2]),), 8, 256).max_num_seqs
    8
    """

    model: str
    probes: tuple[np.ndarray, ...]
    max_num_seqs: int
    max_model_len: int


@dataclass(frozen=True, slots=True)
class ApplyReport:
    """The weights that an engine holds after an update, read back from its own parameters.

    Attributes:
        version: the policy version now served.
        checksums: checksum of the engine's bytes by published Hugging Face name, or ``missing``.
        changed: number of published names whose bytes in the engine differ from before the update.
        seconds: wall-clock time to apply the update, reading back included.

    >>> ApplyReport(1, {"w": "ab"}, 1, 0.1).changed
    1
    """

    version: int
    checksums: Mapping[str, str]
    changed: int
    seconds: float


@runtime_checkable
class RolloutEngine(Protocol):
    """An inference engine in one process: it samples completions with the weights of a known policy version.

    ``rollout.engine: module:Class`` names one of your own: it is called with the `rlpost.config.schema.RunConfig` and
    an `EngineSpec`, in the process of its actor. `rlpost.rollout.episode` drives it, and makes texts of its tokens.
    """

    def submit(self, requests: Sequence[GenerateRequest], settings: SamplingSettings) -> list[int]:
        """Queue requests; returns a new number for each."""
        ...

    def step(self) -> list[tuple[int, Completion]]:
        """Advance queued requests by one step; returns the completions that ended in it with their request numbers."""
        ...

    def abort(self, numbers: Collection[int]) -> list[tuple[int, Completion]]:
        """End these requests; returns what they have sampled so far, with finish reason ``abort``."""
        ...

    def apply(self, update: WeightUpdate) -> ApplyReport:
        """Replace the weights in place, drop the prefix cache of the old ones, and read back what is now held."""
        ...

    def probe(self) -> list[Trajectory]:
        """Complete the pinned prompts greedily, with log-probabilities to compare with the learner's."""
        ...

    def parity(self, prompts: Sequence[np.ndarray] = ()) -> tuple[list[Trajectory], list[Trajectory]]:
        """Complete pinned and given prompts greedily, with the prefix cache as it is, and again with it emptied."""
        ...

    def close(self) -> None:
        """End every process this engine started."""
        ...


class MemoryReporting(Protocol):
    """A group of actors whose memory the run monitors."""

    def memory(self) -> dict[str, tuple[float, float]]:
        """Resident memory of each actor in MiB, and the part of it that is not shared, by actor name."""
        ...


class RolloutPool(MemoryReporting, Protocol):
    """All rollout engines, as the loop sees them."""

    def stream(
        self, requests: Sequence[GroupRequest], settings: SamplingSettings
    ) -> Iterator[tuple[int, GroupReceipt]]:
        """Yield the position of a request with its group, as soon as all trajectories of it are finished."""
        ...

    def generate(self, requests: Sequence[GroupRequest], settings: SamplingSettings) -> list[GroupReceipt]:
        """Return the group of each request, in request order."""
        ...

    def apply(self, update: Any, manifest: WeightManifest) -> list[ApplyReport]:
        """Load a published version into every engine; ``update`` is the handle from `Learner.export`."""
        ...

    def probe(self) -> list[list[Trajectory]]:
        """`RolloutEngine.probe` of every engine."""
        ...

    def parity(self, prompts: Sequence[np.ndarray]) -> list[tuple[list[Trajectory], list[Trajectory]]]:
        """`RolloutEngine.parity` of every engine."""
        ...


# Environments ---------------------------------------------------------------------------------------------------------

Observation = str | Sequence[Message]
"""What an environment says: text, or chat messages where the prompt is a chat (text then becomes a user's message)."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What the policy wrote in one turn.

    Attributes:
        number: number of the turn in its trajectory, 0-based.
        text: the text without special tokens, cut at a stop string.
        last: whether the budget of turns ends with this one, so that an observation would not be read.

    >>> Turn(0, "7", False).text
    '7'
    """

    number: int
    text: str
    last: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """An environment's answer to a turn.

    Attributes:
        observation: what the policy reads before its next turn; None only together with ``done``.
        done: whether the trajectory ends here.
        reward: reward of the turn, which the reward stage ``turns`` reads; None for none.
        verdict: verdict on the trajectory so far; the last one given counts where no verifier is configured.
        failed: whether the turn achieved nothing, as a tactic that Lean refuses; only counted, as ``failed_turns``.

    >>> Reply("higher").done
    False
    """

    observation: Observation | None = None
    done: bool = False
    reward: float | None = None
    verdict: Verdict | None = None
    failed: bool = False


class Environment(Protocol):
    """The other side of a dialogue: one object for each trajectory, in the process of an environment actor.

    ``environment.name: module:Class`` names a class that is called with ``environment.args``. Given the row, the seed
    and the turns it must always answer alike: a trajectory whose actor is lost is played to a new one again.
    """

    def begin(self, row: Mapping[str, Any], seed: int) -> Observation | None:
        """Start with the columns of a prompt. All trajectories of a group get the same seed.

        Returns:
            What the policy reads after its prompt, before its first turn; None: the prompt is enough.
        """
        ...

    def reply(self, turn: Turn) -> Reply:
        """Answer a turn. An exception leaves the trajectory undecided; a wrong answer of the policy is no exception."""
        ...

    def close(self) -> None:
        """Free what the object holds; called once, when the trajectory is over."""
        ...


@runtime_checkable
class VerifiedEnvironment(Protocol):
    """An environment whose verdicts a `Verifier` gives, which is tested before a run as ``scoring.verifier`` is."""

    @property
    def verifier(self) -> Verifier:
        """The verifier, one for all environments of the process; it is closed after the last of them."""
        ...


class EnvironmentCalls(Protocol):
    """Environments of other processes, called without waiting; the keys are the caller's."""

    def begin(self, key: int, row: Mapping[str, Any], seed: int) -> None:
        """Start the environment of a trajectory."""
        ...

    def reply(self, key: int, turn: Turn) -> None:
        """Ask it for an answer."""
        ...

    def answers(self, timeout_s: float) -> list[tuple[int, Observation | Reply | Exception | None]]:
        """Return what has been answered since the last call; waits for the first answer until the timeout.

        An exception stands for an environment that raised, was lost repeatedly, or answered too late.
        """
        ...

    def end(self, key: int) -> None:
        """Close the environment of a trajectory that is over."""
        ...


# Scoring --------------------------------------------------------------------------------------------------------------


@runtime_checkable
class Verifier(Protocol):
    """Verifies answers. Verdicts come in input order; equal items are checked once."""

    @property
    def fingerprint(self) -> str:
        """Name, version and settings that verdicts depend on; part of every cache key."""
        ...

    def verify_batch(self, items: Sequence[VerifyItem]) -> list[Verdict]:
        """Return one verdict for each item."""
        ...

    def close(self) -> None:
        """End every process this verifier started."""
        ...


class Report(Protocol):
    """The result of a verifier's own conformance test."""

    @property
    def failures(self) -> Sequence[object]:
        """Gold answers that it did not accept and cheats that it did; empty if it passed."""
        ...

    def summary(self) -> str:
        """One line with the figures and the first failure."""
        ...


@runtime_checkable
class NormalisingVerifier(Protocol):
    """A verifier that knows when two answers are the same but for what it does not read, such as comments."""

    @staticmethod
    def normal_form(text: str) -> str:
        """The text in a form that is equal for answers that are the same."""
        ...


@runtime_checkable
class ReviewingVerifier(Protocol):
    """A verifier that can also comment on an answer without a known right one, as in a conversation."""

    def review(self, columns: Mapping[str, Any], text: str) -> Verdict:
        """Return a verdict whose items describe each part of the answer; its outcome means nothing."""
        ...


@runtime_checkable
class SiftingVerifier(Protocol):
    """A verifier that can name the prompts whose answers it cannot verify, for ``data.unverifiable: drop``."""

    def unverifiable(self, prompts: Sequence[Prompt]) -> Sequence[str | None]:
        """For each prompt, None if its answers can be verified, else why not in one line. The same prompts always get
        the same reply; what cannot be told at the moment (a backend is down) is an `rlpost.errors.InfrastructureError`.
        """
        ...


@runtime_checkable
class BaselineVerifier(Protocol):
    """A verifier that knows simple methods, beside whose answers a policy's are shown."""

    def baselines(self, train: Sequence[Prompt], prompts: Sequence[Prompt], places: int) -> Mapping[str, Sequence[str]]:
        """Answers of each method to prompts, by name, made from training prompts alone.

        Args:
            train: training prompts.
            prompts: held-out prompts, whose ground truth the methods do not read.
            places: number of items of an answer that is a list.
        """
        ...


@runtime_checkable
class SelfTestingVerifier(Protocol):
    """A verifier with checks of its own, which run before it is used for training or evaluation."""

    def conformance(self) -> Report:
        """Verify gold answers and known cheats."""
        ...

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Raise `rlpost.errors.DataError` for prompts whose answers it cannot verify."""
        ...


@dataclass(frozen=True, slots=True)
class ProofStep:
    """What became of one tactic in one state of a proof.

    Attributes:
        kind: ``open``: goals are left; ``proved``: none is, which the verifier has yet to confirm; ``failed``;
            ``unfinished``: a beginning, to be tried again with more text after it; ``blank``: nothing to run;
            ``undecided``: the check failed, and the tactic may be right.
        state: where to go on from, for `Tactics.run`; None unless ``open``.
        goals: the goals that are left, as text; equal states have equal goals.
        detail: what is wrong, for people.

    >>> ProofStep("failed", detail="unknown identifier 'foo'").state
    """

    kind: Literal["open", "proved", "failed", "unfinished", "blank", "undecided"]
    state: Any = None
    goals: str = ""
    detail: str = ""


class Tactics(Protocol):
    """Proofs run tactic by tactic, to guide a search. Used by one thread at a time; ends with its verifier."""

    def begin(self, columns: Mapping[str, Any]) -> ProofStep:
        """The state before any tactic of the theorem in these columns, as a step of kind ``open``."""
        ...

    def run(self, steps: Sequence[tuple[Any, str]]) -> list[ProofStep]:
        """Run each tactic in its state, all in one batch; returns the results in order."""
        ...

    def answer(self, tactics: Sequence[str]) -> str:
        """The proof of these tactics as an answer that the verifier reads."""
        ...


@runtime_checkable
class ProvingVerifier(SiftingVerifier, Verifier, Protocol):
    """A verifier of proofs that ``rlpost prove`` can search with."""

    def read_theorems(
        self, path: str, *, id_key: str, shown: Collection[str] | None
    ) -> list[tuple[dict[str, Any], str | None]]:
        """The theorems of a file as rows, each with why it cannot be used or None.

        Args:
            path: JSON lines.
            id_key: column for the id, which every returned row has; ids are unique.
            shown: columns that the prompt's template shows, so that nothing a proof depends on stays hidden; None if
                the prompt is a column itself.

        Raises:
            DataError: for a file without rows, or an id that is given twice.
        """
        ...

    def tactics(self) -> Tactics:
        """Proofs tactic by tactic."""
        ...


class RewardStage(Protocol):
    """One stage of the reward pipeline: takes a group with its rewards so far and returns the new rewards."""

    needs: tuple[str, ...]
    """What the stage reads besides texts and verdicts: ``rollout_logprobs`` (`Trajectory.logprobs`),
    ``learner_logprobs`` (`Group.learner_logprobs`: the stage and all after it run once the learner has computed them),
    ``offsets`` (`Segment.offsets`). Empty for most.

    A stage may also have a ``floor``, the least value that it pays (None: 0). An answer that was cut at a limit and
    counts as wrong gets no more than that, and no more than the worst finished answer of its group. Where a stage pays
    for parts, it is called once more for such answers alone (all others have the reward None), to say where their
    parts are; the values are lowered as said."""

    def __call__(self, group: Group) -> Sequence[Reward | None] | RewardOutput:
        """Return the new reward of each trajectory, where None stays None; a `RewardOutput` adds metrics to log."""
        ...


@runtime_checkable
class ConcurrentRewardStage(Protocol):
    """A reward stage that waits for others, such as a service that judges, and can wait for many groups at once."""

    concurrent: bool
    """Whether it does; else its groups are rewarded one by one."""

    def answers(self, groups: Sequence[Group]) -> list[Any]:
        """What `RewardStage.__call__` returns for each group, or the exception that it would raise."""
        ...


class ScoringQueue(Protocol):
    """A queue of groups that scoring workers verify and reward while others are still being sampled."""

    def submit(self, position: int, group: GroupReceipt) -> None:
        """Queue a group for verification and rewards."""
        ...

    def results(self) -> dict[int, GroupReceipt]:
        """Wait until all submitted groups are scored; returns them by position.

        Raises:
            RolloutsLostError: if trajectories are gone with the machine that held them.
        """
        ...


class ScoringPool(MemoryReporting, Protocol):
    """All scoring workers, as the loop sees them."""

    needs: frozenset[str]
    """Union of the reward stages' `RewardStage.needs`."""

    def queue(self) -> AbstractContextManager[ScoringQueue]:
        """Open a queue that takes groups one by one while others are being scored."""
        ...

    def score(self, groups: Sequence[GroupReceipt]) -> list[GroupReceipt]:
        """Score groups whose trajectories are all there; returns them in order."""
        ...

    def finish(self, groups: Sequence[GroupReceipt]) -> list[GroupReceipt]:
        """Run the stages that need `GroupReceipt.proximal`, which is filled in; returns the groups in order."""
        ...

    def baselines(
        self, train: Sequence[Prompt], prompts: Sequence[Prompt], places: int, teacher: str | None
    ) -> Mapping[str, Sequence[Verdict]]:
        """Verdicts on the answers of simple methods to prompts, by name; see `BaselineVerifier`.

        ``teacher`` names the column with the answer of whoever the policy was taught by. Empty where the verifier knows
        no methods.
        """
        ...


class TranscriptWriter(Protocol):
    """Writes transcripts of scored groups, and reads single answers, in a process that reads their tokens."""

    def write(self, path: str, groups: Sequence[GroupReceipt], advantages: Sequence[Sequence[float | None]]) -> None:
        """Begin to write the transcript of a step; an error of the one before is raised here."""
        ...

    def answers(
        self, groups: Sequence[GroupReceipt], members: Sequence[Sequence[int]]
    ) -> list[list[tuple[str, tuple[str, ...]]]]:
        """Texts of these members of each group, each with the messages in the evidence of its verdict.

        Raises:
            RolloutsLostError: if they are gone with the machine that held them.
        """
        ...

    def finish(self) -> None:
        """Wait until what was begun is written.

        Raises:
            RlpostError: if that fails.
        """
        ...


# Learning -------------------------------------------------------------------------------------------------------------


class Learner(MemoryReporting, Protocol):
    """The owner of the trained weights: it computes log-probabilities and updates, on one or more ranks."""

    def logprobs(
        self,
        trajectories: Sequence[Trajectory],
        *,
        reference: bool = False,
        temperature: float | None = None,
        constrained: bool = True,
    ) -> list[np.ndarray]:
        """Compute log-probabilities ``[L]`` of each trajectory, NaN where nothing was sampled; returns them in order.

        ``reference``: under the frozen reference. ``temperature``: None for the sampling temperature. ``constrained``:
        under ``rollout.constraint``, where there is one; probes were sampled without.
        """
        ...

    def proximal(self, groups: Sequence[GroupReceipt]) -> list[GroupReceipt]:
        """Compute log-probabilities under the current policy; returns the groups with a handle of them filled in."""
        ...

    def step(self, batch: BatchReceipt) -> StepReport:
        """Make all updates of one rollout batch; returns metrics, and what self-checks look at."""
        ...

    def examine(self, batch: BatchReceipt, plain: Sequence[Any]) -> GradientFigures | None:
        """Compute loss and gradient of a few samples in several ways; None if nothing is trained yet.

        ``plain``: the same samples as `rlpost.selfcheck.plain_samples.PlainSample`.
        """
        ...

    def changes(self) -> dict[str, TensorDelta]:
        """Compare each published tensor with the last call of this method and with the start of the run."""
        ...

    def export(self) -> tuple[WeightManifest, Any]:
        """Publish the current weights: the manifest, and a handle that engines resolve to a `WeightUpdate`."""
        ...

    def save(self, folder: str) -> None:
        """Write a resumable checkpoint."""
        ...

    def load(self, folder: str) -> int:
        """Continue from a checkpoint; returns the policy version."""
        ...

    def save_model(self, folder: str) -> None:
        """Write a Hugging Face folder."""
        ...

    def restart(self, error: Exception) -> None:
        """Start all ranks again from the starting model; ``error`` says how they were lost."""
        ...


class Supervision(Protocol):
    """The bookkeeping of lost and replaced actors."""

    @property
    def lost(self) -> Mapping[str, int]:
        """Number of actors lost so far, by kind."""
        ...

    def take_replaced(self) -> list[str]:
        """Return the names of the actors replaced since the last call."""
        ...

    def log(self, text: str, /) -> object:
        """Show a line to the user."""
        ...


@dataclass(frozen=True, slots=True)
class Applied:
    """One optimizer update: the gradient norm before clipping, and whether the update was skipped because of it."""

    grad_norm: float
    skipped: bool


class TrainEngine(Protocol):
    """Forward, backward and optimizer on one data-parallel rank. All ranks call every method in the same order."""

    rank: int
    world: int
    device: torch.device
    module: Any
    """The policy, a `rlpost.learner.logprob_model.LogprobModel`."""
    tuning: Any
    """The `rlpost.tuning.method.TuningMethod` that says which weights of the module are trained."""
    optimizer: Any
    replicated: bool
    """Whether every rank holds all parameters."""

    def forward(self, *inputs: Tensor, **options: Any) -> Tensor:
        """Compute log-probabilities; arguments as of `rlpost.learner.logprob_model.LogprobModel.forward`."""
        ...

    def backward(self, loss: Tensor, last: bool) -> None:
        """Accumulate gradients; ``last`` marks the minibatch's final micro-batch. Ranks' gradients are *summed*."""
        ...

    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the accumulated gradients of the optimizer's parameters by name, after `backward`, before `apply`."""
        ...

    def discard(self) -> None:
        """Drop accumulated gradients, so that training goes on as if they had never been computed."""
        ...

    def apply(self, lr: float) -> Applied:
        """Make one optimizer update with the accumulated gradients, then clear them."""
        ...

    def owned(self) -> Sequence[Any]:
        """Return what this rank's optimizer updates: `rlpost.optim.movement.Owned`, in the same order every time."""
        ...

    def master(self, name: str) -> Tensor:
        """Return the whole float32 master of a trained parameter, or the parameter itself where it is its own."""
        ...

    def gathered(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
        """Open a block in which these parameters are unsharded on every rank."""
        ...

    def add_over_ranks(self, tensor: Tensor) -> None:
        """All-reduce a tensor in place: it becomes its sum over all ranks."""
        ...

    def sum_over_ranks(self, values: dict[str, float]) -> dict[str, float]:
        """Return the sums of the values over all ranks; every rank passes the same keys."""
        ...

    def share_over_ranks(self, found: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """Return the union of all ranks' results, by sample number."""
        ...

    def save(self, folder: str, state: dict[str, Any]) -> None:
        """Write parameters, optimizer state and ``state`` into a checkpoint folder."""
        ...

    def load(self, folder: str) -> dict[str, Any]:
        """Read a checkpoint folder back; returns ``state``."""
        ...

    def close(self) -> None:
        """Leave the process group."""
        ...
