"""Lists of recommendations judged item by item against a catalog and what the user turned out to want."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlpost.errors import DataError, UserError
from rlpost.types import ItemVerdict, Prompt, Verdict, VerifyItem
from rlpost_verifiers.catalog.index import CatalogIndex
from rlpost_verifiers.catalog.items import Catalog, load_catalog
from rlpost_verifiers.catalog.lists import Entry, ListSettings, Prose, Unparsable, Yearless, parse_list, parse_title
from rlpost_verifiers.catalog.names import canonical, year_of

HIT, MISS, ELSEWHERE = "hit", "miss", "relevant_elsewhere"
SEEN, DUPLICATE, OUTSIDE, UNPARSABLE = "seen", "duplicate", "out_of_catalog", "unparsable"

_SAMPLE = 300
"""Items that the conformance check writes down in several ways and looks up again."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a row says about the user, as positions in the catalog.

    Attributes:
        relevant: the items to recommend, with what each is worth.
        seen: items that need no recommendation.
        elsewhere: items that another row of the same conversation wants.
    """

    relevant: Mapping[int, float]
    seen: frozenset[int]
    elsewhere: frozenset[int]


@dataclass(frozen=True, slots=True)
class CatalogReport:
    """What the conformance check found: names it did not find again, and inventions that it found."""

    checked: int
    failures: tuple[str, ...]
    about: str

    def summary(self) -> str:
        """One line with the figures and the first failure."""
        first = f"; first: {self.failures[0]}" if self.failures else ""
        right = self.checked - len(self.failures)
        return f"catalog: {self.about}; {right} of {self.checked} names as they should be{first}"


class CatalogVerifier:
    """Judges every place of a list. Implements `rlpost.protocols.Verifier` and `SelfExamining`.

    A prompt's columns hold what is relevant, and may hold what was seen and what others want; each is a list of
    ``Title (Year)`` texts, ``[title, year]`` pairs or mappings with ``title``, ``year`` and ``weight``. Catalog,
    columns and answers go through the same canonical form. Each relevant item counts once, at its first place.

    Args:
        catalog: file of the catalog, see `load_catalog`, or one that is loaded.
        columns: of the file.
        tolerance: years that a year may be off.
        similarity: least similarity of titles for a slip to be forgiven, 0 to 100; None forgives none.
        unparsable: see `ListSettings`, as the following two.
        prose: see `ListSettings`.
        yearless: see `ListSettings`.
        relevant_key: column with the relevant items.
        seen_key: column with the seen ones.
        elsewhere_key: column with those that other rows of the conversation want.
        relevant_required: a row that names nothing relevant of the catalog is an error of the data; without, its lists
            are judged by the catalog alone.

    Raises:
        UserError: for a setting that makes no sense.
        DataError: if the catalog cannot be read.
    """

    def __init__(
        self,
        catalog: str | Catalog,
        columns: Mapping[str, str] | None = None,
        tolerance: int = 2,
        similarity: float | None = None,
        unparsable: Unparsable = "keep_rank",
        prose: Prose = "ignore",
        yearless: Yearless = "reject",
        relevant_key: str = "groundtruth_with_release_year",
        seen_key: str = "seen_titles",
        elsewhere_key: str = "relevant_elsewhere",
        relevant_required: bool = True,
    ):
        if tolerance < 0:
            raise UserError(f"catalog: tolerance is {tolerance}; give 0 or more years")
        if similarity is not None and not 0 < similarity <= 100:
            raise UserError(f"catalog: similarity is {similarity}; give a number from 1 to 100")
        self.catalog = load_catalog(catalog, columns) if isinstance(catalog, str) else catalog
        self.index = CatalogIndex(self.catalog.items, tolerance, similarity)
        self.settings = ListSettings(unparsable, prose, yearless)
        self._keys, self._required = (relevant_key, seen_key, elsewhere_key), relevant_required
        self._by_title: dict[str, list[int]] = {}
        for number, item in enumerate(self.catalog.items):
            self._by_title.setdefault(canonical(item.title), []).append(number)
        rule = (tolerance, similarity, self.settings, self._keys)
        names = "\n".join(item.name for item in self.catalog.items)
        self._fingerprint = f"catalog/{hashlib.sha256(f'{rule}{names}'.encode()).hexdigest()[:12]}"

    @property
    def fingerprint(self) -> str:
        """Of catalog and rules."""
        return self._fingerprint

    def verify_batch(self, items: Sequence[VerifyItem]) -> list[Verdict]:
        """One verdict for each list; its items carry their characters, reason, and worth as score.

        Raises:
            DataError: for columns that name nothing in the catalog as relevant.
        """
        return [self._judge(item) for item in items]

    def close(self) -> None:
        """Nothing to end."""

    def conformance(self) -> CatalogReport:
        """Write items of the catalog in several ways and find each again; find no invention."""
        rng = random.Random(0)
        sample = rng.sample(range(len(self.catalog.items)), min(_SAMPLE, len(self.catalog.items)))
        failures: list[str] = []
        checked = 0
        for number in sample:
            item = self.catalog.items[number]
            if item.year is None:
                continue
            for line in (
                item.name,
                f'3. "{item.title.upper()}" ({item.year})',
                f"- **{item.title}** ({item.year}) - why",
            ):
                checked += 1
                found = [self._place(entry) for entry in parse_list(f"1. X (1900)\n2. X (1900)\n{line}", self.settings)]
                if len(found) != 3 or found[2] != number:
                    failures.append(f"{line!r} is not found")
            checked += 1
            invented = f"zq{item.title[::-1]}xk zw"
            if self.index.find(invented, item.year) is not None:
                failures.append(f"the invention {invented!r} is found")
        return CatalogReport(checked, tuple(failures), self.catalog.summary())

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Refuse data that would earn nothing whatever is answered.

        Raises:
            DataError: for prompts of which no relevant item is in the catalog, with their number and an example.
        """
        bad: list[str] = []
        for prompt in prompts:
            try:
                self.wanted(prompt.columns)
            except DataError as error:
                bad.append(f"prompt {prompt.id!r}: {error}")
        if bad:
            raise DataError(f"{len(bad)} of {len(prompts)} prompts could earn nothing; {bad[0]}")

    def wanted(self, columns: Mapping[str, Any]) -> Wanted:
        """What a row says about the user.

        Raises:
            DataError: if nothing relevant is in the catalog, or a column has another form.
        """
        relevant_key, seen_key, elsewhere_key = self._keys
        if relevant_key not in columns and self._required:
            raise DataError(f"no column {relevant_key!r} (there are {', '.join(columns)}); set relevant_key")
        relevant: dict[int, float] = {}
        lost: list[str] = []
        for title, year, weight in _names(columns.get(relevant_key), relevant_key):
            found = self._numbers(title, year)
            if len(found) == 1:
                relevant[found[0]] = weight
            else:
                lost.append(title if year is None else f"{title} ({year})")
        if not relevant and self._required:
            raise DataError(f"none of its relevant items is in the catalog ({', '.join(lost[:3]) or 'it names none'})")
        seen = {n for name in _names(columns.get(seen_key), seen_key) for n in self._numbers(*name[:2])}
        others = {n for name in _names(columns.get(elsewhere_key), elsewhere_key) for n in self._numbers(*name[:2])}
        return Wanted(relevant, frozenset(seen - set(relevant)), frozenset(others - set(relevant)))

    def _judge(self, item: VerifyItem) -> Verdict:
        wanted = self.wanted(item.columns)
        taken: set[int] = set()
        found: list[ItemVerdict] = []
        names: list[str | None] = []
        for rank, entry in enumerate(parse_list(item.text, self.settings)):
            place = self._place(entry)
            reason = self._reason(entry, place, wanted, taken)
            score = wanted.relevant[place] if reason == HIT and place is not None else 0.0
            if place is not None:
                taken.add(place)
            names.append(None if place is None else self.catalog.items[place].name)
            outcome = "accepted" if reason == HIT else "rejected"
            found.append(ItemVerdict(entry.start, entry.stop, outcome, score, reason, rank))
        hits = sum(one.reason == HIT for one in found)
        reason = "hits" if hits else "no_hit" if found else "no_list"
        return Verdict(
            "accepted" if hits else "rejected", hits / max(len(wanted.relevant), 1), reason, tuple(found),
            assurance="catalog", evidence={"items": names, "relevant": len(wanted.relevant)}, backend=self._fingerprint,
        )  # fmt: skip

    def _place(self, entry: Entry) -> int | None:
        if entry.title is None:
            return None
        match = self.index.find(entry.title, entry.year)
        return None if match is None else match.item

    def _reason(self, entry: Entry, place: int | None, wanted: Wanted, taken: set[int]) -> str:
        if entry.title is None:
            return UNPARSABLE
        if place is None:
            return OUTSIDE
        if place in taken:
            return DUPLICATE
        if place in wanted.relevant:
            return HIT
        if place in wanted.seen:
            return SEEN
        return ELSEWHERE if place in wanted.elsewhere else MISS

    def _numbers(self, title: str, year: int | None) -> list[int]:
        """The item that a name means; of a title without a year that several have, all of them."""
        match = self.index.find(title, year)
        if match is not None:
            return [match.item]
        return list(self._by_title.get(canonical(title), ())) if year is None else []


def _names(value: Any, key: str) -> Iterable[tuple[str, int | None, float]]:
    """Title, year and weight of every entry of a column."""
    if value is None:
        return
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(f"column {key!r} holds {value!r}; a list of titles is needed")
    for entry in value:
        if isinstance(entry, str):
            title, year = parse_title(entry)
            yield title or entry, year, 1.0
        elif isinstance(entry, Mapping) and "title" in entry:
            yield str(entry["title"]), year_of(entry.get("year")), float(entry.get("weight", 1.0))
        elif isinstance(entry, Sequence) and 1 <= len(entry) <= 2:
            yield str(entry[0]), year_of(entry[1]) if len(entry) == 2 else None, 1.0
        else:
            raise DataError(f"column {key!r} holds {entry!r}; write 'Title (Year)', [title, year] or a mapping")
