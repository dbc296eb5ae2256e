r"""Rewards of ranked lists: one reward for each rank, and length shaping.

Zhu et al. 2025, "Rank-GRPO: training LLM-based conversational recommender systems with reinforcement learning" (arXiv
2510.20150), section 3. A list of N items has relevances rel_1 … rel_N. Vanilla GRPO gives every token the whole
list's DCG, even tokens of misses that no hit follows; Rank-GRPO gives each rank what it and the ranks after it
contribute.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

from rlpost.algorithms.ranking import dcg
from rlpost.config.choices import check_choices
from rlpost.errors import UserError
from rlpost.trajectory import Group, Segment, Trajectory
from rlpost.types import ItemVerdict, Reward, SpanReward
from rlpost_rewards.combine import add

Returns = Literal["item", "exp", "log", "sequence"]
Missing = Literal["zero", "drop"]
Channel = Literal["reward", "advantage"]
Ending = Literal["item", "own"]
EndRank = Literal["item", "line"]
Share = Literal["token", "item"]
Recipe = Literal["none", "paper", "released_code"]

ENDING, OVERFLOW, ENDING_FAULT, OVERFLOW_FAULT = -1, -2, -3, -4
"""Span indices of what is not a rank: the end of the list, what follows rank N, and the length shaping of both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingSettings:
    """Settings of the reward of a list.

    Attributes:
        size: number N of ranks that the prompt asks for.
        returns: return of a rank: ``item``, its own relevance (the paper's exp∞, its best); ``exp``, that plus later
            relevances over powers of ``gamma``; ``log``, the discounted relevances from it on; or ``sequence``, the
            whole list's DCG as one reward for all tokens (vanilla GRPO, GSPO).
        gamma: base Γ > 1 of ``exp``.
        missing: ranks that the list does not reach count as ``zero`` in the group's baseline (as the group's least
            relevance at that rank where it is negative), or are left out (``drop``).
        early: value added where the list ends before rank N (paper: ε_u = -0.1).
        overflow: value added for what follows rank N (paper: ε_o = -0.1).
        complete: value added where the list ends at rank N (released code: 0.1, which the paper does not mention).
        shaping: ``advantage`` adds those three to the advantage unchanged (paper, code); ``reward`` makes them rewards
            of their own, which the group normalises.
        overflow_share: ``token`` gives ``overflow`` to every token after rank N (released code); ``item`` divides it
            among the tokens of an item.
        ending: the end token belongs to the last ``item`` (paper), or gets the shaping only (``own``: released code).
        end_rank: rank at which a list ends: of its last ``item`` (paper), or of the ``line`` that the end token stands
            in (released code). There every line break after the last item is one rank more: a list of N items and a
            line break has gone beyond rank N, and one of N - 1 is complete. An end token beyond rank N, in longer lists
            too, gets ``overflow`` like everything else there.
        repeated: relevance of a place whose item stands earlier in the list (``duplicate``), 0 or less.
        seen: relevance of an item that the user has seen, 0 or less.
        outside: relevance of a place that names no item of the catalog (``out_of_catalog``, ``unparsable``), 0 or less.
            All three cost nothing in the paper: a miss, a repetition and an invention are the same to it, and trained
            lists drift into repetitions.
    """

    size: int = 20
    returns: Returns = "item"
    gamma: float = 2.0
    missing: Missing = "zero"
    early: float = -0.1
    overflow: float = -0.1
    complete: float = 0.0
    shaping: Channel = "advantage"
    overflow_share: Share = "token"
    ending: Ending = "item"
    end_rank: EndRank = "item"
    repeated: float = 0.0
    seen: float = 0.0
    outside: float = 0.0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"ranking: size is {self.size}; give the number of ranks asked for")
        if not self.gamma > 1:
            raise UserError(
                f"ranking: gamma is {self.gamma}; give more than 1 (returns: item is the limit of infinity)"
            )
        for name, value in (("repeated", self.repeated), ("seen", self.seen), ("outside", self.outside)):
            if not -math.inf < value <= 0:
                raise UserError(f"ranking: {name} is {value}; give what such a place costs, 0 or less")
        check_choices(self, "ranking: ")

    def relevance(self, item: ItemVerdict) -> float:
        """Relevance of a place, or what it costs."""
        costs = {
            "duplicate": self.repeated,
            "seen": self.seen,
            "out_of_catalog": self.outside,
            "unparsable": self.outside,
        }
        return item.score + costs.get(item.reason, 0.0)


