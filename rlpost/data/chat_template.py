"""Chat templates: a prompt's messages as the text that the tokenizer's own template makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlpost.errors import DataError
from rlpost.types import Message, Prompt


def render_messages(tokenizer: Any, prompt: Prompt) -> str:
    """Text of a chat prompt, with the tokens that begin the assistant's turn (the generation prompt) at its end.

    The template writes all special tokens itself, so the text is to be tokenised without adding any.

    Args:
        tokenizer: a transformers tokenizer.
        prompt: a prompt with messages.

    Raises:
        DataError: if the tokenizer has no chat template.
    """
    assert prompt.messages is not None
    if not tokenizer.chat_template:
        raise DataError(f"prompt {prompt.id!r} is a chat, but the tokenizer has no chat template; use data.template")
    return render(tokenizer, prompt.messages)


def render(tokenizer: Any, messages: Sequence[Message]) -> str:
    """Text of messages, with the tokens that begin the assistant's turn at its end."""
    plain = [{"role": message.role, "content": message.content} for message in messages]
    return tokenizer.apply_chat_template(plain, add_generation_prompt=True, tokenize=False)
