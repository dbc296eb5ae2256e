"""``rlpost trec`` and ``rlpost audit`` as commands: files in and out, and one line for whatever is wrong with them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from rlpost.cli import main
from rlpost.evaluation.lists import Listed
from rlpost.evaluation.outcomes import Outcome, recorder

FILMS = ("Alien (1979)", "Up (2009)", "Heat (1995)")


def write(path: Path, shift: int, count: int = 40) -> Path:
    with recorder(path) as record:
        for n in range(count):
            items = tuple(FILMS[(n + shift + i) % 3] for i in range(2))
            marks = "".join("h" if item == FILMS[0] else "m" for item in items)
            record(
                Outcome(f"q {n}", "", 0, "", Listed(marks, 1, items, relevant_items=FILMS[:1]), cluster=f"u{n // 2}")
            )
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "run" / "evaluations" / "after.jsonl", 0)
    write(tmp_path / "other.jsonl", 1)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err
    assert text.count("\n") == 1, text
    assert "Traceback" not in text
    return text


def test_export_import_and_audit_of_a_run_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trec", "export", "run", "-o", "run.txt", "--qrels", "q.txt", "--rankify", "r.json", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "files": ["run.txt", "run.txt.names.jsonl", "q.txt", "r.json"],
        "queries": 40, "lines": 80, "grade_factor": 1.0, "notes": [],
    }  # fmt: skip
    assert Path("run.txt").read_text().startswith("q%200 Q0 Alien%20(1979) 1 2 run\n")
    assert Path("q.txt").read_text().startswith("q%200 0 Alien%20(1979) 1\n")
    names = [json.loads(line) for line in Path("run.txt.names.jsonl").read_text().splitlines()]
    assert {"docno": "Up%20(2009)", "name": "Up (2009)"} in names
    assert {"qid": "q%207", "id": "q 7"} in names
    Path("run.txt.gz").write_bytes(gzip.compress(Path("run.txt").read_bytes()))

    for run in ("run.txt", "run.txt.gz", "r.json"):
        given = ["trec", "import", run, "--qrels", "q.txt", "-o", f"{run}.jsonl", "--names", "run.txt.names.jsonl"]
        assert main([*given, "--k", "2", "--json"]) == 0
        figures = json.loads(capsys.readouterr().out)
        # the relevant film is first, second and missing in turn: 14, 13 and 13 times
        assert figures["recall@2"] == pytest.approx((14 + 13) / 40)
        for first in (run, f"{run}.jsonl"):
            assert main(["audit", first, "run", "--names", "run.txt.names.jsonl", "--json"]) == 0
            found = json.loads(capsys.readouterr().out)
            assert (found["queries"], found["variation"]["value"]) == (40, 0.0)

    assert main(["audit", "run", "other.jsonl", "--markdown", "audit.md"]) == 0
    shown = capsys.readouterr().out
    assert Path("audit.md").read_text() == shown
    assert "40 queries of 20 users, 3 items" in shown


def test_groups_and_users_from_tables(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("g.csv").write_text("title,genre\nAlien (1979),horror\nHeat (1995),crime\nUp (2009),\n")
    Path("u.tsv").write_text("query\tuser\n" + "".join(f"q {n}\t{n % 10}\n" for n in range(40)))
    table = ["--groups", "g.csv", "--item-column", "title", "--group-column", "genre", "--users", "u.tsv"]
    assert main(["audit", "run", "other.jsonl", *table, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["users"] == 10
    assert {one["name"] for one in found["groups"]} == {"horror", "crime", "(no group)"}
    assert sum(one["first"] for one in found["groups"]) == pytest.approx(1.0)


def test_nothing_is_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("q.txt").write_text("mine\n")
    given = ["trec", "export", "run", "-o", "run.txt", "--qrels", "q.txt"]
    assert main(given) == 2
    assert "q.txt is there with other text; give another name, or --force" in said(capsys)
    assert not Path("run.txt").exists(), "all files or none"
    assert main([*given, "--force"]) == 0
    capsys.readouterr()
    assert main(given) == 0, "the same again is no loss"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["audit", "run", "missing.txt"], "missing.txt"),
        (["audit", "run", "empty.txt"], "empty.txt: no lines"),
        (["audit", "run", "words.txt"], "words.txt, line 1: 'Dear sir or madam' has 4 columns"),
        (["audit", "run", "binary.txt"], "binary.txt: gzip-compressed"),
        (["audit", "run", "bad.gz"], "bad.gz: cannot be read"),
        (["audit", "run", "bare"], "bare: no after.jsonl"),
        (["audit", "run", "theirs.txt"], "no query has a list of both (they have 'q 0' and 'x')"),
        (["audit", "run", "other.jsonl", "--cut", "0"], "cut is 0"),
        (["audit", "run", "other.jsonl", "--attention", "rbp", "--patience", "2"], "patience is 2.0"),
        (["audit", "run", "other.jsonl", "--draws", "3"], "draws is 3"),
        (["audit", "run", "other.jsonl", "--groups", "words.csv"], "no column 'item' (there are a, b)"),
        (["audit", "run", "other.jsonl", "--names", "twice.csv"], "docno 'd' has two values in 'name'"),
        (["trec", "export", "words.txt", "-o", "x"], "words.txt: no outcomes of an evaluation"),
        (["trec", "export", "run", "-o", "words.txt/x"], "words.txt"),
        (["trec", "import", "theirs.txt", "--qrels", "words.txt", "-o", "x"], "words.txt, line 1: relevance 'madam'"),
        (
            ["trec", "import", "theirs.txt", "--qrels", "q.txt", "-o", "x"],
            "no query with a relevant document in common",
        ),
        (["trec", "import", "theirs.txt", "--qrels", "q.txt", "-o", "x", "--k", "0"], "--k: 0 is no cut-off"),
        (["trec", "import", "rows.json", "--qrels", "q.txt", "-o", "x"], "rows.json, item 0"),
    ],
)
def test_bad_input_is_one_line(words: list[str], line: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.txt").write_text("\n\n")
    Path("words.txt").write_text("Dear sir or madam\n")
    Path("binary.txt").write_bytes(gzip.compress(b"x"))
    Path("bad.gz").write_bytes(b"\x1f\x8b\x08 not really")
    Path("bare").mkdir()
    Path("theirs.txt").write_text("x Q0 d1 1 1 t\n")
    Path("q.txt").write_text("y 0 d1 1\n")
    Path("words.csv").write_text("a,b\n1,2\n")
    Path("twice.csv").write_text("docno,name\nd,x\nd,y\n")
    Path("rows.json").write_text('[{"a": 1}]')
    assert main(words) == 2
    assert line in said(capsys)


def test_settings_of_robustness_are_for_robustness(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("c.yaml").write_text('model: {path: m}\nscoring: {rewards: [{name: "f.py:f"}]}\n')
    assert main(["evaluate", "c.yaml", "--model", "m", "--set", "targets=3"]) == 2
    assert "--set: is for --robustness" in said(capsys)
    assert main(["evaluate", "c.yaml", "--model", "m", "--robustness", "sts", "--set", "target=3"]) == 2
    assert "its settings are key, targets" in said(capsys)
    assert main(["evaluate", "c.yaml", "--model", "m", "--robustness", "sts", "--set", "targets=none"]) == 2
    assert "targets is 'none'" in said(capsys)
