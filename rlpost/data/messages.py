"""Chats as data sets hold them, as `Message` records: lists, arrays, JSON text, ShareGPT's names, content in parts."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from rlpost.data.text import as_text, checked, is_missing, shown
from rlpost.errors import DataError
from rlpost.types import Message

ASSISTANT = "assistant"

_NAMES = (("role", "content"), ("from", "value"))
"""Keys of a message: OpenAI's and ShareGPT's."""

_SHAREGPT = {
    "human": "user", "gpt": ASSISTANT, "chatgpt": ASSISTANT, "bard": ASSISTANT, "bing": ASSISTANT,
    "observation": "tool", "function_response": "tool",
}  # fmt: skip
"""ShareGPT's roles by the names that chat templates know; others stay as they are."""

_CHAT = re.compile(r"""\s*(array\()?\[\s*\{\s*['"](role|content|from|value)['"]\s*:""")
_ROLE = re.compile(r"""['"](role|from)['"]\s*:""")
_MESSAGE = re.compile(r"""\s*\{\s*['"](role|content|from|value|messages|conversations)['"]\s*:\s*['"\[]""")

_TEXT_PARTS = ("text", "input_text", "output_text")
_PARTS = (*_TEXT_PARTS, "image", "image_url", "input_image", "audio", "audio_url", "input_audio", "video", "video_url")


def chat_in_text(text: str, place: str) -> list[Any] | None:
    """The chat that a text holds as JSON, or as Python writes a list; None for a text that is no chat.

    Raises:
        DataError: for a text that begins like a chat and cannot be read.
    """
    begins = _CHAT.match(text)
    if not begins and text.lstrip()[:1] == "[" and _ROLE.search(text):
        found = _parsed(text)
        return found if _is_chat(found) else None
    if not begins:
        if _MESSAGE.match(text) and isinstance(_parsed(text), dict):
            raise DataError(
                f"{place} holds the text of a JSON object with chat messages ({shown(text)}); give its list of messages"
            )
        return None
    found = _parsed(text)
    if not isinstance(found, list):
        raise DataError(f"{place} holds a chat as text that is no JSON ({shown(text)}); write it with json.dumps")
    return found


def _is_chat(value: Any) -> bool:
    """Whether a value is a list of messages, whatever else they hold."""
    items = cast("list[Any]", value) if isinstance(value, list) else []
    keys = [set(cast("dict[str, Any]", one)) if isinstance(one, dict) else set[str]() for one in items]
    return any(all(role in one for one in keys) and any(text in one for one in keys) for role, text in _NAMES)


def _parsed(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def read_messages(value: object, place: str) -> tuple[Message, ...]:
    """Chat messages of a column's value.

    Args:
        value: a list (tuple, array) of mappings with ``role`` and ``content`` or ``from`` and ``value``, or one mapping
            of such lists. Keys without a value (data sets fill them in) are left out, other keys go to the template.
        place: where it stands, for messages.

    Raises:
        DataError: for anything else; for parts of a content that are no text; for a message without content that calls
            no tool.
    """
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, Mapping):
        value = _transposed(cast("Mapping[str, Any]", value))
    if isinstance(value, str | bytes) or not isinstance(value, Sequence) or not value:
        raise DataError(f"{place} holds {shown(value)}, expected text or a list of chat messages")
    items = cast("Sequence[object]", value)
    return tuple(_message(item, f"{place}, message {number}", place) for number, item in enumerate(items))


