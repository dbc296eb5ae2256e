"""Logged clicks as rows: weights by hand, estimated propensities, and the rewards they lead to."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from rlpost.errors import DataError, UserError
from rlpost.plugins.registry import resolve
from rlpost.types import VerifyItem
from rlpost_verifiers.catalog.clicks import rows
from rlpost_verifiers.catalog.items import catalog_of
from rlpost_verifiers.catalog.verifier import CatalogVerifier

SHOWN = ["Alien (1979)", ["Up", "2009"], "300 (2006)"]


def log(tmp_path: Path, values: list[dict]) -> str:
    file = tmp_path / "log.jsonl"
    file.write_text("".join(json.dumps(value) + "\n" for value in values))
    return str(file)


def test_clicks_are_weighed_by_the_propensity_of_their_rank(tmp_path: Path) -> None:
    path = log(
        tmp_path,
        [{"id": "a", "prompt": "x", "shown": SHOWN, "clicks": [1, 0, 1]}, {"id": "b", "prompt": "y", "shown": SHOWN, "clicks": [0, 0, 0]}],
    )  # fmt: skip
    [found] = resolve("sources", "logged_clicks")(path, propensities=[1.0, 0.5, 0.25])
    assert found["groundtruth_with_release_year"] == [
        {"title": "Alien", "year": 1979, "weight": 1.0}, {"title": "300", "year": 2006, "weight": 4.0},
    ]  # fmt: skip
    assert (found["id"], found["prompt"]) == ("a", "x")
    catalog = catalog_of([{"title": "Alien", "year": 1979}, {"title": "300", "year": 2006}])
    [verdict] = CatalogVerifier(catalog).verify_batch([VerifyItem(found, "300 (2006)\nAlien (1979)")])
    assert [item.score for item in verdict.items] == [4.0, 1.0]


def test_propensities_are_found_in_the_log(tmp_path: Path) -> None:
    rng, films = random.Random(0), [f"Film {i} (2000)" for i in range(6)]
    theta, liked = [1.0, 0.5, 0.2], [0.9, 0.7, 0.5, 0.3, 0.6, 0.8]
    values = []
    for _ in range(4000):
        shown = rng.sample(range(6), 3)
        clicks = [rng.random() < theta[rank] * liked[item] for rank, item in enumerate(shown)]
        values.append({"prompt": "x", "shown": [films[item] for item in shown], "clicks": clicks})
    found = rows(log(tmp_path, values))
    weights = {value["weight"] for row in found for value in row["groundtruth_with_release_year"]}
    assert sorted(weights) == pytest.approx([1.0, 2.0, 5.0], rel=0.1)


@pytest.mark.parametrize(
    ("row", "message", "kind"),
    [
        ({"prompt": "x"}, "row 0: needs 'shown' and 'clicks'", DataError),
        ({"prompt": "x", "shown": SHOWN, "clicks": [1]}, "lists of one length", DataError),
        ({"prompt": "x", "shown": [3], "clicks": [1]}, "'shown' holds 3", DataError),
        ({"prompt": "x", "shown": SHOWN, "clicks": [0, 0, 0]}, "no click in 1 rows", DataError),
        ({"prompt": "x", "shown": SHOWN, "clicks": [0, 1, 0]}, "no item was shown at two ranks", UserError),
    ],
)
def test_a_log_that_says_nothing_is_refused(tmp_path: Path, row: dict, message: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=message):
        rows(log(tmp_path, [row]))
