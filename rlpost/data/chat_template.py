"""Chat templates: a prompt's messages as the text that the tokenizer's own template makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from rlpost.data.messages import ASSISTANT
from rlpost.data.text import shown
from rlpost.errors import DataError, describe_error
from rlpost.types import Message, Prompt

Conversation = list[dict[str, Any]]

_ANSWER = "An answer."
"""Stands for an answer, to see what a template writes after one."""


def render_messages(tokenizer: Any, prompt: Prompt) -> str:
    """Text of a chat prompt; see `render`.

    Raises:
        DataError: as `render`, or if the tokenizer has no chat template.
    """
    assert prompt.messages is not None
    if not tokenizer.chat_template:
        raise DataError(
            f"prompt {shown(prompt.id)} is a chat, but the tokenizer has no chat template; use data.template"
        )
    return render(tokenizer, prompt.messages, prompt.tools, f"prompt {shown(prompt.id)}")


def render(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None, name: str = "a chat"
) -> str:
    """Text of messages, ready for the policy to write on: with the tokens that begin the assistant's turn (the
    generation prompt) at its end, or, where the last message is the assistant's, with that message as its end.

    The template writes all special tokens itself, so the text is to be tokenised without adding any.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        messages: at least one message.
        tools: JSON schemas of the tools that the template describes; None for none.
        name: the chat's name in messages.

    Raises:
        DataError: if the template refuses the messages, with its own words; if it leaves out the user's last message,
            a tool call or the tools; or if it rewrites the message that is to be continued.
    """
    listed = None if tools is None else [dict(tool) for tool in tools]
    goes_on = messages[-1].role == ASSISTANT

    def apply(conversation: Conversation, known: list[dict[str, Any]] | None = listed) -> str:
        options = {"continue_final_message": True} if goes_on else {"add_generation_prompt": True}
        return tokenizer.apply_chat_template(conversation, tools=known, tokenize=False, **options)

    try:
        text, conversation = _tried(apply, messages)
        bare = None if listed is None else apply(conversation, None)
    except Exception as error:  # jinja's, and whatever a template's expressions raise
        said = describe_error(error).removeprefix("TemplateError: ")
        raise DataError(f"{name}: the tokenizer's chat template refuses it ({said}); mend or drop the row") from None
    if not isinstance(text, str) or not text:
        raise DataError(f"{name}: the tokenizer's chat template makes no text of it; use another template")
    if text == bare:
        raise DataError(
            f"{name}: the tokenizer's chat template says nothing of its tools; use another template, or set "
            "data.tools_key to null"
        )
    if goes_on and not text.endswith(messages[-1].text):
        raise DataError(
            f"{name}: the chat template rewrites the assistant's turn that is to be continued, "
            f"{shown(messages[-1].text)}; remove white space at its ends, or cut it (data.last_assistant)"
        )
    _check_complete(text, messages, name)
    return text


def turn_tail(tokenizer: Any, prompt: Prompt) -> str:
    """What the template writes after an answer to a chat prompt; empty where it refuses one."""
    assert prompt.messages is not None
    asked = prompt.messages[:-1] if prompt.messages[-1].role == ASSISTANT else prompt.messages
    conversation = [*(message.as_dict() for message in asked), Message(ASSISTANT, _ANSWER).as_dict()]
    try:
        text = tokenizer.apply_chat_template(conversation, tokenize=False)
    except Exception:  # the prompt's own rendering says what a template refuses
        return ""
    return text.rpartition(_ANSWER)[2].lstrip()


def _check_complete(text: str, messages: Sequence[Message], name: str) -> None:
    """Raise DataError if what was asked last, or a call of a tool, is not in the text."""
    asked = next((message.text.strip() for message in reversed(messages) if message.role == "user"), "")
    if asked not in text:
        raise DataError(f"{name}: the tokenizer's chat template leaves out {shown(asked)}; use another template")
    for call in _calls(messages):
        function = _function(call)
        if str(function.get("name", "")) not in text:
            raise DataError(
                f"{name}: the tokenizer's chat template leaves out the call of tool {function.get('name')!r}; use a "
                "template that knows tools, or drop the row"
            )


def _calls(messages: Sequence[Message]) -> list[Mapping[str, Any]]:
    return [call for message in messages for call in message.fields.get("tool_calls") or ()]


def _function(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a tool call that has name and arguments: OpenAI's form has it inside, others are it."""
    inside = call.get("function")
    return cast("Mapping[str, Any]", inside) if isinstance(inside, Mapping) else call


def _tried(apply: Any, messages: Sequence[Message]) -> tuple[str, Conversation]:
    """The text of messages in the form that the template takes, and that form.

    Templates differ in what they expect of a turn that calls tools: arguments as a mapping (Hugging Face's form) or as
    JSON text (OpenAI's), content that is null or empty. A form that raises, or is written as Python writes it
    (``None``, ``{'a': 1}``), is not what the template expects.
    """
    plain = [message.as_dict() for message in messages]
    if not _calls(messages):
        return apply(plain), plain
    parsed, written = _with_arguments(plain, _parsed), _with_arguments(plain, _written)
    try:
        found = _without_null(apply, parsed)
        arguments = [_function(call).get("arguments") for one in parsed for call in one.get("tool_calls") or ()]
        if not any(isinstance(one, dict) and one and str(cast("object", one)) in found[0] for one in arguments):
            return found
    except Exception:
        try:
            return _without_null(apply, written)
        except Exception:  # the first form's error says what is wrong
            pass
        raise
    return _without_null(apply, written)


def _without_null(apply: Any, conversation: Conversation) -> tuple[str, Conversation]:
    """The text of a conversation with null content as null, if the template knows that, else as empty text."""
    if all(one["content"] is not None for one in conversation):
        return apply(conversation), conversation
    empty = [{**one, "content": one["content"] or ""} for one in conversation]
    text = apply(empty)
    try:
        with_null = apply(conversation)
    except Exception:  # such as adding null to text
        return text, empty
    return (text, empty) if with_null.count("None") > text.count("None") else (with_null, conversation)


def _with_arguments(conversation: Conversation, form: Any) -> Conversation:
    """The conversation with the arguments of its tool calls in another form."""

    def call_of(call: dict[str, Any]) -> dict[str, Any]:
        inside = call.get("function")
        if isinstance(inside, dict):
            return {**call, "function": call_of(cast("dict[str, Any]", inside))}
        return {**call, "arguments": form(call["arguments"])} if "arguments" in call else call

    return [
        {**one, "tool_calls": [call_of(call) for call in one["tool_calls"]]} if one.get("tool_calls") else one
        for one in conversation
    ]


def _parsed(arguments: Any) -> Any:
    try:
        found = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:  # no JSON: the template gets the text
        return arguments
    return cast("Any", found) if isinstance(found, dict) else arguments


def _written(arguments: Any) -> Any:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
