"""Users of any catalog: goods by hand, columns as people's files have them, wording; the rows of films as they were.

Not covered: what a policy learns from them (configs/README.md).
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rlpost.algorithms.ranking import ndcg
from rlpost.config.load import flatten, load
from rlpost.errors import UserError
from rlpost.types import Prompt, VerifyItem
from rlpost_verifiers.catalog.conversations import Taste, films_of, rows, taste, utility
from rlpost_verifiers.catalog.domain_settings import domain_of
from rlpost_verifiers.catalog.domains import FILMS, GOODS, Domain, number
from rlpost_verifiers.catalog.items import SHIPPED, Item, catalog_of, load_catalog
from rlpost_verifiers.catalog.verifier import CatalogVerifier

ROOT = Path(__file__).resolve().parents[3]
RECIPE: dict[str, Any] = {"items": 60, "places": 10, "candour": 1.0, "wanted": (3, 6)}
TEACHER = {"teacher_noise": 0.5, "teacher_bias": 1.5}


def goods_file(tmp_path: Path, changed: dict[str, Any] | None = None) -> str:
    """Forty games with columns of their own."""
    kinds = ("Puzzle", "Racing", "Strategy", "Card")
    made = [
        {
            "title": f"Game {chr(65 + n % 26)}{n}",
            "genres": [kinds[n % 4], "Indie"],
            "developer": f"Studio {n % 7}",
            "cost": f"${5 + n}.99",
            "reviews": f"{1000 * (n + 1):,}",
        }
        for n in range(40)
    ]
    for row in made:
        row.update(changed or {})
    file = tmp_path / "games.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in made))
    return str(file)


GAMES = {"category": "genres", "maker": "developer", "amount": "cost", "votes": "reviews"}


@pytest.mark.parametrize(
    ("arguments", "digest"),
    [
        ({"count": 4000, "seed": 2, "split": "train", **RECIPE}, "09a8a36917dcfd3c"),
        ({"count": 500, "seed": 1003, "split": "eval", **RECIPE, **TEACHER}, "2b32da4e370e6fb3"),
        ({"count": 5000, "seed": 1, "split": "train", **RECIPE, **TEACHER}, "27dbe0ec2d14b7f1"),
        ({"count": 200, "seed": 7}, "75d27899f8f6e715"),
        ({"count": 100, "seed": 7, "items": None, "candour": 0.3}, "b183af7ff970b4e4"),
    ],
)
def test_the_rows_of_films_are_those_of_published_figures(arguments: dict[str, Any], digest: str) -> None:
    """A change of these rows would make every figure in configs/README.md one of other data."""
    found = json.dumps(rows(**arguments), ensure_ascii=False)
    assert hashlib.sha256(found.encode()).hexdigest()[:16] == digest


def test_the_goods_that_ship_are_what_the_script_writes_and_load_without_a_setting() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "make_goods.py"))["goods"]()
    assert SHIPPED["goods"].read_text() == "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
    assert SHIPPED["goods"].stat().st_size < 60_000
    catalog = load_catalog("goods")
    assert len(catalog.items) == len(made) == 85
    assert not catalog.defects
    assert not catalog.dated
    assert all(item.id is not None and item.id.startswith("B0") and item.year is None for item in catalog.items)
    assert CatalogVerifier("goods").conformance().failures == ()


def test_shortened_names_of_goods_fit_several() -> None:
    titles = [item.title for item in load_catalog("goods").items]
    products = Counter(title.split(" - ")[0].split(" ", 1)[1] for title in titles)
    assert sum(count > 1 for count in products.values()) >= 15
    firsts = Counter(title.split(" - ")[0] for title in titles)
    assert sum(count > 1 for count in firsts.values()) >= 10, "one brand's product in two sizes"
    verifier = CatalogVerifier("goods", prefix=True)
    shared = next(first for first, count in firsts.items() if count == 2)
    alone = next(first for first, count in firsts.items() if count == 1)
    assert verifier.index.find(shared, None) is None
    assert verifier.index.find(alone, None) is not None


def test_a_name_that_ships_stands_behind_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "goods").mkdir()
    assert len(load_catalog("goods").items) == 85
    (tmp_path / "goods").rmdir()
    (tmp_path / "goods").write_text('{"title": "Mine"}\n')
    assert [item.name for item in load_catalog("goods").items] == ["Mine"]


def test_every_row_of_goods_can_earn_and_nobody_wants_what_they_have() -> None:
    verifier = CatalogVerifier("goods", popularity="ratings")
    made = rows(count=200, seed=5, catalog="goods", items=None, candour=1.0)
    verifier.check_prompts([Prompt(row["id"], text=row["prompt"], columns=row) for row in made])
    for row in made:
        truth = verifier.reader.ground_truth(row)
        assert len(truth.relevant) == len(row["groundtruth_with_release_year"])
        assert len(truth.seen) == len(row["seen_titles"])
        assert all(name in row["prompt"] for name in row["seen_titles"])
        assert all(len(name) == 1 for name in row["groundtruth_with_release_year"])
    for verdict in verifier.verify_batch([VerifyItem(row, row["completion"]) for row in made]):
        assert len(verdict.items) == 10
        assert {item.reason for item in verdict.items} <= {"hit", "miss"}


def test_a_users_liking_of_goods_by_hand() -> None:
    domain = Domain(span=(10, 90), width=0.5, middle=7.0)
    one = Taste({"Yoga": 2.0, "Coffee": -0.5}, 40.0, 1.5, frozenset({"Norvane"}), -0.4, "salt")
    price, ratings = 80.0, math.exp(9.0)

    def item(**attributes: Any) -> Item:
        return Item("B0", "Mat", None, (), attributes)

    quiet = utility(one, item(), domain) - 1.5 + 0.4 * -7.0
    full = item(category="Yoga", brand="Norvane", price=price, ratings=ratings)
    # 2 + 1.5 · exp(-(ln 2 / 0.5)²) + 1.5 - 0.4 · (9 - 7)
    expected = 2.0 + 1.5 * math.exp(-((math.log(2) / 0.5) ** 2)) + 1.5 - 0.8
    assert utility(one, full, domain) - quiet == pytest.approx(expected)
    other = item(category="Coffee", brand="Drumlin", price=40.0, ratings=math.exp(7.0))
    assert utility(one, other, domain) - quiet == pytest.approx(-0.5 + 1.5)


def test_the_catalog_determines_the_numbers_that_a_domain_leaves_open() -> None:
    items = catalog_of(
        [
            {"title": "A", "category": "x", "brand": "b", "price": 10, "ratings": math.e},
            {"title": "B", "category": "x", "brand": "b", "price": 1000, "ratings": math.e**3},
        ]
    ).items
    found = GOODS.fitted(items, "two")
    assert found.width == pytest.approx(math.log(100) / 2 / 2)
    assert found.middle == pytest.approx(2.0)
    assert FILMS.fitted(films_of(None, 60), "movies") == FILMS
    eras = {round(taste(random.Random(seed), items, found).era, 6) for seed in range(40)}
    assert eras == {10.0, 1000.0}


def test_a_catalog_that_changes_is_read_again(tmp_path: Path) -> None:
    file = Path(goods_file(tmp_path))
    assert len(films_of(str(file))) == 40
    file.write_text('{"title": "Mine"}\n')
    assert [item.title for item in films_of(str(file))] == ["Mine"]


def test_users_of_a_catalog_of_ones_own(tmp_path: Path) -> None:
    said = {
        "amount": "Up to {above} euros.",
        "spoken": {"Card": "a game of cards"},
        "category": ["{category}, please."],
    }
    domain = {**GAMES, "step": 5, "wording": said}
    file = goods_file(tmp_path)
    made = rows(count=300, seed=1, catalog=file, items=None, candour=1.0, domain=domain)
    text = "\n".join(row["prompt"] for row in made)
    assert "a game of cards, please." in text
    assert "puzzle, please." in text
    assert "Indie" not in text
    spent = {int(part.split(" euros")[0]) for part in text.split("Up to ")[1:]}
    assert spent <= set(range(10, 51, 5))
    assert len(spent) > 5
    liked = utility(taste(random.Random(1), films_of(file), domain_of(domain, file).fitted(films_of(file), file)),
                    films_of(file)[0], domain_of(domain, file).fitted(films_of(file), file))  # fmt: skip
    assert math.isfinite(liked)


def test_the_true_taste_beats_every_list_that_does_not_know_it() -> None:
    """nDCG@10 of a teacher without errors, of the recipe's teacher and of the asked attribute, on 200 users."""
    arguments = {"count": 200, "seed": 1003, "split": "eval", "catalog": "goods", **RECIPE}
    verifier = CatalogVerifier("goods", items=60)

    def measured(made: list[dict[str, Any]], lists: list[str]) -> float:
        found = verifier.verify_batch([VerifyItem(row, text) for row, text in zip(made, lists, strict=True)])
        wanted = [[1.0] * len(row["groundtruth_with_release_year"]) for row in made]
        return sum(ndcg([i.score for i in v.items], w, 10) for v, w in zip(found, wanted, strict=True)) / len(made)

    liked, taught = rows(**arguments, teacher_noise=0.0), rows(**arguments, **TEACHER)
    assert [row["id"] for row in liked] == [row["id"] for row in taught]
    asked = [Prompt(row["id"], text=row["prompt"], columns=row) for row in liked]
    train = [Prompt(row["id"], text=row["prompt"], columns=row) for row in rows(500, 2, catalog="goods", **RECIPE)]
    simple = verifier.baselines(train, asked, 10)["asked attribute"]
    oracle, teacher = (measured(made, [row["completion"] for row in made]) for made in (liked, taught))
    assert oracle > teacher + 0.2
    assert oracle > measured(liked, simple) + 0.25 > 0.5


