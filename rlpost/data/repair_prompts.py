"""Prompts that ask a rejected answer again with what the verifier said of it (``data.repair``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rlpost.config.schema import RepairSection, RunConfig
from rlpost.data.messages import ASSISTANT
from rlpost.data.models import context_length
from rlpost.data.prompts import fill
from rlpost.data.quoted import Quotation
from rlpost.data.repair import FailedAnswer
from rlpost.data.text import shown
from rlpost.data.tokenizer import TextCodec
from rlpost.errors import DataError
from rlpost.trajectory import TokenizedPrompt
from rlpost.types import Message, Prompt

ASKED_AGAIN = "This is not accepted:\n{messages}\nGive the whole answer again, corrected."
"""The user's message after a rejected answer in a chat, unless ``data.repair.chat_template`` says otherwise."""

_PLACE = "data.repair"


class RepairPrompts:
    """Makes prompts from rejected answers. What the policy wrote, and what repeats it, is text: a special token in it
    is not one in the prompt.

    Args:
        section: templates and limits.
        codec: the policy's tokenizer.
        train: the training prompts; only these are asked again.
        limit: largest number of tokens of a prompt.
    """

    def __init__(self, section: RepairSection, codec: TextCodec, train: Sequence[TokenizedPrompt], limit: int):
        self.section, self.codec, self.limit = section, codec, limit
        self.known: Mapping[str, Prompt] = {one.prompt.id: one.prompt for one in train}

    def make(self, failed: FailedAnswer) -> TokenizedPrompt | None:
        """The prompt that asks an answer again; None if it would be too long, or no prompt can be made of it.

        Raises:
            KeyError: if the answered prompt is not among the training prompts.
        """
        base = self.known[failed.prompt_id]
        try:
            ids = self._ids(base, failed)
            prompt = self._prompt(base, failed, Quotation(()))
        except DataError:  # the template itself was tried at the start: this answer is what it cannot take
            return None
        return TokenizedPrompt(prompt, ids) if len(ids) <= self.limit else None

    def unknown(self, prompt: TokenizedPrompt) -> int:
        """Number of a prompt's tokens that stand for text that the vocabulary lacks, as word-level ones may."""
        missing = self.codec.tokenizer.unk_token_id
        # some tokenizers name their end token so
        return 0 if missing in (None, self.codec.tokenizer.eos_token_id) else int((prompt.token_ids == missing).sum())

    def check(self) -> None:
        """Raise DataError if the template cannot be filled in for the first training prompt."""
        base = next(iter(self.known.values()))
        self._ids(base, FailedAnswer(base.id, 0, 0, 0, "an answer", "a message"))

    def _ids(self, base: Prompt, failed: FailedAnswer) -> np.ndarray:
        quotation = Quotation(self.codec.special.values())
        return np.asarray(self.codec.encode(self._prompt(base, failed, quotation), quotation), np.int32)

    def _prompt(self, base: Prompt, failed: FailedAnswer, quotation: Quotation) -> Prompt:
        """The prompt, whose quoted texts are marked."""
        section, asked = self.section, base.text
        if asked is None:
            assert base.messages is not None
            asked = base.messages[-1].text
        said = {"proof": quotation.mark(failed.text), "messages": quotation.mark(failed.messages)}
        row = {**base.columns, "prompt": asked, **said}
        made: dict[str, Any] = {"columns": base.columns, "tools": base.tools, "repairs": base.id}
        if section.template is not None:
            return Prompt(failed.id, text=fill(section.template, row, f"{_PLACE}.template"), **made)
        if section.chat_template is not None:
            place = f"{_PLACE}.chat_template"
            chat = tuple(Message(role, fill(text, row, place)) for role, text in section.chat_template)
            return Prompt(failed.id, messages=chat, **made)
        if base.messages is None:
            raise DataError(
                f"{_PLACE}.template: missing, and prompt {shown(base.id)} is text; give the text of a repair's prompt, "
                'such as "{prompt}{proof}\\n{messages}\\n{prompt}"'
            )
        *before, last = base.messages
        if last.role == ASSISTANT:  # a prefill: the answer went on from it
            chat = (*before, replace(last, content=last.text + said["proof"]))
        else:
            chat = (*base.messages, Message(ASSISTANT, said["proof"]))
        return Prompt(failed.id, messages=(*chat, Message("user", fill(ASKED_AGAIN, row, _PLACE))), **made)


def repair_prompts(config: RunConfig, model: str, train: Sequence[TokenizedPrompt]) -> RepairPrompts | None:
    """The maker of repair prompts of a run; None if it has no ``data.repair``.

    Args:
        config: the run configuration.
        model: Hugging Face folder with the tokenizer.
        train: the training prompts.

    Raises:
        DataError: if the template asks for what the prompts do not have, or no prompt fits.
    """
    section = config.data.repair
    if section is None:
        return None
    longest = max(len(one.token_ids) for one in train)
    room = (config.rollout.max_model_len or context_length(model)) - config.trajectory_tokens
    limit = min(section.max_prompt_tokens or longest + 2 * config.rollout.max_tokens, room)
    if limit <= longest:
        raise DataError(
            f"data.repair.max_prompt_tokens: {limit} tokens are left for a prompt with an answer in it, and the "
            f"longest training prompt alone has {longest}; raise it, or lower rollout.max_tokens"
        )
    found = RepairPrompts(
        section, TextCodec(model, config.model.trust_remote_code, config.data.special_tokens), train, limit
    )
    found.check()
    return found
