"""Chats of data sets as messages. Not covered: what chat templates make of them (test_chat_template.py)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from rlpost.data.prompts import to_prompts
from rlpost.errors import DataError
from rlpost.types import Message

USER = {"role": "user", "content": "hi"}
CALL = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}


def read(value: Any, **options: Any) -> tuple[Message, ...]:
    [prompt] = to_prompts([{"prompt": value}], **options)
    assert prompt.messages is not None
    return prompt.messages


@pytest.mark.parametrize(
    "value",
    [
        [USER],
        (USER,),
        np.array([USER]),
        [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        [{"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}],
        [{"role": "user", "content": ["h", "i"]}],
        [{"role": "user", "content": [{"text": "hi"}]}],
        [{"role": "user", "content": np.array([{"type": "text", "text": "hi", "image": None}])}],
        [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
        [{"from": "human", "value": "hi"}],
        [{"from": "user", "value": "hi", "weight": None}],
        [{"role": None, "content": None, "from": "human", "value": "hi"}],
        {"role": ["user"], "content": ["hi"]},
        json.dumps([{"id": None, "role": "user", "content": "hi"}]),
        [{"role": "user", "content": "hi", "name": float("nan")}],
        [{"role": "user", "content": json.dumps([{"type": "text", "text": "hi"}])}],
        {"from": np.array(["human"]), "value": np.array(["hi"])},
        json.dumps([USER]),
        json.dumps([{"from": "human", "value": "hi"}], indent=2),
        str([USER]),
        [{"role": "user", "content": "hi", "tool_calls": None, "name": None}],
        [{"role": "user", "content": "hi", "tool_calls": []}],
        pd.DataFrame({"p": [np.array([USER])]})["p"][0],
        pa.table({"p": [[{"role": "user", "content": "hi", "tool_calls": None}]]}).to_pylist()[0]["p"],
    ],
)
def test_a_chat_is_read_in_every_form(value: Any) -> None:
    assert read(value) == (Message("user", "hi"),)


def test_a_number_as_content_is_written_as_people_write_it() -> None:
    assert read([{"role": "user", "content": 1e-05}]) == (Message("user", "0.00001"),)


@pytest.mark.parametrize(
    ("role", "expected"),
    [("human", "user"), ("system", "system"), ("observation", "tool"), ("tool", "tool"), ("user", "user")],
)
def test_sharegpts_roles_get_the_names_that_templates_know(role: str, expected: str) -> None:
    assert read([{"from": role, "value": "x"}])[0].role == expected


def test_sharegpts_answer_is_the_assistants() -> None:
    chat = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    assert read(chat, last_assistant="cut") == (Message("user", "a"),)
    assert read(chat, last_assistant="continue")[1] == Message("assistant", "b")


def test_tool_calls_are_kept_as_they_are() -> None:
    chat = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "hm", "audio": None},
        {"role": "tool", "tool_call_id": "1", "name": "get_weather", "content": "18C"},
    ]
    messages = read(chat)
    assert messages[1] == Message("assistant", None, {"tool_calls": [CALL], "reasoning_content": "hm"})
    assert messages[2].as_dict() == chat[2]
    assert read(json.dumps(chat)) == messages
    without = [USER, {key: one for key, one in chat[1].items() if key != "content"}, chat[2]]
    assert read(without) == messages


def test_arguments_lose_the_entries_that_arrow_fills_in() -> None:
    """A column of structures has every key of every row: another tool's arguments are null."""
    call = {"function": {"name": "f", "arguments": {"city": "Oslo", "n": None, "also": [{"a": None, "b": 1}]}}}
    [_, turn, _] = read([USER, {"role": "assistant", "content": "", "tool_calls": [call]}, USER])
    assert turn.fields["tool_calls"] == [{"function": {"name": "f", "arguments": {"city": "Oslo", "also": [{"b": 1}]}}}]


