"""Candidates in prompts, by value: what is found, what stands in the prompt, what may not be, and the figures of lists.

Retrieval by real sentence embeddings is in tests/contract/test_catalog_stage1.py.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlpost.config.schema import DataSection
from rlpost.data.decontaminate import find_contamination
from rlpost.data.load import check_lengths, prompts
from rlpost.errors import DataError, UserError
from rlpost.evaluation.lists import Listed, list_figures, listed
from rlpost.trajectory import TokenizedPrompt
from rlpost.types import Prompt, VerifyItem
from rlpost_verifiers.catalog.baselines import Baselines
from rlpost_verifiers.catalog.candidates import _cut, _with_relevant, rows
from rlpost_verifiers.catalog.ground_truth import Columns, Reader
from rlpost_verifiers.catalog.index import CatalogIndex
from rlpost_verifiers.catalog.items import catalog_of
from rlpost_verifiers.catalog.retrieval import Bm25, Embedded
from rlpost_verifiers.catalog.verifier import CatalogVerifier

pytest.importorskip("bm25s", reason="pip install 'rlpost[retrieval]'")

FILMS = [
    {"title": "Alien", "year": 1979, "genre": "horror", "plot": "A crew meets a creature\nin space.", "votes": 90},
    {"title": "Aliens", "year": 1986, "genre": "horror action", "plot": "Marines meet many creatures.", "votes": 80},
    {"title": "Up", "year": 2009, "genre": "comedy", "plot": "A house flies.", "votes": 70},
    {"title": "Gravity", "year": 2013, "genre": "drama", "plot": "Lost in space.", "votes": None},
    {"title": "Big", "year": 1988, "genre": "comedy", "plot": "", "votes": 10},
]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    catalog, data = tmp_path / "films.jsonl", tmp_path / "rows.jsonl"
    catalog.write_text("".join(json.dumps(row) + "\n" for row in FILMS))
    data.write_text(
        "".join(
            json.dumps(row) + "\n"
            for row in (
                {"id": "a", "prompt": "A horror in space?", "seen_titles": ["Alien (1979)"],
                 "groundtruth_with_release_year": [["Aliens", "1986"]]},
                {"id": "b", "prompt": [{"role": "system", "content": "Be kind to comedy."}, {"role": "user", "content": "Hi"},
                 {"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "creatures, please"}],
                 "groundtruth_with_release_year": [["Big", "1988"]]},
            )
        )
    )  # fmt: skip
    return {"catalog": str(catalog), "data": str(data)}


def made(files: dict[str, str], **settings: Any) -> list[dict[str, Any]]:
    return rows("jsonl", files["data"], catalog=files["catalog"], **{"k": 3, "order": "score"} | settings)


def test_candidates_of_a_text(files: dict[str, str]) -> None:
    first = made(files, descriptions=["plot"])[0]
    # Alien was seen; Aliens has "horror", Gravity "in" and "space"; the others share no word
    assert sorted(first["candidates"]) == ["Aliens (1986)", "Gravity (2013)"]
    assert first["prompt"].startswith("A horror in space?\n\nChoose from these candidates:\n")
    assert "\nAliens (1986): Marines meet many creatures." in first["prompt"]
    assert first["candidates_text"] == "\n".join(first["prompt"].split("\n")[3:])
    assert (first["before_candidates"], first["candidates_forced"]) == ("A horror in space?", 0)
    assert first["id"] == "a"


def test_candidates_of_a_chat_stand_in_the_last_turn_of_the_user(files: dict[str, str]) -> None:
    second = made(files, template="{prompt}\n{candidates}\n({id})")[1]
    assert [turn["role"] for turn in second["prompt"]] == ["system", "user", "assistant", "user"]
    # "comedy" stands in the system turn, which is not asked
    assert second["candidates"] == ["Aliens (1986)"]
    assert second["prompt"][-1]["content"] == "creatures, please\nAliens (1986)\n(b)"
    assert second["prompt"][1]["content"] == "Hi"
    assert second["before_candidates"] == "Hi\nHello!\ncreatures, please"


def test_popular_items_fill_what_is_left(files: dict[str, str]) -> None:
    assert made(files, popular="votes")[1]["candidates"] == ["Aliens (1986)", "Alien (1979)", "Up (2009)"]
    kept = made(files, popular="votes", popular_places=2)[0]["candidates"]
    assert len(kept) == 3
    assert set(kept[1:]) <= {"Aliens (1986)", "Up (2009)", "Gravity (2013)"}
    everything = made(files, popular="votes", k=50)[0]["candidates"]
    assert set(everything) == {"Aliens (1986)", "Up (2009)", "Gravity (2013)", "Big (1988)"}, "all but the seen one"


def test_relevant_items_are_forced_in_and_counted(files: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    first, second = made(files, force_relevant=True, popular="votes")
    assert (first["candidates_forced"], second["candidates_forced"]) == (0, 1)
    assert second["candidates"] == ["Aliens (1986)", "Alien (1979)", "Big (1988)"], "in the place of the last one"
    assert "1 relevant items that were not found were put into 1 of 2 rows" in caplog.text


@pytest.mark.parametrize(
    ("items", "relevant", "k", "expected"),
    [
        ([1, 2, 3], [2], 3, ([1, 2, 3], 0)),
        ([1, 2, 3], [9], 3, ([1, 2, 9], 1)),
        ([1, 2, 3], [3, 9], 3, ([1, 3, 9], 1)),
        ([1, 2, 3], [7, 8, 9, 6], 3, ([7, 8, 9], 3)),
        ([1, 2], [9], 3, ([1, 2, 9], 1)),
        ([], [9], 1, ([9], 1)),
        ([3], [3, 9], 1, ([3], 1)),
    ],
)
def test_with_relevant_by_hand(items: list[int], relevant: list[int], k: int, expected: tuple[list[int], int]) -> None:
    found, forced = _with_relevant(items, relevant, k)
    assert len(found) <= k
    if len(relevant) < k or expected[1] == k:
        assert (found, forced) == expected


def test_held_out_prompts_may_not_be_told(files: dict[str, str]) -> None:
    arguments = {"source": "jsonl", "rows": files["data"], "catalog": files["catalog"], "k": 3, "force_relevant": True}
    section = DataSection(source="catalog_candidates", train=arguments, eval=arguments)
    assert len(prompts(section, "train")) == 2
    with pytest.raises(DataError, match=r"data\.eval: 1 of 2 prompts, such as 'b', hold relevant items"):
        prompts(section, "eval")
    fair = DataSection(source="catalog_candidates", train=arguments, eval={**arguments, "force_relevant": False})
    held_out = prompts(fair, "eval")
    # the same conversations, with other candidates and in another order: still the same questions
    assert find_contamination(prompts(section, "train"), held_out).positions == {0, 1}


def test_order_is_shuffled_by_seed_and_row(tmp_path: Path, files: dict[str, str]) -> None:
    data = tmp_path / "many.jsonl"
    data.write_text("".join(json.dumps({"id": str(n), "prompt": "space creatures meet"}) + "\n" for n in range(40)))
    shown = [
        [
            row["candidates_text"]
            for row in made({**files, "data": str(data)}, order="shuffled", popular="votes", k=4, seed=seed)
        ]
        for seed in (0, 0, 1)
    ]
    assert shown[0] == shown[1] != shown[2]
    firsts = [text.split("\n")[0] for text in shown[0]]
    assert {firsts.count(name) for name in set(firsts)} <= set(range(3, 20)), "no place is an item's own"
    assert len(set(firsts)) == 4
    candidates = {tuple(row["candidates"]) for row in made({**files, "data": str(data)}, popular="votes", k=4)}
    assert len(candidates) == 1, "the column keeps the retriever's order"


def test_mentioned_items_may_be_left_out(tmp_path: Path, files: dict[str, str]) -> None:
    data = tmp_path / "one.jsonl"
    data.write_text(json.dumps({"prompt": "After Alien (1979), more creatures in space"}))
    assert "Alien (1979)" in made({**files, "data": str(data)})[0]["candidates"]
    assert "Alien (1979)" not in made({**files, "data": str(data)}, without_mentioned=True)[0]["candidates"]


def test_an_item_that_is_seen_and_relevant_is_not_offered(tmp_path: Path, files: dict[str, str]) -> None:
    data = tmp_path / "one.jsonl"
    row = {"prompt": "creature", "seen_titles": ["Alien (1979)"], "groundtruth_with_release_year": [["Alien", "1979"]]}
    data.write_text(json.dumps(row))
    assert made({**files, "data": str(data)}, k=1)[0]["candidates"] == []


@pytest.mark.parametrize(
    ("text", "characters", "expected"),
    [
        ("A house flies.", 14, "A house flies."), ("A house flies.", 13, "A house…"), ("A house, flies.", 9, "A house…"),
        ("Supercalifragilistic", 6, "Super…"), ("ab", 1, "a…"), ("", 3, ""),
    ],
)  # fmt: skip
def test_descriptions_end_behind_a_word(text: str, characters: int, expected: str) -> None:
    assert _cut(text, characters) == expected


def test_descriptions_stand_on_one_line(files: dict[str, str]) -> None:
    found = made(files, descriptions=["genre", "plot"], popular="votes", k=5)[1]["candidates_text"].split("\n")
    assert "Alien (1979): horror; A crew meets a creature in space." in found
    assert "Big (1988): comedy" in found, "an empty cell leaves nothing"
    assert len(found) == 4, "Gravity has no votes, and its plot no word of the user's"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k is 0; give a whole number from 1 on"),
        ({"k": True}, "k is True"),
        ({"k": "ten"}, "k is 'ten'"),
        ({"order": "random"}, "order is 'random'; use 'shuffled' or 'score'"),
        ({"template": "{prompt} only"}, r"has no \{candidates\}"),
        ({"template": "{prompt} {candidates} {votes}"}, "the template asks for 'votes'"),
        ({"popular_places": 2}, "popular items need a column"),
        ({"popular": "genre"}, "popular: column 'genre' holds 'horror'; numbers are needed"),
        ({"popular": "stars"}, "popular: the catalog has no numbers in 'stars' .there are genre, plot, votes"),
        ({"descriptions": "plot"}, "descriptions is 'plot'; give a list"),
        ({"descriptions": ["story"]}, "the catalog has no column 'story' .there are genre, plot, votes"),
        ({"kk": 3}, "catalog_candidates cannot take"),
        ({"prompt_key": "text"}, "row 0: no column 'text' .there are id, prompt"),
        ({"by": "/no/such/model"}, "/no/such/model is no folder"),
    ],
)
def test_bad_settings_are_one_line(files: dict[str, str], settings: dict[str, Any], message: str) -> None:
    with pytest.raises((UserError, DataError), match=message) as caught:
        made(files, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": ""}, "row 0: column 'prompt' is empty"),
        ({"prompt": [{"role": "system", "content": "x"}]}, "without a turn of the user"),
        ({"prompt": "x", "candidates": ["Up (2009)"]}, "has a column 'candidates' already"),
        ({"prompt": "x", "seen_titles": "Up"}, "row 0: column 'seen_titles' holds"),
        ({"prompt": {"a": 1}}, "column 'prompt'"),
    ],
)
def test_bad_rows_are_one_line(tmp_path: Path, files: dict[str, str], row: dict[str, Any], message: str) -> None:
    data = tmp_path / "bad.jsonl"
    data.write_text(json.dumps(row))
    with pytest.raises(DataError, match=message) as caught:
        made({**files, "data": str(data)})
    assert "\n" not in str(caught.value)


def test_sources_that_fail_are_one_line(files: dict[str, str]) -> None:
    with pytest.raises(UserError, match="'jsnl' is not known; did you mean jsonl"):
        rows("jsnl", files["data"], catalog=files["catalog"])
    with pytest.raises(DataError, match="source 'jsonl' fails with"):
        rows("jsonl", {"no": 1}, catalog=files["catalog"])


def test_the_sources_that_ship_can_be_wrapped() -> None:
    found = rows("catalog_conversations", {"count": 30, "seed": 1, "items": 100}, items=100, k=20, popular="votes")
    assert all(len(row["candidates"]) == 20 for row in found)
    assert all(row["seen_titles"] and not set(row["seen_titles"]) & set(row["candidates"]) for row in found)


def test_bm25_by_hand() -> None:
    catalog = catalog_of([{"title": "red red"}, {"title": "red blue"}, {"title": "blue green"}, {"title": "Café"}])
    found = Bm25(catalog)
    # red: log(1 + 2.5/2.5); twice in as many words counts more
    assert found.best(["red", "RED, blue!", "cafe", "unknown", ""], 9, [()] * 5) == [[0, 1], [1, 0, 2], [3], [], []]
    assert found.best(["red"], 1, [{0}]) == [[1]]


def test_vectors_by_hand() -> None:
    axes = {"a": (1.0, 0.0), "b": (0.0, 1.0), "c": (0.6, 0.8)}

    def embed(texts: list[str]) -> np.ndarray:
        return np.array([axes[text[0]] for text in texts], np.float32)

    found = Embedded(catalog_of([{"title": name} for name in "abc"]), embed)
    assert found.best(["a?", "b?"], 2, [(), {1}]) == [[0, 2], [2, 0]]
    assert found.best([], 2, []) == []


def test_figures_of_lists_of_candidates() -> None:
    catalog = catalog_of(FILMS)
    columns = {
        "candidates": ["Up (2009)", "Alien (1979)"],
        "groundtruth_with_release_year": [["Up", "2009"], ["Big", "1988"]],
    }
    verifier = CatalogVerifier(catalog)
    [verdict, plain] = verifier.verify_batch(
        [
            VerifyItem(columns, "Up (2009)\nBig (1988)\nNo Such Film (1950)\nAlien (1979)"),
            VerifyItem({k: v for k, v in columns.items() if k != "candidates"}, "Up (2009)"),
        ]
    )
    assert verdict.evidence["candidates_at"] == [True, False, None, True]
    assert verdict.evidence["candidates_relevant"] == 1
    found = listed(verdict)
    assert found is not None
    assert Listed.from_json(json.loads(json.dumps({"marks": "h", "relevant": 1, "offered": [True, None]}))).offered == (
        True,
        None,
    )
    figures = list_figures([found], [5])
    assert figures["candidates_recall"] == 0.5
    assert figures["left_candidates"] == 0.5
    assert "candidates_at" not in plain.evidence
    other = listed(plain)
    assert other is not None
    assert not {"candidates_recall", "left_candidates"} & list_figures([other], [5]).keys()


def test_the_retriever_is_a_baseline_and_its_lines_are_no_words_of_the_user() -> None:
    catalog = catalog_of(FILMS)
    reader = Reader(catalog, CatalogIndex(catalog.items), Columns())

    def prompt(name: str, names: list[str]) -> Prompt:
        columns = {
            "candidates": names,
            "before_candidates": "something",
            "groundtruth_with_release_year": [["Up", 2009]],
        }
        return Prompt(name, text="something\nAlien (1979): horror", columns=columns)

    train = [prompt("t", ["Up (2009)"])]
    answers = Baselines(reader, train).answers([prompt("p", ["Big (1988)", "Up (2009)", "Alien (1979)"])], 2)
    assert answers["retriever"] == ["Big (1988)\nUp (2009)"]
    assert answers["asked attribute"][0].split("\n")[0] == "Up (2009)", "'horror' stands in a candidate's line alone"
    without = Prompt("q", text="something", columns={"groundtruth_with_release_year": [["Up", 2009]]})
    assert "retriever" not in Baselines(reader, train).answers([without, train[0]], 2)


def test_too_many_candidates_are_said() -> None:
    long = TokenizedPrompt(Prompt("p", text="x", columns={"candidates": ["Up (2009)"] * 50}), np.zeros(900, np.int32))
    with pytest.raises(DataError) as caught:
        check_lengths([long], 800, None, "data.max_prompt_tokens")
    assert str(caught.value) == (
        "prompt 'p' has 900 tokens with its 50 candidates, data.max_prompt_tokens allows 800; offer fewer candidates (k), "
        "shorter descriptions (characters), or raise data.max_prompt_tokens"
    )
    with pytest.raises(
        DataError, match=r"has 900 tokens, 800 fit beside rollout\.max_tokens 24; shorten it, drop it, or lower"
    ):
        check_lengths([TokenizedPrompt(Prompt("p", text="x"), np.zeros(900, np.int32))], 800, 24, "rollout.max_tokens")
