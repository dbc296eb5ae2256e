"""Answers as today's models write them (tests/data/list_answers*.jsonl): places as a careful reader sees them, and the
character spans that are paid for. The rows of list_answers_fresh.jsonl were written in four rounds (r1 to r4), each
before the parser was measured on it. Not covered: tokens (tests/property/test_list_spans.py).
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
from rlpost_verifiers.catalog.citations import cited
from rlpost_verifiers.catalog.items import catalog_of
from rlpost_verifiers.catalog.lists import ListSettings, parse_list
from rlpost_verifiers.catalog.verifier import CatalogVerifier

DATA = Path(__file__).parents[2] / "data"


def lines_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


FRESH = lines_of("list_answers_fresh.jsonl")
ROWS = [*lines_of("list_answers.jsonl"), *FRESH]


@cache
def verifiers() -> dict[str, CatalogVerifier]:
    items: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in (*lines_of("list_catalogs.jsonl"), *lines_of("list_catalogs_fresh.jsonl")):
        items[row.pop("catalog")].append(row)
    return {name: CatalogVerifier(catalog_of(rows), relevant_required=False) for name, rows in items.items()}


def read(text: str, catalog: str = "films") -> list[str | None]:
    return verifiers()[catalog].verify_batch([VerifyItem({}, text)])[0].evidence["items"]


def share_lost(rows: list[dict[str, Any]]) -> tuple[float, list[str]]:
    """Share of the places that are read otherwise, or are too many or missing, and the answers that have some."""
    lost, wrong = 0, list[str]()
    for row in rows:
        found, expected = read(row["text"], row["catalog"]), row["expected"]
        right = sum(a == b for a, b in zip(found, expected, strict=False))
        lost += max(len(found), len(expected)) - right
        wrong += [row["name"]] if found != expected else []
    return lost / sum(max(len(row["expected"]), 1) for row in rows), wrong


def test_places_are_those_that_a_careful_reader_sees() -> None:
    first, wrong = share_lost(ROWS[: -len(FRESH)])
    assert first <= 0.01, wrong
    fresh, wrong = share_lost(FRESH)
    assert fresh <= 0.01, wrong


def test_no_place_is_paid_for_an_item_that_it_does_not_name() -> None:
    paid = [
        (row["name"], item)
        for row in FRESH
        for item in read(row["text"], row["catalog"])
        if item is not None and item not in row["expected"]
    ]
    assert paid == []


@pytest.mark.parametrize(
    ("line", "item"),
    [
        ("The Fly (a remake of the 1958 film)", None),  # that is the other one's year
        ("The Fly (a remake of the film from 1958)", None),
        ("The Fly (1986, not the 1958 original)", "The Fly (1986)"),
        ("The Fly (the 1986 version)", "The Fly (1986)"),
        ("John Wick (2023)", None),  # a wrong year, not the fourth part
        ("Mission: Mangal (2018)", None),  # not Mission: Impossible - Fallout (2018)
        ("Son of The Prestige (2006)", None),
        ("The Prestige - 2006 - Christopher Nolan", "The Prestige (2006)"),
        ("The Fly - 1986 - David Cronenberg", "The Fly (1986)"),
    ],
)
def test_a_year_belongs_to_the_work_that_it_dates(line: str, item: str | None) -> None:
    assert read(f"1. {line}\n2. Heat (1995)", "fresh films") == [item, "Heat (1995)"]


@pytest.mark.parametrize(
    ("line", "item"),
    [
        ('He, K., et al. (2015). Deep Residual Learning for Image Recognition. CVPR.', "Deep Residual Learning for Image Recognition (2015)"),
        ('K. He et al., "Deep residual learning for image recognition," in CVPR, 2016.', "Deep Residual Learning for Image Recognition (2015)"),
        ('K. He (2001). "Deep residual learning for image recognition." CVPR, 2015.', None),
    ],
)  # fmt: skip
def test_citations_are_dated_by_their_own_year(line: str, item: str | None) -> None:
    assert read(f"1. {line}", "fresh papers") == [item]


def test_the_year_of_a_citation_is_the_last_behind_its_title() -> None:
    assert cited('A. Vaswani et al., "Attention," in Proc. NIPS 2016, 2017.') == ("Attention", 2017)


TRAPS = (
    ("{title}: The Reckoning", 4), ("{title} Vol. 8", 0), ("{title}: Chapter Nine", 1), ("{title} 17", 0),
    ("{title} XIV", 0), ("{title} Returns", 3), ("Beyond {title}", 0), ("Son of {title}", 0), ("{title} Begins", 0),
    ("{title}s", 0), ("{title}", -30),
)  # fmt: skip
FORMS = (
    "1. {name} ({year})", "- **{name}** ({year}) – a film about things.", "{name} ({year})",
    "1. **{name} ({year})**: nice one", '[{{"title": "{name}", "year": {year}}}]', "I'd recommend {name} ({year}).",
    "|Film|Year|\n|---|---|\n|{name}|{year}|",
)  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=range(len(FORMS)))
def test_neither_sequels_nor_other_years_are_the_film(form: str) -> None:
    verifier = verifiers()["fresh films"]
    paid: list[tuple[str, str | None]] = []
    for item in verifier.catalog.items:
        assert item.year is not None
        for trap, later in TRAPS:
            name, year = trap.format(title=item.title), item.year + later
            if verifier.index.find(name, year) is None:
                found = read(form.format(name=name, year=year), "fresh films")
                paid += [(f"{name} ({year})", one) for one in found if one is not None]
    assert paid == []


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
        (
            '{"Alien (1979)": {"why": "tense"}, "Up (2009)": "fun"}',
            ['"Alien (1979)": {"why": "tense"}, ', '"Up (2009)": "fun"}'],
        ),
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
        "\n" * 300_000, "\n\t" * 200_000 + "1 a", '{"a":' * 100_000, '[{"title":"Up","x":' * 30_000,
        "I.I." * 30_000, '"' * 100_000, "[" * 100_000, "<li>" * 30_000, "A & " * 30_000, "\0\ud83d" * 1000, ")", "1. )",
    ],
    ids=lambda text: repr(text[:9]),
)  # fmt: skip
def test_no_answer_ends_or_stops_the_verifier(text: str) -> None:
    began = time.process_time()
    [verdict] = verifiers()["films"].verify_batch([VerifyItem({}, text)])
    assert verdict.outcome in ("accepted", "rejected")
    assert time.process_time() - began < 20
