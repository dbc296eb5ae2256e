"""A small lossless tokenizer made from a corpus, for models trained from scratch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

PAD, UNKNOWN, END = "<pad>", "<unk>", "<eos>"

_PIECE = r" ?(?:[A-Za-z_][A-Za-z0-9_']*|[0-9]+|:=|=>|[^\sA-Za-z0-9_])|\s"
"""A word, number or symbol with the space before it: the pieces of a text, joined, are the text again."""


def padded(size: int) -> int:
    """The next multiple of 64, to which vLLM pads a vocabulary."""
    return -(-size // 64) * 64


def build(texts: Iterable[str], folder: str | Path, max_length: int) -> int:
    """Write a tokenizer whose vocabulary is the pieces of ``texts``.

    Args:
        texts: the corpus; other words become ``<unk>``.
        folder: target folder of the Hugging Face tokenizer files.
        max_length: longest sequence of the model, in tokens.

    Returns:
        The vocabulary's size, a multiple of 64 (vLLM pads to it; unused ids fill up).
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = sorted({piece for text in texts for piece in re.findall(_PIECE, text)})
    names = [PAD, UNKNOWN, END, *pieces]
    size = padded(len(names))
    names += [f"<unused{i}>" for i in range(size - len(names))]
    backend = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECE), "isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PAD, unk_token=UNKNOWN, eos_token=END, model_max_length=max_length
    )
    tokenizer.save_pretrained(str(folder))
    return size