@pytest.mark.parametrize("part", ["category", "maker", "amount", "votes"])
def test_a_part_without_a_column_is_never_spoken_of(part: str, tmp_path: Path) -> None:
    words = {
        "category": ("need something", "Preferably", "would be nice"),
        "maker": ("I trust", "good brand"),
        "amount": ("dollars",),
        "votes": ("many people", "bestseller", "everybody"),
    }
    domain = {**GAMES, part: None}
    made = rows(count=100, seed=1, catalog=goods_file(tmp_path), items=None, candour=1.0, domain=domain)
    text = "\n".join(row["prompt"] for row in made)
    assert not any(word in text for word in words.pop(part))
    assert all(any(word in text for word in some) for some in words.values())


def test_one_part_is_enough_and_none_is_refused(tmp_path: Path) -> None:
    none: dict[str, Any] = dict.fromkeys(GAMES)
    file = goods_file(tmp_path)
    for part, column in GAMES.items():
        assert len(rows(count=5, seed=1, catalog=file, items=None, domain={**none, part: column})) == 5
    with pytest.raises(UserError, match="no part has a column"):
        rows(count=5, seed=1, catalog=file, items=None, domain=none)


def test_cells_that_say_nothing_count_for_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mixed.jsonl"
    cells = [
        {"category": "x", "brand": "b", "price": "9.99", "ratings": 5},
        {"category": None, "brand": "", "price": "—"},
    ]
    cells += [{"category": [], "price": 0, "ratings": -3}, {"category": ["", "y"], "price": None, "ratings": "many"}]
    file.write_text("".join(json.dumps({"title": f"Thing {n}", **cells[n % 4]}) + "\n" for n in range(40)))
    made = rows(count=50, seed=1, catalog=str(file), items=None, candour=1.0, domain="goods")
    text = "\n".join(row["prompt"] for row in made)
    assert "None" not in text
    assert "none" not in text.lower()
    assert "for x" in text
    assert "for y" in text


