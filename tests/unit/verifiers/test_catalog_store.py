"""Catalogs that processes share: mapped from files as in memory, made once, and made again when damaged."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from rlpost_verifiers.catalog import cache, items
from rlpost_verifiers.catalog.index import CatalogIndex, Match
from rlpost_verifiers.catalog.items import Catalog, load_catalog

ROWS = [
    {"title": "The Thing", "year": 1982, "id": "a", "votes": 3},
    {"title": "Thing", "year": 1982, "id": "b"},
    {"title": "thing", "year": 1982, "id": "c", "aliases": ["Das Ding"]},
    {"title": "AmÃ©lie", "year": 2001, "id": "a"},
    {"title": "Haine, La (1995)", "id": "d"},
    *({"title": f"Film {number}", "year": 1950 + number, "id": f"n{number}"} for number in range(60)),
]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RLPOST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(tmp_path / "c.jsonl")


def folders(tmp_path: Path) -> list[Path]:
    return [folder for folder in (tmp_path / "cache" / "catalogs").iterdir() if folder.is_dir()]


def content(catalog: Catalog) -> list[object]:
    return [list(catalog.items), list(catalog.defects), catalog.store.digest, catalog.summary()]


def test_items_merge_rename_and_lead_to_each_other(path: str) -> None:
    catalog = load_catalog(path)
    assert [(one.id, one.name) for one in catalog.items[:4]] == [
        *(("a", "The Thing (1982)"), ("b", "Thing (1982)"), ("row 3", "Amélie (2001)"), ("d", "Haine, La (1995)")),
    ]
    assert catalog.items[0].attributes == {"votes": 3}
    assert catalog.items[2].aliases == ("AmÃ©lie",)
    index = CatalogIndex(catalog.items, ids=True)
    assert index.find("Das Ding", 1982) == Match(1, "exact"), "a duplicate's alias leads to the item that stays"
    assert [index.find(one) for one in ("a", "b", "c")] == [Match(0, "id"), Match(1, "id"), Match(1, "id")]
    assert catalog.store.written(3) == "Haine, La (1995)"


def test_a_mapped_catalog_is_the_one_in_memory(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = load_catalog(path)
    assert small.store.folder is None
    monkeypatch.setattr(items, "_SMALL", 0)
    made, again = load_catalog(path), load_catalog(path)
    assert content(made) == content(again) == content(small)
    assert made.store.folder == again.store.folder
    assert folders(tmp_path) == [made.store.folder]
    asked = [("thing", 1982), ("La haine", 1995), ("Film 7", 1957), ("Flim 17", 1967), ("Film 99", 2000)]
    found = [
        CatalogIndex(one.items, similarity=80.0, prefix=True, ids=True).find_all(asked) for one in (small, made, again)
    ]
    assert found[0] == found[1] == found[2]
    assert [match.level if match else None for match in found[0]] == ["exact", "exact", "exact", "fuzzy", None]


def test_another_content_or_other_columns_are_another_folder(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items, "_SMALL", 0)
    load_catalog(path)
    load_catalog(path, {"title": "id"})
    with open(path, "a") as lines:
        lines.write('{"title": "One more", "year": 2000}\n')
    assert len(load_catalog(path).items) == len(load_catalog(path, {"title": "title"}).items)
    assert len(folders(tmp_path)) == 4


@pytest.mark.parametrize("damage", ["shorter", "missing", "no folder's"])
def test_a_damaged_folder_is_made_again(
    path: str, monkeypatch: pytest.MonkeyPatch, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(items, "_SMALL", 0)
    wanted = content(load_catalog(path))
    folder = load_catalog(path).store.folder
    assert folder is not None
    if damage == "shorter":
        (folder / "records").write_bytes((folder / "records").read_bytes()[:-10])
    elif damage == "missing":
        (folder / "hash.npy").unlink()
    else:
        (folder / "store.json").write_text("{")
    with caplog.at_level(logging.WARNING, "rlpost"):
        assert content(load_catalog(path)) == wanted
    assert "damaged" in caplog.text


def test_without_a_cache_folder_the_process_keeps_its_own(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = content(load_catalog(path))
    monkeypatch.setattr(items, "_SMALL", 0)
    (tmp_path / "cache").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING, "rlpost"):
        assert content(load_catalog(path)) == wanted
    assert "this process keeps its own" in caplog.text


def test_several_processes_make_one_folder(path: str, tmp_path: Path) -> None:
    code = (
        "import sys; from rlpost_verifiers.catalog import items; items._SMALL = 0; made = items.Builder.finish\n"
        "items.Builder.finish = lambda *given: (print('made', flush=True), __import__('time').sleep(0.3), made(*given))[2]\n"
        "print(items.load_catalog(sys.argv[1]).store.digest)"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    told = [process.communicate(timeout=120)[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert sum("made" in words for words in told) == 1
    assert {words[-1] for words in told} == {load_catalog(path).store.digest}
    assert len(folders(tmp_path)) == 1


def test_a_lock_that_is_never_released_is_not_waited_for(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_PATIENCE_S", 0.0)
    file = tmp_path / "one.lock"
    with cache._alone(file), cache._alone(file):
        pass


def test_a_catalog_can_be_cut(path: str) -> None:
    catalog = load_catalog(path)
    head = catalog.head(2)
    assert list(head.items) == list(catalog.items[:2])
    assert catalog.head(1000) is catalog
    assert CatalogIndex(head.items).find("La haine", 1995) is None
    assert head.store.digest != catalog.store.digest


def test_items_and_defects_are_sequences(path: str) -> None:
    catalog = load_catalog(path)
    assert catalog.items[-1].name == "Film 59 (2009)"
    assert catalog.defects[-1] == list(catalog.defects)[-1]
    for sequence in (catalog.items, catalog.defects):
        with pytest.raises(IndexError):
            sequence[len(sequence)]


def test_defects_are_written_row_by_row(path: str, tmp_path: Path) -> None:
    catalog = load_catalog(path)
    catalog.write_defects(tmp_path / "new" / "defects.jsonl")
    found = [json.loads(line) for line in (tmp_path / "new" / "defects.jsonl").read_text().splitlines()]
    assert [(one["row"], one["reason"]) for one in found] == [
        *((2, "duplicate"), (3, "title_misread"), (3, "id_twice"), (4, "year_in_title")),
    ]
    assert found[1]["value"] == "AmÃ©lie"
