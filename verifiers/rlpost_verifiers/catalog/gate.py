"""The conformance check of a catalog: what the file says must be found as models write it, inventions must not."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlpost.types import Verdict, VerifyItem
from rlpost_verifiers.catalog.items import Catalog
from rlpost_verifiers.catalog.names import carried_year
from rlpost_verifiers.mixed_batch import ask_mixed

_SAMPLE = 100
"""Number of items that are written and looked up again."""
_TWICE = 40
"""Number of lists that stand in the batch twice."""
_TOLD = 3
"""Number of failures that the summary shows."""
FORMS: tuple[Callable[[str, str, int | None], str], ...] = (
    lambda whole, title, year: whole,
    lambda whole, title, year: f"3. {whole}",
    lambda whole, title, year: f"3) {whole}",
    lambda whole, title, year: f"- {whole}",
    lambda whole, title, year: f"* **{whole}**",
    lambda whole, title, year: f"3. {whole.upper()}",
    lambda whole, title, year: f"3. *{title}*{_dated(year)}",
    lambda whole, title, year: f'3. "{title}"{_dated(year)}',
    lambda whole, title, year: f"3. **{title}**{_dated(year)}" + (" - worth it" if year else ""),
    lambda whole, title, year: f"- **{title}**{_dated(year)}" + (": worth it" if year else ""),
)
"""Ten forms in which models write a place: the string with its year, the title alone, and the year."""


@dataclass(frozen=True, slots=True)
class CatalogReport:
    """Result of the conformance check: its failures are real names not found and invented names found."""

    checked: int
    failures: tuple[str, ...]
    about: str

    def summary(self) -> str:
        """One line with the counts and the first failures."""
        first = f"; first: {'; '.join(self.failures[:_TOLD])}" if self.failures else ""
        right = self.checked - len(self.failures) if self.checked else 0
        return f"catalog: {self.about}; {right} of {self.checked} names as they should be{first}"


def check(
    catalog: Catalog,
    verify_batch: Callable[[list[VerifyItem]], Sequence[Verdict]],
    relevant_key: str,
    undated: bool = True,
) -> CatalogReport:
    """Verify lists as training does: items by the file's own strings, in `FORMS`, must be hits where they are relevant,
    and inventions in their place must not; all in one batch in a shuffled order, some lists twice.

    An item without a letter or digit cannot be told from the marks of a list; such items are counted, not checked.

    Args:
        catalog: the catalog.
        verify_batch: the verifier's method.
        relevant_key: column with the relevant items.
        undated: whether titles without a year count; if not, items without one are counted, not checked.
    """
    rng = random.Random(0)
    store = catalog.store
    sample = rng.sample(range(len(store)), min(_SAMPLE, len(store)))
    sayable = [number for number in sample if any(c.isalnum() for c in store.title(number))]
    checked = [number for number in sayable if undated or store.year(number) is not None]
    cases: list[tuple[str, bool]] = []
    items: list[VerifyItem] = []
    for number in checked:
        title, year, written = store.title(number), store.year(number), store.written(number)
        row = {relevant_key: [[title, year]]}
        whole, bare = _as_written(written, title, year)
        lines = [(form(whole, bare, year), True) for form in FORMS]
        for line, real in (*lines, (f"3. zq{title[::-1]}xk zw{_dated(year)}", False)):
            cases.append((line, real))
            items.append(VerifyItem(row, f"{_first_places(line, year)}{line}"))
    failures = [
        f"{line!r} is not found" if real else f"the invention {line!r} is found"
        for (line, real), found in zip(cases, ask_mixed(verify_batch, items, _TWICE), strict=True)
        if any(_last_is_hit(verdict) != real for verdict in found)
    ]
    about = catalog.summary()
    if len(sayable) < len(sample):
        about += f"; {len(sample) - len(sayable)} of {len(sample)} have no letter or digit, which no list can tell"
    if len(checked) < len(sayable):
        about += f"; {len(sayable) - len(checked)} of {len(sample)} have no year, and yearless takes no title without"
    if not cases:
        failures.append("there is no name to check")
    return CatalogReport(len(cases), tuple(failures), about)


def _as_written(written: str, title: str, year: int | None) -> tuple[str, str]:
    """The file's string with the item's year, and without any."""
    carried = carried_year(written)
    if carried is not None:
        return written, carried[0]
    return f"{written}{_dated(year)}", written


def _dated(year: int | None) -> str:
    return "" if year is None else f" ({year})"


def _first_places(line: str, year: int | None) -> str:
    """Two places before a line, with marks like its own, and years if it has one."""
    mark = next((mark for mark in ("3. ", "3) ", "- ", "* ") if line.startswith(mark)), "")
    marks = (mark.replace("3", "1"), mark.replace("3", "2"))
    return "".join(f"{mark}Xq Zkw{letter}{_dated(year and 1900)}\n" for mark, letter in zip(marks, "bc", strict=True))


def _last_is_hit(verdict: Verdict) -> bool:
    return bool(verdict.items) and verdict.items[-1].reason == "hit"
