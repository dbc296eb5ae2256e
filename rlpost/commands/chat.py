"""``rlpost chat``: typed text becomes a prompt as in training, the model answers, and the verifier checks the answer.

The model runs in this process with transformers' ``generate``: slower than an engine, but it starts in seconds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Formatter
from typing import Any

import torch

from rlpost.config.schema import DataSection, RunConfig
from rlpost.data import load, models
from rlpost.data.constraint import constraint_of
from rlpost.data.tokenizer import TextCodec
from rlpost.decoding import walk_of
from rlpost.errors import DataError, UserError
from rlpost.plugins.build import build_verifier
from rlpost.protocols import ReviewingVerifier
from rlpost.rollout.sampling import evaluation_settings
from rlpost.types import Prompt, Verdict, VerifyItem


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of the model.

    Attributes:
        text: the answer.
        verdict: verdict of the configured verifier; None without one, or if it needs columns that only a data set has.
        seconds: wall-clock time of the generation.
    """

    text: str
    verdict: Verdict | None
    seconds: float


class Chat:
    """A conversation with one model.

    Typed text goes into the one column that the configuration's template leaves open, or into the prompt itself. A
    model that was trained on chat messages gets the conversation so far, another one all that the user has said.

    Args:
        config: configuration of the run that trained the model, with its templates, token limits and verifier.
        model: Hugging Face folder.
        columns: values of the other data columns that the template or the verifier reads.
        temperature: sampling temperature; 0 is greedy. ``evaluation.sampling`` has the other settings.

    Raises:
        UserError: if the template has more than one open column, or none.
        ModelError: if the folder holds no model.
    """

    def __init__(
        self,
        config: RunConfig,
        model: str | Path,
        columns: Mapping[str, Any] | None = None,
        temperature: float = 0.0,
    ):
        if temperature < 0:
            raise UserError(f"temperature is {temperature}; give 0 for greedy answers, or more")
        folder = models.resolve_path(str(model))
        self.config, self.columns, self.temperature = config, dict(columns or {}), temperature
        self.codec = TextCodec(folder, config.model.trust_remote_code, config.data.special_tokens)
        self.column = open_column(config.data, self.columns)
        self.chats = self.column is None and self._trained_on_chats()
        self.model = models.load(folder, config.model.dtype, config.model.trust_remote_code).eval()
        if torch.cuda.is_available():
            self.model.cuda()
        self.verifier = build_verifier(config.scoring)
        self.constraint = constraint_of(config, folder)
        self.room = models.context_length(folder) - evaluation_settings(config).max_tokens
        self.turns: list[tuple[str, str]] = []

    def say(self, text: str) -> Reply:
        """Add a message of the user to the conversation and return the model's answer.

        Raises:
            DataError: if the message is blank, or the conversation leaves no room for an answer.
        """
        if not text.strip():
            raise DataError("nothing was said; type something")
        self.turns.append(("user", text.strip()))
        row = self._row()
        [prompt] = load.make_prompts(self.config.data, [row], "chat")
        begun = time.monotonic()
        answer = self._answer(prompt)
        seconds = time.monotonic() - begun
        self.turns.append(("assistant", answer))
        return Reply(answer, self._verdict(row, answer), seconds)

    def forget(self) -> None:
        """Start a new conversation."""
        self.turns = []

    def close(self) -> None:
        """End the processes of the verifier."""
        if self.verifier is not None:
            self.verifier.close()

    def _row(self) -> dict[str, Any]:
        key = self.column or self.config.data.prompt_key
        if self.chats:
            value: Any = [{"role": role, "content": content} for role, content in self.turns]
        else:
            value = " ".join(content for role, content in self.turns if role == "user")
        return {**self.columns, key: value}

    def _answer(self, prompt: Prompt) -> str:
        ids = self.codec.encode(prompt)
        section = evaluation_settings(self.config)
        if len(ids) > self.room:
            raise DataError(f"the conversation has {len(ids)} tokens, {self.room} leave room for an answer; begin anew")
        given = torch.tensor([ids], device=self.model.device)
        drawn: dict[str, Any] = {"do_sample": False}
        if self.temperature:
            # without a value, transformers uses a top_k of its own
            top_k = max(section.top_k, 0)
            drawn = {"do_sample": True, "temperature": self.temperature, "top_p": section.top_p, "top_k": top_k}
        token_ids, strings = self.codec.stop_tokens(section.stop)
        stops: dict[str, Any] = {"stop_strings": list(strings), "tokenizer": self.codec.tokenizer} if strings else {}
        if self.constraint is not None:
            token_ids = (*token_ids, self.codec.end_token(section.stop))
        if token_ids:
            ends = self.model.generation_config.eos_token_id
            own = ends if isinstance(ends, list) else [] if ends is None else [ends]
            stops["eos_token_id"] = [*own, *token_ids]
        if self.constraint is not None:
            stops["prefix_allowed_tokens_fn"] = lambda _, seen: self._next(seen[len(ids) :].tolist())
        with torch.inference_mode():
            found = self.model.generate(
                given, attention_mask=torch.ones_like(given), max_new_tokens=section.max_tokens, **drawn, **stops
            )
        return self.codec.decode(found[0, len(ids) :].tolist(), strings)[0]

    def _next(self, answer: list[int]) -> list[int]:
        """The tokens that the constraint allows after those of an answer."""
        assert self.constraint is not None
        walk = walk_of(self.constraint)
        for token in answer:
            walk.advance(token)
        return walk.allowed().tolist()

    def _verdict(self, row: Mapping[str, Any], answer: str) -> Verdict | None:
        if isinstance(self.verifier, ReviewingVerifier):
            return self.verifier.review(row, answer)
        if self.verifier is None:
            return None
        try:
            return self.verifier.verify_batch([VerifyItem(row, answer)])[0]
        except (DataError, KeyError):  # the verifier reads a column that only a data set has
            return None

    def _trained_on_chats(self) -> bool:
        data = self.config.data
        [first] = load.make_prompts(data, load.rows(data, data.train, "data.train")[:1], "data.train")
        return first.messages is not None


