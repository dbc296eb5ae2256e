"""Rows of ``rlpost harvest`` as they are written, and the check that a further run reads the same prompts in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlpost.commands.harvest_rows import Answer, FinishedRun
from rlpost.config.schema import DataSection, SftSection
from rlpost.data import load
from rlpost.data.messages import plain
from rlpost.data.text import is_missing, shown
from rlpost.errors import DataError, UserError
from rlpost.observability.transcripts import asked

SOURCE_COLUMN = "harvest"
"""Column with where an answer comes from."""

_FORM = ("template", "chat_template", "prompt_key", "id_key", "last_assistant", "tools_key")
"""Settings of ``data`` that make prompts of rows; one file can be read with one set of them."""


def check_target(path: Path, force: bool) -> Path:
    """The file to write, if it can be written.

    Raises:
        UserError: if it exists (and is not to be replaced), is a folder, or its folder is missing.
    """
    if path.is_dir():
        raise UserError(f"--output: {path} is a folder; give a file")
    if not path.parent.is_dir():
        raise UserError(f"--output: the folder {path.parent} does not exist; make it")
    if path.exists() and not force:
        raise UserError(f"--output: {path} exists; give another name, or --force to replace it")
    return path


def completion_column(runs: Sequence[FinishedRun], given: str | None) -> tuple[str, str]:
    """The column of the answers and ``sft.completion_prefix``, which is not part of them.

    Raises:
        UserError: if the runs differ in it, or in the settings that make prompts of rows.
    """
    sections = [(run, run.config.sft or SftSection()) for run in runs]
    for name in _FORM:
        _same(f"data.{name}", [(run, getattr(run.config.data, name)) for run in runs])
    given_prefix = [(run, section.completion_prefix) for run, section in sections if run.config.sft is not None]
    _same("sft.completion_prefix", given_prefix)
    if given is None:
        _same("sft.completion_key", [(run, s.completion_key) for run, s in sections if run.config.sft is not None])
    named = next((section for run, section in sections if run.config.sft is not None), SftSection())
    column = named.completion_key if given is None else given
    if not column or column == SOURCE_COLUMN:
        raise UserError(f"--completion-key: {column!r} cannot be the column of the answers; give another")
    return column, named.completion_prefix


def _same(name: str, values: Sequence[tuple[FinishedRun, Any]]) -> None:
    for run, value in values[1:]:
        if value != values[0][1]:
            raise UserError(
                f"harvest: {name} is {shown(values[0][1])} in {values[0][0].path} and {shown(value)} in {run.path}, so "
                f"no one file serves both; harvest them by themselves, or give {name}=…"
            )


def written_rows(
    answers: Sequence[Answer], section: DataSection, column: str, note: Callable[[str], object]
) -> list[dict[str, Any]]:
    """The rows: the columns of the prompt's row, the answer, and where it comes from.

    A column that JSON has no form for (bytes, dates, decimal numbers) is left out, which is noted. A value that the
    answer displaces is kept as ``replaced``.
    """
    rows: list[dict[str, Any]] = []
    lost: dict[str, str] = {}
    for answer in answers:
        row: dict[str, Any] = {}
        for name, value in answer.prompt.columns.items():
            try:
                row[name] = _as_json(value, name)
            except (DataError, TypeError, ValueError, RecursionError):
                lost.setdefault(name, type(value).__name__)
        if row.get(section.id_key) is None:
            row[section.id_key] = answer.prompt.id
        source = dict(answer.source)
        answered = answer.target[0] if len(answer.target) == 1 else list(answer.target)
        if row.get(column) is not None and row[column] != answered:
            source["replaced"] = row[column]
        rows.append({**row, column: answered, SOURCE_COLUMN: source})
    for name, kind in lost.items():
        note(f"column {name!r} is left out of rows where it holds what JSON has no form for ({kind})")
    return rows


def _as_json(value: Any, name: str) -> Any:
    if is_missing(value):
        return None
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):  # arrays and numbers of numpy
        return json.loads(json.dumps(plain(value, name), allow_nan=False))


def check_written(
    rows: Sequence[Mapping[str, Any]], answers: Sequence[Answer], section: DataSection, column: str
) -> None:
    """Read the rows as ``sft.train`` of a further run does, and compare the prompts with those that were asked.

    Raises:
        DataError: for one that differs, as where a template reads the column of the answer.
    """
    remedy = f"give another --completion-key than {column!r}, or take out the columns that JSON cannot hold"
    try:
        read = load.make_prompts(section, rows, "harvest", repeated_ids=True)
    except DataError as error:
        raise DataError(f"{error}; the rows would not be readable: {remedy}") from None
    for prompt, answer in zip(read, answers, strict=True):
        if asked(prompt) != asked(answer.prompt) or prompt.tools != answer.prompt.tools:
            raise DataError(
                f"harvest: prompt {shown(answer.prompt.id)} was {shown(asked(answer.prompt))} and would be read as "
                f"{shown(asked(prompt))}; {remedy}"
            )
