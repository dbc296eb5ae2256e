"""Published conversations as rows. Not covered: the data sets themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlpost.errors import DataError, UserError
from rlpost.plugins.registry import resolve
from rlpost_verifiers.catalog.sources import reddit, redial


def put(folder: Path, *rows: dict[str, Any]) -> str:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "rows.jsonl")


def asked(text: str, *items: str, time: str = "2022-10") -> dict[str, Any]:
    truth = [[title, "1999"] for title in items]
    return {
        "prompt": [{"role": "user", "content": text}],
        "seen_titles": [],
        "groundtruth_with_release_year": truth,
        "month": time,
    }


def test_rows_of_one_conversation_list_each_others_items_without_repeats(tmp_path: Path) -> None:
    path = put(tmp_path, asked("hi", "A", "B"), asked("hi ", "C"), asked("hi", "B", "A"), asked("ho", "A"))
    found = reddit(path)
    assert [(row["conversation"], row["relevant_elsewhere"]) for row in found] == [
        *((0, [["C", "1999"]]), (0, [["A", "1999"], ["B", "1999"]]), (1, [])),
    ]
    assert len({row["id"] for row in found}) == 3
    assert resolve("sources", "reddit_conversations") is reddit


def test_a_split_by_time(tmp_path: Path) -> None:
    path = put(tmp_path, asked("a", "A"), asked("b", "B", time="2022-11"), asked("c", "C", time="2022-12"))
    train = reddit(path, time_column="month", before="2022-11")
    later = reddit(path, time_column="month", since="2022-11", before="2022-12")
    assert [[row["prompt"][0]["content"] for row in part] for part in (train, later)] == [["a"], ["b"]]
    with pytest.raises(DataError, match="needs time_column"):
        reddit(path, since="2022")


REDIAL = {
    "conversationId": "391", "initiatorWorkerId": 0, "respondentWorkerId": 1,
    "movieMentions": {"11": "Final Fantasy (2001)", "12": "The Matrix  (1999)", "13": "Undated", "14": None},
    "initiatorQuestions": {"12": {"liked": 1}, "13": {"liked": 0}},
    "messages": [
        {"senderWorkerId": 0, "text": "Hi, I liked @11"},
        {"senderWorkerId": 1, "text": "Then @12 and @13, not @11 or @14"},
        {"senderWorkerId": 0, "text": "I saw @12."},
        {"senderWorkerId": 1, "text": "ok"},
    ],
}  # fmt: skip


def test_redials_recommendations_become_rows(tmp_path: Path) -> None:
    [row] = redial(put(tmp_path, REDIAL))
    assert row["id"] == "redial-391-1"
    assert row["prompt"] == [{"role": "user", "content": "Hi, I liked Final Fantasy (2001)"}]
    assert row["seen_titles"] == ["Final Fantasy (2001)"]
    assert row["groundtruth_with_release_year"] == [["The Matrix", "1999"], ["Undated", None]]
    [liked] = redial(put(tmp_path, REDIAL), liked_only=True)
    assert liked["groundtruth_with_release_year"] == [["The Matrix", "1999"]]
    assert redial(put(tmp_path, REDIAL), least_turns=2) == []


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, {"text": "x"})
    with pytest.raises(DataError, match="row 0: no ReDial conversation"):
        redial(path)
    with pytest.raises(DataError, match="row 0: no column 'prompt'"):
        reddit(path)


def test_the_published_container_and_parquet_give_the_same_rows(tmp_path: Path) -> None:
    datasets, parquet = pytest.importorskip("datasets"), pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    rows = [asked("a", "A", "B"), asked("b", "C")]
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(str(tmp_path / "disk"))
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.pq")
    wanted = reddit(put(tmp_path, *rows))
    assert reddit(str(tmp_path / "disk"), split="train") == reddit(str(tmp_path / "rows.pq")) == wanted
    with pytest.raises(DataError, match="split 'test' not found"):
        reddit(str(tmp_path / "disk"), split="test")
    with pytest.raises(DataError, match="leave split out"):
        reddit(str(tmp_path / "rows.pq"), split="train")
    with pytest.raises(DataError, match="no such file"):
        reddit(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("truth", ["Alien", [3.5], [["a", "b", "c"]], {"title": "Alien"}])
def test_a_row_with_ground_truth_of_another_form_is_named(tmp_path: Path, truth: Any) -> None:
    with pytest.raises(DataError, match=r"row 0: column 'groundtruth_with_release_year' holds"):
        reddit(put(tmp_path, {"prompt": "x", "groundtruth_with_release_year": truth}))


def test_rows_with_nothing_relevant_in_the_catalog_are_kept_dropped_or_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "catalog.jsonl").write_text('{"title": "A", "year": 1999}\n')
    path, catalog = put(tmp_path, asked("a", "A"), asked("b", "B"), asked("c", "C")), str(tmp_path / "catalog.jsonl")
    assert len(reddit(path, catalog=catalog)) == 3
    assert len(reddit(path, catalog=catalog, nothing_relevant="drop")) == 1
    assert "2 of 3 rows have no relevant item in the catalog" in caplog.text
    with pytest.raises(DataError, match="2 of 3 rows have no relevant item"):
        reddit(path, catalog=catalog, nothing_relevant="refuse")
    with pytest.raises(DataError, match="1 of 1 rows"):
        reddit(put(tmp_path, asked("b", "B")), catalog=catalog, nothing_relevant="drop")
    with pytest.raises(UserError, match="nothing_relevant is 'skip'"):
        reddit(path, nothing_relevant="skip")  # type: ignore[arg-type]


def test_redials_prompts_end_with_the_seekers_turn(tmp_path: Path) -> None:
    said = [(0, "hi"), (1, "hello"), (1, "what do you like?"), (0, "@11"), (0, "and you?"), (1, "hm"), (1, "see @12")]
    row = {
        **REDIAL,
        "initiatorQuestions": [],
        "messages": [{"senderWorkerId": who, "text": text} for who, text in said],
    }
    [found] = redial(put(tmp_path, row))
    assert [(turn["role"], turn["content"]) for turn in found["prompt"]] == [
        *(("user", "hi"), ("assistant", "hello\nwhat do you like?"), ("user", "Final Fantasy (2001)\nand you?")),
    ]
    assert redial(put(tmp_path, {**row, "messages": row["messages"][1:3] + row["messages"][6:]})) == []
    quirks = {**row, "movieMentions": [], "messages": [{"senderWorkerId": 0, "text": None}, {"senderWorkerId": 1}]}
    assert redial(put(tmp_path, quirks)) == []
    with pytest.raises(DataError, match="message 'hi' is no mapping"):
        redial(put(tmp_path, {**row, "messages": ["hi"]}))
