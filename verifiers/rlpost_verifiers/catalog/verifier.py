"""Lists of recommendations judged item by item against a catalog and what the user turned out to want."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlpost.algorithms.ranking import self_information
from rlpost.data.prompts import read_jsonl
from rlpost.errors import DataError, UserError
from rlpost.types import ItemVerdict, Prompt, Verdict, VerifyItem
from rlpost_verifiers.catalog.index import CatalogIndex
from rlpost_verifiers.catalog.items import Catalog, load_catalog
from rlpost_verifiers.catalog.lists import Entry, ListSettings, Prose, Unparsable, Yearless, parse_list
from rlpost_verifiers.catalog.wanted import ELSEWHERE_KEY, RELEVANT_KEY, SEEN_KEY, Columns, Reader, Wanted

HIT, MISS, ELSEWHERE = "hit", "miss", "relevant_elsewhere"
SEEN, DUPLICATE, OUTSIDE, UNPARSABLE = "seen", "duplicate", "out_of_catalog", "unparsable"
INSIDE = "in_catalog"

_SAMPLE = 300
"""Items that the conformance check writes down in several ways and looks up again."""


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
    """Judges every place of a list. Implements `rlpost.protocols.Verifier`, `SelfExamining` and
    `Reviewing`.

    A prompt's columns hold what is relevant, and may hold what was seen and what others want
    (`rlpost_verifiers.catalog.wanted`). Catalog, columns and answers go through the same canonical form. Each relevant
    item counts once, at its first place.

    Args:
        catalog: file of the catalog, see `load_catalog`, or one that is loaded. None: the films that ship.
        columns: of the file.
        items: use the first so many items; None: all.
        popularity: column of the catalog that tells how often each item was chosen, or a file of conversations (JSON
            lines) whose relevant items are counted; None: there are no figures of novelty and popularity shift.
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
        catalog: str | Catalog | None = None,
        columns: Mapping[str, str] | None = None,
        items: int | None = None,
        popularity: str | None = None,
        tolerance: int = 2,
        similarity: float | None = None,
        unparsable: Unparsable = "keep_rank",
        prose: Prose = "ignore",
        yearless: Yearless = "reject",
        relevant_key: str = RELEVANT_KEY,
        seen_key: str = SEEN_KEY,
        elsewhere_key: str = ELSEWHERE_KEY,
        relevant_required: bool = True,
    ):
        if tolerance < 0:
            raise UserError(f"catalog: tolerance is {tolerance}; give 0 or more years")
        if similarity is not None and not 0 < similarity <= 100:
            raise UserError(f"catalog: similarity is {similarity}; give a number from 1 to 100")
        whole = catalog if isinstance(catalog, Catalog) else load_catalog(catalog, columns)
        self.catalog = whole if items is None else Catalog(whole.items[:items], whole.defects)
        self.index = CatalogIndex(self.catalog.items, tolerance, similarity)
        self.settings, self._required = ListSettings(unparsable, prose, yearless), relevant_required
        self.reader = Reader(self.catalog, self.index, Columns(relevant_key, seen_key, elsewhere_key))
        self._bits = None if popularity is None else self_information(self._popularity(popularity))
        rule = (tolerance, similarity, self.settings, self.reader.columns, self._bits)
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
        return [self._judge(item, self.reader.wanted(item.columns, self._required)) for item in items]

    def review(self, columns: Mapping[str, Any], text: str) -> Verdict:
        """What can be said of a list when nobody knows what is right: each place is ``in_catalog``, seen, a duplicate,
        out of the catalog, unparsable. Seen is what the columns name as such, and what any of them mentions.

        Implements `rlpost.protocols.Reviewing`.
        """
        said = "\n".join(_said(value) for value in columns.values())
        seen = self.reader.wanted(columns, required=False).seen | self.reader.mentioned(said)
        found = self._judge(VerifyItem(columns, text), Wanted({}, seen, frozenset()))
        items = tuple(replace(item, reason=INSIDE) if item.reason == MISS else item for item in found.items)
        return replace(found, items=items)

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
                self.reader.wanted(prompt.columns, self._required)
            except DataError as error:
                bad.append(f"prompt {prompt.id!r}: {error}")
        if bad:
            raise DataError(f"{len(bad)} of {len(prompts)} prompts could earn nothing; {bad[0]}")

    def _judge(self, item: VerifyItem, wanted: Wanted) -> Verdict:
        taken: set[int] = set()
        found: list[ItemVerdict] = []
        places: list[int | None] = []
        for rank, entry in enumerate(parse_list(item.text, self.settings)):
            place = self._place(entry)
            reason = self._reason(entry, place, wanted, taken)
            score = wanted.relevant[place] if reason == HIT and place is not None else 0.0
            if place is not None:
                taken.add(place)
            places.append(place)
            outcome = "accepted" if reason == HIT else "rejected"
            found.append(ItemVerdict(entry.start, entry.stop, outcome, score, reason, rank))
        hits = sum(one.reason == HIT for one in found)
        reason = "hits" if hits else "no_hit" if found else "no_list"
        return Verdict(
            "accepted" if hits else "rejected", hits / max(len(wanted.relevant), 1), reason, tuple(found),
            assurance="catalog", evidence=self._evidence(places, wanted), backend=self._fingerprint,
        )  # fmt: skip

    def _evidence(self, places: Sequence[int | None], wanted: Wanted) -> dict[str, Any]:
        items = self.catalog.items
        found: dict[str, Any] = {
            "items": [None if place is None else items[place].name for place in places],
            "relevant": len(wanted.relevant),
            "catalog": len(items),
        }
        if self._bits is not None:
            found["bits"] = [None if place is None else self._bits[place] for place in places]
        return found

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

    def _popularity(self, where: str) -> list[float]:
        """How often each item was chosen."""
        items = self.catalog.items
        if any(where in item.attributes for item in items):
            return [float(item.attributes.get(where) or 0.0) for item in items]
        if not Path(where).expanduser().is_file():
            raise UserError(f"catalog: popularity is {where!r}, no column of the catalog and no file; give one of them")
        counts = Counter(
            number for row in read_jsonl(where) for number in self.reader.wanted(row, required=False).relevant
        )
        return [float(counts[number]) for number in range(len(items))]


def _said(value: Any) -> str:
    """A text, or what was said in chat messages; nothing for any other value."""
    if isinstance(value, str):
        return value
    turns = value if isinstance(value, list) else []
    return "\n".join(str(turn.get("content", "")) for turn in turns if isinstance(turn, Mapping))