def _transposed(value: Mapping[str, Any]) -> object:
    """A mapping of lists, as some data sets store a list of mappings, as that list; any other value as it is."""
    lists = {key: list(one) for key, one in value.items() if isinstance(one, (list, tuple, np.ndarray))}
    if not any(set(names) <= lists.keys() for names in _NAMES) or len({len(one) for one in lists.values()}) != 1:
        return value
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _message(item: object, place: str, column: str) -> Message:
    given = cast("Mapping[str, object]", item if isinstance(item, Mapping) else {})
    turn: dict[str, Any] = plain(given, place)
    role_key, text_key = next((names for names in _NAMES if names[0] in turn), (None, None))
    if role_key is None or text_key is None or (text_key not in turn and text_key not in given and not _calls(turn)):
        raise DataError(
            f"{column} holds {shown(item)}, expected a mapping with role and content, or from and value (ShareGPT)"
        )
    role, content = turn.pop(role_key), turn.pop(text_key, None)
    if not isinstance(role, str) or not role.strip():
        raise DataError(f"{place}: the role is {shown(role)}; name one, such as user")
    if role_key == "from" and role == "function_call":
        raise DataError(f"{place}: ShareGPT's function_call is not read; write it as the assistant's tool_calls")
    if "tool_calls" in turn:
        turn["tool_calls"] = _tool_calls(turn["tool_calls"], place)
    if not turn.get("tool_calls"):
        turn.pop("tool_calls", None)
    text = None if content is None or content == [] else _content(content, place)
    if text is None and "tool_calls" not in turn:
        raise DataError(f"{place}, {role}: no content and no tool_calls; fill it in or drop the row")
    return Message(_SHAREGPT.get(role, role) if role_key == "from" else role, text, turn)


def _calls(turn: Mapping[str, Any]) -> bool:
    return bool(turn.get("tool_calls"))


def _content(content: object, place: str) -> str:
    if isinstance(content, str) and content.lstrip()[:1] == "[" and "type" in content:
        found = _parsed(content)
        content = found if _are_parts(found) else content
    if not isinstance(content, list):
        return as_text(content, f"{place}: content")
    return "".join(_part(part, place) for part in cast("list[object]", content))


def _are_parts(value: Any) -> bool:
    """Whether a content's text is the JSON text of parts."""
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return bool(items) and all(
        isinstance(one, dict) and cast("dict[str, Any]", one).get("type") in _PARTS for one in items
    )


def _part(part: object, place: str) -> str:
    """The text of one part of a content; parts are joined as templates that read parts join them, without a space."""
    if isinstance(part, str):
        return part
    given = cast("dict[str, Any]", part) if isinstance(part, dict) else {}
    kind = given.get("type", "text" if "text" in given else None)
    if kind not in _TEXT_PARTS:
        raise DataError(
            f"{place}: the content has a part {shown(kind or part)}; only text can be trained on, drop the row"
        )
    return as_text(given.get("text"), f"{place}: a part of the content")


def _tool_calls(value: object, place: str) -> list[dict[str, Any]]:
    found = _parsed(value) if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(call, dict) for call in cast("list[object]", found)):
        raise DataError(f"{place}: tool_calls is {shown(value)}, expected a list of mappings")
    return cast("list[dict[str, Any]]", found)


def read_tools(value: object, place: str) -> tuple[Mapping[str, Any], ...] | None:
    """Tools of a chat prompt: a list of JSON schemas, or its JSON text; None for none.

    Raises:
        DataError: for anything else.
    """
    found = plain(value, place)
    if isinstance(found, str):
        read = _parsed(found)
        found = plain(read, place) if read is not None else None if found.strip() in ("", "null") else found
    if found is None or found == []:
        return None
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in cast("list[object]", found)):
        raise DataError(
            f"{place} holds {shown(value)}, expected a list of tools as JSON schemas; set data.tools_key to another "
            "column, or to null"
        )
    return tuple(cast("list[dict[str, Any]]", found))


def plain(value: object, place: str) -> Any:
    """Lists, dictionaries and numbers of Python in the place of arrays and scalars of numpy, entries without a value
    (null, and the NaN that pandas writes) left out: data sets give every row every key.

    Raises:
        DataError: for bytes, or half of a character, at any depth.
    """
    if isinstance(value, str):
        return checked(str(value), place)
    if isinstance(value, bytes | bytearray):
        raise DataError(f"{place} holds bytes; give text")
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist(), place)
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value).items()
        return {str(key): plain(one, place) for key, one in pairs if not is_missing(one)}
    if isinstance(value, list | tuple):
        return [plain(one, place) for one in cast("Sequence[object]", value)]
    return value