def test_papers_have_years_and_no_price(tmp_path: Path) -> None:
    file = tmp_path / "papers.jsonl"
    file.write_text(
        "".join(
            json.dumps({"title": f"On {n} bodies", "year": 1990 + n, "field": f"field {n % 3}", "citations": n * n})
            + "\n"
            for n in range(30)
        )
    )
    domain = {"like": "films", "category": "field", "maker": None, "votes": "citations", "span": [1995, 2015]}
    domain |= {"wording": {"amount": "from the {amount}s", "category": "on {category}"}}
    made = rows(count=100, seed=1, catalog=str(file), items=None, candour=1.0, domain=domain)
    assert all(len(name) == 2 for row in made for name in row["groundtruth_with_release_year"])
    text = "\n".join(row["prompt"] for row in made)
    assert "from the 2010s" in text
    assert "from the 2020s" not in text
    assert "on field 2" in text


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ("toys", "domain is 'toys'; give films or goods"),
        (7, "domain is 7"),
        ({"like": "toys"}, "domain is 'toys'"),
        ({"brand": "x"}, "domain has no 'brand'; there are category, maker"),
        ({"category": ""}, "domain.category is ''; give the name of a column, or null"),
        ({"category": 3}, "domain.category is 3"),
        ({"log": "yes"}, "domain.log is 'yes'; give true or false"),
        ({"span": [5]}, "domain.span is"),
        ({"span": [9, 5]}, "domain.span is"),
        ({"span": [0, 5]}, "domain.span is"),
        ({"span": "1-5"}, "domain.span is"),
        ({"width": 0}, "domain.width is 0; give a number above 0"),
        ({"width": "3"}, "domain.width is '3'"),
        ({"middle": float("nan")}, "domain.middle is nan"),
        ({"step": 0}, "domain.step is 0"),
        ({"step": True}, "domain.step is True"),
        ({"wording": "hi"}, "domain.wording is 'hi'; give a mapping"),
        ({"wording": {"hello": "x"}}, "domain.wording has no 'hello'"),
        ({"wording": {"category": "a {genre}"}}, "domain.wording.category holds 'a {genre}'"),
        ({"wording": {"category": "a {category"}}, "domain.wording.category holds"),
        ({"wording": {"category": []}}, "domain.wording.category holds None"),
        ({"wording": {"maker": ["x", 3]}}, "domain.wording.maker holds 3"),
        ({"wording": {"popular": "a {popular} one"}}, "whose only fields are none"),
        ({"wording": {"spoken": ["x"]}}, "domain.wording.spoken is"),
        ({"wording": {"openings": "I want {wish}"}}, "each needs {seen} and {wish}"),
    ],
)
def test_senseless_domains_are_refused(domain: Any, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("{", "[{]").replace("}", "[}]").replace("(", "[(]")):
        rows(count=1, seed=1, catalog="goods", domain=domain)


