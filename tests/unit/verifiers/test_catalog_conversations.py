"""Generated conversations: reproducible, disjoint splits, verified by the catalog they are about, and learnable."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from rlpost.algorithms.ranking import recall
from rlpost.errors import UserError
from rlpost.plugins.registry import resolve
from rlpost.types import Prompt, VerifyItem
from rlpost_verifiers.catalog.conversations import films_of, rows, taste, utility
from rlpost_verifiers.catalog.items import Item, load_catalog
from rlpost_verifiers.catalog.verifier import CatalogVerifier


@pytest.fixture(scope="module")
def verifier() -> CatalogVerifier:
    return CatalogVerifier()


def test_the_films_that_ship_are_clean() -> None:
    catalog = load_catalog()
    assert len(catalog.items) == 1000
    assert not catalog.defects
    assert all(item.year and item.attributes["genre"] and item.attributes["votes"] for item in catalog.items)


def test_the_same_arguments_give_the_same_rows_and_splits_share_no_user() -> None:
    source = resolve("sources", "catalog_conversations")
    assert source(count=20, seed=3) == rows(count=20, seed=3)
    train, held_out = rows(count=200, seed=3), rows(count=200, seed=3, split="eval")
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in held_out}
    assert len({row["id"] for row in train}) == 200


def test_every_row_can_earn_something_and_the_teacher_keeps_to_the_form(verifier: CatalogVerifier) -> None:
    made = rows(count=100, seed=5)
    verifier.check_prompts([Prompt(row["id"], text=row["prompt"], columns=row) for row in made])
    for row, verdict in zip(
        made, verifier.verify_batch([VerifyItem(row, row["completion"]) for row in made]), strict=True
    ):
        assert len(verdict.items) == 10
        assert {item.reason for item in verdict.items} <= {"hit", "miss"}
        assert all(name in row["prompt"] for name in row["seen_titles"])
        assert not {f"{t} ({y})" for t, y in row["groundtruth_with_release_year"]} & set(row["seen_titles"])


def test_a_better_teacher_recommends_better_and_chance_recommends_badly(verifier: CatalogVerifier) -> None:
    def measured(lists: list[str], made: list[dict[str, Any]]) -> float:
        found = verifier.verify_batch([VerifyItem(row, text) for row, text in zip(made, lists, strict=True)])
        wanted = [[1.0] * len(row["groundtruth_with_release_year"]) for row in made]
        return sum(recall([i.score for i in v.items], w, 10) for v, w in zip(found, wanted, strict=True)) / len(made)

    good, bad = rows(count=300, seed=1, teacher_noise=0.0), rows(count=300, seed=1, teacher_noise=3.0)
    rng, films = random.Random(0), films_of(None, 300)
    chance = ["\n".join(film.name for film in rng.sample(films, 10)) for _ in good]
    figures = [measured([row["completion"] for row in made], made) for made in (good, bad)] + [measured(chance, good)]
    assert figures[0] > figures[1] + 0.1 > figures[2] + 0.2


def test_a_users_liking_by_hand() -> None:
    one = taste(random.Random(4), films_of(None, 50))
    film = Item("x", "Film", int(one.era), (), {"genre": "none of them", "votes": math.exp(11.0), "director": None})
    other = Item("x", "Film", int(one.era), (), {**film.attributes, "director": sorted(one.directors)[0]})
    assert utility(one, other) - utility(one, film) == pytest.approx(1.5)


@pytest.mark.parametrize(
    "arguments", [{"count": -1}, {"places": 0}, {"split": "test"}, {"items": 10}, {"teacher_noise": -1.0}]
)
def test_senseless_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        rows(**{"count": 1, "seed": 1, **arguments})


def test_users_say_as_much_and_want_as_many_as_asked() -> None:
    silent, open_ = rows(count=50, seed=2, candour=0.0), rows(count=50, seed=2, candour=1.0)
    assert sum(len(row["prompt"]) for row in open_) > 1.3 * sum(len(row["prompt"]) for row in silent)
    sizes = {len(row["groundtruth_with_release_year"]) for row in rows(count=200, seed=2, wanted=(4, 6))}
    assert sizes == {4, 5, 6}


def test_a_biased_teacher_overrates_the_same_films_for_everybody() -> None:
    def most_named(bias: float) -> int:
        made = rows(count=200, seed=2, items=60, teacher_bias=bias)
        names = [name for row in made for name in row["completion"].split("\n")]
        return max(names.count(name) for name in set(names))

    assert most_named(2.0) > 1.2 * most_named(0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"candour": 1.5}, "candour is 1.5"),
        ({"wanted": [3, 2]}, "give the fewest and the most"),
        ({"teacher_bias": -1}, "none may be negative"),
    ],
)
def test_other_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rows(count=1, seed=1, **settings)
