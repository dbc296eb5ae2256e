"""A byte-level BPE tokenizer made from a corpus, whose pieces may be phrases: short sequences for small models."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rlpost.data.wordlevel import END, PAD, padded

_LINE = r"[^\n]*\n|[^\n]+"
"""Pieces stay within a line, its newline included, so that lines with rewards of their own share no token."""
_FEWEST = 320
"""256 bytes and some pieces."""


def build(texts: Iterable[str], folder: str | Path, max_length: int, vocabulary: int) -> int:
    """Write a tokenizer by byte-pair encoding (Sennrich et al. 2016) that does not stop at the borders of words.

    It can encode every text: whatever has no piece of its own is spelled in bytes.

    Args:
        texts: the corpus that pieces are learned from.
        folder: target folder of the Hugging Face tokenizer files.
        max_length: longest sequence of the model, in tokens.
        vocabulary: number of pieces, bytes included; at least 320. A small corpus may yield fewer.

    Returns:
        The vocabulary's size, a multiple of 64 (vLLM pads to it; unused ids fill up).

    Raises:
        ValueError: for fewer than 320 pieces.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if vocabulary < _FEWEST:
        raise ValueError(f"vocabulary is {vocabulary}; 256 bytes and some pieces need {_FEWEST} at least")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LINE), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    known = backend.get_vocab_size()
    size = padded(known)
    backend.add_tokens([AddedToken(f"<unused{i}>", normalized=False) for i in range(size - known)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PAD, eos_token=END, model_max_length=max_length
    )
    tokenizer.save_pretrained(str(folder))
    return size
