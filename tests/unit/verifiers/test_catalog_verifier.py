"""Lists verified item by item. Not covered: rewards from the verdicts (tests/unit/scoring/test_ranking.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlpost.cli import main
from rlpost.errors import DataError, UserError
from rlpost.protocols import ReviewingVerifier, SelfTestingVerifier, Verifier
from rlpost.types import Prompt, VerifyItem
from rlpost_verifiers.catalog.items import catalog_of
from rlpost_verifiers.catalog.verifier import CatalogVerifier

CATALOG = catalog_of(
    [
        {"title": "Alien", "year": 1979}, {"title": "Up", "year": 2009}, {"title": "300", "year": 2006},
        {"title": "King Kong", "year": 1933}, {"title": "King Kong", "year": 2005}, {"title": "The Thing", "year": 1982},
    ]
)  # fmt: skip
ROW = {
    "groundtruth_with_release_year": [["Alien", "1979"], ["300", 2006]],
    "seen_titles": ["The Thing", "King Kong"],
    "relevant_elsewhere": ["Up (2009)"],
}


def judged(text: str, row: dict[str, Any] = ROW, **settings: Any) -> list[tuple[str, float]]:
    [verdict] = CatalogVerifier(CATALOG, **settings).verify_batch([VerifyItem(row, text)])
    assert [item.index for item in verdict.items] == list(range(len(verdict.items)))
    return [(item.reason, item.score) for item in verdict.items]


def test_every_reason_by_hand() -> None:
    text = "Alien (1980)\nUp (2009)\nking kong (2005)\nalien (1979)\nNever Made (2001)\nhm\n300 (2006)\n"
    assert judged(text) == [
        *(("hit", 1.0), ("relevant_elsewhere", 0.0), ("seen", 0.0), ("duplicate", 0.0)),
        *(("out_of_catalog", 0.0), ("unparsable", 0.0), ("hit", 1.0)),
    ]


def test_the_list_as_a_whole() -> None:
    verifier = CatalogVerifier(CATALOG)
    found = verifier.verify_batch([VerifyItem(ROW, t) for t in ("Alien (1979)", "Up (2009)", "no idea")])
    assert [(v.outcome, v.score, v.reason) for v in found] == [
        *(("accepted", 0.5, "hits"), ("rejected", 0.0, "no_hit"), ("rejected", 0.0, "no_list")),
    ]
    assert found[0].evidence == {
        "items": ["Alien (1979)"], "relevant": 2, "catalog": 6, "relevant_items": ["Alien (1979)", "300 (2006)"],
    }  # fmt: skip


def test_wanted_items_may_be_written_in_several_forms_with_weights() -> None:
    row = {"groundtruth_with_release_year": ["Alien (1979)", {"title": "300", "year": "2006", "weight": 2.5}, ["Up"]]}
    assert judged("300 (2006)\nUp (2009)\nAlien (1979)", row) == [("hit", 2.5), ("hit", 1.0), ("hit", 1.0)]


def test_a_wanted_item_does_not_count_as_seen() -> None:
    row = {"groundtruth_with_release_year": [["Alien", 1979]], "seen_titles": ["Alien"]}
    assert judged("Alien (1979)", row) == [("hit", 1.0)]


def test_a_misspelt_title_is_matched_only_with_a_similarity_limit() -> None:
    assert judged("The Thang (1982)") == [("out_of_catalog", 0.0)]
    assert judged("The Thang (1982)", similarity=75.0) == [("seen", 0.0)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "no column 'groundtruth_with_release_year'"),
        ({"groundtruth_with_release_year": []}, "it names none"),
        ({"groundtruth_with_release_year": [["Never Made", 2001]]}, r"Never Made \(2001\)"),
        ({"groundtruth_with_release_year": "Alien"}, "a list of titles is needed"),
        ({"groundtruth_with_release_year": [3]}, "write 'Title"),
    ],
)
def test_prompts_that_could_earn_nothing_are_refused_before_training(row: dict[str, Any], message: str) -> None:
    verifier = CatalogVerifier(CATALOG)
    verifier.check_prompts([Prompt("fine", text="x", columns=ROW)])
    with pytest.raises(DataError, match=rf"1 of 2 prompts could earn nothing; prompt 'bad': .*{message}"):
        verifier.check_prompts([Prompt("fine", text="x", columns=ROW), Prompt("bad", text="x", columns=row)])


def test_conformance_finds_every_catalog_name_and_no_invented_one() -> None:
    verifier = CatalogVerifier(CATALOG)
    assert isinstance(verifier, Verifier)
    assert isinstance(verifier, SelfTestingVerifier)
    report = verifier.conformance()
    assert report.failures == ()
    assert "6 items" in report.summary()
    assert "66 of 66 names as they should be" in report.summary()


def test_rules_and_catalog_are_in_the_fingerprint() -> None:
    prints = {CatalogVerifier(CATALOG, tolerance=t).fingerprint for t in (0, 2)}
    other = catalog_of([{"title": "Alien", "year": 1979}])
    assert len(prints | {CatalogVerifier(other).fingerprint}) == 3


@pytest.mark.parametrize("settings", [{"tolerance": -1}, {"similarity": 0}, {"similarity": 120}, {"prose": "no"}])
def test_senseless_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        CatalogVerifier(CATALOG, **settings)


def test_the_command_prints_a_verdict_per_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = [
        {"name": "a", "text": "1. The Matrix (1999)\n2. Never Made (2001)"},
        {"id": "b", "completion": "The Matrix (1999)", "groundtruth_with_release_year": [["Matrix, The", "1999"]]},
    ]
    (tmp_path / "lists.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lists))
    assert main(["verify", "catalog", str(tmp_path / "lists.jsonl"), "--set", "tolerance=0"]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert [(p["item"], p["reason"]) for p in first["places"]] == [
        ("The Matrix (1999)", "in_catalog"),
        (None, "out_of_catalog"),
    ]
    assert (second["name"], second["outcome"], second["score"]) == ("b", "accepted", 1.0)
    (tmp_path / "lists.jsonl").write_text('{"texts": 1}\n')
    assert main(["verify", "catalog", str(tmp_path / "lists.jsonl")]) == 2
    assert "lists.jsonl:1: no list" in capsys.readouterr().err
    assert main(["verify", "catalog", str(tmp_path / "absent.jsonl")]) == 2
    assert main(["verify", "catalog", "-", "--set", "tolerant=0"]) == 2


def test_a_byte_and_half_a_character_end_no_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lists.jsonl"
    file.write_bytes(
        b'\xef\xbb\xbf{"name": "mark", "text": "Alien (1979)"}\n{"name": "byte", "text": "Al\xffien (1979)\\nAlien (1979)"}\n'
        b'{"name": "half", "text": "\\ud83d Alien (1979)"}\n{"name": "none", "text": ""}\n{"name": ")", "text": ")"}\n'
    )
    assert main(["verify", "catalog", str(file)]) == 0
    verdicts = {one["name"]: one for one in map(json.loads, capsys.readouterr().out.splitlines())}
    items = {name: [place["item"] for place in one["places"]] for name, one in verdicts.items()}
    assert items == {
        "mark": ["Alien (1979)"], "byte": ["Alien (1979)", "Alien (1979)"], "half": ["Alien (1979)"], "none": [], ")": []
    }  # fmt: skip
    assert verdicts["half"]["places"][0]["line"] == "\ud83d Alien (1979)"


def test_popularity_comes_from_a_column_or_from_what_conversations_wanted(tmp_path: Path) -> None:
    voted = catalog_of([{"title": "Alien", "year": 1979, "votes": 6}, {"title": "Up", "year": 2009, "votes": 2}])
    file = tmp_path / "train.jsonl"
    rows = [{"groundtruth_with_release_year": [["Up", "2009"]]}] * 3 + [{"groundtruth_with_release_year": ["Alien"]}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = [VerifyItem({"groundtruth_with_release_year": ["Up"]}, "Up (2009)\nNone Such (1999)")]
    [by_votes] = CatalogVerifier(voted, popularity="votes").verify_batch(asked)
    [by_count] = CatalogVerifier(voted, popularity=str(file)).verify_batch(asked)
    assert by_votes.evidence["bits"] == [2.0, None]
    assert by_count.evidence["bits"] == [pytest.approx(0.415, abs=1e-3), None]
    with pytest.raises(UserError, match="popularity is 'likes', no column of the catalog and no file"):
        CatalogVerifier(voted, popularity="likes")


def test_a_catalog_may_be_cut_and_the_films_that_ship_are_the_usual_one() -> None:
    verifier = CatalogVerifier(items=100)
    assert len(verifier.catalog.items) == 100
    [verdict] = verifier.verify_batch(
        [VerifyItem({"groundtruth_with_release_year": ["Pulp Fiction"]}, "Pulp Fiction (1994)")]
    )
    assert (verdict.reason, verdict.evidence["catalog"]) == ("hits", 100)


def test_a_review_needs_no_ground_truth() -> None:
    verifier = CatalogVerifier(CATALOG)
    said = "I loved The Thing and King Kong (1933), and 300 people told me so."
    text = "The Thing (1982)\nKing Kong (1933)\nKing Kong (2005)\n300 (2006)\n300 (2006)\nNone (1999)"
    verdict = verifier.review({"prompt": said}, text)
    # a single word counts as a film only with its year, and another year is another film
    wanted = ["seen", "seen", "in_catalog", "in_catalog", "duplicate", "out_of_catalog"]
    assert [item.reason for item in verdict.items] == wanted
    turns = {"prompt": [{"role": "user", "content": "Seen: Up (2009)"}]}
    assert [item.reason for item in verifier.review(turns, "Up (2009)").items] == ["seen"]
    assert isinstance(verifier, ReviewingVerifier)


def test_verdicts_in_another_order_fail_the_conformance_test(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = CatalogVerifier(CATALOG)
    sound = verifier.verify_batch
    monkeypatch.setattr(verifier, "verify_batch", lambda items: sound(items)[::-1])
    report = verifier.conformance()
    assert any("is not found" in said for said in report.failures)
    assert any("the invention" in said for said in report.failures)


@pytest.mark.parametrize(
    "rows",
    [
        [{"title": "Catan"}, {"title": "Azul"}, {"title": "Chess (Deluxe)"}],
        [{"title": "AmÃ©lie", "year": 2001}, {"title": "Tom &amp; Jerry", "year": 1992}, {"title": "Haine, La (1995)"}],
        [{"title": "King Kong (1933)", "year": 2005}, {"title": "Solo", "year": 2018}],
        [{"title": "Alien"}],
        [{"title": "はは", "year": 1990}, {"title": "ばば", "year": 1990}, {"title": "Bjørn", "year": 1990}],
        [{"title": "The Hunt", "year": 2012}, {"title": "Hunt", "year": 2012}],
    ],
)
def test_the_gate_finds_the_strings_of_the_file(rows: list[dict[str, Any]]) -> None:
    report = CatalogVerifier(catalog_of(rows)).conformance()
    assert report.failures == ()
    assert report.checked == 11 * len(rows)


def test_the_gate_fails_if_there_is_nothing_to_check() -> None:
    report = CatalogVerifier(catalog_of([{"title": ")"}])).conformance()
    assert report.failures == ("there is no name to check",)
    assert "1 of 1 have no letter or digit" in report.summary()


def test_the_gate_fails_for_a_string_that_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = CatalogVerifier(catalog_of([{"title": "AmÃ©lie", "year": 2001}, {"title": "Up", "year": 2009}]))
    find = verifier.index.find
    monkeypatch.setattr(verifier.index, "find", lambda title, year=None: None if "Ã" in title else find(title, year))
    assert "'AmÃ©lie (2001)' is not found" in verifier.conformance().failures


def test_catalogs_without_years_need_no_setting() -> None:
    games = catalog_of([{"title": "Catan"}, {"title": "Azul"}])
    row = {"groundtruth_with_release_year": ["Azul"]}
    [verdict] = CatalogVerifier(games).verify_batch([VerifyItem(row, "1. Catan\n2. Azul")])
    assert [item.reason for item in verdict.items] == ["miss", "hit"]
    with pytest.raises(UserError, match="no item has a year"):
        CatalogVerifier(games, yearless="reject")


def test_defects_are_told_in_one_line_and_listed_in_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLPOST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "c.csv").write_text(
        "title\n" + "".join(f"Film {number} ({1950 + number})\n" for number in range(50)) + "Up\n"
    )
    (tmp_path / "lists.jsonl").write_text('{"text": "1. Film 3 (1953)"}\n')
    assert main(["verify", "catalog", str(tmp_path / "lists.jsonl"), "--catalog", str(tmp_path / "c.csv")]) == 0
    [line] = capsys.readouterr().err.splitlines()
    assert "51 items; rows with defects: 50 year_in_title, 1 no_year; row by row in " in line
    assert len(Path(line.split(" in ")[-1]).read_text().splitlines()) == 51


def test_relevant_items_outside_the_catalog_are_reported_or_counted() -> None:
    row = {"groundtruth_with_release_year": ["Alien (1979)", "Solaris (1972)", "Stalker (1979)"]}
    reported, counted = (
        CatalogVerifier(CATALOG, outside=rule).verify_batch([VerifyItem(row, "Alien (1979)")])[0]
        for rule in ("report", "count")
    )
    assert (reported.score, reported.evidence["relevant"], reported.evidence["relevant_outside"]) == (1.0, 1, 2)
    assert (counted.score, counted.evidence["relevant"]) == (pytest.approx(1 / 3), 3)
    with pytest.raises(UserError, match="outside is 'drop'; use 'report' or 'count'"):
        CatalogVerifier(CATALOG, outside="drop")  # type: ignore[arg-type]


def test_an_answer_without_ground_truth_is_judged_by_membership() -> None:
    text = "Alien (1979)\nNever Made (2001)\nThe Thing (1982)\nAlien (1979)"
    [free] = CatalogVerifier(CATALOG, relevant_required=False).verify_batch(
        [VerifyItem({"seen_titles": ["The Thing"]}, text)]
    )
    assert [(item.reason, item.score) for item in free.items] == [
        *(("in_catalog", 1.0), ("out_of_catalog", 0.0), ("seen", 0.0), ("duplicate", 0.0)),
    ]
    assert (free.outcome, free.score) == ("accepted", 0.25)
    lost = {"groundtruth_with_release_year": ["Solaris (1972)"]}
    [verdict] = CatalogVerifier(CATALOG, relevant_required=False).verify_batch([VerifyItem(lost, text)])
    assert {item.reason for item in verdict.items} == {"miss", "out_of_catalog", "duplicate"}, "it has ground truth"


def test_the_command_takes_an_empty_text_and_an_answer_as_messages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": ""}, {"completion": [{"role": "assistant", "content": "The Matrix (1999)"}]}]
    (tmp_path / "lists.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["verify", "catalog", str(tmp_path / "lists.jsonl")]) == 0
    empty, chat = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (empty["reason"], empty["places"]) == ("no_list", [])
    assert chat["places"][0]["item"] == "The Matrix (1999)"
