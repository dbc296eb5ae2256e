"""Candidates in the prompt: for every conversation the items of a catalog that a retriever finds, to choose from.

A wrapping data source. The rows of another source get a list of candidates, one item per line (``name: description``),
in their prompt, and these columns:

    candidates            names, the retriever's best first, whatever the order in the prompt
    candidates_text       their lines as they stand in the prompt, for a template of one's own
    candidates_forced     number of relevant items that the retriever had not found (``force_relevant``)
    before_candidates     the conversation as text, by which prompts are compared and baselines count words

Figures of evaluations: ``candidates_recall``, the share of the relevant items among the candidates, which no list of
candidates can exceed; ``left_candidates``, the share of a list's places that no candidate fills; and the retriever's
own list as a baseline.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rlpost.data.prompts import fill
from rlpost.data.text import named
from rlpost.errors import DataError, RlpostError, UserError, describe_error
from rlpost.plugins import registry
from rlpost.types import CANDIDATES, FORCED, WITHOUT_CANDIDATES
from rlpost_verifiers.catalog.candidate_settings import NAME as _NAME
from rlpost_verifiers.catalog.candidate_settings import CandidateSettings
from rlpost_verifiers.catalog.embedding import Embedder
from rlpost_verifiers.catalog.ground_truth import ELSEWHERE_KEY, RELEVANT_KEY, SEEN_KEY, Columns, Reader
from rlpost_verifiers.catalog.index import CatalogIndex
from rlpost_verifiers.catalog.insertion import Conversation
from rlpost_verifiers.catalog.items import Catalog, load_catalog
from rlpost_verifiers.catalog.retrieval import Bm25, Embedded, Retriever

_log = logging.getLogger(__name__)

_ELLIPSIS = "…"
_MADE = (CANDIDATES, "candidates_text", FORCED, WITHOUT_CANDIDATES)


def rows(
    source: str,
    rows: str | Mapping[str, Any],
    catalog: str | None = None,
    items: int | None = None,
    columns: Mapping[str, str] | None = None,
    prompt_key: str = "prompt",
    relevant_key: str = RELEVANT_KEY,
    seen_key: str = SEEN_KEY,
    **settings: Any,
) -> list[dict[str, Any]]:
    """The data source ``catalog_candidates``: the rows of another source with candidates.

    Args:
        source: the other source: a name or ``module:function``, as in ``data.source``.
        rows: its path or its keyword arguments.
        catalog: path of the catalog; None: the films that ship.
        items: use only the first ``items`` items of the catalog; None: all.
        columns: names of the catalog's columns, see `load_catalog`.
        prompt_key: column of the rows with the conversation, as text or a chat.
        relevant_key: column with the relevant items.
        seen_key: column with the seen items, which are no candidates.
        settings: fields of `CandidateSettings`.

    Raises:
        UserError: for a setting out of range, or an unknown one.
        DataError: for rows that have such columns already, or no conversation; a catalog without a named column.
        MissingPackageError: without the extra ``retrieval`` (BM25), or ``remap`` (vectors).
    """
    try:
        settings = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
        chosen = CandidateSettings(**settings)
    except TypeError as error:
        raise UserError(f"{_NAME} cannot take {settings} ({error})") from None
    whole = _Whole.of(catalog, columns, items)
    found = _Candidates(whole, chosen, Columns(relevant_key, seen_key, ELSEWHERE_KEY))
    return found.added(_read(source, rows), prompt_key)


def _read(source: str, arguments: str | Mapping[str, Any]) -> list[dict[str, Any]]:
    target = registry.resolve("sources", source)
    try:
        made = target(arguments) if isinstance(arguments, str) else target(**arguments)
        listed = list(made.to_dict("records") if hasattr(made, "iterrows") else made)
    except RlpostError:
        raise
    except Exception as error:  # the source may be the user's own code
        raise DataError(f"{_NAME}: source {source!r} fails with {arguments!r} ({describe_error(error)})") from error
    for number, row in enumerate(listed):
        if not isinstance(row, Mapping):
            raise DataError(f"{_NAME}: source {source!r}, row {number}: {row!r:.60} is no mapping of columns")
    return [dict(row) for row in listed]


class _Candidates:
    """Finds candidates and puts them into prompts."""

    def __init__(self, whole: _Whole, settings: CandidateSettings, columns: Columns):
        self._whole, self.catalog, self.settings = whole, whole.read(), settings
        catalog = self.catalog
        self.reader = Reader(catalog, CatalogIndex(catalog.items), columns)
        self._popular = _most_popular(catalog, settings.popular) if settings.popular else []
        first = catalog.items[0].attributes
        if absent := [name for name in settings.descriptions if not self._has(name)]:
            raise DataError(f"{_NAME}: the catalog has no column {absent[0]!r} (there are {named(first)})")

    def _has(self, name: str) -> bool:
        store = self.catalog.store
        return any(name in store.attributes(number) for number in range(min(len(store), 1000)))

    def added(self, found: Sequence[dict[str, Any]], key: str) -> list[dict[str, Any]]:
        """The rows with candidates."""
        places = [f"{_NAME}, row {number}" for number in range(len(found))]
        told = [_read_conversation(row, key, place) for row, place in zip(found, places, strict=True)]
        hidden = {self.reader.columns.relevant}
        truths = []
        for row, one, place in zip(found, told, places, strict=True):
            try:  # what is relevant is no reason to offer an item that was seen
                seen = self.reader.ground_truth({k: v for k, v in row.items() if k not in hidden}, required=False).seen
                relevant = (
                    self.reader.ground_truth(row, required=False).relevant if self.settings.force_relevant else {}
                )
            except DataError as error:
                raise DataError(f"{place}: {error}") from None
            mentioned = self.reader.mentioned(one.text) if self.settings.without_mentioned else frozenset[int]()
            truths.append((seen | mentioned, list(relevant)))
        lists = self._retrieved([one.text for one in told], [left_out for left_out, _ in truths])
        made, forced = [], 0
        for row, one, place, items, (_, relevant) in zip(found, told, places, lists, truths, strict=True):
            items, more = _with_relevant(items, relevant, self.settings.k)
            forced += more
            made.append(self._row(row, one, items, more, key, place))
        self._tell(made, forced)
        return made

    def _retrieved(self, texts: Sequence[str], left_out: Sequence[frozenset[int]]) -> list[list[int]]:
        room = self.settings.k - self.settings.popular_places
        retriever = _retriever(self._whole, self.settings.by)
        found = retriever.best(texts, room, left_out) if room else [[] for _ in texts]
        for items, out in zip(found, left_out, strict=True):
            taken = out | set(items)
            fresh = (item for item in self._popular if item not in taken)
            items += [item for item, _ in zip(fresh, range(self.settings.k - len(items)), strict=False)]
        return found

    def _row(
        self, row: dict[str, Any], one: Conversation, items: Sequence[int], forced: int, key: str, place: str
    ) -> dict[str, Any]:
        shown = list(items)
        if self.settings.order == "shuffled":
            random.Random(f"{self.settings.seed}:{row.get('id', place)}:{one.text}").shuffle(shown)
        lines = "\n".join(self._line(item) for item in shown)
        columns = dict(zip(_MADE, ([self._name(item) for item in items], lines, forced, one.text), strict=True))
        if self.settings.template is None:
            return {**row, **columns}
        asked = fill(self.settings.template, {**row, "prompt": one.last, "candidates": lines}, place)
        return {**row, **columns, key: one.with_last(asked)}

    def _name(self, item: int) -> str:
        return self.catalog.store.name(item)

    def _line(self, item: int) -> str:
        told = self.catalog.store.attributes(item) if self.settings.descriptions else {}
        texts = [" ".join(_cell(told.get(name)).split()) for name in self.settings.descriptions]
        text = _cut("; ".join(text for text in texts if text), self.settings.characters)
        return f"{self._name(item)}: {text}" if text else self._name(item)

    def _tell(self, made: Sequence[Mapping[str, Any]], forced: int) -> None:
        if short := sum(len(row[CANDIDATES]) < min(self.settings.k, len(self.catalog.items)) for row in made):
            _log.warning(
                "%s: %d of %d rows have fewer than %d candidates; set popular to fill them", _NAME, short, len(made),
                self.settings.k,
            )  # fmt: skip
        if self.settings.force_relevant:
            rows = sum(row[FORCED] > 0 for row in made)
            _log.warning(
                "%s: %d relevant items that were not found were put into %d of %d rows (force_relevant)", _NAME, forced,
                rows, len(made),
            )  # fmt: skip


def _read_conversation(row: Mapping[str, Any], key: str, place: str) -> Conversation:
    if twice := [name for name in _MADE if name in row]:
        raise DataError(f"{place} has a column {twice[0]!r} already; rename it, or use its source without {_NAME}")
    return Conversation.read(row, key, place)


def _with_relevant(items: list[int], relevant: Sequence[int], k: int) -> tuple[list[int], int]:
    """The candidates with all relevant items, in place of the last others; and the number that came in."""
    missing = [item for item in relevant if item not in items][:k]
    if not missing:
        return items, 0
    kept, room = [], k - len(missing) - sum(item in items for item in relevant)
    for item in items:
        if item in relevant or room > 0:
            kept.append(item)
            room -= item not in relevant
    return [*kept, *missing][:k], len(missing)


def _most_popular(catalog: Catalog, column: str) -> list[int]:
    """Items by a column's number, largest first; those without one are left out."""
    store, counts = catalog.store, np.full(len(catalog.items), -np.inf)
    for number in range(len(store)):
        value = store.attributes(number).get(column)
        try:
            counts[number] = float(value) if value is not None and value != "" else -np.inf
        except (TypeError, ValueError):
            raise DataError(f"{_NAME}: popular: column {column!r} holds {value!r:.60}; numbers are needed") from None
    if not np.isfinite(counts).any():
        there = named(catalog.items[0].attributes)
        raise DataError(f"{_NAME}: popular: the catalog has no numbers in {column!r} (there are {there})")
    order = np.argsort(-counts, kind="stable")
    return order[np.isfinite(counts[order])].tolist()


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _cut(text: str, characters: int) -> str:
    """The text, cut behind a word where it is too long."""
    if len(text) <= characters:
        return text
    start = text[: max(characters - len(_ELLIPSIS), 1)]
    words = start.rsplit(" ", 1)[0] if " " in start and text[len(start)] != " " else start
    return f"{words.rstrip(' ,;:.')}{_ELLIPSIS}"


@dataclass(frozen=True, slots=True)
class _Whole:
    """A catalog file, in a certain state."""

    path: str | None
    columns: tuple[tuple[str, str], ...]
    items: int | None
    changed: int

    @classmethod
    def of(cls, path: str | None, columns: Mapping[str, str] | None, items: int | None) -> _Whole:
        file = None if path is None else Path(path).expanduser()
        changed = file.stat().st_mtime_ns if file is not None and file.is_file() else 0
        return cls(path, tuple(sorted((columns or {}).items())), items, changed)

    @lru_cache(maxsize=2)  # noqa: B019  (frozen records compare by value; two catalogs are kept, read once per split)
    def read(self) -> Catalog:
        found = load_catalog(self.path, dict(self.columns))
        return found if self.items is None else found.head(self.items)


@lru_cache(maxsize=2)
def _retriever(whole: _Whole, by: str) -> Retriever:
    """A retriever, made once for both splits."""
    catalog = whole.read()
    return Bm25(catalog) if by == "bm25" else Embedded(catalog, Embedder(by))
