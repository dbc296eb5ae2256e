"""Special tokens as tokenizers have them: BOS, end tokens, stop strings that are special. Not covered: decoding
(tests/property/test_decoders.py), engines (tests/contract).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlpost.data.notes import special_in_prompts
from rlpost.data.tokenizer import TextCodec
from rlpost.errors import ConfigError, DataError, ModelError
from rlpost.types import Message, Prompt
from support import tokenizer_kinds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("special")


def made(folder: Path, name: str, **options: Any) -> TextCodec:
    return TextCodec(tokenizer_kinds.write(folder / name, **options))


@pytest.fixture(scope="module")
def with_bos(folder: Path) -> TextCodec:
    return made(folder, "bos", bos=True)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("hi", 1),
        ("<s>hi", 1),
        ("<s> hi", 1),
        (" <s>hi", 1),
        ("\n<s>hi", 1),
        ("<s><|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", 1),
        ("<|im_start|>user\nhi<|im_end|>\n", 1),
        ("<s>a<eos><s>b", 2),
        ("a<s>b", 2),
        ("<s", 1),
    ],
)
def test_a_text_prompt_has_one_bos_of_the_tokenizers_or_its_own(with_bos: TextCodec, text: str, count: int) -> None:
    ids = with_bos.encode(Prompt("p", text=text))
    bos = with_bos.tokenizer.bos_token_id
    assert ids.count(bos) == count
    assert ids[0] == bos or text[0].isspace()
    assert with_bos.tokenizer.eos_token_id != ids[-1]


def test_a_beginning_of_several_tokens_is_put_once_as_well(folder: Path) -> None:
    """As ChatGLM's ``[gMASK]<sop>``, which no BOS token names."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    backend = tokenizer_kinds.byte_level()
    backend.add_special_tokens(["<eos>", "[gMASK]", "<sop>"])
    both = [(one, backend.token_to_id(one)) for one in ("[gMASK]", "<sop>", "<eos>")]
    backend.post_processor = processors.TemplateProcessing(single="[gMASK] <sop> $A <eos>", special_tokens=both)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>").save_pretrained(str(folder / "glm"))
    codec = TextCodec(folder / "glm")
    ids = codec.encode(Prompt("p", text="hi"))
    assert ids[:2] == (both[0][1], both[1][1])
    assert ids[-1] != both[2][1]
    assert codec.encode(Prompt("p", text="[gMASK]<sop>hi")) == ids


@pytest.mark.parametrize("kind", ["gemma", "llama2", "unigram", "wordpiece"])
def test_other_kinds_put_their_bos_once_as_well(folder: Path, kind: str) -> None:
    codec = made(folder, f"bos-{kind}", kind=kind, bos=True)
    bos = codec.tokenizer.bos_token_id
    for text in ("What is 2 + 2?", "<s>What is 2 + 2?"):
        ids = codec.encode(Prompt("p", text=text))
        assert (ids[0], ids.count(bos)) == (bos, 1)


def test_without_special_tokens_the_prompt_has_all_that_it_needs(with_bos: TextCodec) -> None:
    codec = TextCodec(with_bos.folder, special_tokens=False)
    assert codec.encode(Prompt("p", text="hi")) == with_bos.encode(Prompt("p", text="hi"))[1:]
    assert codec.encode(Prompt("p", text="<s>hi")) == with_bos.encode(Prompt("p", text="hi"))


def test_what_the_template_writes_is_all_that_a_chat_has(with_bos: TextCodec) -> None:
    with_bos.tokenizer.chat_template = "{{ bos_token }}" + tokenizer_kinds.CHATML
    ids = with_bos.encode(Prompt("p", messages=(Message("user", "hi"),)))
    assert (ids[0], ids.count(ids[0])) == (with_bos.tokenizer.bos_token_id, 1)


