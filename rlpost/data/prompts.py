"""Rows of a data set as `Prompt` records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from string import Formatter
from typing import Any, Literal

from rlpost.data.messages import ASSISTANT, chat_in_text, read_messages, read_tools
from rlpost.data.text import as_text, is_missing, named, shown
from rlpost.errors import DataError
from rlpost.types import Message, Prompt

Row = Mapping[str, Any]
LastAssistant = Literal["refuse", "cut", "continue"]


def to_prompts(
    rows: Iterable[Row],
    *,
    prompt_key: str = "prompt",
    id_key: str = "id",
    template: str | None = None,
    chat_template: Sequence[tuple[str, str]] | None = None,
    last_assistant: LastAssistant = "refuse",
    tools_key: str | None = "tools",
    repeated_ids: bool = False,
    where: str = "data",
) -> list[Prompt]:
    """Make prompts from rows; each prompt keeps every column of its row, as it is.

    What becomes text is text or a number (`rlpost.data.text.as_text`); chats are read by `rlpost.data.messages`.

    Args:
        rows: mappings from column to value.
        prompt_key: column with the prompt, text or a chat (also as JSON text), unless a template is given.
        id_key: column with the id; where it is missing or null, the row number is the id.
        template: text with ``{column}`` fields; None: no text template.
        chat_template: (role, text with ``{column}`` fields) pairs; None: no chat template.
        last_assistant: treatment of a chat that ends with the assistant's turn, see ``data.last_assistant``.
        tools_key: column with the tools of a chat; None for none.
        repeated_ids: whether rows may have the same id, as the answers to one prompt in supervised data do.
        where: name of the data set in messages.

    Raises:
        DataError: for no rows, a missing column, a value that is no text, an empty prompt, a chat that ends with the
            assistant's turn (if it is to be refused), or an id given twice (unless it may be).
    """
    prompts: list[Prompt] = []
    seen: set[str] = set()
    for number, row in enumerate(rows):
        place = f"{where}, row {number}"
        name = _name(row, id_key, number, place)
        if name in seen and not repeated_ids:
            raise DataError(f"{place}: id {shown(name)} is given twice; make ids unique")
        seen.add(name)
        if template is not None:
            found: str | tuple[Message, ...] = fill(template, row, place)
        elif chat_template is not None:
            found = tuple(Message(role, fill(text, row, place)) for role, text in chat_template)
        else:
            found = _from_column(row, prompt_key, place)
        if isinstance(found, str):
            if not found.strip():
                raise DataError(f"{place}: the prompt is empty; fill it in or drop the row")
            prompts.append(Prompt(name, text=found, columns=row))
        else:
            tools = read_tools(row.get(tools_key), f"{place}: column {tools_key!r}") if tools_key else None
            prompts.append(Prompt(name, messages=_ended(found, last_assistant, place), columns=row, tools=tools))
    if not prompts:
        raise DataError(f"{where}: no rows; give a data set with at least one prompt")
    return prompts


def _name(row: Row, key: str, number: int, place: str) -> str:
    given = row.get(key)
    # pandas writes NaN where a row has no id
    return str(number) if is_missing(given) else as_text(given, f"{place}: column {key!r}")


def _from_column(row: Row, key: str, place: str) -> str | tuple[Message, ...]:
    if key not in row:
        raise DataError(f"{place}: no column {key!r} (there are {named(row)}); set data.prompt_key or data.template")
    value, column = row[key], f"{place}: column {key!r}"
    if isinstance(value, str):
        text = as_text(value, column)
        chat = chat_in_text(text, column)
        return text if chat is None else read_messages(chat, column)
    return read_messages(value, column)


def _ended(messages: tuple[Message, ...], rule: LastAssistant, place: str) -> tuple[Message, ...]:
    """The messages of a chat, which end as they may: with what the policy answers, or with what it continues."""
    last = messages[-1]
    if last.role == ASSISTANT:
        if rule == "refuse":
            raise DataError(
                f"{place}: the chat ends with the assistant's turn {shown(last.text)}; set data.last_assistant to cut "
                "(it is the answer) or to continue (the policy goes on from it)"
            )
        if rule == "continue":
            if last.content is None or "tool_calls" in last.fields:
                raise DataError(f"{place}: the assistant's last turn calls tools, which cannot be continued; cut it")
            return messages
        while messages and messages[-1].role == ASSISTANT:
            messages = messages[:-1]
    if not messages:
        raise DataError(f"{place}: nothing is left of the chat without the assistant's turn; drop the row")
    if not messages[-1].text.strip() and messages[-1].role != "tool":
        raise DataError(f"{place}: the chat's last turn ({messages[-1].role}) is empty; fill it in or drop the row")
    return messages


def fill(template: str, row: Row, place: str) -> str:
    """The template with its fields filled in. A field with a format of its own (``{price:.2f}``) follows that.

    Args:
        template: text with ``{column}`` fields.
        row: their values.
        place: where the row stands, for messages.

    Raises:
        DataError: for a field that is no column, or a value that is no text.
    """
    pieces: list[str] = []
    try:
        for literal, field, spec, conversion in Formatter().parse(template):
            pieces.append(literal)
            if field is None:
                continue
            if field not in row:
                braces = "" if field.isidentifier() else "; write {{ and }} for braces that are no field"
                raise DataError(f"{place}: the template asks for {field!r}, columns are {named(row)}{braces}")
            text = as_text(row[field], f"{place}: column {field!r}")
            if spec or conversion:
                text = f"{{0{'!' + conversion if conversion else ''}:{spec}}}".format(row[field])
            pieces.append(text)
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, MemoryError) as error:
        raise DataError(f"{place}: template {template!r}: {error}; write {{{{ and }}}} for braces") from None
    return "".join(pieces)
