"""Demonstrations for a warm start: a teacher's lists, mapped to the catalog and adjusted to what users wanted.

Zhu et al. 2025, "Rank-GRPO" (arXiv 2510.20150), appendix A; `rlpost_verifiers.catalog.remap` has the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlpost.algorithms.ranking import ndcg, recall
from rlpost.errors import DataError, UserError
from rlpost_verifiers.catalog.ground_truth import GroundTruth
from rlpost_verifiers.catalog.lists import ListSettings, parse_list
from rlpost_verifiers.catalog.remap import PENALTY, Adjustment, positions, remap
from rlpost_verifiers.catalog.scores import DenseScores, Scores
from rlpost_verifiers.catalog.streamed import StreamedScores
from rlpost_verifiers.catalog.teacher import conversation_of
from rlpost_verifiers.catalog.vectors import Embed, item_vectors
from rlpost_verifiers.catalog.verifier import CatalogVerifier

Rate = Callable[[Mapping[str, Sequence[str]]], Mapping[str, Mapping[int, float]]]
"""Maps each conversation's candidate names to ratings by the candidate's position (0-based)."""

_TEXTS_OF = 1000
"""Conversations whose texts are embedded at once where there is no table of scores."""
_ADJUSTED = 10_000
"""Most items that are adjusted besides the wanted ones: more take longer and change nothing that is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemonstrationSettings:
    """How a teacher's list is mapped to the catalog.

    Attributes:
        size: N, items of a demonstration.
        conversation: λ, weight of the conversation's similarity to items, relative to the teacher's list.
        rating: γ, weight of the teacher's ratings.
        rated: number of candidates that the teacher rates, best first.
        penalty: weight of the adjustment's regularisation; see `remap.adjust`.
        fitted: largest number of conversations the adjustment is fitted to.
        held_out: share of the conversations with ground truth on which the figures are measured, with an adjustment
            that was not fitted to them.
        memory_gb: memory for scores, next to the items' vectors. Where a table of all conversations and items takes
            more, scores are made block by block, and the adjustment is fitted to some items
            (`rlpost_verifiers.catalog.streamed`).

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
    memory_gb: float = 4.0

    def __post_init__(self) -> None:
        if self.size < 1 or self.rated < 1 or self.fitted < 1 or self.penalty < 0 or not 0 < self.held_out < 1:
            raise UserError(f"demonstrations: {self}: sizes are at least 1, held_out lies between 0 and 1")
        if not self.memory_gb > 0:
            raise UserError(f"demonstrations: memory_gb is {self.memory_gb}; give a number above 0")

    def fits(self, conversations: int, items: int) -> bool:
        """Whether a table of all scores does, with the fit's tables (five of 8 bytes) and a copy for the ratings."""
        return items * (8 * conversations + 40 * min(conversations, self.fitted)) <= self.memory_gb * 2**30

    def adjusted(self, conversations: int) -> int:
        """Number of items that are adjusted besides the wanted ones; their scores take half of the memory at most."""
        return min(int(self.memory_gb * 2**29 / 4 / max(min(conversations, self.fitted), 1)), _ADJUSTED)


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
        self.items = item_vectors(verifier.catalog.items, embed)

    def matches(self, answer: str) -> list[tuple[str, int | None]]:
        """Name and catalog position of each entry in a teacher's list; None for an item not in the catalog."""
        entries = parse_list(answer, ListSettings(unparsable="skip"), self.verifier.knows)
        return [
            (f"{entry.title} ({entry.year})" if entry.year else entry.title, self.verifier.place_of(entry))
            for entry in entries
            if entry.title is not None
        ]

    def table(self, rows: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> Scores:
        """Scores from the teacher's lists for Q conversations: one table where that fits, else made block by block."""
        if self.settings.fits(len(rows), len(self.items)):
            return DenseScores(self.scores(rows, answers))
        return self.streamed(rows, answers)

    def scores(self, rows: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> np.ndarray:
        """Scores ``[Q, C]`` float32 of the catalog's C items, from the teacher's lists for Q conversations."""
        named, vectors, said = self._embedded(rows, answers)
        weight = self.settings.conversation
        found = np.zeros((len(rows), len(self.items)), np.float32)
        for place, pairs in enumerate(named):
            own = [vectors[name] if item is None else self.items[item] for name, item in pairs]
            similarity = np.array(own).reshape(len(own), -1) @ self.items.T if own else np.zeros((0, len(self.items)))
            known = [item for _, item in pairs]
            found[place] = remap(similarity, known, None if said is None else self.items @ said[place], weight)
        return found

    def streamed(self, rows: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> StreamedScores:
        """The same scores without their table; the texts of a few conversations at a time are embedded."""
        users = np.zeros((len(rows), self.items.shape[1]), np.float32)
        extra: list[dict[int, float]] = []
        for start in range(0, len(rows), _TEXTS_OF):
            part = slice(start, start + _TEXTS_OF)
            named, vectors, said = self._embedded(rows[part], answers[part])
            for place, pairs in enumerate(named, start):
                exact: dict[int, float] = {}
                for weight, (name, item) in zip(positions(len(pairs)), pairs, strict=True):
                    users[place] += weight * (vectors[name] if item is None else self.items[item])
                    if item is not None:
                        exact[item] = exact.get(item, 0.0) + weight
                if said is not None:
                    users[place] += self.settings.conversation * said[place - start]
                extra.append(exact)
        return StreamedScores(self.items, users, extra, self.settings.adjusted(len(rows)))

    def _embedded(
        self, rows: Sequence[Mapping[str, Any]], answers: Sequence[str]
    ) -> tuple[list[list[tuple[str, int | None]]], dict[str, np.ndarray], np.ndarray | None]:
        """Names and items of each list, vectors of names outside the catalog, and of conversations if they count."""
        named = [self.matches(answer) for answer in answers]
        strange = list(dict.fromkeys(name for pairs in named for name, item in pairs if item is None))
        vectors = dict(zip(strange, self.embed(strange), strict=True))
        said = self.embed([conversation_of(row) for row in rows]) if self.settings.conversation else None
        return named, vectors, said


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
    truth = [reader.ground_truth(rows[name], required=False) for name in names]
    told = [place for place, one in enumerate(truth) if one.relevant]
    held = told[: max(int(len(told) * settings.held_out), 1)]
    fitting = told[len(held) :][: settings.fitted]
    if not fitting:
        raise DataError(f"{len(told)} conversations say what their users wanted; the adjustment needs two at least")
    scores = remapper.table([rows[name] for name in names], [lists[name] for name in names])
    of_held = [truth[place] for place in held]
    ranked = {"teacher": [_known(remapper, lists[names[place]], truth[place]) for place in held]}
    ranked["remap"] = _best(scores, held, of_held, settings)
    if rate is not None:
        scores = _reflected(names, scores, truth, remapper, rate)
        ranked["reflect"] = _best(scores, held, of_held, settings)
    ranked["adjust"] = _best(scores, held, of_held, settings, _fit(scores, fitting, truth, settings))
    figures = _figures(ranked, of_held, settings.size)
    chosen = told[: settings.fitted]
    final = _fit(scores, chosen, truth, settings)
    figures |= {"nll_before": final.before, "nll_after": final.after}
    if isinstance(scores, StreamedScores) and settings.penalty:
        figures["nll_gap"] = scores.gap(
            chosen, [sorted(truth[place].relevant) for place in chosen], settings.penalty, final
        )
    figures |= {"conversations": float(len(rows)), "demonstrations": float(len(names)), "held_out": float(len(held))}
    best = _best(scores, range(len(names)), truth, settings, final)
    made = [{**rows[name], "completion": _text(items, remapper)} for name, items in zip(names, best, strict=True)]
    return Demonstrated(made, figures)


def _known(remapper: Remapper, answer: str, one: GroundTruth) -> list[int]:
    """The catalog items of a teacher's list, without the seen ones."""
    known = [item for _, item in remapper.matches(answer) if item is not None]
    return [item for item in dict.fromkeys(known) if item not in one.seen][: remapper.settings.size]


def _best(
    scores: Scores,
    places: Sequence[int],
    truth: Sequence[GroundTruth],
    settings: DemonstrationSettings,
    adjustment: Adjustment | None = None,
) -> list[list[int]]:
    return scores.best(places, settings.size, [one.seen for one in truth], adjustment)


def _text(items: Sequence[int], remapper: Remapper) -> str:
    return "\n".join(remapper.verifier.catalog.store.name(item) for item in items)


def _reflected(
    names: Sequence[str], scores: Scores, truth: Sequence[GroundTruth], remapper: Remapper, rate: Rate
) -> Scores:
    """Scores after the teacher's ratings of the best candidates; conversations without ratings keep their scores."""
    rated = remapper.settings.rated
    chosen = scores.best(range(len(names)), rated, [one.seen for one in truth])
    catalog = remapper.verifier.catalog.store
    asked = {name: [catalog.name(item) for item in items] for name, items in zip(names, chosen, strict=True)}
    answers = rate(asked)
    ratings = {
        place: {chosen[place][k]: value for k, value in answers[name].items()}
        for place, name in enumerate(names)
        if name in answers
    }
    return scores.reflected(ratings, remapper.settings.rating)


def _fit(
    scores: Scores, places: Sequence[int], truth: Sequence[GroundTruth], settings: DemonstrationSettings
) -> Adjustment:
    return scores.fit(places, [sorted(truth[place].relevant) for place in places], settings.penalty)


def _figures(ranked: Mapping[str, Sequence[list[int]]], truth: Sequence[GroundTruth], size: int) -> dict[str, float]:
    """Recall and nDCG of each stage's lists."""
    found: dict[str, float] = {}
    for stage, lists in ranked.items():
        pairs = [
            ([float(item in one.relevant) for item in items], [1.0] * len(one.relevant))
            for one, items in zip(truth, lists, strict=True)
        ]
        found[f"{stage} recall@{size}"] = float(np.mean([recall(gains, relevant, size) for gains, relevant in pairs]))
        found[f"{stage} ndcg@{size}"] = float(np.mean([ndcg(gains, relevant, size) for gains, relevant in pairs]))
    return found