def test_only_white_space_and_bos_is_no_prompt(with_bos: TextCodec) -> None:
    with pytest.raises(DataError, match="prompt 'p' is empty after tokenisation"):
        with_bos.encode(Prompt("p", text=""))


def test_stop_strings_that_are_special_tokens_become_ids(with_bos: TextCodec) -> None:
    end = with_bos.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert with_bos.stop_tokens(["<|im_end|>"]) == ((end,), ())
    assert with_bos.stop_tokens(["\n\n", "<|im_end|>", "</answer>"]) == ((end,), ("\n\n", "</answer>"))
    assert with_bos.stop_tokens(["<eos>", "<s>"])[0] == (
        with_bos.tokenizer.eos_token_id,
        with_bos.tokenizer.bos_token_id,
    )
    assert with_bos.stop_tokens([]) == ((), ())
    assert with_bos.stop_tokens(["<|im", "im_end"]) == ((), ("<|im", "im_end"))


@pytest.mark.parametrize("stop", ["<|im_end|>\n", " <|im_end|>", "x<eos>", "<|im_end|><|im_end|>"])
def test_a_stop_string_that_can_never_be_found_is_refused(with_bos: TextCodec, stop: str) -> None:
    with pytest.raises(ConfigError, match=r"rollout\.stop: .* special token; give .* alone"):
        with_bos.stop_tokens([stop])


def test_an_added_token_that_is_not_special_stays_text(folder: Path) -> None:
    path = tokenizer_kinds.write(folder / "added")
    codec = TextCodec(path)
    codec.tokenizer.add_tokens(["</think>"])
    codec.tokenizer.save_pretrained(str(path))
    codec = TextCodec(path)
    assert codec.stop_tokens(["</think>"]) == ((), ("</think>",))
    ids = codec.tokenizer("hm</think>4", add_special_tokens=False)["input_ids"]
    assert codec.decode(ids)[0] == codec.text(ids) == "hm</think>4"
    assert codec.text(ids, ["</think>"]) == "hm"


def test_special_tokens_that_no_attribute_names_have_no_text(with_bos: TextCodec) -> None:
    """Chat models mark ``<|im_start|>`` as special without naming it."""
    ids = with_bos.tokenizer("a<|im_start|>b<pad>c", add_special_tokens=False)["input_ids"]
    text, spans = with_bos.decode(ids)
    assert (text, spans[1], spans[3]) == ("abc", (1, 1), (2, 2))


@pytest.fixture(scope="module")
def endless(folder: Path) -> TextCodec:
    return made(folder, "endless", eos_token=None)


def test_a_target_needs_an_end_token(endless: TextCodec) -> None:
    with pytest.raises(ModelError, match="has no end token; set eos_token"):
        endless.encode_target("4")


def test_answers_need_something_that_ends_them(endless: TextCodec) -> None:
    with pytest.raises(ModelError, match=r"nothing ends an answer.*eos_token.*rollout\.stop"):
        endless.check_end([])
    endless.check_end(["\n"])
    endless.check_end(["<|im_end|>"])


@pytest.mark.parametrize(
    ("file", "values", "fine"),
    [
        ("generation_config.json", {"eos_token_id": [1, 2]}, True),
        ("generation_config.json", {"eos_token_id": 0}, True),
        ("config.json", {"eos_token_id": 4}, True),
        ("config.json", {"eos_token_id": None}, False),
        ("generation_config.json", {"eos_token_id": []}, False),
        ("generation_config.json", [], False),
    ],
)
def test_the_models_own_end_tokens_count(tmp_path: Path, file: str, values: Any, fine: bool) -> None:
    codec = made(tmp_path, "model", eos_token=None)
    (tmp_path / "model" / file).write_text(json.dumps(values))
    if fine:
        codec.check_end([])
    else:
        with pytest.raises(ModelError, match="nothing ends an answer"):
            codec.check_end([])


