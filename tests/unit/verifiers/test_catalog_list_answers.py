"""Answers as today's models write them (tests/data/list_answers.jsonl): places as a careful reader sees them, and the
character spans that are paid for. Not covered: tokens (tests/property/test_list_spans.py).
"""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rlpost.types import VerifyItem
from rlpost_verifiers.catalog.items import catalog_of
from rlpost_verifiers.catalog.lists import ListSettings, parse_list
from rlpost_verifiers.catalog.verifier import CatalogVerifier

DATA = Path(__file__).parents[2] / "data"
ROWS = [json.loads(line) for line in (DATA / "list_answers.jsonl").read_text(encoding="utf-8").splitlines()]


@cache
def verifiers() -> dict[str, CatalogVerifier]:
    items: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in (DATA / "list_catalogs.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        items[row.pop("catalog")].append(row)
    return {name: CatalogVerifier(catalog_of(rows), relevant_required=False) for name, rows in items.items()}


def read(text: str, catalog: str = "films") -> list[str | None]:
    return verifiers()[catalog].verify_batch([VerifyItem({}, text)])[0].evidence["items"]


def test_places_are_those_that_a_careful_reader_sees() -> None:
    wrong = {row["name"]: found for row in ROWS if (found := read(row["text"], row["catalog"])) != row["expected"]}
    places = sum(max(len(row["expected"]), 1) for row in ROWS)
    lost = sum(
        max(len(row["expected"]), len(wrong[row["name"]]))
        - sum(a == b for a, b in zip(row["expected"], wrong[row["name"]], strict=False))
        for row in ROWS
        if row["name"] in wrong
    )
    assert lost <= 0.01 * places, wrong


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_spans_are_in_order_and_hold_their_titles(row: dict[str, Any]) -> None:
    text = row["text"]
    entries = parse_list(text, ListSettings(), verifiers()[row["catalog"]].knows)
    borders = [place for entry in entries for place in (entry.start, entry.stop)]
    assert borders == sorted(borders)
    assert all(0 <= entry.start < entry.stop <= len(text) for entry in entries)
    for entry in entries:
        words = [word for word in (entry.title or "").replace("*", " ").split() if word.isalnum() and word.isascii()]
        assert all(word in text[entry.start : entry.stop] for word in words)


def test_bare_lines_with_years_are_a_place_each_whatever_they_name() -> None:
    """The recommender recipes write this form; what it earns must not depend on other forms."""
    verifier, rng = CatalogVerifier(items=60), random.Random(0)
    names = [item.name for item in verifier.catalog.items]
    words = [word for name in names for word in name.split() if not word.endswith(":")]
    for _ in range(200):
        lines = [f"{rng.choice(names)}\n" for _ in range(rng.randint(1, 12))]
        place = rng.randrange(len(lines))
        lines.insert(place, f"{' '.join(rng.choices(words, k=2))} (1999)\n")
        text = "".join(lines) + rng.choice(names)[:5]
        found = parse_list(text, ListSettings(), verifier.knows)
        assert [text[one.start : one.stop] for one in found] == lines, "the cut line at the end is none"


def spans(text: str) -> list[str]:
    return [text[one.start : one.stop] for one in parse_list(text, ListSettings(), verifiers()["films"].knows)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Hi!\n1. Alien (1979)\n   So tense.\n\n2. Up (2009)\n",
            ["1. Alien (1979)\n   So tense.\n\n", "2. Up (2009)\n"],
        ),
        ("## Horror\n- Alien (1979)\n\n## Fun\n- Up (2009)\n\nBye!", ["- Alien (1979)\n\n", "- Up (2009)\n\n"]),
        ("<think>Heat (1995)</think>\nUp (2009)\n", ["Up (2009)\n"]),
        ('["Alien (1979)", "Up (2009)"]', ['"Alien (1979)", ', '"Up (2009)"]']),
        ("Alien (1979); Up (2009)", ["Alien (1979); ", "Up (2009)"]),
        ("|Film|Why|\n|---|---|\n|Up (2009)|fun|\n", ["|Up (2009)|fun|\n"]),
        ("Alien (1979)\nhm\nUp (2009)", ["Alien (1979)\n", "hm\n", "Up (2009)"]),
        ("- Alien (1979)\n\nActually, no horror:\n- Up (2009)\n", ["- Up (2009)\n"]),
    ],
)
def test_a_span_is_the_item_with_its_explanation_and_nothing_else(text: str, expected: list[str]) -> None:
    assert spans(text) == expected


@pytest.mark.parametrize(
    ("settings", "text", "expected"),
    [
        ({"thought": "keep"}, "<think>\nUp (2009)\n</think>\nAlien (1979)", ["Up", "Alien"]),
        ({"data": "lines", "inline": "ignore"}, '[{"title": "Up", "year": 2009}]', []),
        ({"inline": "ignore"}, "You might like Up (2009).", []),
        ({"revised": "all"}, "- Up (2009)\n\nActually, rather:\n- Her (2013)", ["Up", "Her"]),
        ({"yearless": "reject"}, "1. Up\n2. Her (2013)", ["Her"]),
        ({"yearless": "accept"}, "Up\nNever Made\nHer", ["Up", "Never Made", "Her"]),
        ({"prose": "keep_rank"}, "## Fun\n- Up (2009)", [None, "Up"]),
    ],
)
def test_each_form_is_a_policy(settings: dict[str, Any], text: str, expected: list[str | None]) -> None:
    entries = parse_list(text, ListSettings(**settings), verifiers()["films"].knows)
    assert [entry.title for entry in entries] == expected


@pytest.mark.parametrize(
    "text",
    [
        "Alien (1979)\n" * 100_000, '{"title": "Up"}\n' * 20_000, " " * 100_000 + "x", "(" * 100_000, "**a" * 30_000,
        "I.I." * 30_000, '"' * 100_000, "[" * 100_000, "<li>" * 30_000, "A & " * 30_000, "\0\ud83d" * 1000, ")", "1. )",
    ],
    ids=lambda text: text[:9],
)  # fmt: skip
def test_no_answer_ends_or_stops_the_verifier(text: str) -> None:
    began = time.process_time()
    [verdict] = verifiers()["films"].verify_batch([VerifyItem({}, text)])
    assert verdict.outcome in ("accepted", "rejected")
    assert time.process_time() - began < 20
