"""The tokenizer of phrases. Not covered: its offsets (tests/property/test_offsets.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlpost.data.bpe import build, frequent_lines
from rlpost.data.tokenizer import TextCodec

CORPUS = ["I liked Alien (1979). What next?\n", "Alien (1979)\nLéon (1994)\nAlien (1979)\nUp (2009)"] * 5


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    folder = tmp_path_factory.mktemp("pieces") / "model"
    size = build(CORPUS, folder, 64, 384)
    made = TextCodec(folder)
    assert size % 64 == 0
    assert len(made.tokenizer) == size
    return made


@settings(deadline=None, derandomize=True, max_examples=60)
@given(text=st.text(max_size=40))
def test_any_text_can_be_written_and_read(codec: TextCodec, text: str) -> None:
    ids = codec.encode_target(text)
    assert ids[-1] == codec.tokenizer.eos_token_id
    decoded, spans = codec.decode(ids)
    assert decoded == text
    assert len(spans) == len(ids)


def test_phrases_are_single_pieces_that_do_not_cross_lines(codec: TextCodec) -> None:
    ids = codec.encode_target("Alien (1979)\nUp (2009)")
    text, spans = codec.decode(ids)
    assert len(ids) < 12
    assert text[spans[0][0] : spans[0][1]].startswith("Alien (1979)")
    newline = text.index("\n")
    assert all(not start <= newline < stop - 1 for start, stop in spans), "no piece goes on behind a newline"


def test_the_same_corpus_gives_the_same_tokenizer(tmp_path: Path) -> None:
    for name in ("a", "b"):
        build(CORPUS, tmp_path / name, 64, 384)
    assert (tmp_path / "a/tokenizer.json").read_text() == (tmp_path / "b/tokenizer.json").read_text()


def test_too_few_pieces_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="320 at least"):
        build(CORPUS, tmp_path / "a", 64, 300)


FILMS = ["Alien (1979)", "Up (2009)", "Alien 3 (1992)"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    folder = tmp_path_factory.mktemp("lines") / "model"
    build(CORPUS, folder, 64, 384, FILMS)
    return TextCodec(folder)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(parts=st.lists(st.one_of(st.sampled_from([*FILMS, "\n", " ", "."]), st.text(max_size=8)), max_size=12))
def test_whole_lines_lose_no_text(whole: TextCodec, parts: list[str]) -> None:
    text = "".join(parts)
    decoded, spans = whole.decode(whole.encode_target(text))
    assert decoded == text
    starts = [start for start, _ in spans]
    assert starts == sorted(starts)


def test_a_whole_line_is_one_token_in_a_list_and_one_in_a_sentence(whole: TextCodec) -> None:
    listed = whole.encode_target("Up (2009)\nAlien 3 (1992)\nAlien (1979)\n")
    assert len(listed) == 4, "three items and the end"
    said = whole.encode_target("I liked Alien 3 (1992). What next?\n")
    assert len(set(listed) & set(said)) == 1, "the end only"
    assert sum(whole.decode([one])[0] in FILMS for one in said) == 1


def test_whole_lines_count_among_the_pieces(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"vocabulary is 325; .* 320 at least and 3 whole lines 6 more"):
        build(CORPUS, tmp_path / "a", 64, 325, FILMS)
    assert build(["aa bb " * 50], tmp_path / "b", 64, 326, FILMS) == 320


def test_the_most_frequent_lines_come_first() -> None:
    assert frequent_lines(["b\na\n", "a\n\n c", "b\nd"], 3) == ["b", "a", " c"]
    assert frequent_lines([], 3) == []
