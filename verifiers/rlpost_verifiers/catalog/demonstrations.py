"""Demonstrations for a warm start: a teacher's lists, mapped to the catalog and adjusted to what users wanted.

Zhu et al. 2025, "Rank-GRPO" (arXiv 2510.20150), appendix A; `rlpost_verifiers.catalog.remap` has the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlpost.algorithms.ranking import ndcg, recall
from rlpost.errors import DataError, UserError
from rlpost_verifiers.catalog.embedding import describe
from rlpost_verifiers.catalog.ground_truth import GroundTruth
from rlpost_verifiers.catalog.lists import ListSettings, parse_list
from rlpost_verifiers.catalog.remap import PENALTY, Adjustment, adjust, demonstration, reflect, remap
from rlpost_verifiers.catalog.teacher import conversation_of
from rlpost_verifiers.catalog.verifier import CatalogVerifier

Embed = Callable[[Sequence[str]], np.ndarray]
Rate = Callable[[Mapping[str, Sequence[str]]], Mapping[str, Mapping[int, float]]]
"""Maps each conversation's candidate names to ratings by the candidate's position (0-based)."""

STAGES = ("teacher", "remap", "reflect", "adjust")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemonstrationSettings:
    """How a teacher's list is mapped to the catalog.

    Attributes:
        size: N, items of a demonstration.
        conversation: λ, weight of the conversation's similarity to items, relative to the teacher's list.
        rating: γ, weight of the teacher's ratings.
        rated: number of candidates that the teacher rates, best first.
        penalty: weight of the adjustment's regularisation; see `remap.adjust`.
        fitted: largest number of conversations the adjustment is fitted to; its table has one number per conversation
            and catalog item.
        held_out: share of the conversations with ground truth on which the figures are measured, with an adjustment
            that was not fitted to them.

    Raises:
        UserError: for a value out of range.
    """

    size: int = 20
    conversation: float = 1.0
    rating: float = 0.5
    rated: int = 100
    penalty: float = PENALTY
    fitted: int = 5000
    held_out: float = 0.2

    def __post_init__(self) -> None:
        if self.size < 1 or self.rated < 1 or self.fitted < 1 or self.penalty < 0 or not 0 < self.held_out < 1:
            raise UserError(f"demonstrations: {self}: sizes are at least 1, held_out lies between 0 and 1")


@dataclass(frozen=True, slots=True)
class Demonstrated:
    """The demonstrations, and how good the lists of each stage are.

    Attributes:
        rows: the rows with a teacher's list; ``completion`` is the demonstration.
        figures: ``recall@N`` and ``ndcg@N`` of every stage's lists on conversations held out from the adjustment; the
            adjustment's negative log-likelihoods (``nll_before``, ``nll_after``); counts of conversations.
    """

    rows: list[dict[str, Any]]
    figures: dict[str, float]


class Remapper:
    """Scores of a catalog's items for conversations, stage by stage.

    Args:
        verifier: provides catalog, index, and the columns of the rows.
        embed: maps n texts to unit vectors ``[n, d]``, such as `embedding.Embedder`.
        settings: sizes and weights of the stages.
    """

    def __init__(self, verifier: CatalogVerifier, embed: Embed, settings: DemonstrationSettings):
        self.verifier, self.embed, self.settings = verifier, embed, settings
        self.items = embed([describe(item) for item in verifier.catalog.items])

    def matches(self, answer: str) -> list[tuple[str, int | None]]:
        """Name and catalog position of each entry in a teacher's list; None for an item not in the catalog."""
        entries = parse_list(answer, ListSettings(unparsable="skip"), self.verifier.knows)
        return [
            (f"{entry.title} ({entry.year})" if entry.year else entry.title, self.verifier.place_of(entry))
            for entry in entries
            if entry.title is not None
        ]

    def scores(self, rows: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> np.ndarray:
        """Scores ``[Q, C]`` float32 of the catalog's C items, from the teacher's lists for Q conversations."""
        named = [self.matches(answer) for answer in answers]
        strange = list(dict.fromkeys(name for pairs in named for name, item in pairs if item is None))
        vectors = dict(zip(strange, self.embed(strange), strict=True))
        weight = self.settings.conversation
        said = self.embed([conversation_of(row) for row in rows]) if weight else None
        found = np.zeros((len(rows), len(self.items)), np.float32)
        for place, pairs in enumerate(named):
            own = [vectors[name] if item is None else self.items[item] for name, item in pairs]
            similarity = np.array(own).reshape(len(own), -1) @ self.items.T if own else np.zeros((0, len(self.items)))
            known = [item for _, item in pairs]
            found[place] = remap(similarity, known, None if said is None else self.items @ said[place], weight)
        return found


def demonstrate(
    rows: Mapping[str, Mapping[str, Any]],
    lists: Mapping[str, str],
    remapper: Remapper,
    rate: Rate | None = None,
) -> Demonstrated:
    """Demonstrations for all conversations with a teacher's list.

    Args:
        rows: conversations by id, with ``prompt``, the seen items, and the ground truth where it is known.
        lists: the teacher's lists by conversation id.
        remapper: scores the catalog's items.
        rate: asks the teacher to rate the best candidates; None: no reflect stage.

    Raises:
        DataError: if no conversation has a list, or fewer than two have ground truth.
    """
    settings, reader = remapper.settings, remapper.verifier.reader
    names = [name for name in rows if name in lists]
    if not names:
        raise DataError(
            f"none of {len(rows)} conversations has a list of the teacher; ids must be the same in both files"
        )
    truth = {name: reader.ground_truth(rows[name], required=False) for name in names}
    scores = remapper.scores([rows[name] for name in names], [lists[name] for name in names])
    stages: dict[str, np.ndarray] = {"remap": scores}
    if rate is not None:
        stages["reflect"] = scores = _reflected(names, scores, truth, remapper, rate)
    told = [place for place, name in enumerate(names) if truth[name].relevant]
    held = told[: max(int(len(told) * settings.held_out), 1)]
    fitting = told[len(held) :][: settings.fitted]
    if not fitting:
        raise DataError(f"{len(told)} conversations say what their users wanted; the adjustment needs two at least")
    trial = _fit(fitting, names, scores, truth, settings)
    stages["adjust"] = trial(scores[held])
    figures = _figures(held, names, stages, truth, remapper, lists)
    final = _fit(told[: settings.fitted], names, scores, truth, settings)
    figures |= {"nll_before": final.before, "nll_after": final.after}
    figures |= {"conversations": float(len(rows)), "demonstrations": float(len(names)), "held_out": float(len(held))}
    made = [
        {
            **rows[name],
            "completion": _text(demonstration(final(scores[place]), settings.size, truth[name].seen), remapper),
        }
        for place, name in enumerate(names)
    ]
    return Demonstrated(made, figures)


def _text(items: Sequence[int], remapper: Remapper) -> str:
    return "\n".join(remapper.verifier.catalog.store.name(item) for item in items)


def _reflected(
    names: Sequence[str], scores: np.ndarray, truth: Mapping[str, GroundTruth], remapper: Remapper, rate: Rate
) -> np.ndarray:
    """Scores after the teacher's ratings of the best candidates; conversations without ratings keep their scores."""
    rated = remapper.settings.rated
    chosen = {name: demonstration(scores[place], rated, truth[name].seen) for place, name in enumerate(names)}
    catalog = remapper.verifier.catalog.store
    answers = rate({name: [catalog.name(item) for item in items] for name, items in chosen.items()})
    found = scores.copy()
    for place, name in enumerate(names):
        ratings = {chosen[name][k]: value for k, value in answers.get(name, {}).items()}
        found[place] = reflect(scores[place], ratings, remapper.settings.rating)
    return found


def _fit(
    places: Sequence[int],
    names: Sequence[str],
    scores: np.ndarray,
    truth: Mapping[str, GroundTruth],
    settings: DemonstrationSettings,
) -> Adjustment:
    return adjust(scores[list(places)], [sorted(truth[names[place]].relevant) for place in places], settings.penalty)


def _figures(
    held: Sequence[int],
    names: Sequence[str],
    stages: Mapping[str, np.ndarray],
    truth: Mapping[str, GroundTruth],
    remapper: Remapper,
    lists: Mapping[str, str],
) -> dict[str, float]:
    size = remapper.settings.size

    def ranked(stage: str) -> Iterator[tuple[GroundTruth, list[int]]]:
        for number, place in enumerate(held):
            one = truth[names[place]]
            if stage == "teacher":
                known = [item for _, item in remapper.matches(lists[names[place]]) if item is not None]
                yield one, [item for item in dict.fromkeys(known) if item not in one.seen][:size]
            else:
                row = stages[stage][number if stage == "adjust" else place]
                yield one, demonstration(row, size, one.seen)

    found: dict[str, float] = {}
    for stage in STAGES:
        if stage != "teacher" and stage not in stages:
            continue
        pairs = [
            ([float(item in one.relevant) for item in items], [1.0] * len(one.relevant)) for one, items in ranked(stage)
        ]
        found[f"{stage} recall@{size}"] = float(np.mean([recall(gains, relevant, size) for gains, relevant in pairs]))
        found[f"{stage} ndcg@{size}"] = float(np.mean([ndcg(gains, relevant, size) for gains, relevant in pairs]))
    return found
