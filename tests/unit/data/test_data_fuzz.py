"""Damaged data files, and values of every type in every place: prompts, or one line that names the file or the row.

Not covered: files that the catalog's and Lean's verifiers read.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlpost.config.schema import DataSection
from rlpost.data.load import make_prompts, prompts, rows
from rlpost.data.tokenizer import TextCodec
from rlpost.errors import UserError
from support import tokenizer_kinds

FILES = 100
VALUES = 300

CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
ROWS: list[dict[str, Any]] = [
    {
        "id": f"r{i}", "question": f"What is {i} + {i}? ∑🙂", "answer": 2 * i + 0.5, "n": i,
        "prompt": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": f"{i} + {i}?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "1", "content": "yes"},
        ],
    }
    for i in range(6)
]  # fmt: skip
SECTIONS = [
    {},
    {"template": "{question} n={n} a={answer:.2f}"},
    {"chat_template": (("user", "{question} {answer}"),)},
    {"prompt_key": "question", "last_assistant": "continue"},
    {"last_assistant": "cut", "tools_key": "n"},
]
TEMPLATE = tokenizer_kinds.CHATML.replace(
    "{{ m['content'] }}", "{{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %}"
)


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> list[TextCodec]:
    folder = tmp_path_factory.mktemp("fuzz")
    kinds = ("byte_level", "gemma")
    return [TextCodec(tokenizer_kinds.write(folder / kind, kind, template=TEMPLATE, bos=True)) for kind in kinds]


def written() -> dict[str, bytes]:
    lines = "\n".join(json.dumps(row, ensure_ascii=i % 2 == 0) for i, row in enumerate(ROWS)).encode()
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return {"jsonl": lines, "json": json.dumps(ROWS, indent=1).encode(), "parquet": sink.getvalue().to_pybytes()}


PIECES = [
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\\ud83d", b"null", b"NaN", b"1e999", b"-Infinity", b'"', b"{", b"[", b"]}",
    b"\r", b"\n", b"9" * 5000, b"true", b'"role": 3,', b'"content": null,', b"[" * 3000, b"\\u0000", b"\xe2\x88", b"'",
]  # fmt: skip


def mutated(data: bytes, source: random.Random) -> bytes:
    """A few cuts, changed bytes, insertions, doubled and turned pieces, other encodings."""
    for _ in range(source.randrange(1, 4)):
        data = _once(data, source)
    return data


def _once(data: bytes, source: random.Random) -> bytes:
    a, b = sorted((source.randrange(len(data) + 1), source.randrange(len(data) + 1)))
    b = min(b, a + source.choice([1, 4, 60, 10**9]))
    encoding = source.choice(["utf-16", "latin-1", "utf-8-sig"])
    ways = [
        lambda: data[:a],
        lambda: data[:a] + data[b:],
        lambda: data[:a] + data[a:b] * 2 + data[b:],
        lambda: data[:a] + source.choice(PIECES) + data[a:],
        lambda: data[:a] + source.choice(PIECES) + data[b:],
        lambda: data[:a] + bytes([source.randrange(256)]) + data[a + 1 :],
        lambda: data[:a] + data[a:b][::-1] + data[b:],
        lambda: data.replace(b'"content"', source.choice([b'"value"', b'"content "', b'"role"'])),
        lambda: data.decode("utf-8", "replace").encode(encoding, "replace"),
    ]
    return source.choice(ways)()


def tried(section: DataSection, codecs: list[TextCodec], found: Any) -> str:
    """What becomes of rows: ``prompts``, or the one line of their refusal."""
    try:
        made = make_prompts(section, found() if callable(found) else found, "data.train")
        for prompt in made:
            for codec in codecs:
                ids = codec.encode(prompt)
                assert ids
                assert "None" not in codec.tokenizer.decode(list(ids)), "null became text"
    except UserError as error:
        said = str(error)
        assert said
        assert "\n" not in said
        assert len(said) < 1000
        said.encode("utf-8")
        return said
    return "prompts"


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_a_damaged_file_gives_prompts_or_one_line(kind: str, tmp_path: Path, codecs: list[TextCodec]) -> None:
    data, source, file = written()[kind], random.Random(kind), tmp_path / f"rows.{kind}"
    section = DataSection(source="parquet" if kind == "parquet" else "jsonl", train=str(file))
    file.write_bytes(data)
    assert tried(section, codecs, lambda: rows(section, str(file), "data.train")) == "prompts"
    said: list[str] = []
    for trial in range(FILES):
        file.write_bytes(mutated(data, source))
        one = section.model_copy(update=SECTIONS[trial % len(SECTIONS)])
        said.append(tried(one, codecs, lambda: rows(section, str(file), "data.train")))
    assert len(set(said)) > 10, "the mutations reach many places"


ODD: list[Any] = [
    None, float("nan"), math.inf, True, 0, -1, 1e-300, 10**5000, "", " ", "\ud83d", "a\x00b", b"x", [], [[]], [None], {},
    {"role": "user"}, {"role": "user", "content": "x"}, [{"role": "user", "content": "x"}], [{"from": "gpt", "value": 3}],
    np.array([]), np.array([{"role": "user", "content": "x"}], object), np.float32("nan"), np.array(3), object(), {1: 2},
    '[{"role": "user", "content": "x"}]', "[{'role': 'user'}]", '[{"role": ', [{"type": "text", "text": "x"}],
    [{"type": "image"}], [CALL], {"function": 3}, "x" * 3000, (), range(3), lambda: 0, [{}], {"text": None}, 1j, "{}",
    [{"function": {"name": None, "arguments": "{"}}], [{"function": {"name": "f", "arguments": [1]}}], "\u2028",
]  # fmt: skip


def replaced(value: Any, source: random.Random) -> Any:
    """The value with something odd at one random place, at any depth."""
    if source.random() < 0.3 or not isinstance(value, (dict, list)) or not value:
        return source.choice(ODD)
    if isinstance(value, dict):
        key = source.choice(list(value))
        if source.random() < 0.15:
            return {(source.choice(["role", "content", "x", 3]) if k == key else k): v for k, v in value.items()}
        if source.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: replaced(value[key], source)}
    place = source.randrange(len(value))
    return [*value[:place], replaced(value[place], source), *value[place + 1 :]]


def test_odd_values_anywhere_in_a_row_give_prompts_or_one_line(codecs: list[TextCodec]) -> None:
    source, said = random.Random(7), list[str]()
    for trial in range(VALUES):
        row: Any = ROWS[trial % len(ROWS)]
        for _ in range(source.randrange(1, 3)):
            row = {**row, (key := source.choice(list(row))): replaced(row[key], source)}
        section = DataSection().model_copy(update=SECTIONS[trial % len(SECTIONS)])
        said.append(tried(section, codecs[:1], [row]))
    assert said.count("prompts") > VALUES // 20
    assert len(set(said)) > 30


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "found no rows"),
        (b"\n \n", "found no rows"),
        (b"[]", "found no rows"),
        (b"\xef\xbb\xbf", "found no rows"),
        (b"\x1f\x8b\x08\x00", "gzip-compressed; unpack it"),
        (b"PK\x03\x04", "a zip archive"),
        (b"PAR1\x15", "set data.source to parquet"),
        ('{"prompt": "a"}'.encode("utf-16"), "UTF-16"),
        ('{"prompt": "a"}'.encode("utf-16-le"), "UTF-16"),
        ('{"prompt": "café"}'.encode("latin-1"), "not UTF-8"),
        (b'{"prompt": "a", "prompt": "b"}', "key 'prompt' is given twice"),
        (b'{"prompt": "a", "n": ' + b"9" * 5000 + b"}", ":1: cannot be read"),
        (b'{"prompt": ' + b"[" * 100000, ":1: "),
        (b'{\n "prompt": "a"\n}', "write one row per line"),
        (b'{"data": [{"prompt": "a"}]}', "no column 'prompt' (there are data)"),
        (b'[{"prompt": "a"}, 3]', "item 1: expected a JSON object, got int"),
        (b"id,prompt\n1,hi\n", ":1: not valid JSON"),
        (b'{"prompt": NaN}', "holds nan"),
        (b'"text"', "expected a JSON object, got str"),
    ],
)
def test_files_given_by_mistake_are_named_in_one_line(tmp_path: Path, content: bytes, expected: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        prompts(DataSection(train=str(file)), "train")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b'\xef\xbb\xbf{"prompt": "a"}\r\n{"prompt": "b"}\r\n',
        b'{"prompt": "a"}\r{"prompt": "b"}',
        b'[{"prompt": "a"}, {"prompt": "b"}]',
        b'\xef\xbb\xbf[\r\n {"prompt": "a"},\r\n {"prompt": "b"}\r\n]\r\n',
        b'\n\n{"prompt": "a"}\n\n{"prompt": "b"}\n\n',
    ],
)
def test_files_as_other_programs_write_them_are_read(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "rows.json"
    file.write_bytes(content)
    assert [prompt.text for prompt in prompts(DataSection(train=str(file)), "train")] == ["a", "b"]


@pytest.mark.parametrize("path", ["", "\0", "x" * 5000, "~nobody-at-all/x", "."])
@pytest.mark.parametrize("source", ["jsonl", "parquet"])
def test_a_path_that_is_none_is_one_line(source: str, path: str) -> None:
    with pytest.raises(UserError):
        rows(DataSection(source=source), path, "data.train")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def rows(path): raise KeyError('column')", "failed (KeyError: 'column')"),
        ("def rows(path): return None", "found no rows"),
        ("def rows(path): return ['a']", "row 0: source .* gave 'a', expected a mapping"),
        ("def rows(path): return {'prompt': ['a']}", "row 0: source .* gave 'prompt', expected a mapping"),
        ("def rows(path): return 3", "cannot take"),
        ("def rows(path):\n    yield {'prompt': 'a'}\n    raise OSError('gone')", r"failed \(OSError: gone\)"),
        ("def rows(path): return iter([])", "found no rows"),
        ("def rows(path): return [{'prompt': 'a'}, None]", "row 1: source .* gave None"),
    ],
)
def test_a_source_of_ones_own_that_fails_is_one_line(tmp_path: Path, code: str, expected: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(code + "\n")
    with pytest.raises(UserError, match=expected.replace("(KeyError", r"\(KeyError").replace("column')", r"column'\)")):
        prompts(DataSection(source=f"{file}:rows", train="x"), "train")


@pytest.mark.parametrize(
    "given",
    ["pd.DataFrame({'prompt': ['a', 'b']})", "(dict(prompt=p) for p in 'ab')", "({'prompt': 'a'}, {'prompt': 'b'})"],
)
def test_tables_and_generators_of_ones_own_are_rows(tmp_path: Path, given: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"import pandas as pd\ndef rows(path): return {given}\n")
    assert [one.text for one in prompts(DataSection(source=f"{file}:rows", train="x"), "train")] == ["a", "b"]


def test_parquet_gives_numbers_as_they_were_written_and_refuses_two_columns_of_one_name(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    table = pa.table({"x": pa.array([0.1, None], pa.float32()), "y": pa.array([0.1, 1e-05], pa.float64())})
    pq.write_table(table, file)
    section = DataSection(source="parquet", train=str(file), template="{x} {y}")
    found = rows(section, str(file), "data.train")
    assert [row["x"] for row in found] == [0.1, None]
    assert make_prompts(section, found[:1], "data.train")[0].text == "0.1 0.1"
    pq.write_table(pa.table([["a"], ["b"]], names=["prompt", "prompt"]), file)
    with pytest.raises(UserError, match="column 'prompt' is there twice"):
        rows(section, str(file), "data.train")


def test_a_folder_that_is_no_data_set_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    (tmp_path / "dataset_info.json").write_text("[]")
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError) as caught:
            prompts(DataSection(source="hf_disk", train=str(path)), "train")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"[1]", b"{}", b"3", b"null", b"{", b"\xff\xfe{", b'{"id": 3, "samples": "1"}', b'{"id": "a", "samples": 1}', b"9" * 5000,
     b"[" * 100000, b'{"id": "a", "samples": "1", "more": 1}', b'{"id": "a", "samples": "1", "distinct": 1, "listed": 3}'],
)  # fmt: skip
def test_a_damaged_file_of_pass_rates_is_one_line(tmp_path: Path, content: bytes) -> None:
    data, outcomes = tmp_path / "rows.jsonl", tmp_path / "outcomes.jsonl"
    data.write_text(json.dumps({"id": "a", "prompt": "x"}))
    outcomes.write_bytes(content)
    section = DataSection.model_validate({"train": str(data), "curriculum": {"outcomes": str(outcomes)}})
    with pytest.raises(UserError, match=r"outcomes\.jsonl") as caught:
        prompts(section, "train")
    assert "\n" not in str(caught.value)
