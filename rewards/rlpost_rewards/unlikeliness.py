r"""The unlikeliness reward: among correct answers, a likelier one gets a smaller reward.

He, Fried and Welleck 2025, "Rewarding the Unlikely" (arXiv 2506.02355), section 4. GRPO reinforces the correct answers
that are already likely, so pass@1 rises and pass@N for large N falls. Weighting correct answers by how unlikely they
were counters that. Paper and released code disagree in details; each is a setting here (`UnlikelinessSettings`).
`scripts/experiments/sharpening.py` shows when a larger KL penalty does as well, and when none does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, cast

import numpy as np

from rlpost.algorithms.groups import correct
from rlpost.config.choices import check_choices
from rlpost.errors import UserError
from rlpost.trajectory import Group
from rlpost.types import Reward
from rlpost_rewards.combine import reduce

LogProb = Literal["sum", "mean"]
Source = Literal["learner", "rollout"]
Rank = Literal["code", "paper"]
Ties = Literal["average", "order"]
Ranked = Literal["all", "correct"]
Recipe = Literal["none", "paper", "released_code"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlikelinessSettings:
    """How likelihood is measured and how much reward it takes away.

    Attributes:
        beta: β in [0, 1], the largest share of a correct answer's reward that is taken away (paper: 0.25).
        logprob: rank by the ``sum`` of a completion's log-probabilities, that is by the probability of the whole answer
            (paper), or by the ``mean`` per token (released code), by which length alone does not make an answer rare.
        source: log-probabilities to rank by: the ``learner``'s under the policy that sampled (released code), or those
            that the ``rollout`` engine reported, which cost the learner nothing but carry the engine's rounding.
        rank: ``code``: the likeliest of n loses β (n-1)/n, the least likely nothing. ``paper``: they lose β and β/n.
            The two differ by the constant β/n.
        ties: ``average`` gives equal keys their mean rank and gives duplicates of one answer equal keys first;
            ``order`` ranks them as they come, as released: then rounding decides which copy of a proof is rarer.
        ranked: rank ``all`` decided completions of the group (released code), or only the ``correct`` ones.
    """

    beta: float = 0.25
    logprob: LogProb = "sum"
    source: Source = "learner"
    rank: Rank = "code"
    ties: Ties = "average"
    ranked: Ranked = "all"

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise UserError(f"unlikeliness: beta is {self.beta!r}; give a share between 0 and 1 (paper: 0.25)")
        check_choices(self, "unlikeliness: ")


RECIPES: dict[Recipe, UnlikelinessSettings] = {
    "none": UnlikelinessSettings(),
    "paper": UnlikelinessSettings(logprob="sum", rank="paper"),
    "released_code": UnlikelinessSettings(logprob="mean", rank="code", ties="order"),
}
"""Our defaults, the paper's text (which says nothing about ties), and what its repository computes."""


def ranks(keys: Sequence[float], ties: Ties) -> list[float]:
    """0-based ranks in ascending order: the least likely has rank 0.

    Args:
        keys: finite log-probabilities.
        ties: equal keys get their ``average`` rank, or ranks in the ``order`` they come in.

    >>> ranks([-0.1, -0.9, -0.5, -0.5], "average")
    [3.0, 0.0, 1.5, 1.5]
    """
    order = sorted(range(len(keys)), key=keys.__getitem__)
    found = [0.0] * len(keys)
    start = 0
    while start < len(order):
        stop = start + 1
        while ties == "average" and stop < len(order) and keys[order[stop]] == keys[order[start]]:
            stop += 1
        for place in range(start, stop):
            found[order[place]] = (start + stop - 1) / 2
        start = stop
    return found


def weights(keys: Sequence[float], beta: float, rank: Rank, ties: Ties) -> list[float]:
    r"""The share of its reward that each answer keeps if it is correct.

    With n keys and q the ascending rank (`ranks`): 1 - β q/n (released code), or 1 - β (n - r)/n where r = n - 1 - q is
    the rank from the likeliest (paper), that is 1 - β (q + 1)/n.

    Args:
        keys: log-probabilities of the ranked completions.
        beta: largest share β in [0, 1] that is taken away.
        rank: convention for the rank, ``code`` or ``paper``.
        ties: rank of equal keys, as in `ranks`.

    Returns:
        A factor in [1 - β, 1] for each key.

    >>> weights([-0.1, -0.9, -0.5, -0.3], 0.25, "code", "average")
    [0.8125, 1.0, 0.9375, 0.875]
    """
    offset = 1.0 if rank == "paper" else 0.0
    return [1.0 - beta * (q + offset) / len(keys) for q in ranks(keys, ties)]


