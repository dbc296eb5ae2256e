"""Chat templates of many kinds, and what they refuse. Not covered: reading chats from data (test_messages.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlpost.data.tokenizer import TextCodec
from rlpost.errors import DataError
from rlpost.types import Message, Prompt
from support import tokenizer_kinds

USER = Message("user", "weather in Oslo?")
PREFILL = Message("assistant", "The answer is")
CALL = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
ASKED = (USER, Message("assistant", None, {"tool_calls": [CALL]}), Message("tool", "18C", {"tool_call_id": "1"}))
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}

HEAD = "{% for m in messages %}<|im_start|>{{ m.role }}\n"
TAIL = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CALLS = "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}(ARGS)</call>{% endfor %}"


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    return TextCodec(tokenizer_kinds.write(tmp_path_factory.mktemp("chat")))


def text_of(codec: TextCodec, template: Any, prompt: Prompt) -> str:
    codec.tokenizer.chat_template = template
    return codec.tokenizer.decode(list(codec.encode(prompt)))


def chat(*messages: Message, **options: Any) -> Prompt:
    return Prompt("p7", messages=messages, **options)


@pytest.mark.parametrize(
    ("content", "arguments"),
    [
        ("{{ m.content or '' }}", "{{ c.function.arguments | tojson }}"),  # Qwen2.5
        ("{{ m.content }}", "{{ c.function.arguments | tojson }}"),
        ("{{ '' + m.content }}", "{{ c.function.arguments | tojson }}"),
        ("{% if m.content is none %}{% else %}{{ m.content }}{% endif %}", "{{ c.function.arguments | tojson }}"),
        ("{{ m.content or '' }}", "{{ '' + c.function.arguments }}"),  # DeepSeek-V3
        ("{{ m.content }}", "{{ c.function.arguments }}"),
        ("{{ '' + m.content }}", "{{ '' + c.function.arguments }}"),
        (
            "{{ m.content or '' }}",
            "{% set a = c.function.arguments %}{{ a if a is string else a | tojson }}",  # Qwen3
        ),
    ],
)
@pytest.mark.parametrize("given", ['{"city": "Oslo"}', {"city": "Oslo"}])
def test_a_tool_call_is_written_as_the_template_expects_it(
    codec: TextCodec, content: str, arguments: str, given: Any
) -> None:
    call = {**CALL, "function": {"name": "get_weather", "arguments": given}}
    prompt = chat(USER, Message("assistant", None, {"tool_calls": [call]}), ASKED[2])
    text = text_of(codec, HEAD + content + CALLS.replace("ARGS", arguments) + TAIL, prompt)
    assert '<|im_start|>assistant\n<call>get_weather({"city": "Oslo"})</call><|im_end|>' in text
    assert "None" not in text


def test_arguments_that_are_iterated_are_a_mapping(codec: TextCodec) -> None:
    """As Qwen3-Coder's and later templates do."""
    body = "{{ m.content or '' }}" + CALLS.replace(
        "ARGS", "{% for k, v in c.function.arguments | items %}{{ k }}={{ v }}{% endfor %}"
    )
    assert "<call>get_weather(city=Oslo)</call>" in text_of(codec, HEAD + body + TAIL, chat(*ASKED))


def test_a_template_that_knows_no_calls_is_refused_not_fed_nothing(codec: TextCodec) -> None:
    with pytest.raises(DataError, match=r"prompt 'p7': .* leaves out the call of tool 'get_weather'"):
        text_of(codec, tokenizer_kinds.CHATML, chat(*ASKED))


def test_other_keys_reach_the_template(codec: TextCodec) -> None:
    template = (
        HEAD + "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}" + TAIL
    )
    turn = Message("assistant", "4", {"reasoning_content": "2 and 2"})
    assert "<think>2 and 2</think>4" in text_of(codec, template, chat(USER, turn, USER))


KNOWS_TOOLS = "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}" + tokenizer_kinds.CHATML


def test_tools_reach_the_template(codec: TextCodec) -> None:
    assert '"name": "get_weather"' in text_of(codec, KNOWS_TOOLS, chat(USER, tools=(TOOL,)))
    assert "get_weather" not in text_of(codec, KNOWS_TOOLS, chat(USER))
    with pytest.raises(DataError, match=r"says nothing of its tools; .* data\.tools_key"):
        text_of(codec, tokenizer_kinds.CHATML, chat(USER, tools=(TOOL,)))


def test_of_several_templates_the_one_for_tools_is_taken(codec: TextCodec) -> None:
    several = {"default": tokenizer_kinds.CHATML, "tool_use": "T:" + KNOWS_TOOLS}
    assert text_of(codec, several, chat(USER)).startswith("<|im_start|>user")
    assert text_of(codec, several, chat(USER, tools=(TOOL,))).startswith("T:")
    with pytest.raises(DataError, match="multiple chat templates with no default"):
        text_of(codec, {"other": tokenizer_kinds.CHATML}, chat(USER))


NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}{{ m.content }}{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "messages", "expected"),
    [
        (NO_SYSTEM, (Message("system", "be brief"), USER), "System role not supported"),
        (NO_SYSTEM, (USER, USER), "Conversation roles must alternate"),
        ("{% for m in messages %}{{ m.content", (USER,), "TemplateSyntaxError"),
        ("{{ messages[3].content.strip() }}", (USER,), "UndefinedError"),
        ("{{ messages[0].content + 1 }}", (USER,), "TypeError"),
        ("{{ 1 / 0 }}", (USER,), "ZeroDivisionError"),
        ("{{ messages | nofilter }}", (USER,), "nofilter"),
        ("{% include 'x' %}", (USER,), "refuses it"),
        ("", (USER,), "no chat template"),
        ("{# nothing #}", (USER,), "makes no text of it"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", (USER,), "leaves out 'weather in Oslo?'"),
        ("{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}x", (USER,), "leaves out"),
    ],
)
def test_a_template_that_refuses_a_chat_is_one_line_with_the_row(
    codec: TextCodec, template: str, messages: tuple[Message, ...], expected: str
) -> None:
    with pytest.raises(DataError) as caught:
        text_of(codec, template, chat(*messages))
    assert "prompt 'p7'" in str(caught.value)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("prefill", ["The answer is", "", "<think>\n", "a  b", "1."])
def test_a_prefill_is_the_end_of_the_text(codec: TextCodec, prefill: str) -> None:
    text = text_of(codec, tokenizer_kinds.CHATML, chat(USER, Message("assistant", prefill)))
    if prefill != "<think>\n":
        assert text == f"<|im_start|>user\nweather in Oslo?<|im_end|>\n<|im_start|>assistant\n{prefill}"
    assert text.endswith(f"assistant\n{prefill}")


@pytest.mark.parametrize(
    ("template", "prefill"),
    [
        (tokenizer_kinds.CHATML.replace("m['content']", "m['content'] | trim"), "The answer is "),
        (tokenizer_kinds.CHATML.replace("m['content']", "m['content'].split('</think>')[-1]"), "hm</think>The answer"),
        (tokenizer_kinds.CHATML.replace("m['content']", "m['content'] | upper"), "The answer"),
    ],
)
def test_a_template_that_rewrites_the_prefill_is_refused(codec: TextCodec, template: str, prefill: str) -> None:
    with pytest.raises(DataError, match=r"prompt 'p7'.*(rewrites the assistant's turn|refuses it)"):
        text_of(codec, template, chat(Message("user", "SAY"), Message("assistant", prefill)))


def test_an_answer_to_a_prefill_is_one_turn_with_it(codec: TextCodec) -> None:
    """What the environment says comes after the whole turn, and history is not rewritten."""
    codec.tokenizer.chat_template = tokenizer_kinds.CHATML
    dialogue = codec.dialogue(chat(USER, PREFILL))
    end = codec.tokenizer.convert_tokens_to_ids("<|im_end|>")
    ids, rewritten = dialogue.observe(" 18C", end, "Are you sure?")
    assert not rewritten
    assert codec.tokenizer.decode(ids) == "\n<|im_start|>user\nAre you sure?<|im_end|>\n<|im_start|>assistant\n"
    assert dialogue.messages[1] == Message("assistant", "The answer is 18C")
    again, rewritten = dialogue.observe("Yes.", end, "Good.")
    assert not rewritten
    assert "Good." in codec.tokenizer.decode(again)


def test_a_dialogue_keeps_the_tools(codec: TextCodec) -> None:
    codec.tokenizer.chat_template = KNOWS_TOOLS
    ids, rewritten = codec.dialogue(chat(USER, tools=(TOOL,))).observe("18C", None, "Thanks.")
    assert not rewritten
    assert "get_weather" not in codec.tokenizer.decode(ids)


def test_what_an_environment_says_is_refused_as_data_is(codec: TextCodec) -> None:
    codec.tokenizer.chat_template = NO_SYSTEM
    with pytest.raises(DataError, match="must alternate"):
        codec.dialogue(chat(USER)).observe("18C", None, [Message("user", "a"), Message("user", "b")])
    with pytest.raises(DataError, match="lone surrogate"):
        codec.dialogue(chat(USER)).observe("18C", None, "\ud83d")
    with pytest.raises(DataError, match="lone surrogate"):
        codec.dialogue(Prompt("t", text="x")).observe("18C", None, "\ud83d")


def test_the_template_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    folder = tokenizer_kinds.write(tmp_path / "one")
    assert (folder / "chat_template.jinja").is_file()
    several = tokenizer_kinds.write(
        tmp_path / "more", template={"default": tokenizer_kinds.CHATML, "tool_use": KNOWS_TOOLS}
    )
    for place in (folder, several):
        assert TextCodec(place).encode(chat(USER))
    assert "get_weather" in TextCodec(several).tokenizer.decode(TextCodec(several).encode(chat(USER, tools=(TOOL,))))
