"""Do the samples of a step look drawn at random, each by itself?

Answers are compared by their tokens. Equal texts prove nothing: a text is cut at a stop string and lacks special
tokens, so answers that are unlikely one by one may share it.

Two equal answers to one prompt are no fault by themselves. How unlikely they are is known: an answer of probability p
is drawn m times out of G by chance with probability at most C(G, m) p^(m-1), given that it was drawn once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from rlpost.errors import SelfCheckError
from rlpost.trajectory import GroupReceipt, Ticket, digest

CERTAIN = 40.0
"""Nats of evidence that end a run: chance alone would reach them once in 2·10¹⁷ looks."""

FLAT_STEPS = 5
"""Steps in which every answer has the same reward before the user is told."""


def check_members(groups: Sequence[GroupReceipt]) -> dict[str, float]:
    """Look for answers of a group that are the same although they were drawn independently.

    Returns:
        Metric ``identical_groups``: share of groups of at least two whose answers are all the same.

    Raises:
        SelfCheckError: if chance does not explain it; needs the engine's log-probabilities.
    """
    several = [group for group in groups if len(group.trajectories) > 1]
    for group in several:
        size = len(group.trajectories)
        for answer, times in Counter(one.tokens for one in group.trajectories).items():
            known = [one.logprob for one in group.trajectories if one.tokens == answer and one.logprob is not None]
            if times < 2 or not known:
                continue
            evidence = (times - 1) * -max(known) - math.log(math.comb(size, times))
            if evidence > CERTAIN:
                raise SelfCheckError(
                    f"samples: {times} of {size} answers to prompt {group.prompt.id!r} are the same, and each had a "
                    f"chance of e^{max(known):.0f}: they are drawn with the same random numbers, not independently "
                    "(one seed for a group, or an engine that ignores seeds)"
                )
    alike = sum(len({one.text for one in group.trajectories}) == 1 for group in several)
    return {"identical_groups": alike / len(several)} if several else {}


class Repeats:
    """Prompts, seeds and answers of earlier steps, which must not come again before their time."""

    def __init__(self) -> None:
        self._asked = Counter[str]()
        self._last = -1
        self._repaired: dict[str, int] = {}
        self._seeds: dict[int, int] = {}
        self._answers: dict[str, bytes] = {}
        self._flat = 0

    def check_prompts(self, tickets: Sequence[Ticket], size: int) -> None:
        """Note the data set's prompts that are asked.

        Every prompt is asked once before any is asked again. A run that was resumed within a pass over the data may
        ask a prompt at the end of this pass and again at the beginning of the next.

        Args:
            tickets: admissions, in order; those that were noted before are left out.
            size: number of training prompts.

        Raises:
            SelfCheckError: for a prompt that is asked too often.
        """
        for ticket in tickets:
            if ticket.number <= self._last:
                continue
            self._last = ticket.number
            self._asked[ticket.prompt_id] += 1
            times, total = self._asked[ticket.prompt_id], self._asked.total()
            if times > -(-total // size) + 1:
                raise SelfCheckError(
                    f"samples: prompt {ticket.prompt_id!r} is asked {times} times among {total} that were asked of "
                    f"{size} training prompts; the order of the data stands still or leaves prompts out"
                )

    def check_repairs(self, tickets: Sequence[Ticket]) -> None:
        """Note the prompts that ask a rejected answer again.

        Each answer is asked again once. A step that is rolled out again after a loss asks with the same tickets.

        Args:
            tickets: admissions, in order.

        Raises:
            SelfCheckError: for an answer that is asked again twice.
        """
        for ticket in tickets:
            if self._repaired.setdefault(ticket.prompt_id, ticket.number) != ticket.number:
                raise SelfCheckError(
                    f"samples: prompt {ticket.prompt_id!r} of the repair pool is asked by ticket {ticket.number}, "
                    f"after ticket {self._repaired[ticket.prompt_id]}; the pool does not lose what is asked"
                )

    def check_seeds(self, seeds: Sequence[Sequence[int]], step: int) -> None:
        """Note the seeds of a step's groups.

        A step that is rolled out again after a loss may use its own seeds again.

        Raises:
            SelfCheckError: if an earlier step used one of them, or two groups of this step do.
        """
        firsts = [row[0] for row in seeds if len(row)]
        doubled = len(firsts) - len(set(firsts))
        earlier = next((seed for seed in firsts if self._seeds.get(seed, step) != step), None)
        if doubled or earlier is not None or any(len(set(row)) < len(row) for row in seeds):
            where = f"step {self._seeds[earlier]}" if earlier is not None else "this step"
            raise SelfCheckError(
                f"samples: the random seeds of step {step} were used already, in {where}; the same numbers would be "
                "drawn again and again"
            )
        self._seeds |= dict.fromkeys(firsts, step)

    def check_answers(self, groups: Sequence[GroupReceipt], step: int) -> None:
        """Note the answers of a step.

        Raises:
            SelfCheckError: if a prompt got exactly the answers that it got the last time, beyond chance.
        """
        for group in groups:
            answers = sorted(one.tokens for one in group.trajectories)
            found = digest(b"".join(answers))
            logprobs = [one.logprob for one in group.trajectories if one.logprob is not None]
            same = self._answers.get(group.prompt.id) == found
            self._answers[group.prompt.id] = found
            if same and logprobs and -sum(logprobs) - math.lgamma(len(answers) + 1) > CERTAIN:
                raise SelfCheckError(
                    f"samples: prompt {group.prompt.id!r} got the same {len(answers)} answers at step {step} as the "
                    f"last time, which had a chance of e^{sum(logprobs):.0f}: each step draws the same random numbers"
                )

    def flat(self, groups: Sequence[GroupReceipt]) -> str | None:
        """Note the rewards of a step; a line for the user if all have been the same for too long."""
        rewards = [reward for group in groups for reward in group.rewards if reward is not None]
        kinds = {tuple((span.stage, span.index, span.channel, span.value) for span in reward) for reward in rewards}
        self._flat = self._flat + 1 if len(kinds) == 1 else 0
        if self._flat != FLAT_STEPS:
            return None
        total = sum(span.value for span in rewards[0] if span.channel == "reward")
        return (
            f"every answer of the last {FLAT_STEPS} steps got the reward {total:.4g}, so nothing is learned; look "
            "at the transcripts: is the task too hard or too easy, or the reward not what it should be?"
        )

    def forget(self) -> None:
        """Forget all steps: the run begins again from an earlier one."""
        self._asked.clear()
        self._last = -1
        self._repaired.clear()
        self._seeds.clear()
        self._answers.clear()
        self._flat = 0