class Unlikeliness:
    r"""Multiplies the rewards of correct answers by a factor that falls with their likelihood in the group.

    Where other stages have made the reward of a correct answer negative, the same share of its magnitude is taken away,
    so that a likelier answer still gets less (`rlpost_rewards.combine.reduce`).

    Wrong and undecided answers keep their reward; undecided ones are not ranked either. List this stage after the one
    that pays for the verdict: ``rewards: [{name: outcome}, {name: unlikeliness, beta: 0.25}]``.

    After the group's normalisation the formula has effects that its intention does not suggest:

    * With one correct answer in the group it changes nothing: any positive reward has the same standardised advantage.
    * When many are correct, the likeliest of them falls below the group's mean and is pushed *down* although it is
      correct. With ranks spread evenly that begins at a success rate of (1 - β)/(1 - β/2): 0.857 for β = 0.25, 0.667
      for 0.5.
    * Where all are correct, a filter on outcomes (``algorithm.filter: binary``, paper and code) drops the group before
      training; ``filter: shaped`` keeps it, and its advantages then sum to zero and favour the rare answers.

    Args:
        recipe: ``none``, ``paper`` or ``released_code``: initial values of the settings, which the arguments replace.
        beta: largest share of the reward that is taken away, in [0, 1]; None, here and below: the recipe's value.
        logprob: rank by ``sum`` or ``mean``.
        source: ``learner`` or ``rollout`` (``engine`` is its old name).
        rank: ``code`` or ``paper``.
        ties: ``average`` or ``order``.
        ranked: ``all`` or ``correct``.

    Raises:
        UserError: for a value that is not one of these; see `UnlikelinessSettings`.
    """

    def __init__(
        self,
        recipe: Recipe = "none",
        beta: float | None = None,
        logprob: LogProb | None = None,
        source: Source | Literal["engine"] | None = None,
        rank: Rank | None = None,
        ties: Ties | None = None,
        ranked: Ranked | None = None,
    ):
        if recipe not in RECIPES:
            raise UserError(f"unlikeliness: recipe is {recipe!r}; use {', '.join(map(repr, RECIPES))}")
        source = "rollout" if source == "engine" else source
        given = {"beta": beta, "logprob": logprob, "source": source, "rank": rank, "ties": ties, "ranked": ranked}
        chosen = {f.name: given[f.name] for f in fields(UnlikelinessSettings) if given[f.name] is not None}
        self.settings = replace(RECIPES[recipe], **chosen)
        self.needs: tuple[str, ...] = (f"{self.settings.source}_logprobs",)

    def __call__(self, group: Group) -> Sequence[Reward | None]:
        """See `rlpost.protocols.RewardStage`.

        Raises:
            UserError: if the log-probabilities it ranks by are missing or not finite; it never skips a group silently.
        """
        settings = self.settings
        right = [member for member in range(len(group.rewards)) if correct(group, member)]
        result: list[Reward | None] = list(group.rewards)
        if not right:
            return result
        ranked = right if settings.ranked == "correct" else self._decided(group)
        keys = self._keys(group, ranked)
        factors = dict(zip(ranked, weights(keys, settings.beta, settings.rank, settings.ties), strict=True))
        for member in right:
            result[member] = reduce(cast("Reward", group.rewards[member]), factors[member])
        return result

    def _decided(self, group: Group) -> list[int]:
        return [member for member in range(len(group.rewards)) if correct(group, member) is not None]

    def _keys(self, group: Group, members: Sequence[int]) -> list[float]:
        """The log-probability that each member is ranked by."""
        keys = [self._key(group, member) for member in members]
        if self.settings.ties == "order":
            return keys
        copies: dict[bytes, list[float]] = {}
        tokens = [group.trajectories[member].token_ids.tobytes() for member in members]
        for own, key in zip(tokens, keys, strict=True):
            copies.setdefault(own, []).append(key)
        # the same tokens have the same probability; what differs between copies is rounding
        return [math.fsum(same := copies[own]) / len(same) for own in tokens]

    def _key(self, group: Group, member: int) -> float:
        trajectory = group.trajectories[member]
        if self.settings.source == "rollout":
            values = trajectory.logprobs
        else:
            values = group.learner_logprobs[member] if group.learner_logprobs else None
        if values is None:
            raise UserError(
                f"unlikeliness: trajectory {member} of prompt {group.prompt.id!r} has no log-probabilities of the "
                f"{self.settings.source}; rank by the other source, or run it inside rlpost train"
            )
        sampled = values[trajectory.mask]
        total = float(np.sum(np.asarray(sampled, np.float64)))
        if not math.isfinite(total):
            raise UserError(
                f"unlikeliness: trajectory {member} of prompt {group.prompt.id!r} has log-probability {total}; "
                "the policy that scored it is not the one that sampled it"
            )
        return total / max(len(sampled), 1) if self.settings.logprob == "mean" else total