RECIPES: dict[Recipe, RankingSettings] = {
    "none": RankingSettings(),
    "paper": RankingSettings(),
    "released_code": RankingSettings(complete=0.1, ending="own", end_rank="line"),
}


def log_returns(relevances: Sequence[float]) -> list[float]:
    r"""DCG@k:N = Σ_{j ≥ k} rel_j / log2(j + 1): the discount stays that of the absolute rank, so r_1 is the list's DCG.

    >>> [round(r, 4) for r in log_returns([0, 1, 0, 0, 1])]
    [1.0178, 1.0178, 0.3869, 0.3869, 0.3869]
    """
    found, total = [0.0] * len(relevances), 0.0
    for place in reversed(range(len(relevances))):
        total += relevances[place] / math.log2(place + 2)
        found[place] = total
    return found


def exp_returns(relevances: Sequence[float], gamma: float) -> list[float]:
    r"""r_k = Σ_{j ≥ k} rel_j / Γ^(j-k) = rel_k + r_{k+1} / Γ; for Γ = ∞ the relevances themselves.

    >>> exp_returns([0, 1, 0, 0, 1], 2.0)
    [0.5625, 1.125, 0.25, 0.5, 1.0]
    """
    found, after = [0.0] * len(relevances), 0.0
    for place in reversed(range(len(relevances))):
        after = relevances[place] + after / gamma
        found[place] = after
    return found


def token_span(turn: Segment, start: int, stop: int) -> tuple[int, int]:
    """The tokens of a turn that begin within characters ``start`` to ``stop`` (half-open) of its text, as positions in
    the trajectory; end tokens belong to the last span.

    A token that covers the end of one item and the beginning of the next belongs to the one in which it begins.
    """
    assert turn.offsets is not None
    begins = turn.offsets[:, 0].tolist()
    first = bisect_left(begins, start)
    last = len(begins) if stop >= len(turn.text) else bisect_left(begins, stop)
    return turn.start + first, turn.start + max(first, last)


