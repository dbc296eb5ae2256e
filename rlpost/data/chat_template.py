"""Chat templates: a prompt's messages as the text that the tokenizer's own template makes of them."""

from __future__ import annotations

from typing import Any

from rlpost.errors import DataError
from rlpost.types import Prompt


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
    messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
