"""The tokens that follow a turn: an environment's observation, rendered alone, after what was sampled.

An observation is text, whatever it holds: only the chat template writes special tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rlpost.data.chat_template import render, render_messages
from rlpost.data.messages import ASSISTANT
from rlpost.data.quoted import Quotation
from rlpost.data.text import checked, shown
from rlpost.errors import DataError
from rlpost.types import Message, Prompt

Observation = str | Sequence[Message]


class TextDialogue:
    """A dialogue of plain text: an observation is tokenized as it is, special tokens in it as text.

    Args:
        tokenizer: a transformers tokenizer.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.unknown = 0
        """Number of observed tokens so far that stand for text which the tokenizer does not know."""

    def observe(self, answer: str | None, last: int | None, observation: Observation) -> tuple[np.ndarray, bool]:
        """Token ids of an observation; see `ChatDialogue.observe`.

        Raises:
            DataError: for chat messages.
        """
        if not isinstance(observation, str):
            raise DataError("the environment answered with chat messages, but the prompt is text; answer with text")
        text = checked(observation, "the environment's observation")
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        self.unknown += _count_unknown(self.tokenizer, ids)
        return np.asarray(ids, np.int32), False


class ChatDialogue:
    """A chat, whose observations go through the tokenizer's chat template.

    The template renders all messages again, and what follows the policy's answer in its text is the observation's. If
    the text before that is not the text so far, the template has rewritten history (it drops reasoning, say), and the
    whole text is the new context. An answer that continues the assistant's own turn (a prefill) is one turn with it.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        prompt: a prompt with messages.
        special: the tokenizer's special tokens by id.
    """

    def __init__(self, tokenizer: Any, prompt: Prompt, special: Mapping[int, str]):
        assert prompt.messages is not None
        self.tokenizer, self.messages, self.special = tokenizer, list(prompt.messages), special
        self.name, self.tools = f"prompt {shown(prompt.id)}", prompt.tools
        self.text = render_messages(tokenizer, prompt)
        self.unknown = 0
        self.quotation = Quotation(special.values())

    def observe(self, answer: str | None, last: int | None, observation: Observation) -> tuple[np.ndarray, bool]:
        """Token ids that follow a turn, and whether they are a whole new context instead.

        Args:
            answer: text of the policy's turn; None before the first turn.
            last: the last token id that was sampled; an end token is not repeated.
            observation: chat messages; text becomes a user's message.

        Raises:
            DataError: as `rlpost.data.chat_template.render`.
        """
        heard = [Message("user", observation)] if isinstance(observation, str) else list(observation)
        for message in heard:
            checked(message.text, "the environment's observation")
        if answer is not None:
            answer = self.quotation.mark(answer)
            self._said(answer)
        self.messages += [
            one if one.content is None else replace(one, content=self.quotation.mark(one.content)) for one in heard
        ]
        before, self.text = self.text, render(self.tokenizer, self.messages, self.tools, self.name)
        tail = _after(answer, self.text.removeprefix(before)) if self.text.startswith(before) else None
        if tail is None:
            return self._ids(self.text), True
        if last is not None and last in self.special:
            tail = tail.removeprefix(self.tokenizer.convert_ids_to_tokens(last))
        return self._ids(tail), False

    def _ids(self, text: str) -> np.ndarray:
        ids = self.quotation.ids(self.tokenizer, text)
        self.unknown += _count_unknown(self.tokenizer, ids)
        return np.asarray(ids, np.int32)

    def _said(self, answer: str) -> None:
        begun = self.messages.pop() if self.messages[-1].role == ASSISTANT else Message(ASSISTANT, "")
        self.messages.append(replace(begun, content=begun.text + answer))


def _count_unknown(tokenizer: Any, ids: Sequence[int]) -> int:
    unknown = getattr(tokenizer, "unk_token_id", None)
    return 0 if unknown is None or unknown == tokenizer.eos_token_id else list(ids).count(unknown)


def _after(answer: str | None, body: str) -> str | None:
    """What follows an answer in a template's text, which may trim the answer or put a space before it; None if the text
    does not begin with it.
    """
    if answer is None:
        return None
    if body.startswith(answer):
        return body[len(answer) :]
    bare, rest = answer.strip(), body.lstrip()
    return rest[len(bare) :] if rest.startswith(bare) else None