def open_column(section: DataSection, given: Mapping[str, Any]) -> str | None:
    """The column that the prompt's template leaves open; None for a configuration without a template.

    Raises:
        UserError: if there are several, or none.
    """
    text, chat = load.templates(section)
    if text is None and chat is None:
        return None
    texts = [text] if text is not None else [content for _, content in chat or ()]
    fields = dict.fromkeys(field for one in texts for _, field, _, _ in Formatter().parse(one) if field is not None)
    left = [field for field in fields if field not in given]
    if len(left) != 1:
        which = f"columns {', '.join(left)}" if left else "no column"
        raise UserError(f"data.template leaves {which} open, one is needed; give the others by --set column=value")
    return left[0]


def as_document(reply: Reply) -> dict[str, Any]:
    """A reply as plain data."""
    verdict = None if reply.verdict is None else asdict(reply.verdict)
    return {"text": reply.text, "verdict": verdict, "seconds": round(reply.seconds, 3)}


def render(reply: Reply) -> str:
    """A reply as text: a list item by item, each with its verdict, any other answer followed by its verdict and those
    of its parts, if there are some.
    """
    verdict = reply.verdict
    if verdict is None:
        return reply.text
    if not verdict.items or (verdict.assurance and "items" not in verdict.evidence):
        assurance = f", {verdict.assurance}" if verdict.assurance else ""
        parts = [
            f"  [{part.outcome}: {part.reason}] {reply.text[part.start : part.stop].splitlines()[0].strip()}"
            for part in verdict.items
        ]
        return "\n".join([reply.text, f"  [{verdict.outcome}: {verdict.reason}{assurance}]", *parts])
    names = verdict.evidence.get("items") or [None] * len(verdict.items)
    lines = []
    for place, (item, name) in enumerate(zip(verdict.items, names, strict=True), 1):
        title = name or reply.text[item.start : item.stop].strip()
        lines.append(f"{place:>3}. {title:<60} {item.reason.replace('_', ' ')}".rstrip())
    return "\n".join(lines)
