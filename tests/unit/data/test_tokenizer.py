"""Text to ids and back on chosen cases. Not covered: random tokens (tests/property/test_offsets.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlpost.data.tokenizer import TextCodec
from rlpost.errors import DataError, ModelError
from rlpost.types import Message, Prompt

# bytes of ∀ are e2 88 80, written â Ī Ģ in the byte-level alphabet; Ġ is a space
MERGES = [("Ġ", "â"), ("Ģ", "Ġ"), ("h", "i")]


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {name: i for i, name in enumerate(["<eos>", *letters, *(a + b for a, b in MERGES)])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    folder = tmp_path_factory.mktemp("bytes")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")
    tokenizer.chat_template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
    tokenizer.save_pretrained(str(folder))
    return TextCodec(folder)


def ids(codec: TextCodec, *names: str) -> list[int]:
    return [codec.tokenizer.convert_tokens_to_ids(name) for name in names]


def test_ids_without_a_token_are_those_above_and_those_between(tmp_path: Path) -> None:
    backend = Tokenizer(models.WordLevel(vocab={"<eos>": 0, "a": 1, "b": 4}, unk_token="<eos>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<x>"]})
    tokenizer.save_pretrained(str(tmp_path))
    codec = TextCodec(tmp_path)
    added = codec.tokenizer.convert_tokens_to_ids("<x>")
    assert added not in (0, 1, 4)
    assert codec.missing_ids(8) == sorted({2, 3, 5, 6, 7} - {added})
    assert codec.missing_ids(2) == []


def test_one_character_in_three_tokens_has_one_span(byte_level: TextCodec) -> None:
    found = byte_level.decode(ids(byte_level, "p", "â", "Ī", "Ģ", "q"))
    assert found == ("p∀q", ((0, 1), (1, 2), (1, 2), (1, 2), (2, 3)))


def test_the_end_token_has_a_span_of_no_length(byte_level: TextCodec) -> None:
    assert byte_level.decode(ids(byte_level, "hi", "<eos>")) == ("hi", ((0, 2), (2, 2)))
    assert byte_level.decode([]) == ("", ())


def test_bytes_after_a_token_with_a_space_belong_to_their_own_character(byte_level: TextCodec) -> None:
    """`` \\xe2`` is a token of GPT-2's and SmolLM2's vocabularies: it writes the space and begins the character; the
    two bytes after it write the character alone.
    """
    text, spans = byte_level.decode(ids(byte_level, "Ġâ", "Ī", "Ģ"))
    assert text == " ∀"
    assert spans == ((0, 2), (1, 2), (1, 2))


def test_a_token_that_ends_one_character_and_writes_another_spans_both(byte_level: TextCodec) -> None:
    # "Ģ " ends ∀ and adds a space
    assert byte_level.decode(ids(byte_level, "â", "Ī", "ĢĠ", "p")) == ("∀ p", ((0, 1), (0, 1), (0, 2), (2, 3)))


def test_a_special_token_between_the_bytes_of_a_character_takes_none_of_it(byte_level: TextCodec) -> None:
    text, spans = byte_level.decode(ids(byte_level, "â", "<eos>", "Ī", "Ģ"))
    assert text == "∀"
    assert spans[1][0] == spans[1][1]
    assert (spans[0], spans[2], spans[3]) == ((0, 1), (0, 1), (0, 1))


def test_an_unfinished_character_at_the_end_is_a_replacement_character(byte_level: TextCodec) -> None:
    """As in the tokenizer's own decoding, which others use."""
    assert byte_level.decode(ids(byte_level, "p", "â", "Ī")) == ("p\ufffd", ((0, 1), (1, 2), (1, 2)))


def test_text_from_the_first_stop_string_on_is_cut(byte_level: TextCodec) -> None:
    tokens = ids(byte_level, "a", "b", "hi", "b", "<eos>")
    # "b" first occurs at 1, "ib" at 3: the text is cut at the earlier one
    assert byte_level.decode(tokens, ["ib", "b"]) == ("a", ((0, 1), (1, 1), (1, 1), (1, 1), (1, 1)))
    # the cut goes through the token "hi"
    assert byte_level.decode(tokens, ["ib"]) == ("abh", ((0, 1), (1, 2), (2, 3), (3, 3), (3, 3)))
    assert byte_level.decode(tokens, ["z"])[0] == "abhib"


def test_plain_text_is_encoded_without_an_end_token(byte_level: TextCodec) -> None:
    assert byte_level.encode(Prompt("p", text="hi∀")) == tuple(ids(byte_level, "hi", "â", "Ī", "Ģ"))


def test_a_chat_goes_through_the_tokenizers_template(byte_level: TextCodec) -> None:
    prompt = Prompt("p", messages=(Message("s", "x"), Message("u", "y")))
    assert byte_level.decode(byte_level.encode(prompt))[0] == "<s>x\n<u>y\n<a>"


def test_a_target_ends_with_the_end_token(byte_level: TextCodec) -> None:
    assert byte_level.encode_target("hi") == tuple(ids(byte_level, "hi", "<eos>"))


def test_an_empty_prompt_is_refused(byte_level: TextCodec) -> None:
    with pytest.raises(DataError, match="prompt 'p' is empty after tokenisation"):
        byte_level.encode(Prompt("p", text=""))


def test_a_chat_without_a_template_is_refused(tiny_model: str) -> None:
    with pytest.raises(DataError, match=r"prompt 'p' is a chat, .* no chat template"):
        TextCodec(tiny_model).encode(Prompt("p", messages=(Message("user", "x"),)))


def test_a_folder_without_a_tokenizer_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.path: no tokenizer in") as caught:
        TextCodec(tmp_path)
    assert "\n" not in str(caught.value)
