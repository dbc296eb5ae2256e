"""The data sets a configuration names."""

from __future__ import annotations

from typing import Any

from rlpost import registry
from rlpost.config.schema import DataSection
from rlpost.data.prompts import to_prompts
from rlpost.errors import DataError
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
    """Prompts of the split ``train`` or ``eval``.

    Raises:
        DataError: as `rows` and `to_prompts`, or if the split is not configured.
    """
    arguments = section.train if split == "train" else section.eval
    where = f"data.{split}"
    if arguments is None:
        raise DataError(f"{where}: missing; give a path or arguments of source {section.source!r}")
    return to_prompts(
        rows(section, arguments, where),
        prompt_key=section.prompt_key,
        id_key=section.id_key,
        template=section.template,
        chat_template=section.chat_template,
        where=where,
    )
