"""The synchronous loop's verbs: collect a batch, learn from it, publish the new weights.

    collect   prompts -> rollouts -> verdicts and rewards -> advantages    waits for engines and scoring workers
    learn     samples -> loss -> optimizer                                 waits for every rank of the learner
    publish   weights -> engines -> canary                                 waits for every engine

Every verb ends before the next begins, so every sample was drawn by the policy that is updated with it. Groups go to
scoring as they finish: a slow engine delays only its own prompts. Tokens stay where they are; receipts pass here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rlpost.algorithms import credit
from rlpost.algorithms.groups import keep
from rlpost.config.schema import RunConfig
from rlpost.data.repair import Pool
from rlpost.errors import InfrastructureError, RolloutsLostError, UserError
from rlpost.loop.checks import traced
from rlpost.loop.repair import StepPrompts, pool_after
from rlpost.loop.session import Session
from rlpost.observability.metrics import Undecided, describe_groups, prefixed, tokens
from rlpost.plugins.algorithm import advantage_settings
from rlpost.rollout.sampling import admitted, requests, settings
from rlpost.scoring.score import drop_empty_rewards
from rlpost.sparsity.deltas import summary
from rlpost.trajectory import BatchReceipt, GroupReceipt, TokenizedPrompt
from rlpost.types import TensorDelta


@dataclass(slots=True)
class Step:
    """The result of one step of the loop.

    Attributes:
        number: number of the rollout batch, 0-based.
        groups: prompts with receipts of their trajectories, verdicts and rewards; texts are in the transcript.
        advantages: mean advantage of each trajectory, by group; None where it was not trained on.
        metrics: metrics of the step, by names of `rlpost.observability.metrics.METRICS`.
        changes: changes of each published tensor, by name; empty in steps without ``logging.changes_every``.
    """

    number: int
    groups: list[GroupReceipt]
    advantages: list[list[float | None]]
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    changes: dict[str, TensorDelta] = field(default_factory=dict[str, TensorDelta])


OnStep = Callable[[Step], object]


@dataclass(slots=True)
class ScoredBatch:
    """A scored rollout batch, on which the learner has not trained yet.

    Attributes:
        number: number of the rollout batch, 0-based.
        groups: prompts with receipts of their trajectories, verdicts and rewards.
        credit: training samples with advantages.
        timer: seconds of the step so far, by stage.
        checked: metrics of the self-checks that were due in this step.
        rows: number of the data set's rows that the step asked.
        pool: rejected answers that later steps may ask again.
    """

    number: int
    groups: list[GroupReceipt]
    credit: credit.Credit
    timer: StageTimer
    checked: dict[str, float]
    rows: int
    pool: Pool


def collect(
    session: Session, number: int, first_ticket: int | None = None, first_row: int | None = None, pool: Pool = ()
) -> ScoredBatch:
    """Roll out the step's prompts, score the trajectories, and compute advantages.

    Trajectories that are lost with the machine that held them are rolled out again, with the same seeds.

    Args:
        session: engines, scoring workers, learner and prompts.
        number: number of the rollout batch, 0-based.
        first_ticket: number of the batch's first ticket; None: as if all earlier batches had been of this size.
        first_row: position of the data set's next row; None: as many rows as tickets were asked.
        pool: rejected answers of earlier batches.

    Raises:
        InfrastructureError: if too many checks stayed undecided, or trajectories were lost too often.
        SelfCheckError: if an actor's memory keeps growing, or engine and learner differ.
        UserError: if the algorithm's settings cannot train on trajectories of several sequences.
    """
    config, timer = session.config, StageTimer()
    if config.selfcheck.memory_growth is not None:
        session.watch.check(config.selfcheck.memory_growth)
    first = number * config.rollout.prompts_per_step if first_ticket is None else first_ticket
    prompts = StepPrompts(session, number, first if first_row is None else first_row, pool)
    groups, refilled = _filled(session, prompts, first, timer)
    with timer("selfcheck"):
        checked = session.checks.rolled_out(groups, number, session.supervision)
        if config.parity_due(number):
            checked |= session.parity([one.token_ids for one in prompts.first[: config.selfcheck.probe_prompts]])
    undecided = session.watch_undecided(groups)
    check_undecided(session.remember(groups), config.scoring.max_undecided_share)
    credited = credit.assign(
        groups,
        session.advantages,
        step=number,
        group_filter=config.algorithm.filter,
        truncated=config.truncation,
        most=config.rollout.prompts_per_step,
        batch_std=advantage_settings(config) if config.algorithm.std == "batch" else None,
        focal_gamma=config.algorithm.focal_gamma,
    )
    check_sequences(config, credited.batch)
    if not session.rewritten and any(sample.part for sample in credited.batch.samples):
        session.rewritten = True
        session.supervision.log(
            "the chat template rewrites earlier messages: each turn after such a change is a further sequence, whose "
            "sampled tokens are trained on with the trajectory's credit"
        )
    with timer("repair"):
        left, repaired = pool_after(session, prompts, groups)
    return ScoredBatch(number, groups, credited, timer, checked | refilled | repaired | undecided, prompts.rows, left)


def learn(session: Session, scored: ScoredBatch) -> Step:
    """Make all updates of a batch.

    Raises:
        SelfCheckError: on the first batch with advantages, if the learner's gradient is not that of the loss.
    """
    groups, timer, batch = scored.groups, scored.timer, scored.credit.batch
    metrics = {
        **describe_groups(groups),
        "trained_samples": float(len(batch.samples)),
        "kept_groups": float(scored.credit.kept_groups),
        "tokens_per_second": tokens(groups) / timer.seconds["rollout"],
        **scored.checked,
    }
    if batch.samples:
        metrics |= _updated(session, groups, batch, timer)
    return Step(scored.number, groups, scored.credit.advantages, metrics)


def _updated(
    session: Session, groups: Sequence[GroupReceipt], batch: BatchReceipt, timer: StageTimer
) -> dict[str, float]:
    """Make all updates of a batch that has samples, with the checks before and after them."""
    assert session.learner is not None
    checks, first = session.checks, session.config.selfcheck.invariance and not session.examined
    metrics: dict[str, float] = {}
    with timer("selfcheck"):
        checks.credited(groups, batch)
        due = checks.due(batch.step)
        plain = checks.plain(groups, batch, session.fetch) if due or first else []
        if first:
            metrics |= session.examine(batch, plain)
    followed = plain if due else []
    with timer("update"):
        report = session.learner.step(traced(batch, followed))
    whole = sum(one.sampled > 0 for group in groups for one in group.trajectories)
    with timer("selfcheck"):
        trained = len({(id(sample.tokens), sample.receipt.index) for sample in batch.samples})
        found = checks.updated(batch, followed, report, whole=trained == whole)
        checks.referenced(batch, followed, report, session.learner, session.fetch)
        return metrics | report.metrics | found


def publish(session: Session, step: Step, timer: StageTimer) -> None:
    """Publish the new version to the engines, check it there, and add to the step's metrics.

    Raises:
        SelfCheckError: if the sync's canary fails.
    """
    metrics = step.metrics
    if "updates" in metrics:
        with timer("sync"):
            metrics |= session.publish(metrics)
    if session.config.changes_due(step.number) and session.learner is not None:
        with timer("changes"):
            step.changes = session.learner.changes()
        metrics |= prefixed("changes", summary(step.changes))
    metrics |= session.memory()
    metrics |= prefixed("recoveries", session.supervision.lost)
    metrics["policy_version"] = float(session.version)
    # the learner reports the seconds of its pre-pass, which are part of the update here
    metrics |= prefixed("seconds", {**timer.seconds, "step": timer.total()})


def _filled(
    session: Session, prompts: StepPrompts, first: int, timer: StageTimer
) -> tuple[list[GroupReceipt], dict[str, float]]:
    """The step's groups with their rewards, and metrics of refilling.

    With ``algorithm.filter_batches`` further prompts are rolled out until enough groups pass the filter (DAPO's dynamic
    sampling, Yu et al. 2025, section 3.2). Groups stay in the order of their tickets.
    """
    algorithm, wanted = session.config.algorithm, session.config.rollout.prompts_per_step
    groups = _rolled_out(session, prompts, first, 0, timer)
    if algorithm.filter_batches == 1:
        return groups, {}
    batches = 1

    def passed() -> int:
        return sum(keep(group, algorithm.filter) for group in groups)

    while passed() < wanted and batches < algorithm.filter_batches:
        groups += _rolled_out(session, prompts, first + len(groups), len(groups), timer)
        batches += 1
    found = passed()
    return groups, {
        "refill/batches": float(batches),
        "refill/missing": float(max(wanted - found, 0)),
        "refill/unused": float(max(found - wanted, 0)),
    }


def _rolled_out(
    session: Session, prompts: StepPrompts, first: int, asked: int, timer: StageTimer
) -> list[GroupReceipt]:
    """A batch of a step's groups with their rewards; ``asked``: groups that the step has asked for before."""
    number, chosen, lost = prompts.number, prompts.take(), 0
    while True:
        try:
            scored = rollout_and_score(session, chosen, number, first, timer, asked)
            if session.config.parity_due(number) and not asked:
                with timer("selfcheck"):
                    session.checks.rescored(scored, number, session.scoring, session.fetch, session.supervision)
            return finish_rewards(session, scored, timer)
        except RolloutsLostError as error:
            lost += 1
            if lost > session.config.cluster.restarts:
                raise
            session.supervision.log(f"{error}; rolling out step {number} again")