class Ranking:
    """Rewards the ranks of a list that a verifier has scored item by item (``Verdict.items``, scores are relevances).

    With ``returns: sequence`` there is one span over the whole answer, else one for every rank, whose index is the
    rank: groups are normalised rank by rank, and ``algorithm.ratio: span`` with ``aggregate: span`` is Rank-GRPO. Text
    after the last item that is no item counts as an attempt at the next rank with reward 0: it would otherwise get no
    credit at all, and a policy that is pushed away from misses drifts into it. Further ranks that the list does not
    reach are spans without tokens. Length shaping goes to the list's end and to what follows rank N.

    A rank is paid the score of its place: with the verifier ``catalog`` 1 (or the data's weight) for a relevant item, 0
    for a place that is no item of the catalog, an item named before, a seen one and any other; where a row names no
    relevant item, 1 for every new item of the catalog. An explanation belongs to the span of its place; introductions
    and headings are in no span. A place beyond rank N is paid ``overflow``, whatever it is.

    Args:
        recipe: ``none``, ``paper`` or ``released_code``: initial values of the settings.
        settings: attributes of `RankingSettings` that replace those of the recipe.

    Raises:
        UserError: for an unknown recipe or setting, or a value that a setting cannot have.
    """

    needs: tuple[str, ...] = ("offsets",)

    def __init__(self, recipe: Recipe = "none", **settings: object):
        if recipe not in RECIPES:
            raise UserError(f"ranking: recipe is {recipe!r}; use {', '.join(map(repr, RECIPES))}")
        known = {field.name for field in fields(RankingSettings)}
        strange = sorted(set(settings) - known)
        if strange:
            raise UserError(f"ranking: {strange[0]!r} is no setting; there are {', '.join(sorted(known))}")
        self.settings = replace(RECIPES[recipe], **settings)  # pyright: ignore[reportArgumentType]
        self.floor = min(self.settings.repeated, self.settings.seen, self.settings.outside)

    def __call__(self, group: Group) -> Sequence[Reward | None]:
        """See `rlpost.protocols.RewardStage`."""
        result: list[Reward | None] = []
        absent = self._absent(group)
        for trajectory, verdict, reward in zip(group.trajectories, group.verdicts, group.rewards, strict=True):
            if reward is None or verdict is None or verdict.outcome == "undecided":
                result.append(None)
            else:
                result.append(add(reward, *self._spans(trajectory, verdict.items, absent)))
        return result

    def _absent(self, group: Group) -> list[float]:
        """Relevance of each rank that a list does not reach: 0, or the group's least where that is negative.

        With relevances below 0 a list would else gain by ending early.
        """
        lists = [
            [self.settings.relevance(item) for item in verdict.items[: self.settings.size]]
            for verdict in group.verdicts
            if verdict is not None
        ]
        ranks = range(self.settings.size)
        return [min((found[rank] for found in lists if rank < len(found)), default=0.0) for rank in ranks]

    def _spans(self, trajectory: Trajectory, items: Sequence[ItemVerdict], absent: Sequence[float]) -> list[SpanReward]:
        settings, answer = self.settings, trajectory.turns[-1]
        first, length = answer.start, answer.stop
        places = [token_span(answer, item.start, item.stop) for item in items]
        ended = trajectory.status == "done" and length > first
        if settings.ending == "own" and ended and places:
            places[-1] = places[-1][0], min(places[-1][1], length - 1)
        begin, end = places[-1][1] if places else first, length - int(ended)  # an end token alone is no attempt
        if begin < end:
            places.append((begin, length if settings.ending == "item" else end))
        relevances = [settings.relevance(item) for item in items[: settings.size]]
        relevances += [min(value, 0.0) for value in absent[len(relevances) :]]
        spans = self._returns(relevances, places, length)
        last = len(items)
        if settings.end_rank == "line":
            last = len(places) + len(answer.text) - len(answer.text.rstrip("\n")) if places else 0
        return [*spans, *self._shaping(last, places[settings.size :], length, ended)]

    def _returns(self, relevances: list[float], places: list[tuple[int, int]], length: int) -> list[SpanReward]:
        settings = self.settings
        if settings.returns == "sequence":
            return [SpanReward(0, length, dcg(relevances))]
        if settings.returns == "log":
            values = log_returns(relevances)
        else:
            values = exp_returns(relevances, settings.gamma if settings.returns == "exp" else math.inf)
        spans = [
            SpanReward(*place, value, index)
            for index, (place, value) in enumerate(zip(places[: settings.size], values, strict=False))
        ]
        if settings.missing == "zero":
            spans += [SpanReward(length, length, values[index], index) for index in range(len(spans), settings.size)]
        return spans

    def _shaping(self, last: int, beyond: list[tuple[int, int]], length: int, ended: bool) -> list[SpanReward]:
        """Length shaping of a list that ends at rank ``last``, with these token spans beyond rank N."""
        settings = self.settings
        by_rank, spans = settings.returns != "sequence", list[SpanReward]()
        if by_rank:
            # tokens outside every span have no span ratio; these spans carry nothing but the shaping
            own = [(length - 1, length)] if ended and settings.ending == "own" else []
            spans += [SpanReward(*place, 0.0, ENDING) for place in own]
            spans += [SpanReward(*place, 0.0, OVERFLOW) for place in beyond]
        ending = settings.early if last < settings.size else settings.complete if last == settings.size else 0.0
        if settings.end_rank == "line" and last > settings.size and (not beyond or beyond[-1][1] < length):
            ending = settings.overflow
        place = (length - 1, length) if ended else (length, length)
        if settings.shaping == "reward":
            # every list gets a value: those without a fault are part of the baseline of the others
            begin = beyond[0][0] if beyond else length
            faults = SpanReward(begin, length, settings.overflow * len(beyond), OVERFLOW_FAULT)
            return [*spans, SpanReward(*place, ending if ended else 0.0, ENDING_FAULT), faults]
        if ended and ending:
            spans.append(SpanReward(*place, ending, ENDING, "advantage"))
        for first, stop in beyond:
            share = max(stop - first, 1) if settings.overflow_share == "item" else 1
            spans.append(SpanReward(first, stop, settings.overflow / share, OVERFLOW, "advantage"))
        return spans
