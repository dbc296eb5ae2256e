"""From a teacher's lists to demonstrations, by hand: the effect of each stage on a list. Vectors are given here; the
real embedder and a real server are in tests/contract/test_catalog_stage1.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rlpost.cli import main
from rlpost.errors import DataError, InfrastructureError, UserError
from rlpost_verifiers.catalog.demonstrations import DemonstrationSettings, Remapper, demonstrate
from rlpost_verifiers.catalog.embedding import describe
from rlpost_verifiers.catalog.items import Item, catalog_of
from rlpost_verifiers.catalog.teacher import (
    Answers,
    by_id,
    conversation_of,
    list_questions,
    parse_ratings,
    rating_question,
    read_lists,
)
from rlpost_verifiers.catalog.verifier import CatalogVerifier

CATALOG = catalog_of(
    [
        {"title": "Alien", "year": 1979, "genre": "Horror"}, {"title": "Aliens", "year": 1986, "genre": "Horror"},
        {"title": "Up", "year": 2009, "genre": "Comedy"}, {"title": "300", "year": 2006, "genre": "Action"},
    ]
)  # fmt: skip


def embed(texts: list[str]) -> np.ndarray:
    """Vectors whose axes are horror, comedy and action."""
    axes = (("horror", "alien", "leviathan"), ("comedy", "fun"), ("action",))
    found = [[float(any(word in text.lower() for word in words)) for words in axes] for text in texts]
    return np.array(found, np.float32).reshape(len(texts), 3)


def row(name: str, prompt: str, wanted: list[str], seen: tuple[str, ...] = ()) -> dict:
    return {"id": name, "prompt": prompt, "groundtruth_with_release_year": wanted, "seen_titles": list(seen)}


def made(rows: list[dict], lists: dict[str, str], rate=None, **settings) -> tuple[list[str], dict[str, float]]:
    remapper = Remapper(CatalogVerifier(CATALOG, relevant_required=False), embed, DemonstrationSettings(**settings))
    found = demonstrate(by_id(rows), lists, remapper, rate)
    return [one["completion"] for one in found.rows], found.figures


ROWS = [row("a", "something fun", ["Up"]), row("b", "horror please", ["Aliens"], ("Alien (1979)",))]


def test_scores_by_hand() -> None:
    remapper = Remapper(CatalogVerifier(CATALOG, relevant_required=False), embed, DemonstrationSettings())
    # Leviathan is in no catalog and similar to the two horrors; 300 is an exact match: 1/√2 for its place, twice
    [found] = remapper.scores([ROWS[0]], ["Leviathan (1989)\n300 (2006)\nprose"])
    assert found == pytest.approx([1.0, 1.0, 1.0, 2 / np.sqrt(2)])
    # λ = 0: the conversation does not count
    bare = Remapper(remapper.verifier, embed, DemonstrationSettings(conversation=0.0))
    assert bare.scores([ROWS[0]], ["hm, no idea"])[0] == pytest.approx([0.0, 0.0, 0.0, 0.0]), "it names nothing"
    assert bare.scores([ROWS[0]], ["no list at all"])[0] == pytest.approx([0.0] * 4)


def test_seen_items_are_not_recommended_and_unknown_titles_lead_to_similar_ones() -> None:
    lists, figures = made(ROWS, {"a": "Leviathan (1989)", "b": "Leviathan (1989)"}, size=2)
    assert lists[1].split("\n")[0] == "Aliens (1986)"
    assert "Alien (1979)" not in lists[1]
    assert {"teacher recall@2", "remap ndcg@2", "adjust recall@2", "nll_before", "nll_after"} <= set(figures)
    assert "reflect recall@2" not in figures
    assert figures["nll_after"] <= figures["nll_before"]
    assert (figures["conversations"], figures["demonstrations"], figures["held_out"]) == (2, 2, 1)


def test_ratings_decide_between_equals() -> None:
    asked = {}

    def rate(candidates):
        asked.update(candidates)
        return {"a": {candidates["a"].index("Aliens (1986)"): 2.0}}

    lists, figures = made(
        ROWS, {"a": "Leviathan (1989)", "b": "Up (2009)"}, rate, size=4, rated=3, conversation=0.0, penalty=1e6
    )
    assert [len(names) for names in asked.values()] == [3, 3]
    assert lists[0].split("\n")[:2] == ["Aliens (1986)", "Alien (1979)"]
    assert "reflect recall@4" in figures


def test_conversations_without_a_list_are_left_out_and_counted() -> None:
    lists, figures = made([*ROWS, row("c", "x", ["Up"])], {"a": "Up (2009)", "b": "Up (2009)"})
    assert len(lists) == 2
    assert (figures["conversations"], figures["demonstrations"]) == (3, 2)


@pytest.mark.parametrize(
    ("rows", "lists", "message"),
    [
        (ROWS, {"z": "Up (2009)"}, "none of 2 conversations has a list"),
        (ROWS[:1], {"a": "Up (2009)"}, "1 conversations say what their users wanted"),
    ],
)
def test_what_cannot_be_done_is_said(rows: list[dict], lists: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        made(rows, lists)
    with pytest.raises(UserError, match="held_out lies between"):
        DemonstrationSettings(held_out=1.0)


def test_questions_and_answers() -> None:
    assert "something fun" in list_questions(by_id(ROWS), 7)["a"]
    assert "7 films" in list_questions(by_id(ROWS), 7)["a"]
    assert rating_question(ROWS[0], ["Up (2009)", "300 (2006)"]).endswith("1. Up (2009)\n2. 300 (2006)")
    assert parse_ratings("1: +2\n 2) -1\n3: 3\n0: 1\n1.5: 2", 3) == {0: 2.0, 1: -1.0}
    assert conversation_of({"prompt": [{"role": "user", "content": "hi"}]}) == "user: hi"
    assert (
        describe(Item("1", "Up", None, attributes={"plot": "A house flies.", "votes": 3, "tag": ""}))
        == "Up. plot: A house flies."
    )


def test_lists_in_any_of_three_columns(tmp_path: Path) -> None:
    file = tmp_path / "lists.jsonl"
    rows = [{"id": 1, "text": "a"}, {"id": "2", "completion": "b"}, {"id": 3, "items": ["c", "d"]}]
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    assert read_lists(str(file)) == {"1": "a", "2": "b", "3": "c\nd"}
    file.write_text('{"id": 1, "text": ""}\n{"id": 2, "text": null, "completion": "b"}\n')
    assert read_lists(str(file)) == {"1": "", "2": "b"}, "an empty list ends no command"
    file.write_text('{"id": 1}\n')
    with pytest.raises(DataError, match="row 0: no list"):
        read_lists(str(file))


def test_answers_are_kept_and_a_question_without_one_is_missing(tmp_path: Path) -> None:
    asked = []

    def ask(question: str) -> str:
        asked.append(question)
        if question == "bad":
            raise InfrastructureError("away")
        return question.upper()

    file = tmp_path / "answers"
    assert Answers(ask, "t", file)({"x": "good", "y": "bad"}) == {"x": "GOOD"}
    assert Answers(ask, "t", file)({"x": "good"}) == {"x": "GOOD"}
    assert sorted(asked) == ["bad", "good"]
    assert Answers(ask, "another", file)({"x": "good"}) == {"x": "GOOD"}
    assert asked.count("good") == 2, "another teacher may answer otherwise"
    with pytest.raises(InfrastructureError, match="away"):
        Answers(ask, "t", file)({"y": "bad"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --lists FILE, or --endpoint"),
        (["--lists", "l", "--endpoint", "u", "--teacher", "m"], "give --lists FILE, or --endpoint"),
        (["--endpoint", "u"], "give --lists FILE, or --endpoint"),
        (["--lists", "l", "--rate"], "--rate needs too"),
        (["--lists", "l", "--set", "sise=3"], "demonstrate cannot take"),
        (["--lists", "l"], "no such file"),
    ],
)
def test_a_wrong_command_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demonstrate", "absent.jsonl", "--output", "o", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_an_id_that_is_given_twice_is_refused() -> None:
    assert list(by_id([{"prompt": "x"}, {"id": 7}])) == ["0", "7"]
    with pytest.raises(DataError, match="row 1: id 'a' is given twice"):
        by_id([{"id": "a"}, {"id": "a"}])
