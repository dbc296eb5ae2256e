"""Text to token ids and back: the only module that does either."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlpost.data.chat_template import render_messages, turn_tail
from rlpost.data.dialogue import ChatDialogue, TextDialogue
from rlpost.data.models import GENERATION
from rlpost.data.quoted import Quotation
from rlpost.data.spans import token_spans
from rlpost.data.text import checked, shown
from rlpost.errors import ConfigError, DataError, ModelError, describe_error
from rlpost.types import Prompt


class TextCodec:
    """A model's tokenizer, with the two operations the loop needs.

    Args:
        folder: a Hugging Face model folder with a fast tokenizer.
        trust_remote_code: run tokenizer code found in the folder.
        special_tokens: put the tokenizer's special tokens before text prompts.

    Raises:
        ModelError: if there is no fast tokenizer in the folder.
    """

    def __init__(self, folder: str | Path, trust_remote_code: bool = False, special_tokens: bool = True):
        from transformers import AutoTokenizer

        self.folder, self.special_tokens = folder, special_tokens
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
        except Exception as error:  # of many types: a damaged file fails in transformers, in tokenizers or between them
            raise ModelError(f"model.path: no tokenizer in {folder} ({describe_error(error)})") from None
        if not getattr(self.tokenizer, "is_fast", False):
            raise ModelError(f"model.path: {folder} has no fast tokenizer (tokenizer.json), which offsets need")
        added = {id: str(token) for id, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        named = zip(self.tokenizer.all_special_ids, self.tokenizer.all_special_tokens, strict=True)
        self.special: dict[int, str] = {id: text for id, text in {**added, **dict(named)}.items() if text}
        """Special tokens by id: they have no text of their own in what is decoded."""

    def encode(self, prompt: Prompt, quotation: Quotation | None = None) -> tuple[int, ...]:
        """Token ids of a prompt.

        Special tokens that ``quotation`` has marked in it are text.

        Chat messages go through the tokenizer's chat template with the generation prompt added; plain text is
        tokenised with the special tokens the tokenizer puts before a sequence (if wanted), but none at its end. A text
        that begins with the BOS token is taken to have all that it needs, and gets no second one.

        Raises:
            DataError: for chat messages if the tokenizer has no chat template or that refuses them, for text that the
                tokenizer cannot take, or if there are no tokens.
        """
        name = f"prompt {shown(prompt.id)}"
        if prompt.messages is not None:
            ids = self._ids(render_messages(self.tokenizer, prompt), name, quotation)
        else:
            assert prompt.text is not None
            ids = self._ids(prompt.text, name, quotation)
            bos = self.tokenizer.bos_token
            if self.special_tokens and ids and not (bos and prompt.text.lstrip().startswith(bos)):
                ids = self._with_special(prompt.text, ids, quotation)
        if not ids:
            raise DataError(f"{name} is empty after tokenisation; give it some text")
        return ids

    def missing_ids(self, rows: int) -> list[int]:
        """Ids below ``rows`` that stand for no token, ascending.

        Models often have more rows of embeddings than their tokenizer has tokens (rounded up for the hardware), and
        some vocabularies have holes. Such an id has a probability, but no text: it decodes to nothing.

        Args:
            rows: number of rows of the model's output head.
        """
        known = set(self.tokenizer.get_vocab().values())
        return [token for token in range(rows) if token not in known]

    def dialogue(self, prompt: Prompt) -> TextDialogue | ChatDialogue:
        """The dialogue that begins with a prompt; it makes the tokens of an environment's observations."""
        if prompt.messages is not None:
            return ChatDialogue(self.tokenizer, prompt, self.special)
        return TextDialogue(self.tokenizer)

    def encode_target(self, text: str) -> tuple[int, ...]:
        """Token ids of a target completion for supervised training, the end-of-sequence token included.

        Raises:
            DataError: for text that the tokenizer cannot take.
            ModelError: if the tokenizer has no end token.
        """
        if self.tokenizer.eos_token_id is None:
            raise ModelError(f"model.path: the tokenizer of {self.folder} has no end token; {_SET_END}")
        return (*self._ids(text, f"the target {shown(text)}"), int(self.tokenizer.eos_token_id))

    def encode_opening(self, text: str) -> tuple[int, ...]:
        """Token ids of the text with which an answer is made to begin, without special tokens.

        Raises:
            DataError: for text that the tokenizer cannot take, or has no token for.
        """
        ids = self._ids(text, f"the opening {shown(text)}")
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown in ids:
            raise DataError(f"the vocabulary of {self.folder} has no token for some of {shown(text)}")
        return ids

    def stop_tokens(self, stop: Sequence[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Stop strings as an engine needs them: ids of those that are special tokens, and those that are text.

        Special tokens are left out of what is decoded, so an engine that looks for their text never finds it.

        Raises:
            ConfigError: for a string that has a special token and other characters.
        """
        known = {text: token for token, text in self.special.items()}
        for one in stop:
            inside = next((text for text in known if text in one and text != one), None) if one not in known else None
            if inside:
                raise ConfigError(
                    f"rollout.stop: {one!r} never stands in an answer's text, because {inside!r} is a special token; "
                    f"give {inside!r} alone"
                )
        return tuple(known[one] for one in stop if one in known), tuple(one for one in stop if one not in known)

    def end_token(self, stop: Sequence[str]) -> int:
        """The token that ends an answer: the first special token among the stop strings, else the tokenizer's end
        token, else the first that the model folder's configuration names.

        Raises:
            ModelError: if there is none.
            ConfigError: as `stop_tokens`.
        """
        named, own = self.stop_tokens(stop)[0], self.tokenizer.eos_token_id
        folder = Path(self.folder)
        listed = sorted(_ends(folder / GENERATION, folder / "config.json"))
        known = [*named, *([] if own is None else [int(own)]), *listed]
        if not known:
            raise ModelError(
                f"model.path: no token ends an answer, the tokenizer of {folder} has no end token; {_SET_END}"
            )
        return known[0]

    def encode_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text and nothing else.

        Raises:
            DataError: for a text that the tokenizer cannot take.
        """
        if not texts:
            return []
        try:
            return [list(row) for row in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
        except Exception:  # the single texts say which it is
            return [list(self._ids(text, shown(text))) for text in texts]

    def decode_texts(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of each row of token ids, as `text` gives it."""
        known = [[token for token in row if token not in self.special] for row in ids]
        return list(map(str, self.tokenizer.backend_tokenizer.decode_batch(known, skip_special_tokens=True)))

    def check_end(self, stop: Sequence[str]) -> None:
        """Verify that something ends an answer: the tokenizer's end token, one that the model folder's configuration
        names, or a stop string.

        Raises:
            ModelError: if nothing does; every answer would be cut at its limit.
            ConfigError: as `stop_tokens`.
        """
        if any(self.stop_tokens(stop)) or self.tokenizer.eos_token_id is not None:
            return
        if not _ends(Path(self.folder) / GENERATION, Path(self.folder) / "config.json"):
            raise ModelError(
                f"model.path: nothing ends an answer, the tokenizer of {self.folder} has no end token; {_SET_END}, or "
                "set rollout.stop"
            )

    def unheeded_turn_end(self, prompt: Prompt, stop: Sequence[str]) -> str | None:
        """A line on the special token with which the chat template ends the assistant's turn, if that ends no answer;
        base models often have such a template. None if all is well.

        Args:
            prompt: one of the prompts.
            stop: ``rollout.stop``.
        """
        if prompt.messages is None or not self.tokenizer.chat_template:
            return None
        tail = turn_tail(self.tokenizer, prompt)
        end = next(((token, text) for token, text in self.special.items() if text and tail.startswith(text)), None)
        folder = Path(self.folder)
        ends = {self.tokenizer.eos_token_id, *_ends(folder / GENERATION, folder / "config.json")}
        if end is None or end[0] in ends or end[1] in stop:
            return None
        return (
            f"the chat template ends the assistant's turn with {end[1]!r}, which ends no answer (the end token is "
            f"{self.tokenizer.eos_token!r}); if the model writes it, set rollout.stop to it"
        )

    def text(self, ids: Sequence[int], stop: Sequence[str] = ()) -> str:
        """The text that `decode` gives, several times faster, without the spans."""
        text = self._text([token for token in ids if token not in self.special])
        return text[: _first(text, stop)]

    def decode(self, ids: Sequence[int], stop: Sequence[str] = ()) -> tuple[str, tuple[tuple[int, int], ...]]:
        """Text of sampled ids without special tokens, and the character span of each id.

        The text is the tokenizer's of all ids together; bytes that are no character are replacement characters in it.
        Tokens that together make one character (bytes of a multi-byte letter) share its span. Text from the first
        stop string on is cut off; tokens after the cut have a zero-length span at its end.

        Args:
            ids: sampled token ids.
            stop: strings that end a completion.

        Returns:
            The text, and half-open spans parallel to ``ids``, in order.
        """
        known = [token for token in ids if token not in self.special]
        text = self._text(known)
        own = [*token_spans(known, text, self._text), (len(text), len(text))]
        spans: list[tuple[int, int]] = []
        place = 0
        for token in ids:
            silent = token in self.special
            spans.append((own[place][0], own[place][0]) if silent else own[place])
            place += not silent
        end = _first(text, stop)
        return text[:end], tuple((min(a, end), min(b, end)) for a, b in spans)

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=True))

    def _ids(self, text: str, name: str, quotation: Quotation | None = None) -> tuple[int, ...]:
        """Token ids of a text and nothing else."""
        checked(text, name)
        try:
            if quotation is not None:
                return tuple(quotation.ids(self.tokenizer, text))
            return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        except Exception as error:  # tokenizers raises bare exceptions, as for a letter without a token
            raise DataError(f"{name}: the tokenizer cannot take it ({describe_error(error)}); mend the text") from None

    def _with_special(self, text: str, bare: tuple[int, ...], quotation: Quotation | None = None) -> tuple[int, ...]:
        """The ids of a text after the special tokens that the tokenizer puts before it, if the text does not begin with
        them, and without those that it puts after the text.
        """
        if quotation is not None:  # what stands before a text does not depend on it
            plain = self._ids("a", "a text")
            before = self._with_special("a", plain)[: -len(plain)]
            return bare if bare[: len(before)] == before else (*before, *bare)
        whole = tuple(self.tokenizer(text, add_special_tokens=True)["input_ids"])
        for at in range(len(whole) - len(bare) + 1):
            if whole[at : at + len(bare)] == bare:
                return bare if bare[:at] == whole[:at] else whole[: at + len(bare)]
        return whole[:-1] if whole and whole[-1] == self.tokenizer.eos_token_id else whole


_SET_END = "set eos_token in its tokenizer_config.json"


def _ends(*files: Path) -> set[int]:
    """The end tokens that a model folder's configuration names."""
    found: set[int] = set()
    for file in files:
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, OSError):  # missing, or damaged: loading the model says so
            continue
        named = values.get("eos_token_id") if isinstance(values, dict) else None
        found.update(one for one in (named if isinstance(named, list) else [named]) if isinstance(one, int))
    return found


def _first(text: str, stop: Sequence[str]) -> int:
    """Place of the first stop string in a text; its length if there is none."""
    return min((at for at in (text.find(one) for one in stop) if at >= 0), default=len(text))