def check_sequences(config: RunConfig, batch: BatchReceipt) -> None:
    """Refuse trajectories of several sequences where the loss would treat each as a completion of its own.

    Token means are right for them. Means over completions and spans are not, nor are ratios of whole sequences and
    importance weights of them; sums
    over completions are, as long as all sequences of a trajectory are in one update.

    Raises:
        UserError: naming the setting to change.
    """
    if all(sample.part == 0 for sample in batch.samples):
        return
    algorithm, several = config.algorithm, config.minibatches(len(batch.samples)) > 1
    if algorithm.ratio != "token":
        name, value = "ratio", algorithm.ratio
    elif config.importance_cap is not None and algorithm.importance.level != "token":
        name, value = "importance.level", algorithm.importance.level
    elif algorithm.aggregate in ("sequence", "span") or (algorithm.aggregate != "token" and several):
        name, value = "aggregate", algorithm.aggregate
    else:
        return
    raise UserError(
        f"algorithm.{name}: {value} would count each of a trajectory's sequences as a completion, and it has several, "
        f"because the chat template rewrites earlier messages; set {name} token, or use another template"
    )


def finish_rewards(session: Session, groups: list[GroupReceipt], timer: StageTimer) -> list[GroupReceipt]:
    """Run the reward stages that need the learner's log-probabilities, which are computed here.

    Groups that are left out of the update anyway (all undecided, or by ``algorithm.filter: binary``) skip these stages.
    """
    if "learner_logprobs" not in session.scoring.needs:
        return [drop_empty_rewards(group) for group in groups]
    config = session.config
    # without a verifier a late stage can decide which answers are right
    rule = config.algorithm.filter if config.scoring.verifier is not None else "off"
    chosen = [i for i, group in enumerate(groups) if keep(group, "binary" if rule == "binary" else "off")]
    assert session.learner is not None
    with timer("shaping"):
        waiting = session.learner.proximal([groups[i] for i in chosen]) if chosen else []
        for i, group in zip(chosen, session.scoring.finish(waiting) if waiting else [], strict=True):
            groups[i] = group
    return [drop_empty_rewards(group) for group in groups]


