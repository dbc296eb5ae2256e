"""Sequels and first parts: no spelling mistake, shortened name or description makes one of the other."""

from __future__ import annotations

import pytest

from rlpost.types import VerifyItem
from rlpost_verifiers.catalog.items import catalog_of
from rlpost_verifiers.catalog.sequels import agree, continues, numbers_of
from rlpost_verifiers.catalog.verifier import CatalogVerifier


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Toy Story 2", "Toy Story", False), ("Toy Story 2", "Toy Story 3", False), ("Toy Storry 2", "Toy Story 2", True),
        ("Rocky II", "Rocky", False), ("Rocky II", "Rocky 2", True), ("Rocky V", "Rocky IV", False),
        ("Kill Bill: Vol. 1", "Kill Bill: Volume 2", False), ("Kill Bill: Vol. 1", "Kill Bill", True),
        ("Dune: Part Two", "Dune", False), ("Dune: Part One", "Dune", True), ("It: Chapter Two", "It", False),
        ("The Godfather 2", "The Godfather: Part II", True), ("The Godfather: Part III", "The Godfather: Part II", False),
        ("Ocean's Eleven", "Ocean's Twelve", False), ("Oceans 11", "Ocean's Eleven", True), ("Aliens", "Alien", False),
        ("Se7en", "Seven", True), ("X-Men", "Xmen", True), ("I, Robot", "I Robot", True), ("Malcolm X", "Malcom X", True),
        ("The Two Towers", "The Too Towers", True), ("12 Angry Men", "Twelve Angry Men", True),
        ("Sony WH-1000XM4", "Sony WH-1000XM5", False), ("Pressure Cooker, 6 Quart", "Pressure Cooker, 8 Quart", False),
        ("Final Fantasy VII", "Final Fantasy VIII", False), ("Blade Runner 2049", "Blade Runner", False),
        ("Dark, Season 2", "Dark, Season 1", False), ("Night, Second Part", "Night, First Part", False),
        ("Saga, the Final Chapter", "Saga, the First Chapter", False), ("Ocean 9999999999999", "Ocean 8", False),
    ],
)  # fmt: skip
def test_numbers_must_agree(one: str, other: str, same: bool) -> None:
    assert agree(one, other) is agree(other, one) is same


def test_what_follows_a_title_may_go_on_with_it() -> None:
    assert [continues(text) for text in ("Part Two", "Vol. 2 – revenge", "III", "2: Judgment Day")] == [True] * 4
    assert continues("Part One") is False
    assert [continues(text) for text in ("a film in 2 parts", "2-4 players", "PC, PS5")] == [None] * 3
    assert numbers_of("") == ()


FIRST = ["Toy Story", "Rocky", "Kill Bill", "The Matrix", "Portal", "Hades", "Ticket to Ride", "Alien", "Hollow Knight"]


@pytest.mark.parametrize(
    "line",
    [
        "1. Toy Story 4", "1. Toy Story 4 (the one with Forky)", "1. **Rocky III** – the best of them", "1. Rocky (Part II)",
        "1. Kill Bill: Vol. 2 - a bride takes revenge", "1. Kill Bill – Volume 2", "1. The Matrix Resurrections",
        "1. Portal 2 (2011)", "1. Hades II: a roguelike", "1. Ticket to Ride: Europe (2-5 players)", "1. Aliens",
        "1. Alien: Resurrection", "1. Hollow Knight: Silksong – a sequel at last", "1. Rocky 2 by Sylvester Stallone",
    ],
)  # fmt: skip
@pytest.mark.parametrize("similarity", [None, 80.0])
def test_a_first_part_is_never_taken_for_its_sequel(line: str, similarity: float | None) -> None:
    catalog = catalog_of([{"title": title} for title in FIRST])
    verifier = CatalogVerifier(catalog, similarity=similarity, relevant_required=False)
    assert verifier.verify_batch([VerifyItem({}, line)])[0].evidence["items"] == [None]
