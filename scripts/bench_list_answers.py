"""Share of places read as a careful reader reads them, on the answers of tests/data/list_answers.jsonl.

    python scripts/bench_list_answers.py [ANSWERS.jsonl CATALOG.jsonl] [--wrong] [--set KEY=VALUE …]

A place is right if the catalog item at its rank is the expected one; a rank too many or too few is wrong. Beside it: a
parser of ten lines, one regular expression per line and an exact lookup.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlpost.types import VerifyItem
from rlpost_verifiers.catalog.items import Catalog, catalog_of
from rlpost_verifiers.catalog.verifier import CatalogVerifier

DATA = Path(__file__).parent.parent / "tests" / "data"
Reader = Callable[[str], list[str | None]]


def ten_lines(catalog: Catalog) -> Reader:
    """The baseline: number or bullet off, bold and quotes off, title and year by one pattern, exact lookup."""
    known = {(item.title.lower(), item.year): item.name for item in catalog.items}
    bare = {item.title.lower(): item.name for item in catalog.items}

    def read(text: str) -> list[str | None]:
        places: list[str | None] = []
        for line in text.split("\n"):
            found = re.match(r"\s*(?:\d+[.)]|[-*•])?\s*[*\"]*(.+?)[*\"]*\s*(?:\((\d{4})\).*)?$", line)
            if found:
                title = found[1].lower()
                places.append(known.get((title, int(found[2]))) if found[2] else bare.get(title))
        return places

    return read


def verified(catalog: Catalog, settings: Mapping[str, Any]) -> Reader:
    """The verifier of this package."""
    verifier = CatalogVerifier(catalog, relevant_required=False, **settings)

    def read(text: str) -> list[str | None]:
        return verifier.verify_batch([VerifyItem({}, text)])[0].evidence["items"]

    return read


def right(found: Sequence[str | None], expected: Sequence[str | None]) -> int:
    """Number of ranks at which both name the same item, or both none.

    >>> right(["Alien (1979)", None, "Up (2009)"], ["Alien (1979)", "Up (2009)"])
    1
    """
    return sum(a == b for a, b in zip(found, expected, strict=False))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def main() -> None:
    """Print both shares, and with ``--wrong`` every answer that is read differently."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--wrong", action="store_true")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    answers, catalogs = given.files or (DATA / "list_answers.jsonl", DATA / "list_catalogs.jsonl")
    items: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in read_lines(catalogs):
        items[row.pop("catalog", "")].append(row)
    settings = {key: json.loads(value) for key, value in (pair.split("=") for pair in given.set)}
    rows = read_lines(answers)
    places = sum(max(len(row["expected"]), 1) for row in rows)
    for name, make in (("ten lines", ten_lines), ("verifier", lambda one: verified(one, settings))):
        readers = {key: make(catalog_of(values)) for key, values in items.items()}
        good = whole = extra = 0
        for row in rows:
            found, expected = readers[row.get("catalog", "")](row["text"]), row["expected"]
            good += right(found, expected) if expected else int(not found)
            extra += max(len(found) - max(len(expected), 1), 0)
            whole += found == expected
            if given.wrong and name == "verifier" and found != expected:
                print(f"=== {row['name']}\n{row['text']}\n--- {found}\n+++ {expected}")
        print(
            f"{name}: {good} of {places + extra} places ({good / (places + extra):.1%}), {whole} of {len(rows)} answers"
        )


if __name__ == "__main__":
    main()