def rollout_and_score(
    session: Session, prompts: Sequence[TokenizedPrompt], number: int, first: int, timer: StageTimer, before: int = 0
) -> list[GroupReceipt]:
    """Roll out prompts and score the trajectories; each group goes to a scoring worker as soon as it is complete, while
    others are still being sampled.

    Args:
        session: engines and scoring workers.
        prompts: the prompts, in the order of their tickets.
        number: number of the step.
        first: number of the first ticket.
        timer: seconds by stage.
        before: groups that the step has asked for before.
    """
    config = session.config
    asked = requests(
        prompts,
        run_seed=config.run.seed,
        step=number,
        group_size=config.rollout.group_size,
        first_slot=before,
    )
    asked = admitted(asked, first, session.version)
    session.checks.admitted(asked, number, len(session.train))
    drawn = settings(config.rollout, config.wants_logprobs(number))
    with session.scoring.queue() as queue:
        with timer("rollout"):
            for position, group in session.rollouts.stream(asked, drawn):
                queue.submit(position, group)
        with timer("scoring"):  # the part that is left after the last trajectory
            scored = queue.results()
    return [scored[position] for position in range(len(asked))]


def check_undecided(recent: Sequence[Sequence[Undecided]], limit: float) -> None:
    """Stop a run whose verifier does not decide.

    Args:
        recent: what stayed undecided in the groups of the last batches; the share is taken over all trajectories.
        limit: largest share of trajectories that may stay undecided.

    Raises:
        InfrastructureError: if the share is above the limit, with the most frequent reason.
    """
    groups = [group for batch in recent for group in batch]
    share = sum(group.open for group in groups) / max(sum(group.size for group in groups), 1)
    if share > limit:
        reasons = [reason for group in groups for reason in group.reasons]
        unrewarded = sum(group.unrewarded for group in groups)
        if unrewarded > len(reasons):
            raise InfrastructureError(
                f"scoring: {share:.0%} of the answers of the last {len(recent)} batches have no reward (limit "
                f"{limit:.0%}): all rewards gave None for {unrewarded} of them; return a number for every answer, add "
                "a reward that does, or raise scoring.max_undecided_share"
            )
        commonest = max(set(reasons), key=reasons.count)
        raise InfrastructureError(
            f"scoring: {share:.0%} of the last {len(recent)} batches stayed undecided (limit {limit:.0%}), mostly "
            f"{commonest!r}; mend the verifier, or raise scoring.max_undecided_share"
        )


class StageTimer:
    """Wall-clock seconds of named stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a block."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - begun

    def total(self) -> float:
        """Seconds since the timer was made."""
        return time.perf_counter() - self._start