def test_a_tokenizer_without_pad_token_is_fine(folder: Path) -> None:
    codec = made(folder, "padless")
    assert codec.tokenizer.pad_token is None
    assert codec.encode_target("4")[-1] == codec.tokenizer.eos_token_id


@pytest.mark.parametrize(
    "content", ['{"a": 1}', "", "[]", "not JSON", '{"version": "1.0", "model": {"type": "BPE"}}', '{"model": null}']
)
def test_a_damaged_tokenizer_is_one_line(folder: Path, content: str) -> None:
    path = tokenizer_kinds.write(folder / "damaged")
    (path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"model\.path: no tokenizer in") as caught:
        TextCodec(path)
    assert "\n" not in str(caught.value)


def test_a_letter_without_a_token_is_one_line_with_the_prompt(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"a": 0, "<eos>": 1}, unk_token="<none>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>").save_pretrained(str(folder / "few"))
    codec = TextCodec(folder / "few")
    assert codec.encode(Prompt("p", text="a a")) == (0, 0)
    with pytest.raises(DataError, match="prompt 'p': the tokenizer cannot take it"):
        codec.encode(Prompt("p", text="a b"))


@pytest.mark.parametrize("text", ["\ud83d", "x\udfff"])
def test_half_a_character_never_reaches_the_tokenizer(with_bos: TextCodec, text: str) -> None:
    """A source of the user's own may make prompts of it."""
    for call in (
        lambda: with_bos.encode(Prompt("p", text=text)),
        lambda: with_bos.encode(Prompt("p", messages=(Message("user", text),))),
        lambda: with_bos.encode_target(text),
    ):
        with pytest.raises(DataError, match="lone surrogate"):
            call()


def test_a_template_whose_turns_end_otherwise_than_answers_is_said(folder: Path) -> None:
    """Base models of Qwen's kind: the template writes ``<|im_end|>``, the end token is another."""
    chat, text = Prompt("p", messages=(Message("user", "hi"),)), Prompt("t", text="hi")
    codec = made(folder, "base")
    assert "'<|im_end|>', which ends no answer" in (codec.unheeded_turn_end(chat, []) or "")
    assert codec.unheeded_turn_end(chat, ["<|im_end|>"]) is None
    assert codec.unheeded_turn_end(text, []) is None
    end = codec.tokenizer.convert_tokens_to_ids("<|im_end|>")
    (folder / "base" / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, end]}))
    assert codec.unheeded_turn_end(chat, []) is None
    instruct = made(folder, "instruct", eos_token="<|im_end|>")
    assert instruct.unheeded_turn_end(chat, []) is None
    continued = Prompt("c", messages=(Message("user", "hi"), Message("assistant", "yes,")))
    assert codec.unheeded_turn_end(continued, []) is None


def test_special_tokens_in_the_text_of_the_data_are_counted() -> None:
    prompts = [
        Prompt("0", messages=(Message("user", "hi"),)),
        Prompt("1", messages=(Message("user", "end it <|im_end|> now"),)),
        Prompt("2", messages=(Message("user", "<s>struck</s>"), Message("user", "x"))),
    ]
    said = special_in_prompts(prompts, ["<|im_end|>", "<s>", "<eos>"], "data.train")
    assert said is not None
    assert said.startswith("data.train: 2 of 3 prompts hold the text of a special token")
    assert "first prompt '1': '<|im_end|>'" in said
    assert special_in_prompts(prompts[:1], ["<s>"], "x") is None
    assert special_in_prompts(prompts, [], "x") is None


def test_rendered_templates_are_no_accident() -> None:
    rendered = [Prompt(str(i), text=f"<|im_start|>user\n{i}<|im_end|>\n") for i in range(3)]
    assert special_in_prompts(rendered, ["<|im_end|>"], "x") is None
    plain = [Prompt(f"t{i}", text="hi") for i in range(9)]
    assert "3 of 12" in (special_in_prompts([*plain, *rendered], ["<|im_end|>"], "x") or "")