def test_tool_calls_as_json_text_are_read() -> None:
    [_, turn, _] = read([USER, {"role": "assistant", "tool_calls": json.dumps([CALL])}, USER])
    assert turn.fields["tool_calls"] == [CALL]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([{"role": "user", "content": None}], "message 0, user: no content and no tool_calls"),
        ([{"role": "assistant", "content": None, "tool_calls": []}, USER], "no content and no tool_calls"),
        ([{"role": "user", "content": float("nan")}], "no content and no tool_calls"),
        ([{"role": "user", "content": True}], "content holds True"),
        ([{"role": "user", "content": {"text": "hi"}}], "content holds {'text': 'hi'}"),
        ([{"role": "user", "content": b"hi"}], "holds bytes"),
        ([{"role": "user", "content": []}], "no content"),
        ([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "hi"}]}], "a part 'image'"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "a part 'image_url'"),
        ([{"role": "user", "content": [{"type": "audio", "audio": "a.wav"}]}], "a part 'audio'"),
        ([{"role": "user", "content": [{"type": "video"}]}], "a part 'video'"),
        ([{"role": "user", "content": [{"type": "text", "text": None}]}], "a part of the content holds None"),
        ([{"role": "user", "content": [3]}], "a part 3"),
        ([{"role": None, "content": "x"}], "expected a mapping with role and content"),
        ([{"role": 3, "content": "x"}], "the role is 3"),
        ([{"role": " ", "content": "x"}], "the role is ' '"),
        ([{"role": "user", "text": "x"}], "expected a mapping with role and content"),
        ([{"role": "user", "value": "x"}], "expected a mapping with role and content"),
        ([{"from": "function_call", "value": "{}"}, USER], "function_call is not read"),
        ([["user", "hi"]], "expected a mapping with role and content"),
        (USER, "expected text or a list of chat messages"),
        ({"messages": [USER]}, "expected text or a list of chat messages"),
        (json.dumps(USER), "the text of a JSON object with chat messages"),
        (json.dumps({"messages": [USER]}), "the text of a JSON object with chat messages"),
        ("[{'role': 'user', 'content': 'hi'}\n {'role': 'assistant', 'content': 'x'}]", "text that is no JSON"),
        ('[{"role": "user", "content": "hi"}', "text that is no JSON"),
        ("array([{'role': 'user', 'content': 'hi'}], dtype=object)", "text that is no JSON"),
        ([{"role": "user", "content": json.dumps([{"type": "image"}])}], "a part 'image'"),
        (np.array([]), "expected text or a list of chat messages"),
        (b"hi", "expected text or a list of chat messages"),
        ({"image": "a.png"}, "expected text or a list of chat messages"),
        ([{"role": "assistant", "tool_calls": "call me"}, USER], "tool_calls is 'call me'"),
        ([{"role": "assistant", "tool_calls": [1]}, USER], "tool_calls is [1]"),
        ([{"role": "user", "content": "hi", "note": "\ud83d"}], "lone surrogate"),
        ([USER, {"role": "user", "content": " "}], "the chat's last turn (user) is empty"),
    ],
)
def test_what_is_no_chat_is_refused_with_row_and_column(value: Any, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        to_prompts([{"prompt": "x"}, {"prompt": value}], where="data.train")
    assert str(caught.value).startswith("data.train, row 1")
    assert expected in str(caught.value)
    assert "column 'prompt'" in str(caught.value) or "last turn" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2, 3] sorted is", '[{"a": 1}] has how many keys?', "role: user", '{"x": 1}', "[[role]]", "[{", "{}",
        '[{"a": 1, "role": "x"}, 3]', '[{"name": "f", "from": "x"}]',
        'Write JSON like [{"role": "user"}].', '{"question": "2+2?"}',
    ],
)  # fmt: skip
def test_text_that_only_looks_a_little_like_a_chat_stays_text(text: str) -> None:
    [prompt] = to_prompts([{"prompt": text}])
    assert prompt.text == text


ANSWERED = [USER, {"role": "assistant", "content": "The answer is"}]


def test_a_chat_that_ends_with_the_assistant_is_refused_by_default() -> None:
    with pytest.raises(
        DataError, match=r"row 0: the chat ends with the assistant's turn 'The answer is'.*cut.*continue"
    ):
        read(ANSWERED)


@pytest.mark.parametrize(
    ("chat", "rule", "expected"),
    [
        (ANSWERED, "cut", ["hi"]),
        (ANSWERED, "continue", ["hi", "The answer is"]),
        ([*ANSWERED, ANSWERED[1]], "cut", ["hi"]),
        ([*ANSWERED, USER], "refuse", ["hi", "The answer is", "hi"]),
        ([*ANSWERED, USER], "cut", ["hi", "The answer is", "hi"]),
        ([*ANSWERED, USER, ANSWERED[1]], "cut", ["hi", "The answer is", "hi"]),
        (json.dumps(ANSWERED), "cut", ["hi"]),
        ([USER, {"role": "assistant", "tool_calls": [CALL]}], "cut", ["hi"]),
        ([{"role": "system", "content": "be brief"}, *ANSWERED], "cut", ["be brief", "hi"]),
        ([USER, {"role": "assistant", "content": ""}], "continue", ["hi", ""]),
    ],
)
def test_the_assistants_last_turn_is_treated_as_asked(chat: Any, rule: Any, expected: list[str]) -> None:
    assert [message.text for message in read(chat, last_assistant=rule)] == expected


@pytest.mark.parametrize(
    ("chat", "rule", "expected"),
    [
        ([ANSWERED[1]], "cut", "nothing is left"),
        ([USER, {"role": "assistant", "tool_calls": [CALL]}], "continue", "calls tools, which cannot be continued"),
        ([{"role": "user", "content": ""}, ANSWERED[1]], "cut", "last turn (user) is empty"),
    ],
)
def test_a_last_turn_that_cannot_be_treated_so_is_refused(chat: Any, rule: Any, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        read(chat, last_assistant=rule)
    assert expected in str(caught.value)


def test_a_chat_template_of_the_configuration_follows_the_same_rule() -> None:
    template = [("user", "{q}"), ("assistant", "The answer is")]
    with pytest.raises(DataError, match=r"data.last_assistant"):
        to_prompts([{"q": "2+2?"}], chat_template=template)
    [prompt] = to_prompts([{"q": "2+2?"}], chat_template=template, last_assistant="continue")
    assert prompt.messages == (Message("user", "2+2?"), Message("assistant", "The answer is"))


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([TOOL], (TOOL,)),
        (json.dumps([TOOL]), (TOOL,)),
        (np.array([TOOL]), (TOOL,)),
        ([{**TOOL, "strict": None}], (TOOL,)),
        (None, None),
        ([], None),
        ("[]", None),
        ("", None),
        ("null", None),
    ],
)
def test_tools_are_read_from_their_column(value: Any, expected: Any) -> None:
    [prompt] = to_prompts([{"prompt": [USER], "tools": value}])
    assert prompt.tools == expected


@pytest.mark.parametrize("value", ["hammer, saw", [1], {"name": "f"}, 3, '{"name": "f"}'])
def test_a_column_that_holds_no_tools_is_refused_with_what_to_set(value: Any) -> None:
    with pytest.raises(DataError, match=r"row 0: column 'tools' holds .*data\.tools_key"):
        to_prompts([{"prompt": [USER], "tools": value}])
    assert to_prompts([{"prompt": [USER], "tools": value}], tools_key=None)[0].tools is None
    assert to_prompts([{"prompt": "text", "tools": value}])[0].tools is None
