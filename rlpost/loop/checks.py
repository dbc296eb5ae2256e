"""The self-checks of a training step.

In the order in which a step meets them: `StepChecks.admitted` looks for prompts and seeds that come again,
``rolled_out`` for equal answers and flat rewards, ``rescored`` scores a group again in another order, ``credited``
derives advantages a second time, ``plain`` chooses samples for a second way to the gradient (by the parameters at the
first batch with contrast, `Session.examine`), ``updated`` compares what the updates did with the trained tokens, and
``referenced`` the reference of a KL term with the reference itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rlpost.config.schema import RunConfig
from rlpost.errors import SelfCheckError
from rlpost.protocols import GroupRequest, Learner, ScoringPool, Supervision
from rlpost.scoring.stages import stage_names
from rlpost.selfcheck import choice, endings, independent, mismatch, plain_samples, rescoring, samples, updates
from rlpost.selfcheck.evidence import Evidence
from rlpost.selfcheck.plain_samples import PlainSample
from rlpost.trajectory import BatchReceipt, GroupReceipt, Trajectory
from rlpost.types import StepReport

DERIVED = 8
"""Groups of an ordinary step whose advantages are derived a second time: a few per cent of a fast step for hundreds."""


@dataclass(slots=True)
class StepChecks:
    """What the checks of a run remember from step to step.

    Attributes:
        config: the run configuration.
        numerics: mean |log p engine - log p learner| that canary or parity check last attributed to rounding, in nats.
        evidence: evidence for differences below the noise of one step.
        repeats: seeds and answers of earlier steps.
        traced: number of batches with contrast whose updates were compared token by token.
        told_unknown: whether the user was told of observations that the tokenizer does not know.
    """

    config: RunConfig
    numerics: float = 0.0
    evidence: Evidence = field(init=False)
    repeats: samples.Repeats = field(default_factory=samples.Repeats)
    traced: int = 0
    told_unknown: bool = False

    def __post_init__(self) -> None:
        self.evidence = Evidence(self.config.model.dtype, self.config.rollout.group_size)

    @property
    def on(self) -> bool:
        """Whether the tokens that are trained on are checked."""
        return self.config.selfcheck.trained_tokens

    def forget(self) -> None:
        """Forget earlier steps: the run goes back to one of them."""
        self.evidence = Evidence(self.config.model.dtype, self.config.rollout.group_size)
        self.repeats.forget()

    def admitted(self, asked: Sequence[GroupRequest], step: int, size: int) -> None:
        """Check the prompts and seeds of a step; ``size``: number of training prompts.

        Raises:
            SelfCheckError: for prompts that are asked too often, or seeds that were used before.
        """
        if self.on:
            tickets = [(one.ticket, one.prompt.prompt.repairs) for one in asked if one.ticket is not None]
            self.repeats.check_prompts([ticket for ticket, repairs in tickets if repairs is None], size)
            self.repeats.check_repairs([ticket for ticket, repairs in tickets if repairs is not None])
            self.repeats.check_seeds([request.seeds for request in asked], step)

    def rolled_out(self, groups: Sequence[GroupReceipt], step: int, supervision: Supervision) -> dict[str, float]:
        """Check the answers and rewards of a step; returns metrics, and tells the user of flat rewards.

        Raises:
            SelfCheckError: for answers that are equal beyond chance, or end or are paid otherwise than configured.
        """
        if not self.on:
            return {}
        endings.check_lengths(groups, self.config)
        if self.config.truncation == "reject":
            endings.check_rejected(groups)
        found = samples.check_members(groups)
        self.repeats.check_answers(groups, step)
        said = self.repeats.flat(groups)
        if said is not None:
            supervision.log(said)
        self._tell_unknown(groups, supervision)
        return found

    def _tell_unknown(self, groups: Sequence[GroupReceipt], supervision: Supervision) -> None:
        """Tell the user once of observations that the policy cannot read."""
        members = [one for group in groups for one in group.trajectories]
        blind = sum(one.unknown > 0 for one in members)
        if blind and not self.told_unknown:
            self.told_unknown = True
            supervision.log(
                f"environment: {blind} of {len(members)} trajectories read text that the tokenizer does not know "
                "(metric unknown_tokens); give model.scratch.vocabulary, which knows every "
                "text, or warm up on texts that hold it"
            )

    def rescored(
        self,
        groups: Sequence[GroupReceipt],
        step: int,
        scoring: ScoringPool,
        fetch: Callable[[Any], Any],
        supervision: Supervision,
    ) -> None:
        """Score one group again with its answers in another order; ``fetch`` resolves handles.

        Raises:
            SelfCheckError: if an answer gets something else then, and the order alone explains it: both orders give the
                same results as often as they are scored again. A scorer whose results differ from call to call, as a
                model that judges may, is told to the user.
        """
        group = rescoring.worth_rescoring(groups) if self.on else None
        if group is None:
            return
        trajectories = fetch(group.tokens)
        in_orders = rescoring.orders(len(trajectories), self.config.run.seed + step)
        turned = [rescoring.unscored(group, trajectories, order) for order in in_orders]
        again = scoring.score(turned)
        said = rescoring.mixed_up(group, again, in_orders)
        if said is None:
            return
        line = f"scoring: the answers to prompt {group.prompt.id!r}, scored again in another order: {said}"
        as_is = list(range(len(trajectories)))
        for _ in range(rescoring.ROUNDS):
            once_more = scoring.score([rescoring.unscored(group, trajectories, as_is), *turned])
            if any(rescoring.difference(*pair, as_is) for pair in zip([group, *again], once_more, strict=True)):
                supervision.log(f"{line}; verifier or rewards do not judge the same answer alike")
                return
        raise SelfCheckError(f"{line}; verifier or rewards mix up the answers of a group, do not train on")

    def credited(self, groups: Sequence[GroupReceipt], batch: BatchReceipt) -> None:
        """Compare a batch with the rewards it was made from.

        Raises:
            SelfCheckError: see `rlpost.selfcheck.choice` and `rlpost.selfcheck.independent.check_credit`.
        """
        if self.on:
            config, masks = self.config, self.config.truncation == "mask"
            choice.check_groups(groups, batch, config.algorithm, config.rollout.prompts_per_step, masks)
            trained = {id(sample.tokens) for sample in batch.samples}
            kept = [group for group in groups if id(group.tokens) in trained]
            choice.check_stages(kept, stage_names(config.scoring.rewards), config.truncation == "reject")
            turns = 1 if self.due(batch.step) else -(-len(groups) // DERIVED)
            independent.check_credit(
                groups,
                batch,
                config.algorithm,
                config.truncation,
                config.rollout.prompts_per_step,
                (batch.step % turns, turns),
            )

    def due(self, step: int) -> bool:
        """Whether the updates of a step are compared token by token: the first two with contrast, in the second of
        which a KL term acts, and every ``selfcheck.parity_every`` steps.
        """
        every = self.config.selfcheck.parity_every
        return self.on and (self.traced < 2 or (bool(every) and step % every == 0))

    def plain(
        self, groups: Sequence[GroupReceipt], batch: BatchReceipt, fetch: Callable[[Any], Any]
    ) -> list[PlainSample]:
        """A few samples of a batch as they should be trained on; empty if none has an advantage. ``fetch`` resolves
        handles.

        Raises:
            SelfCheckError: if their groups' trajectories end otherwise than they say.
        """
        numbers = plain_samples.choose(batch)
        fetched: dict[int, Sequence[Trajectory]] = {}

        def known(handles: Any) -> Sequence[Trajectory]:
            return fetched.setdefault(id(handles), fetch(handles))

        most = self.config.rollout.prompts_per_step
        found = independent.plain_samples(groups, batch, numbers, known, self.config.algorithm, most)
        # an engine of the user's own may end answers for reasons of its own
        if self.on and self.config.rollout.engine == "vllm" and not self.config.rollout.stop:
            endings.check_ends([one for group in fetched.values() for one in group])
        return found

    def updated(
        self, batch: BatchReceipt, plain: Sequence[PlainSample], report: StepReport, whole: bool
    ) -> dict[str, float]:
        """Check what the learner did with a batch; returns metrics.

        Args:
            batch: the batch.
            plain: the samples that were traced.
            report: what the learner recorded.
            whole: whether every trajectory of the step is in the batch.

        Raises:
            SelfCheckError: see `rlpost.selfcheck.mismatch` and `rlpost.selfcheck.updates`.
        """
        if not self.on or not report.updates:
            return {}
        config, kl = self.config, report.metrics.get("kl", 0.0)
        if config.algorithm.kl.kind in ("k2", "k3") and kl < 0:
            raise SelfCheckError(
                f"independent: the {config.algorithm.kl.kind} estimate of the KL divergence is {kl:.4g}, and cannot be "
                "negative; its sign is turned, do not train on"
            )
        updates.check_updates(config, batch, plain, report.updates)
        if batch.step == 0:
            same = max(updates.SAME[config.model.dtype], self.numerics)
            updates.check_reference(report.updates, same)
        self.traced += bool(plain)
        limit = mismatch.limit_of(config.model.dtype, self.numerics, config.selfcheck.mismatch_limit)
        found = mismatch.check_step(report.updates, limit)
        prompts = {id(sample.tokens): sample.context for sample in batch.samples if sample.part == 0}
        self.evidence.add(report.updates, self.numerics, whole, prompts.values())
        return found

    def referenced(
        self,
        batch: BatchReceipt,
        plain: Sequence[PlainSample],
        report: StepReport,
        learner: Learner,
        fetch: Callable[[Any], Any],
    ) -> None:
        """Ask the reference itself for a sample that was traced, and compare with what the loss was given.

        Raises:
            SelfCheckError: see `rlpost.selfcheck.updates.check_reference_given`.
        """
        if not self.config.algorithm.kl.coef or not plain:
            return
        number = plain[0].number
        sample = batch.samples[number]
        whole = fetch(sample.tokens)[sample.receipt.index]
        start, stop = whole.sequences[sample.part]
        (found,) = learner.logprobs([whole], reference=True)
        tolerance = updates.SAME[self.config.model.dtype]
        updates.check_reference_given(report.updates, {number: found[start:stop]}, tolerance)


def traced(batch: BatchReceipt, plain: Sequence[PlainSample]) -> BatchReceipt:
    """The batch with the numbers of the samples that the learner is to trace."""
    return replace(batch, traced=frozenset(sample.number for sample in plain))
