"""Verifies recommendation lists item by item against a catalog and the ground truth of the row."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rlpost.algorithms.ranking import self_information
from rlpost.data.jsonl import read_jsonl
from rlpost.errors import DataError, UserError
from rlpost.types import CANDIDATES, ItemVerdict, Prompt, Verdict, VerifyItem
from rlpost_verifiers.catalog.gate import CatalogReport, check
from rlpost_verifiers.catalog.ground_truth import ELSEWHERE_KEY, RELEVANT_KEY, SEEN_KEY, Columns, GroundTruth, Reader
from rlpost_verifiers.catalog.index import CatalogIndex
from rlpost_verifiers.catalog.items import Catalog, load_catalog
from rlpost_verifiers.catalog.lists import (
    Data,
    Entry,
    Inline,
    ListSettings,
    Prose,
    Revised,
    Thought,
    Unparsable,
    Yearless,
    parse_list,
)
from rlpost_verifiers.catalog.misspelt import Misspelt
from rlpost_verifiers.catalog.sequels import spellings
from rlpost_verifiers.catalog.titles import Name, without_label

HIT, MISS, ELSEWHERE = "hit", "miss", "relevant_elsewhere"
SEEN, DUPLICATE, OUTSIDE, UNPARSABLE = "seen", "duplicate", "out_of_catalog", "unparsable"
INSIDE = "in_catalog"
_LOOSE = ("fuzzy", "prefix")
"""Levels of a match that counts only where no reading of a line matches as it is spelt."""
Outside = Literal["report", "count"]
Short = Literal["dated", "off"]
Misspellings = Literal["dated", "off"]


class CatalogVerifier:
    """Verifies every item of a list. Implements `Verifier`, `SelfTestingVerifier`, `ReviewingVerifier` and
    `BaselineVerifier` of `rlpost.protocols`.

    A prompt's columns hold the relevant items, and may hold the seen items and those relevant in other rows
    (`rlpost_verifiers.catalog.ground_truth`). Catalog, columns and answers go through the same canonical form. Each
    relevant item counts once, at its first rank.

    Args:
        catalog: path of a catalog file, ``movies`` or ``goods`` for one that ships (see `load_catalog`), or a loaded
            catalog; None: the films.
        columns: names of the file's columns; see `load_catalog`.
        items: use only the first ``items`` items of the catalog; None: all.
        popularity: column of the catalog with the number of times each item was chosen, or a file of conversations
            (JSON lines) whose relevant items are counted; None: novelty and popularity shift are not measured.
        tolerance: largest accepted difference between the answer's year and the item's, in years.
        similarity: smallest title similarity that counts as a spelling error, above 0 to 100; None: no fuzzy matching.
        prefix: whether the first words of a title count as the title where no other item's title begins with them, as
            models shorten the long names of goods.
        ids: whether an item's id counts as its title.
        short: a title of which a part is left out or added counts where its year is the item's and no other item fits,
            and so does one whose part is numbered otherwise (``dated``: ``Star Wars (1977)``, ``Rocky 2`` for ``Rocky
            II``); or not (``off``).
        misspelt: a title with one misspelling counts where its year is the item's and no other item fits (``dated``:
            ``The Shawshank Redemtion (1994)``; catalogs of up to 100,000 items), or not (``off``).
        unparsable: ``keep_rank`` or ``skip`` lines of the list that are no title; `ListSettings` has the details of
            this and of the next six.
        prose: ``ignore`` text that is no place, or ``keep_rank`` for each of its lines.
        yearless: titles without a year count where they are ``listed``, always (``accept``) or never (``reject``).
        thought: ``cut`` what stands before ``</think>``, or ``keep`` it.
        data: ``read`` JSON as data, or as ``lines``.
        inline: ``read`` titles in prose where there is no list, or ``ignore`` them.
        revised: a corrected list replaces those before (``last``), or follows them (``all``).
        relevant_key: column with the relevant items.
        seen_key: column with the seen items.
        elsewhere_key: column with the items that are relevant in other rows of the conversation.
        relevant_required: whether a row without a relevant item in the catalog is a data error. If not, a row that
            names no relevant item is judged by membership: every item of the catalog that is neither seen nor named
            before is accepted (``in_catalog``, score 1); where all that it names is outside the catalog, every item is
            a miss.
        outside: relevant items outside the catalog are reported (``report``: evidence ``relevant_outside``), or also
            stay in the denominators of recall, nDCG and score (``count``).
        group: column of the catalog by whose values evaluations report exposure, such as a genre or a publisher; None:
            they do not.

    Raises:
        UserError: for a setting out of range.
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
        prefix: bool = False,
        ids: bool = False,
        short: Short = "dated",
        misspelt: Misspellings = "dated",
        unparsable: Unparsable = "keep_rank",
        prose: Prose = "ignore",
        yearless: Yearless = "listed",
        thought: Thought = "cut",
        data: Data = "read",
        inline: Inline = "read",
        revised: Revised = "last",
        relevant_key: str = RELEVANT_KEY,
        seen_key: str = SEEN_KEY,
        elsewhere_key: str = ELSEWHERE_KEY,
        relevant_required: bool = True,
        outside: Outside = "report",
        group: str | None = None,
    ):
        if tolerance < 0:
            raise UserError(f"catalog: tolerance is {tolerance}; give 0 or more years")
        if similarity is not None and not 0 < similarity <= 100:
            raise UserError(f"catalog: similarity is {similarity}; give a number from 1 to 100")
        whole = catalog if isinstance(catalog, Catalog) else load_catalog(catalog, columns)
        self.catalog = whole if items is None else whole.head(items)
        if yearless == "reject" and not self.catalog.dated:
            raise UserError("catalog: no item has a year, and yearless: reject takes no title without one; set another")
        if short not in ("dated", "off"):
            raise UserError(f"catalog: short is {short!r}; use 'dated' or 'off'")
        if misspelt not in ("dated", "off"):
            raise UserError(f"catalog: misspelt is {misspelt!r}; use 'dated' or 'off'")
        if outside not in ("report", "count"):
            raise UserError(f"catalog: outside is {outside!r}; use 'report' or 'count'")
        self.index = CatalogIndex(self.catalog.items, tolerance, similarity, prefix, ids)
        self.settings = ListSettings(unparsable, prose, yearless, thought, data, inline, revised)
        self._required, self._outside, self._short = relevant_required, outside, short
        self._misspelt = Misspelt(self.catalog.store) if misspelt == "dated" else None
        self.reader = Reader(self.catalog, self.index, Columns(relevant_key, seen_key, elsewhere_key))
        self._bits = None if popularity is None else self_information(self._popularity(popularity))
        self._group = group
        if group is not None and not any(group in item.attributes for item in self.catalog.items):
            raise UserError(f"catalog: group is {group!r}, no column of the catalog; give one of its columns")
        bits = None if self._bits is None else hashlib.sha256(repr(self._bits).encode()).hexdigest()
        rule = (tolerance, similarity, prefix, ids, self.settings, self.reader.columns, bits, outside, short, misspelt)
        names = self.catalog.store.digest
        self._fingerprint = f"catalog/{hashlib.sha256(f'{rule}{names}'.encode()).hexdigest()[:12]}"

    @property
    def fingerprint(self) -> str:
        """Hash of the catalog's names and all rules."""
        return self._fingerprint

    def verify_batch(self, items: Sequence[VerifyItem]) -> list[Verdict]:
        """One verdict for each list; its items carry character span, reason, and relevance as score.

        Raises:
            DataError: for columns that name no relevant item of the catalog, where one is required.
        """
        return [self._judge(item, self.reader.ground_truth(item.columns, self._required)) for item in items]

    def review(self, columns: Mapping[str, Any], text: str) -> Verdict:
        """Review a list without ground truth: each item is ``in_catalog``, ``seen``, ``duplicate``, ``out_of_catalog``
        or ``unparsable``. Seen are the items that the columns list as seen, and those that any of them mentions.

        Implements `rlpost.protocols.ReviewingVerifier`.
        """
        said = "\n".join(_said(value) for value in columns.values())
        seen = self.reader.ground_truth(columns, required=False).seen | self.reader.mentioned(said)
        return self._judge(VerifyItem(columns, text), GroundTruth({}, seen, frozenset()))

    def baselines(self, train: Sequence[Prompt], prompts: Sequence[Prompt], places: int) -> dict[str, list[str]]:
        """See `rlpost.protocols.BaselineVerifier`; the methods are `rlpost_verifiers.catalog.baselines`."""
        from rlpost_verifiers.catalog.baselines import Baselines

        return Baselines(self.reader, train).answers(prompts, places)

    def close(self) -> None:
        """Does nothing: there is no process to end."""

    def conformance(self) -> CatalogReport:
        """Verify lists as training does: catalog items, by the strings of the file and written in ten forms, must be
        hits where they are relevant, and invented titles in their place must not; all in one batch in a shuffled
        order, some lists twice. A check of no name at all is a failure.
        """
        yearless = self.settings.yearless != "reject"
        return check(self.catalog, self.verify_batch, self.reader.columns.relevant, undated=yearless)

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Refuse prompts on which no answer could earn a reward.

        Raises:
            DataError: if the catalog holds no relevant item of some prompts; the message counts them and names one.
        """
        bad: list[str] = []
        for prompt in prompts:
            try:
                self.reader.ground_truth(prompt.columns, self._required)
            except DataError as error:
                bad.append(f"prompt {prompt.id!r}: {error}")
        if bad:
            raise DataError(f"{len(bad)} of {len(prompts)} prompts could earn nothing; {bad[0]}")

    def _judge(self, item: VerifyItem, truth: GroundTruth) -> Verdict:
        taken: set[int] = set()
        found: list[ItemVerdict] = []
        places: list[int | None] = []
        for rank, entry in enumerate(parse_list(item.text, self.settings, self.knows)):
            place = self.place_of(entry)
            reason = self._reason(entry, place, truth, taken)
            score = truth.relevant.get(place, 1.0) if reason in (HIT, INSIDE) and place is not None else 0.0
            if place is not None:
                taken.add(place)
            places.append(place)
            outcome = "accepted" if reason in (HIT, INSIDE) else "rejected"
            found.append(ItemVerdict(entry.start, entry.stop, outcome, score, reason, rank))
        hits = sum(one.outcome == "accepted" for one in found)
        wanted = len(truth.relevant) + truth.outside * (self._outside == "count")
        membership = not truth.relevant and not truth.outside
        reason = "hits" if hits else "no_hit" if found else "no_list"
        score = hits / max(len(found) if membership else wanted, 1)
        return Verdict(
            "accepted" if hits else "rejected", score, reason, tuple(found),
            assurance="catalog", backend=self._fingerprint,
            evidence=self._evidence(places, truth, wanted) | self._offered(places, truth, item.columns),
        )  # fmt: skip

    def knows(self, title: str, year: int | None) -> bool:
        """Whether the catalog holds a title as it is spelt, with this year or, for None, with any."""
        if year is None and self.index.sharing(title):
            return True
        match = self.index.find(title, year)
        return match is not None and match.level not in _LOOSE

    def _evidence(self, places: Sequence[int | None], truth: GroundTruth, wanted: int) -> dict[str, Any]:
        store = self.catalog.store
        found: dict[str, Any] = {
            "items": [None if place is None else store.name(place) for place in places],
            "relevant": wanted,
            "catalog": len(store),
        }
        if truth.relevant:
            found["relevant_items"] = [store.name(place) for place in truth.relevant]
        if truth.outside:
            found["relevant_outside"] = truth.outside
        if self._bits is not None:
            found["bits"] = [None if place is None else self._bits[place] for place in places]
        if set(truth.relevant.values()) - {1.0}:
            found["relevances"] = [*truth.relevant.values(), *[1.0] * (wanted - len(truth.relevant))]
        if self._group is not None:
            found["groups"] = [
                None if place is None else _text_of(store.attributes(place).get(self._group)) for place in places
            ]
        return found

    def _offered(self, places: Sequence[int | None], truth: GroundTruth, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Which places hold candidates of the prompt, and how many relevant items are among these."""
        if not isinstance(columns.get(CANDIDATES), (list, tuple)):
            return {}
        offered = self.reader.numbers(columns[CANDIDATES], CANDIDATES)
        return {
            "candidates_at": [None if place is None else place in offered for place in places],
            "candidates_relevant": len(offered & truth.relevant.keys()),
        }

    def place_of(self, entry: Entry) -> int | None:
        """The catalog's item at a place: the first of its readings that is one, spelt right before misspelt."""
        if entry.title is None:
            return None
        names = list(dict.fromkeys(((entry.title, entry.year), *entry.names)))
        loose: int | None = None
        for title, year in names:
            match = self.index.find(title, year)
            if match is not None and match.level not in _LOOSE:
                return match.item
            loose = match.item if match is not None and loose is None else loose
        # a title that is not spelt as the catalog has it must be all that the line says
        first = names[0][0] if not entry.names else entry.names[0][0]
        whole = [name for name in names if name[0] in (first, without_label(first))]
        if loose is None and self._short == "dated":
            loose = self._renamed(whole)
        if loose is None and self._misspelt is not None:
            found = {item for title, year in whole if (item := self._misspelt.owner(title, year)) is not None}
            loose = found.pop() if len(found) == 1 else None
        return loose

    def _renamed(self, names: Sequence[Name]) -> int | None:
        """The item whose number is spelt otherwise, or of whose title a part is left out or added."""
        for title, year in names:
            matches = [self.index.find(name, year) for name in spellings(title)]
            found = {match.item for match in matches if match is not None and match.level not in _LOOSE}
            if len(found) == 1:
                return found.pop()
        found = {item for title, year in names if (item := self.index.shortened(title, year)) is not None}
        return found.pop() if len(found) == 1 else None

    def _reason(self, entry: Entry, place: int | None, truth: GroundTruth, taken: set[int]) -> str:
        if entry.title is None:
            return UNPARSABLE
        if place is None:
            return OUTSIDE
        if place in taken:
            return DUPLICATE
        if place in truth.relevant:
            return HIT
        if place in truth.seen:
            return SEEN
        if place in truth.elsewhere:
            return ELSEWHERE
        return MISS if truth.relevant or truth.outside else INSIDE

    def _popularity(self, where: str) -> list[float]:
        """Number of times each item was chosen, in catalog order."""
        store = self.catalog.store
        rows = [store.attributes(number).get(where) for number in range(len(store))]
        if any(value is not None for value in rows):
            return [_count(value, where) for value in rows]
        if not Path(where).expanduser().is_file():
            raise UserError(f"catalog: popularity is {where!r}, no column of the catalog and no file; give one of them")
        counts = Counter(
            number for row in read_jsonl(where) for number in self.reader.ground_truth(row, required=False).relevant
        )
        return [float(counts[number]) for number in range(len(store))]


def _count(value: Any, where: str) -> float:
    try:
        count = float(value or 0.0)
    except (TypeError, ValueError):
        count = -1.0
    if not count >= 0:
        raise DataError(f"catalog: popularity column {where!r} holds {value!r:.60}; numbers from 0 on are needed")
    return count


def _text_of(value: Any) -> str | None:
    return None if value in (None, "") else str(value)


def _said(value: Any) -> str:
    """A text, or the joined contents of chat messages; empty for any other value."""
    if isinstance(value, str):
        return value
    turns = value if isinstance(value, list) else []
    return "\n".join(str(turn.get("content", "")) for turn in turns if isinstance(turn, Mapping))
