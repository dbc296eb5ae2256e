"""Simple recommenders, beside which every figure of a trained one is shown.

    popularity        how often the item was relevant in the training rows
    asked attribute   number of the item's attributes that the prompt names (a genre, a brand), then popularity
    item kNN          Σ_{i seen} n_ij / √(n_i n_j), where n_ij training rows with i seen have j relevant (item-based
                      collaborative filtering with cosine similarity: Deshpande and Karypis 2004, section 4)
    retriever         the prompt's candidates in the order in which they were found (`catalog_candidates`)
    naive Bayes       log (n_j + 1) + Σ_{w in prompt} log ((n_wj + ½) / (n_j + 1)), where n_wj training rows with the
                      word w in their prompt have j relevant

Seen items are left out, ties go to the more popular item and then to the earlier row of the catalog. Everything is
counted in sparse matrices, so memory follows the data, not words times items.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from rlpost.types import CANDIDATES, WITHOUT_CANDIDATES, Prompt
from rlpost_verifiers.catalog.ground_truth import GroundTruth, Reader
from rlpost_verifiers.catalog.items import Item

_WORD = re.compile(r"\w+", re.UNICODE)
_VALUES = 200
"""Most different values of an attribute that people ask for by name, such as a genre; more are ids or texts."""
_SEVERAL = re.compile(r"[|,;/]")
"""What separates several values in one cell, as MovieLens' ``Action|Comedy``."""


class Baselines:
    """Ranks a catalog for prompts by methods of a few lines.

    Args:
        reader: reads the ground truth of rows.
        train: training prompts, from which everything is counted; the held-out ones are never looked at.
    """

    def __init__(self, reader: Reader, train: Sequence[Prompt]):
        self.reader, items = reader, reader.catalog.items
        truths = [reader.ground_truth(prompt.columns, required=False) for prompt in train]
        relevant = _matrix([truth.relevant for truth in truths], len(items))
        self.popularity = np.asarray(relevant.sum(axis=0)).ravel()
        self._words: dict[str, int] = {}
        said = [self._known(prompt, learn=True) for prompt in train]
        words = _matrix(said, max(len(self._words), 1))
        self._by_word = (words.T @ relevant).tocsr()
        seen = _matrix([truth.seen for truth in truths], len(items))
        self._by_seen, self._seen_by = (seen.T @ relevant).tocsr(), np.asarray(seen.sum(axis=0)).ravel()
        self._asked = _attribute_words(items)

    def answers(self, prompts: Sequence[Prompt], places: int) -> dict[str, list[str]]:
        """A list of ``places`` items for each prompt by every method that the data supports, one item a line.

        Item kNN needs training rows with seen items, and the asked attribute a catalog with attributes.
        """
        hidden = self.reader.columns.relevant
        truths = [
            self.reader.ground_truth({k: v for k, v in prompt.columns.items() if k != hidden}, required=False)
            for prompt in prompts
        ]
        scores: dict[str, list[np.ndarray]] = {}
        if self.popularity.any():
            scores["popularity"] = [self.popularity] * len(prompts)
        if self._asked:
            scores["asked attribute"] = [self._asked_for(prompt) for prompt in prompts]
        if self._by_seen.nnz:
            scores["item kNN"] = [self._neighbours(truth) for truth in truths]
        if self._by_word.nnz:
            scores["naive Bayes"] = [self._likely(prompt) for prompt in prompts]
        answers = {
            name: [self._list(score, truth, places) for score, truth in zip(found, truths, strict=True)]
            for name, found in scores.items()
        }
        found = [prompt.columns.get(CANDIDATES) for prompt in prompts]
        offered = [list(names) for names in found if isinstance(names, (list, tuple))]
        if offered and len(offered) == len(prompts):
            answers["retriever"] = ["\n".join(names[:places]) for names in offered]
        return answers

    def _list(self, score: np.ndarray, truth: GroundTruth, places: int) -> str:
        order = np.lexsort((np.arange(len(score)), -self.popularity, -score))
        kept = [self.reader.catalog.items[i].name for i in order[: places + len(truth.seen)] if i not in truth.seen]
        return "\n".join(kept[:places])

    def _asked_for(self, prompt: Prompt) -> np.ndarray:
        text, score = f" {' '.join(_words(prompt))} ", np.zeros(len(self.popularity))
        for value, items in self._asked.items():
            if f" {value} " in text or f" {value}s " in text:
                score[items] += 1.0
        return score

    def _neighbours(self, truth: GroundTruth) -> np.ndarray:
        score = np.zeros(len(self.popularity))
        for item in sorted(truth.seen):
            row = self._by_seen[item]
            score[row.indices] += row.data / np.sqrt(self._seen_by[item] * self.popularity[row.indices])
        return score

    def _likely(self, prompt: Prompt) -> np.ndarray:
        words = sorted(self._known(prompt))
        score = np.log(self.popularity + 1.0) * (1 - len(words))
        for word in words:
            row = self._by_word[word]
            score[row.indices] += np.log((row.data + 0.5) / 0.5)
        return score

    def _known(self, prompt: Prompt, learn: bool = False) -> set[int]:
        """Numbers of the prompt's words; new words get a number where they are learned."""
        words = set(_words(prompt))
        if learn:
            for word in sorted(words):
                self._words.setdefault(word, len(self._words))
        return {self._words[word] for word in words if word in self._words}


def _words(prompt: Prompt) -> list[str]:
    plain = prompt.columns.get(WITHOUT_CANDIDATES)
    if isinstance(plain, str):  # what the candidates' lines say was not asked for
        return _WORD.findall(plain.lower())
    text = prompt.text if prompt.messages is None else "\n".join(message.text for message in prompt.messages)
    return _WORD.findall((text or "").lower())


def _matrix(rows: Sequence[Any], columns: int) -> Any:
    """A sparse matrix of ones, from the columns of each row."""
    counts = [len(row) for row in rows]
    indices = np.fromiter((column for row in rows for column in row), np.int64, sum(counts))
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return sparse.csr_matrix((np.ones(len(indices)), indices, indptr), shape=(len(rows), columns))


def _attribute_words(items: Sequence[Item]) -> Mapping[str, np.ndarray]:
    """Items by attribute value in words; only of attributes with few different texts."""
    values: dict[str, dict[str, list[int]]] = {}
    for number, item in enumerate(items):
        for name, cell in item.attributes.items():
            for value in _texts(cell):
                values.setdefault(name, {}).setdefault(value, []).append(number)
    found: dict[str, list[int]] = {}
    for by_value in values.values():
        shared = Counter({value: len(places) for value, places in by_value.items()})
        if len(shared) <= _VALUES and max(shared.values()) > 1:
            for value, places in by_value.items():
                found.setdefault(value, []).extend(places)
    return {value: np.unique(places) for value, places in found.items()}


def _texts(cell: Any) -> set[str]:
    cells = cell if isinstance(cell, (list, tuple)) else [cell]
    parts = {part for one in cells if isinstance(one, str) for part in _SEVERAL.split(one.lower())}
    return {text for part in parts if (text := " ".join(_WORD.findall(part)))}
