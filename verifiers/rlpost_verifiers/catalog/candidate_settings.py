"""Settings of `rlpost_verifiers.catalog.candidates`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlpost.errors import UserError

NAME = "catalog_candidates"
TEMPLATE = "{prompt}\n\nChoose from these candidates:\n{candidates}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateSettings:
    """Which candidates are found, and how they are shown.

    Attributes:
        k: largest number of candidates.
        by: ``bm25``, or a sentence-transformers model: its folder, or ``package:NAME``.
        popular: column of the catalog with the number of times each item was chosen; its most popular items take the
            places that retrieval leaves empty. None: such places stay empty.
        popular_places: least number of places for popular items.
        without_mentioned: whether items that the conversation mentions are left out, next to the seen ones.
        force_relevant: whether relevant items that were not found replace the last candidates. For training alone: a
            run refuses held-out prompts that have any.
        order: ``shuffled`` in the prompt, or by ``score``.
        seed: random seed of the order; each row has its own.
        descriptions: columns of the catalog that describe an item.
        characters: most characters of a description.
        template: the prompt, with the fields ``{prompt}`` and ``{candidates}`` and any column of the row. Of a chat it
            is the last turn of the user. None: the prompt stays, for a ``data.template`` with ``{candidates_text}``.

    Raises:
        UserError: for a value out of range.
    """

    k: int = 50
    by: str = "bm25"
    popular: str | None = None
    popular_places: int = 0
    without_mentioned: bool = False
    force_relevant: bool = False
    order: Literal["shuffled", "score"] = "shuffled"
    seed: int = 0
    descriptions: tuple[str, ...] = ()
    characters: int = 200
    template: str | None = TEMPLATE

    def __post_init__(self) -> None:
        for name, least in (("k", 1), ("popular_places", 0), ("characters", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"{NAME}: {name} is {value!r}; give a whole number from {least} on")
        if self.popular_places > self.k or (self.popular_places and self.popular is None):
            told = f"popular_places {self.popular_places}, k {self.k}, popular {self.popular!r}"
            raise UserError(f"{NAME}: {told}; popular items need a column of the catalog, and no more places than k")
        if self.order not in ("shuffled", "score"):
            raise UserError(f"{NAME}: order is {self.order!r}; use 'shuffled' or 'score'")
        if isinstance(self.descriptions, str) or not all(isinstance(one, str) for one in self.descriptions):
            raise UserError(f"{NAME}: descriptions is {self.descriptions!r}; give a list of the catalog's columns")
        for field in ("{prompt}", "{candidates}"):
            if self.template is not None and field not in self.template:
                raise UserError(f"{NAME}: the template {self.template!r} has no {field}; write it where it belongs")
