"""Rows of a data set as `Prompt` records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any, cast

from rlpost.errors import DataError
from rlpost.types import Message, Prompt

Row = Mapping[str, Any]


def read_jsonl(path: str) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file; blank lines are skipped.

    Raises:
        DataError: naming the file and line that is not a JSON object.
    """
    try:
        text = existing_file(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert the file") from None
    rows: list[dict[str, Any]] = []
    for place, row in parse_lines(text, path):
        if not isinstance(row, dict):
            raise DataError(f"{place}: expected a JSON object, got {type(row).__name__}")
        rows.append(cast("dict[str, Any]", row))
    return rows


def parse_lines(text: str, path: str) -> Iterator[tuple[str, Any]]:
    """Values of JSON lines, each with its place (``path:line``) for messages; blank lines are skipped.

    Raises:
        DataError: naming the line that is not JSON.
    """
    # str.splitlines would also cut at U+2028 and others, which JSON allows inside strings
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            yield place, json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{place}: not valid JSON ({error.msg}); mend or remove the line") from None


def existing_file(path: str) -> Path:
    """The file at ``path``, or a DataError that names it."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataError(f"{path}: no such file; give the path of a data file")
    return file


def to_prompts(
    rows: Iterable[Row],
    *,
    prompt_key: str = "prompt",
    id_key: str = "id",
    template: str | None = None,
    chat_template: Sequence[tuple[str, str]] | None = None,
    where: str = "data",
) -> list[Prompt]:
    """Make prompts from rows; each prompt keeps every column of its row.

    Args:
        rows: mappings from column to value.
        prompt_key: column with the prompt, text or a list of ``{"role", "content"}``, unless a template is given.
        id_key: column with the id; without it, the row number is the id.
        template: text with ``{column}`` fields; None: no text template.
        chat_template: (role, text with ``{column}`` fields) pairs; None: no chat template.
        where: name of the data set in messages.

    Raises:
        DataError: for no rows, a missing column, a prompt of the wrong type, or an id given twice.
    """
    prompts: list[Prompt] = []
    seen: set[str] = set()
    for number, row in enumerate(rows):
        place = f"{where}, row {number}"
        given = row.get(id_key)
        name = str(number if given is None else given)
        if name in seen:
            raise DataError(f"{place}: id {name!r} is given twice; make ids unique")
        seen.add(name)
        if template is not None:
            prompts.append(Prompt(name, text=_fill(template, row, place), columns=row))
        elif chat_template is not None:
            messages = tuple(Message(role, _fill(text, row, place)) for role, text in chat_template)
            prompts.append(Prompt(name, messages=messages, columns=row))
        else:
            prompts.append(_from_column(name, row, prompt_key, place))
    if not prompts:
        raise DataError(f"{where}: no rows; give a data set with at least one prompt")
    return prompts


def _from_column(name: str, row: Row, key: str, place: str) -> Prompt:
    if key not in row:
        raise DataError(
            f"{place}: no column {key!r} (there are {', '.join(row)}); set data.prompt_key or data.template"
        )
    value = row[key]
    if isinstance(value, str):
        return Prompt(name, text=value, columns=row)
    if isinstance(value, Sequence) and value:
        messages: list[Message] = []
        for item in cast("Sequence[object]", value):
            turn = cast("Mapping[str, object]", item if isinstance(item, Mapping) else {})
            if not {"role", "content"} <= set(turn):
                raise DataError(f"{place}: column {key!r} holds {item!r}, expected a mapping with role and content")
            messages.append(Message(str(turn["role"]), str(turn["content"])))
        return Prompt(name, messages=tuple(messages), columns=row)
    raise DataError(f"{place}: column {key!r} holds {value!r}, expected text or a list of chat messages")


def _fill(template: str, row: Row, place: str) -> str:
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
        for field in fields:
            if field not in row:
                raise DataError(f"{place}: the template asks for {field!r}, columns are {', '.join(row)}")
        return template.format_map({key: row[key] for key in fields})
    except DataError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{place}: template {template!r}: {error}; write {{{{ and }}}} for braces") from None
