"""The tokenizer made from a corpus. Not covered: its offsets (tests/property/test_offsets.py)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from rlpost.data.dialogue import TextDialogue
from rlpost.data.wordlevel import _PIECE, build

CORPUS = ["∀ p q : Prop, p → q  :=\n\tfun h1 h2' => ⟨h1.2, x_3⟩", "a<b ≤ c  ∧ ¬d"]


@pytest.mark.parametrize("text", [*CORPUS, "", "  \n x", "é ü ∀∀ _a 12a a12 :==> ' é"])
def test_the_pieces_joined_are_the_text(text: str) -> None:
    assert "".join(re.findall(_PIECE, text)) == text


@pytest.mark.parametrize("text", CORPUS)
def test_the_corpus_survives_encoding_and_decoding(tmp_path: Path, text: str) -> None:
    size = build(CORPUS, tmp_path / "tok", 32)
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "tok"))
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert size % 64 == 0
    assert len(tokenizer) == size
    assert max(ids) < size


def test_other_words_become_unknown(tmp_path: Path) -> None:
    build(CORPUS, tmp_path / "tok", 32)
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "tok"))
    assert tokenizer.tokenize(" p zzz q") == [" p", "<unk>", " q"]


def test_observations_that_it_does_not_know_are_counted(tmp_path: Path) -> None:
    build(CORPUS, tmp_path / "tok", 32)
    dialogue = TextDialogue(AutoTokenizer.from_pretrained(str(tmp_path / "tok")))
    for text, unknown in ((" p → q", 0), (" zzz p zzz", 2), ("✝", 3)):
        dialogue.observe("a", 5, text)
        assert dialogue.unknown == unknown


def test_the_same_corpus_gives_the_same_tokenizer(tmp_path: Path) -> None:
    for name, texts in (("a", CORPUS), ("b", CORPUS[::-1])):
        build(texts, tmp_path / name, 32)
    assert (tmp_path / "a/tokenizer.json").read_text() == (tmp_path / "b/tokenizer.json").read_text()
