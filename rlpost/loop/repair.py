"""The prompts of a step: the data set's in their order, and a share from the pool of rejected answers (data.repair)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlpost.algorithms.groups import paid
from rlpost.config.schema import RepairSection
from rlpost.data.repair import FailedAnswer, Pool, draw, kept, told, wanted
from rlpost.data.sampler import rows
from rlpost.loop.session import Session
from rlpost.observability.metrics import prefixed
from rlpost.trajectory import GroupReceipt, TokenizedPrompt


class StepPrompts:
    """Hands out the prompts of one step, batch after batch.

    Args:
        session: training prompts, and the maker of repair prompts.
        number: number of the step.
        row: position of the data set's next row.
        pool: rejected answers of earlier steps.

    Attributes:
        number: number of the step.
        rows: number of the data set's rows that were handed out.
        repairs: the rejected answers that were, by the id of their prompt.
        pool: what is left of the pool.
        first: the first batch that was.
        tokens: number of tokens of the prompts that ask them.
        unknown: number of those that stand for text that the vocabulary does not have.
        dropped: number of answers that could not be asked, by reason.
    """

    def __init__(self, session: Session, number: int, row: int, pool: Pool):
        self._session, self._row = session, row
        self.number, self.rows, self.pool = number, 0, pool
        self.repairs: dict[str, FailedAnswer] = {}
        self.dropped = {"long": 0, "unknown": 0}
        self.tokens = self.unknown = 0
        self.first: list[TokenizedPrompt] = []
        self._batches = 0

    def take(self) -> list[TokenizedPrompt]:
        """The next ``rollout.prompts_per_step`` prompts: the data set's, and then those from the pool."""
        config, count = self._session.config, self._session.config.rollout.prompts_per_step
        again = self._again(wanted(config.data.repair.share, count)) if config.data.repair is not None else []
        fresh, train = count - len(again), self._session.train
        chosen = rows(self._row + self.rows, fresh, len(train), config.run.seed, config.shuffles)
        self.rows += fresh
        batch = [*(train[i] for i in chosen), *again]
        self.first = self.first or batch
        return batch

    def _again(self, count: int) -> list[TokenizedPrompt]:
        """At most ``count`` prompts from the pool."""
        maker = self._session.repairs
        assert maker is not None
        drawn, self.pool = draw(self.pool, count, self.number, self._session.config.run.seed, self._batches)
        self._batches += 1
        found: list[TokenizedPrompt] = []
        for failed in drawn:
            prompt = maker.make(failed) if failed.prompt_id in maker.known else None
            if prompt is None:
                self.dropped["long" if failed.prompt_id in maker.known else "unknown"] += 1
            else:
                self.repairs[failed.id] = failed
                self.tokens += len(prompt.token_ids)
                self.unknown += maker.unknown(prompt)
                found.append(prompt)
        return found


def pool_after(session: Session, prompts: StepPrompts, groups: Sequence[GroupReceipt]) -> tuple[Pool, dict[str, float]]:
    """The pool for the next step, with what was rejected in this one, and metrics of the step's repairs.

    Args:
        session: settings, and where answers are read.
        prompts: the step's prompts.
        groups: their groups with verdicts and rewards.

    Raises:
        RolloutsLostError: if rejected answers are gone with the machine that held them.
    """
    section, maker = session.config.data.repair, session.repairs
    if section is None or maker is None:
        return (), {}
    new, silent = _failed(session, section, prompts, groups)
    if silent and not new and prompts.number == 0:
        session.supervision.log(
            f"data.repair: verifier {session.config.scoring.verifier!r} says nothing of the answers that it rejects "
            "(messages in the verdict's evidence), so none is asked again"
        )
    askable = [one for one in new if maker.make(one) is not None]
    pool, old, full = kept(prompts.pool, askable, section.size, section.max_age, prompts.number + 1)
    counts = {
        "pool": len(pool),
        "dropped_old": old,
        "dropped_full": full,
        "dropped_long": len(new) - len(askable) + prompts.dropped["long"],
        "dropped_unknown": prompts.dropped["unknown"],
        "dropped_silent": silent,
    }
    figures = {name: float(value) for name, value in counts.items()} | _figures(groups, prompts.repairs)
    if prompts.tokens:
        figures["unknown"] = prompts.unknown / prompts.tokens
    return pool, prefixed("repair", figures)


def _failed(
    session: Session, section: RepairSection, prompts: StepPrompts, groups: Sequence[GroupReceipt]
) -> tuple[list[FailedAnswer], int]:
    """The step's rejected answers that go into the pool, and the number of those of which nothing is said."""
    members = [_rejected(group, section, prompts.repairs.get(group.prompt.id)) for group in groups]
    chosen = [(group, row) for group, row in zip(groups, members, strict=True) if row]
    read = session.transcripts.answers([group for group, _ in chosen], [row for _, row in chosen])
    found: list[FailedAnswer] = []
    silent = 0
    for (group, row), answers in zip(chosen, read, strict=True):
        assert group.ticket is not None
        for member, (text, messages) in zip(row, answers, strict=True):
            said = told(messages, section.max_messages, section.max_characters)
            silent += not said
            if said:
                base = group.prompt.repairs or group.prompt.id
                found.append(FailedAnswer(base, group.ticket.number, member, prompts.number, text, said))
    return found, silent


def _rejected(group: GroupReceipt, section: RepairSection, asked: FailedAnswer | None) -> list[int]:
    """The first members of a group that were rejected, with different texts.

    Undecided answers are not known to be wrong, and what is wrong with one that was cut is that it was. An answer that
    is the rejected one again is not asked a second time.
    """
    outcomes = ["" if verdict is None else verdict.outcome for verdict in group.verdicts]
    if section.unsolved_only and "accepted" in outcomes:
        return []
    found: dict[bytes, int] = {}
    for member, (one, outcome) in enumerate(zip(group.trajectories, outcomes, strict=True)):
        again = asked is not None and one.text == asked.digest
        if outcome == "rejected" and one.status == "done" and not again:
            found.setdefault(one.text, member)
    return list(found.values())[: section.per_prompt]


def _figures(groups: Sequence[GroupReceipt], asked: Mapping[str, FailedAnswer]) -> dict[str, float]:
    """Share of groups from the pool, how they and the data set's did, and the share of answers that changed nothing."""
    again = [group for group in groups if group.prompt.repairs is not None]
    figures = {"share": len(again) / max(len(groups), 1)}
    fresh = [group for group in groups if group.prompt.repairs is None]
    for name, some in (("", again), ("fresh_", fresh)):
        outcomes = [v.outcome for group in some for v in group.verdicts if v is not None and v.outcome != "undecided"]
        rewards = [paid(group, member) for group in some for member in range(len(group.rewards))]
        known = [value for value in rewards if value is not None]
        if outcomes:
            figures[f"{name}pass_rate"] = outcomes.count("accepted") / len(outcomes)
        if known:
            figures[f"{name}reward_mean"] = sum(known) / len(known)
    same = [one.text == asked[group.prompt.id].digest for group in again for one in group.trajectories]
    return figures | ({"identical": sum(same) / len(same)} if same else {})
