"""The data sets a configuration names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlpost.config.schema import DataSection
from rlpost.data.curriculum import by_pass_rate
from rlpost.data.decontaminate import overlap
from rlpost.data.prompts import to_prompts
from rlpost.errors import DataError
from rlpost.plugins import registry
from rlpost.types import Prompt


def rows(section: DataSection, arguments: str | dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Rows of ``data.source`` for one split; ``arguments`` is a path or keyword arguments.

    Raises:
        DataError: if the source cannot take the arguments or finds no rows.
    """
    source = registry.resolve("sources", section.source)
    try:
        found = source(arguments) if isinstance(arguments, str) else source(**arguments)
    except TypeError as error:
        raise DataError(f"{where}: source {section.source!r} cannot take {arguments!r} ({error})") from None
    if not found:
        raise DataError(f"{where}: source {section.source!r} found no rows for {arguments!r}")
    return list(found)


def prompts(section: DataSection, split: str) -> list[Prompt]:
    """Prompts of the split ``train`` or ``eval``, the former without what `rlpost.data.curriculum` leaves out.

    Raises:
        DataError: as `rows` and `to_prompts`, or if the split is not configured.
    """
    arguments = section.train if split == "train" else section.eval
    where = f"data.{split}"
    if arguments is None:
        raise DataError(f"{where}: missing; give a path or arguments of source {section.source!r}")
    found = make_prompts(section, rows(section, arguments, where), where)
    return by_pass_rate(found, section.curriculum) if split == "train" and section.curriculum else found


def make_prompts(section: DataSection, found: Sequence[Mapping[str, Any]], where: str) -> list[Prompt]:
    """Rows as prompts in the form the section describes.

    Raises:
        DataError: as `to_prompts`.
        UserError: for a template that nobody knows.
    """
    template, chat = templates(section)
    return to_prompts(
        found,
        prompt_key=section.prompt_key,
        id_key=section.id_key,
        template=template,
        chat_template=chat,
        where=where,
    )


def templates(section: DataSection) -> tuple[str | None, Sequence[tuple[str, str]] | None]:
    """The text template or the chat template of a section, names resolved; neither where prompts stand in a column.

    Raises:
        UserError: for a name that nobody knows.
    """
    template, chat = section.template, section.chat_template
    if template is not None and "{" not in template:
        known = registry.resolve("templates", template)
        return (known, None) if isinstance(known, str) else (None, known)
    return template, None if template is not None else chat


def apart(train: list[Prompt], held_out: Sequence[Prompt], leaks: str) -> list[Prompt]:
    """Training prompts of which none is held out as well, as ``data.leaks`` says.

    Raises:
        DataError: if there are some and they are not to be dropped, with their number and an example.
    """
    found = overlap(train, held_out)
    if found.example is None or leaks == "allow":
        return train
    if leaks == "refuse" or len(found.positions) == len(train):
        raise DataError(
            f"data.train: {len(found.positions)} of {len(train)} prompts are held out as well (training prompt "
            f"{found.example[0]!r} asks what held-out prompt {found.example[1]!r} asks); set data.leaks to drop, to "
            "train without them, or to allow"
        )
    return [prompt for place, prompt in enumerate(train) if place not in found.positions]