def test_a_catalog_without_a_column_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no item has a usable 'genre' for category.*cost, developer, genres, reviews"):
        rows(count=1, seed=1, catalog=goods_file(tmp_path), items=None)
    with pytest.raises(UserError, match="'cost' for amount"):
        rows(count=1, seed=1, catalog=goods_file(tmp_path, {"cost": "free"}), items=None, domain=GAMES)
    with pytest.raises(UserError, match="'year' for amount"):
        rows(count=1, seed=1, catalog=goods_file(tmp_path), items=None, domain={**GAMES, "amount": "year"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"wanted": [3]}, "wanted is"),
        ({"wanted": "ab"}, "wanted is"),
        ({"items": 9, "places": 4, "wanted": (3, 6)}, "users have up to 4 items and want up to 6"),
    ],
)
def test_users_can_have_and_want_that_many(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        rows(count=1, seed=1, catalog="goods", **settings)
    assert rows(count=1, seed=1, catalog="goods", items=10, places=4, wanted=(3, 6))


def test_unusual_names_of_columns_can_be_given(tmp_path: Path) -> None:
    file = goods_file(tmp_path)
    Path(file).write_text(Path(file).read_text().replace('"title"', '"what"'))
    made = rows(count=3, seed=1, catalog=file, items=None, domain=GAMES, columns={"title": "what"})
    assert all(name[0].startswith("Game ") for row in made for name in row["groundtruth_with_release_year"])


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("$1,299.00", 1299.0), ("12,50 €", 12.5), ("99.99", 99.99), (7, 7.0), ("1,234", 1234.0), ("USD 5", 5.0),
        ("1e3", 1000.0), ("free", None), ("", None), (None, None), (True, None), (math.inf, None), (math.nan, None),
        ([5], None), ("$12.", 12.0), ("1,234,567", 1234567.0), ("£0.99", 0.99), ("-", None),
    ],
)  # fmt: skip
def test_numbers_as_shops_write_them(cell: Any, value: float | None) -> None:
    assert number(cell) == value


def test_the_recipe_of_goods_is_that_of_films_with_the_catalog_exchanged() -> None:
    films, goods = (
        flatten(load(ROOT / "configs" / f"recommender_{name}_cpu.yaml").config) for name in ("rank", "goods")
    )
    changed = {".".join(path) for path in films.keys() | goods.keys() if films.get(path) != goods.get(path)}
    assert changed == {
        "run.name", "data.train.catalog", "data.eval.catalog", "sft.train.catalog",
        "scoring.verifier_args.catalog", "scoring.verifier_args.popularity",
    }  # fmt: skip
