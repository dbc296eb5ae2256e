"""Text to token ids and back: the only module that does either."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlpost.data.chat_template import render_messages
from rlpost.data.dialogue import ChatDialogue, TextDialogue
from rlpost.errors import DataError, ModelError, first_line
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

        self.special_tokens = special_tokens
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
        except (OSError, ValueError) as error:
            raise ModelError(f"model.path: no tokenizer in {folder} ({first_line(error)})") from None
        if not getattr(self.tokenizer, "is_fast", False):
            raise ModelError(f"model.path: {folder} has no fast tokenizer (tokenizer.json), which offsets need")
        self._special = frozenset(self.tokenizer.all_special_ids)

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids of a prompt.

        Chat messages go through the tokenizer's chat template with the generation prompt added; plain text is
        tokenised with the special tokens the tokenizer adds to a sequence's start (if wanted), but none at its end.

        Raises:
            DataError: for chat messages if the tokenizer has no chat template, or if there are no tokens.
        """
        if prompt.messages is not None:
            text = render_messages(self.tokenizer, prompt)
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            ids = self.tokenizer(prompt.text, add_special_tokens=self.special_tokens)["input_ids"]
            if self.special_tokens and ids and ids[-1] == self.tokenizer.eos_token_id:
                ids = ids[:-1]
        if not ids:
            raise DataError(f"prompt {prompt.id!r} is empty after tokenisation; give it some text")
        return tuple(ids)

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
            return ChatDialogue(self.tokenizer, prompt)
        return TextDialogue(self.tokenizer)

    def encode_target(self, text: str) -> tuple[int, ...]:
        """Token ids of a target completion for supervised training, the end-of-sequence token included."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return (*ids, self.tokenizer.eos_token_id)

    def text(self, ids: Sequence[int], stop: Sequence[str] = ()) -> str:
        """The text that `decode` gives, several times faster, without the spans."""
        known = ids[:-1] if ids and ids[-1] in self._special else ids
        if not self._special.isdisjoint(known):  # rare: mostly the end token alone is special
            known = [token for token in known if token not in self._special]
        text = self.tokenizer.backend_tokenizer.decode(list(known), skip_special_tokens=True)
        if "\N{REPLACEMENT CHARACTER}" in text:  # bytes that are no character: there the two ways differ
            return self.decode(ids, stop)[0]
        return text[: _first(text, stop)]

    def decode(self, ids: Sequence[int], stop: Sequence[str] = ()) -> tuple[str, tuple[tuple[int, int], ...]]:
        """Text of sampled ids without special tokens, and the character span of each id.

        Tokens that together make one character (bytes of a multi-byte letter) share its span. Text from the first
        stop string on is cut off; tokens after the cut have a zero-length span at its end.

        Args:
            ids: sampled token ids.
            stop: strings that end a completion.

        Returns:
            The text, and half-open spans parallel to ``ids``, in order.
        """
        from tokenizers.decoders import DecodeStream

        backend, stream = self.tokenizer.backend_tokenizer, DecodeStream(skip_special_tokens=True)
        text, spans = "", [(0, 0)] * len(ids)
        run: list[int] = []  # positions of the tokens since the last piece of text, special ones left out
        for position, token in enumerate(ids):
            spans[position] = (len(text), len(text))
            if token in self._special:
                continue
            try:
                piece = stream.step(backend, token)
            except Exception as error:
                if "Invalid prefix" not in str(error):
                    raise
                # bytes that are no character stand before a letter: end them, and go on with the letter
                text, stream = self._placed(ids, run, text, spans), DecodeStream(skip_special_tokens=True)
                run, piece = [], stream.step(backend, token)
            run.append(position)
            if piece:
                text, run = self._placed(ids, run, text, spans, piece), []
        spans = [(min(a, len(text)), min(b, len(text))) for a, b in spans]
        end = _first(text, stop)
        if end < len(text):
            spans = [(min(a, end), min(b, end)) for a, b in spans]
        return text[:end], tuple(spans)

    def _placed(
        self, ids: Sequence[int], run: Sequence[int], text: str, spans: list[tuple[int, int]], piece: str | None = None
    ) -> str:
        """The text with the piece that the tokens at ``run`` make, whose spans are filled in; None decodes them."""
        tokens = [ids[i] for i in run]
        if piece is None:
            piece = str(self.tokenizer.backend_tokenizer.decode(tokens, skip_special_tokens=True))
        for place, (start, stop) in zip(run, self._split(tokens, piece), strict=True):
            spans[place] = (len(text) + start, len(text) + stop)
        return text + piece

    def _split(self, tokens: Sequence[int], piece: str) -> list[tuple[int, int]]:
        """Spans of tokens that only together made ``piece``: where one ends inside a character, both share it."""
        done, unfinished, spans = 0, False, []
        for size in range(1, len(tokens)):
            known = self.tokenizer.backend_tokenizer.decode(list(tokens[:size]), skip_special_tokens=True)
            whole = known.rstrip("\N{REPLACEMENT CHARACTER}")
            unfinished = known != whole
            spans.append((done, len(whole) + unfinished))
            done = len(whole)
        return [*spans, (done, len(piece))]


def _first(text: str, stop: Sequence[str]) -> int:
    """Place of the first stop string in a text; its length if there is none."""
    return min((at for at in (text.find(one) for one in stop) if at >= 0), default=len(text))
