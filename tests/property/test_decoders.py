"""Text and spans of random tokens for every kind of decoder. Not covered: which token wrote which letter of valid text
(test_offsets.py).
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from rlpost.data.tokenizer import TextCodec
from support import tokenizer_kinds

TRIALS = 150


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TextCodec]:
    folder: Path = tmp_path_factory.mktemp("kinds")
    return {kind: TextCodec(tokenizer_kinds.write(folder / kind, kind)) for kind in tokenizer_kinds.KINDS}


def check(codec: TextCodec, ids: list[int]) -> None:
    text, spans = codec.decode(ids)
    backend = codec.tokenizer.backend_tokenizer
    assert text == backend.decode([token for token in ids if token not in codec.special], skip_special_tokens=True)
    assert text == codec.text(ids)
    assert len(spans) == len(ids)
    assert all(0 <= start <= stop <= len(text) for start, stop in spans)
    assert [start for start, _ in spans] == sorted(start for start, _ in spans)
    assert {c for start, stop in spans for c in range(start, stop)} == set(range(len(text)))
    assert all(start == stop for token, (start, stop) in zip(ids, spans, strict=True) if token in codec.special)


@pytest.mark.parametrize("kind", tokenizer_kinds.KINDS)
def test_any_tokens_have_a_text_and_spans_that_cover_it(codecs: dict[str, TextCodec], kind: str) -> None:
    """Special tokens between bytes, ids without a token and repeated tokens included."""
    codec, source = codecs[kind], random.Random(kind)
    size = len(codec.tokenizer)
    for trial in range(TRIALS):
        few = [source.randrange(size + 2) for _ in range(source.randrange(1, 6))]
        pool = few if trial % 3 == 0 else range(size + 2)
        check(codec, [source.choice(pool) for _ in range(source.randrange(30))])


@pytest.mark.parametrize("kind", ["gemma", "llama2"])
def test_runs_of_byte_tokens_never_end_a_decoding(codecs: dict[str, TextCodec], kind: str) -> None:
    """A later byte turns letters that were written before into replacement characters."""
    codec, source = codecs[kind], random.Random(1)
    tokens = codec.tokenizer.convert_tokens_to_ids(tokenizer_kinds.BYTES)
    letter = codec.tokenizer.convert_tokens_to_ids("h")
    for _ in range(TRIALS):
        ascii_first = [tokens[source.randrange(32, 127)] for _ in range(source.randrange(3))]
        broken = [tokens[source.randrange(128, 256)] for _ in range(source.randrange(4))]
        euro = [tokens[byte] for byte in "€".encode()[: source.randrange(4)]]
        check(codec, [*ascii_first, *broken, *euro, *([letter] if source.random() < 0.5 else []), *ascii_first])


def test_each_token_of_a_broken_run_has_its_replacement_character(codecs: dict[str, TextCodec]) -> None:
    codec = codecs["gemma"]
    ids = codec.tokenizer.convert_tokens_to_ids(["h", "<0x51>", "<0xD5>", "e"])
    assert codec.decode(ids) == ("h\ufffd\ufffde", ((0, 1), (1, 2), (2, 3), (3, 4)))


def test_a_letter_in_bytes_has_one_span_and_what_follows_its_own(codecs: dict[str, TextCodec]) -> None:
    codec = codecs["llama2"]
    ids = codec.tokenizer.convert_tokens_to_ids(["▁", "<0xE2>", "<0x82>", "<0xAC>", "▁the"])
    assert codec.decode(ids) == ("€ the", ((0, 0), (0, 1), (0, 1), (0, 1), (1, 5)))


def test_a_contraction_that_the_decoder_joins_is_covered(codecs: dict[str, TextCodec]) -> None:
    codec = codecs["wordpiece"]
    check(codec, list(codec.tokenizer("Don't guess! isn't it's", add_special_tokens=False)["input_ids"]))


def test_a_long_answer_costs_time_in_proportion(codecs: dict[str, TextCodec]) -> None:
    """Counted in tokens that are decoded, which no other work of the machine disturbs."""
    codec, asked = codecs["gemma"], 0
    ids = (codec.tokenizer("the theorem Δ 🙂 ", add_special_tokens=False)["input_ids"] * 400)[:3000]
    broken = codec.tokenizer.convert_tokens_to_ids("<0xD5>")
    ids[5] = broken
    ids += [broken] * 1000
    plain = codec._text  # type: ignore[reportPrivateUsage]

    def counted(tokens: list[int]) -> str:
        nonlocal asked
        asked += len(tokens)
        return plain(tokens)

    codec._text = counted  # type: ignore[reportPrivateUsage,assignment]
    try:
        codec.decode(ids)
    finally:
        codec._text = plain  # type: ignore[reportPrivateUsage,method-assign]
    assert asked < 80 * len(ids)
