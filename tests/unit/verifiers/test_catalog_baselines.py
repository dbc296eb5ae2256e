"""Baselines of a recommender by hand, and on the recipe's conversations against figures computed elsewhere."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rlpost.evaluation.lists import list_figures, listed
from rlpost.protocols import BaselineVerifier
from rlpost.types import Message, Prompt, VerifyItem
from rlpost_verifiers.catalog.conversations import rows
from rlpost_verifiers.catalog.items import catalog_of
from rlpost_verifiers.catalog.verifier import CatalogVerifier

CATALOG = catalog_of(
    [
        {"title": "Alien", "year": 1979, "genre": "Horror|Science fiction"},
        {"title": "Up", "year": 2009, "genre": "Animation"},
        {"title": "300", "year": 2006, "genre": "Action"},
        {"title": "The Thing", "year": 1982, "genre": "Horror"},
    ]
)
ALIEN, UP, SPARTA, THING = (item.name for item in CATALOG.items)


def prompt(text: str, relevant: list[str], seen: list[str] | None = None) -> Prompt:
    columns = {"groundtruth_with_release_year": relevant, "seen_titles": seen or []}
    return Prompt(text, text=text, columns=columns)


TRAIN = [
    prompt("something scary", [ALIEN], [THING]),
    prompt("scary and old", [ALIEN], [THING]),
    prompt("for the children", [UP], [SPARTA]),
    prompt("loud", [THING, ALIEN]),
]


def answers(asked: Prompt, places: int = 4) -> dict[str, list[str]]:
    found = CatalogVerifier(CATALOG).baselines(TRAIN, [asked], places)
    return {name: texts[0].split("\n") for name, texts in found.items()}


def test_every_method_by_hand() -> None:
    found = answers(prompt("an animation for children", [SPARTA], [SPARTA]))
    assert found["popularity"] == [ALIEN, UP, THING]  # 3, 1, 1; seen 300 is left out
    assert found["asked attribute"] == [UP, ALIEN, THING]
    # 300 was seen once, and Up was relevant then: 1 / √(1 · 1)
    assert found["item kNN"][0] == UP
    # "for" and "children" go with Up: log 2 + 2 log(1.5 / 2) against log 4 + 2 log(0.5 / 4)
    assert found["naive Bayes"][0] == UP
    assert math.log(2) + 2 * math.log(1.5 / 2) > math.log(4) + 2 * math.log(0.5 / 4)


def test_held_out_truth_is_never_read() -> None:
    asked = prompt("scary", [UP], [SPARTA])
    other = Prompt(asked.id, text=asked.text, columns={**asked.columns, "groundtruth_with_release_year": [THING]})
    assert answers(asked) == answers(other)


def test_several_values_of_a_cell_plurals_and_chats_are_understood() -> None:
    chat = (Message("user", "I love science fiction."), Message("assistant", "And?"), Message("user", "Actions too!"))
    asked = Prompt("c", messages=chat, columns={"groundtruth_with_release_year": [UP]})
    assert set(answers(asked, 2)["asked attribute"]) == {ALIEN, SPARTA}


def test_methods_without_their_data_are_left_out() -> None:
    bare = CatalogVerifier(catalog_of([{"title": "A"}, {"title": "B"}]), yearless="accept")
    told = {"groundtruth_with_release_year": ["A"]}
    one = Prompt("x", text="so?", columns=told)
    assert set(bare.baselines([one], [one], 2)) == {"popularity", "naive Bayes"}
    assert bare.baselines([], [one], 2) == {}


def test_a_row_that_names_nothing_relevant_is_no_obstacle() -> None:
    assert isinstance(CatalogVerifier(CATALOG), BaselineVerifier)
    lost = [Prompt("x", text="?", columns={"groundtruth_with_release_year": ["Nowhere (1900)"]})]
    assert CatalogVerifier(CATALOG).baselines([*TRAIN, *lost], lost, 1)["popularity"] == [ALIEN]


def test_figures_on_the_recipe_are_those_of_an_independent_program() -> None:
    """nDCG@10 and recall@10 on 200 users; the independent values are of dense matrices over the generator's output."""
    shared: dict[str, Any] = {"items": 60, "places": 10, "candour": 1.0, "wanted": (3, 6)}
    train, held_out = (
        [Prompt(row["id"], text=row["prompt"], columns=row) for row in rows(count, seed, split, **shared)]
        for count, seed, split in ((1000, 2, "train"), (200, 3, "eval"))
    )
    verifier = CatalogVerifier(items=60)
    found = {}
    for name, texts in verifier.baselines(train, held_out, 10).items():
        items = [VerifyItem(one.columns, text) for one, text in zip(held_out, texts, strict=True)]
        lists = [one for verdict in verifier.verify_batch(items) if (one := listed(verdict)) is not None]
        figures = list_figures(lists, [10], size=10)
        assert figures["exact_length"] == figures["in_catalog"] == 1.0
        assert figures["duplicates"] == figures["seen"] == 0.0
        found[name] = figures["ndcg@10"], figures["recall@10"]
    # ties among rarely relevant films are broken in another way there
    assert found["popularity"] == pytest.approx((0.1754, 0.2223), abs=0.003)
    assert found["item kNN"] == pytest.approx((0.3427, 0.4102), abs=0.003)
    assert found["naive Bayes"] == pytest.approx((0.3463, 0.4173), abs=0.006)
