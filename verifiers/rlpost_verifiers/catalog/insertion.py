"""The place in a prompt where candidates stand: of a text at its end, of a chat in the user's last turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlpost.data.messages import chat_in_text, read_messages
from rlpost.data.text import as_text, named
from rlpost.errors import DataError
from rlpost.types import Message


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation in a row.

    Attributes:
        text: what the user and the assistant said, up to the user's last turn.
        last: the user's last turn; of a prompt that is text, all of it.
        messages: the chat; None for a text.
        turn: number of the user's last turn.
    """

    text: str
    last: str
    messages: tuple[Message, ...] | None
    turn: int = 0

    @classmethod
    def read(cls, row: Mapping[str, Any], key: str, place: str) -> Conversation:
        """The conversation in a row's column, in any form that prompts have.

        Raises:
            DataError: for no such column, no text, or a chat without a turn of the user.
        """
        if key not in row:
            raise DataError(f"{place}: no column {key!r} (there are {named(row)}); set prompt_key")
        value, column = row[key], f"{place}: column {key!r}"
        if isinstance(value, (str, int, float)):
            text = as_text(value, column)
            value = chat_in_text(text, column)
            if value is None:
                if not text.strip():
                    raise DataError(f"{column} is empty; fill it in or drop the row")
                return cls(text, text, None)
        messages = read_messages(value, column)
        turns = [number for number, one in enumerate(messages) if one.role == "user" and one.content is not None]
        if not turns:
            raise DataError(f"{column}: a chat without a turn of the user has no place for candidates; drop the row")
        # the template's instructions in a system turn are no part of what a user looks for
        said = "\n".join(one.text for one in messages[: turns[-1] + 1] if one.role in ("user", "assistant"))
        return cls(said, messages[turns[-1]].text, messages, turns[-1])

    def with_last(self, text: str) -> str | list[dict[str, Any]]:
        """The conversation with another text in place of `last`."""
        if self.messages is None:
            return text
        turns = [one.as_dict() for one in self.messages]
        turns[self.turn]["content"] = text
        return turns
