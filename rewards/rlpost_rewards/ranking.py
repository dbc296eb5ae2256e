r"""Rewards of ranked lists: what each place of a list is worth, and whether the list is as long as it should be.

Zhu et al. 2025, "Rank-GRPO: training LLM-based conversational recommender systems with reinforcement learning" (arXiv
2510.20150), section 3. A list of N items has relevances rel_1 … rel_N. Vanilla GRPO pays every token the whole list's
DCG, also those of items that follow no hit; Rank-GRPO pays each rank what it and the ranks behind it contribute.
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
from rlpost.types import Completion, Group, ItemVerdict, Reward, SpanReward
from rlpost_rewards.combine import add

Returns = Literal["item", "exp", "log", "sequence"]
Missing = Literal["zero", "drop"]
Channel = Literal["reward", "advantage"]
Ending = Literal["item", "own"]
Share = Literal["token", "item"]
Recipe = Literal["none", "paper", "released_code"]

ENDING, OVERFLOW, ENDING_FAULT, OVERFLOW_FAULT = -1, -2, -3, -4
"""Span indices of what is not a rank: the end of the list, what stands behind its last rank, and the faults of both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingSettings:
    """What a list is worth.

    Attributes:
        size: N, the ranks asked for.
        returns: of a rank: ``item`` its own relevance (the paper's exp∞, its best), ``exp`` that plus what follows over
            powers of ``gamma``, ``log`` the discounted relevances from it on; or ``sequence``, the whole list's DCG as
            one reward for all tokens (vanilla GRPO, GSPO).
        gamma: Γ > 1 of ``exp``.
        missing: ranks that the list does not reach count as worth ``zero`` in the group's baseline, or are left out.
        early: added where the list ends before rank N (paper: ε_u = -0.1).
        overflow: added for what stands behind rank N (paper: ε_o = -0.1).
        complete: added where the list ends at rank N (released code: 0.1, which the paper does not mention).
        shaping: those three are added to the advantage as they are (paper, code), or are rewards of their own that the
            group normalises.
        overflow_share: every token of an item behind rank N gets ``overflow`` (released code), or they share it.
        ending: the end token belongs to the last ``item`` (paper), or earns nothing but the shaping (``own``: released
            code).
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

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"ranking: size is {self.size}; give the number of ranks asked for")
        if not self.gamma > 1:
            raise UserError(
                f"ranking: gamma is {self.gamma}; give more than 1 (returns: item is the limit of infinity)"
            )
        check_choices(self, "ranking: ")


RECIPES: dict[Recipe, RankingSettings] = {
    "none": RankingSettings(),
    "paper": RankingSettings(),
    "released_code": RankingSettings(complete=0.1, ending="own"),
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


def token_span(completion: Completion, start: int, stop: int) -> tuple[int, int]:
    """The tokens that begin within characters ``start`` to ``stop`` (half-open); end tokens belong to what is last.

    A token that covers the end of one item and the beginning of the next belongs to the one in which it begins.
    """
    begins = [offset[0] for offset in completion.offsets]
    first = bisect_left(begins, start)
    last = len(begins) if stop >= len(completion.text) else bisect_left(begins, stop)
    return first, max(first, last)


class Ranking:
    """Pays the places of a list that a verifier has judged item by item (``Verdict.items``, with scores as relevances).

    With ``returns: sequence`` one span over the whole answer, else a span for every rank, whose index is the rank:
    groups are normalised rank by rank, ``algorithm.ratio: span`` and ``aggregate: span`` then are Rank-GRPO. What
    stands behind the last item and is none itself was an attempt at the next rank, worth nothing there: text without
    items would otherwise be credited nowhere, and a policy that is pushed away from misses drifts into it. Further
    ranks that the list does not reach are spans without tokens. Length shaping goes to the list's end and to what
    stands behind rank N.

    Args:
        recipe: ``none``, ``paper`` or ``released_code``: where the settings start. What is given beside it wins.
        settings: see `RankingSettings`.

    Raises:
        UserError: for a setting that is none, or a value it cannot have.
    """

    needs: tuple[str, ...] = ()

    def __init__(self, recipe: Recipe = "none", **settings: object):
        if recipe not in RECIPES:
            raise UserError(f"ranking: recipe is {recipe!r}; use {', '.join(map(repr, RECIPES))}")
        known = {field.name for field in fields(RankingSettings)}
        strange = sorted(set(settings) - known)
        if strange:
            raise UserError(f"ranking: {strange[0]!r} is no setting; there are {', '.join(sorted(known))}")
        self.settings = replace(RECIPES[recipe], **settings)  # pyright: ignore[reportArgumentType]

    def __call__(self, group: Group) -> Sequence[Reward | None]:
        """See `rlpost.protocols.RewardStage`."""
        result: list[Reward | None] = []
        for completion, verdict, reward in zip(group.completions, group.verdicts, group.rewards, strict=True):
            if reward is None or verdict is None or verdict.outcome == "undecided":
                result.append(None)
            else:
                result.append(add(reward, *self._spans(completion, verdict.items)))
        return result

    def _spans(self, completion: Completion, items: Sequence[ItemVerdict]) -> list[SpanReward]:
        settings, length = self.settings, len(completion.token_ids)
        places = [token_span(completion, item.start, item.stop) for item in items]
        ended = completion.finish_reason == "stop" and length > 0
        if settings.ending == "own" and ended and places:
            places[-1] = places[-1][0], min(places[-1][1], length - 1)
        begin, end = places[-1][1] if places else 0, length - int(ended)  # an end token by itself is no attempt
        if begin < end:
            places.append((begin, length if settings.ending == "item" else end))
        relevances = [item.score for item in items[: settings.size]]
        relevances += [0.0] * (settings.size - len(relevances))
        spans = self._returns(relevances, places, length)
        return [*spans, *self._shaping(len(items), places[settings.size :], length, ended)]

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
            spans += [SpanReward(length, length, 0.0, index) for index in range(len(spans), settings.size)]
        return spans

    def _shaping(self, count: int, beyond: list[tuple[int, int]], length: int, ended: bool) -> list[SpanReward]:
        settings = self.settings
        by_rank, spans = settings.returns != "sequence", list[SpanReward]()
        if by_rank:
            # tokens outside every span have no ratio; these are worth nothing but the shaping
            own = [(length - 1, length)] if ended and settings.ending == "own" else []
            spans += [SpanReward(*place, 0.0, ENDING) for place in own]
            spans += [SpanReward(*place, 0.0, OVERFLOW) for place in beyond]
        ending = settings.early if count < settings.size else settings.complete if count == settings.size else 0.0
        place = (length - 1, length) if ended else (length, length)
        if settings.shaping == "reward":
            # one value for every list, or those without a fault would not be what the others are measured against
            begin = beyond[0][0] if beyond else length
            faults = SpanReward(begin, length, settings.overflow * len(beyond), OVERFLOW_FAULT)
            return [*spans, SpanReward(*place, ending if ended else 0.0, ENDING_FAULT), faults]
        if ended and ending:
            spans.append(SpanReward(*place, ending, ENDING, "advantage"))
        for first, last in beyond:
            share = max(last - first, 1) if settings.overflow_share == "item" else 1
            spans.append(SpanReward(first, last, settings.overflow / share, OVERFLOW, "advantage"))
        return spans
