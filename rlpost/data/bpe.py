"""A byte-level BPE tokenizer made from a corpus, whose pieces may be phrases: short sequences for small models."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rlpost.data.wordlevel import END, PAD, padded

_LINE = r"[^\n]*\n|[^\n]+"
"""Pieces stay within a line, its newline included, so that lines with rewards of their own share no token."""
_SENTENCE = r"[^.?!\n]*[.?!\n]\s?|[^.?!\n]+"
"""With whole lines as pieces, the others stay within a sentence: a phrase has few spellings then."""
_FEWEST = 320
"""256 bytes and some pieces."""


def build(
    texts: Iterable[str], folder: str | Path, max_length: int, vocabulary: int, whole_lines: Sequence[str] = ()
) -> int:
    """Write a tokenizer by byte-pair encoding (Sennrich et al. 2016) that does not stop at the borders of words.

    It can encode every text: whatever has no piece of its own is spelled in bytes.

    Args:
        texts: the corpus that pieces are learned from.
        folder: target folder of the Hugging Face tokenizer files.
        max_length: longest sequence of the model, in tokens.
        vocabulary: number of pieces, bytes included; at least 320. A small corpus may yield fewer.
        whole_lines: lines that are a piece wherever they occur, and another with the line break behind them, such as
            the items of a catalog: in a list an item is then one token, first or last, and in a prompt another.

    Returns:
        The vocabulary's size, a multiple of 64 (vLLM pads to it; unused ids fill up).

    Raises:
        ValueError: for fewer than 320 pieces besides the whole lines.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    learned = vocabulary - 2 * len(whole_lines)
    if learned < _FEWEST:
        lines = f" and {len(whole_lines)} whole lines {2 * len(whole_lines)} more" if whole_lines else ""
        raise ValueError(f"vocabulary is {vocabulary}; 256 bytes and some pieces need {_FEWEST} at least{lines}")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SENTENCE if whole_lines else _LINE), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=learned,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_without(texts, whole_lines), trainer)
    pieces = [*(f"{line}\n" for line in whole_lines), *whole_lines]
    backend.add_tokens([AddedToken(piece, normalized=False) for piece in pieces])
    known = backend.get_vocab_size()
    size = padded(known)
    backend.add_tokens([AddedToken(f"<unused{i}>", normalized=False) for i in range(size - known)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PAD, eos_token=END, model_max_length=max_length
    )
    tokenizer.save_pretrained(str(folder))
    return size


def frequent_lines(texts: Iterable[str], count: int) -> list[str]:
    """The ``count`` most frequent lines, the most frequent first, those of equal frequency as they come; empty ones do
    not count.
    """
    lines = Counter(line for text in texts for line in text.split("\n") if line.strip())
    return [line for line, _ in lines.most_common(count)]


def _without(texts: Iterable[str], whole_lines: Sequence[str]) -> Iterable[str]:
    """What is left of the texts between the whole lines: no piece is wasted on parts of them."""
    if not whole_lines:
        return texts
    longest_first = sorted(whole_lines, key=len, reverse=True)
    cut = re.compile("|".join(map(re.escape, longest_first)))
    return [part for text in texts for part in cut.split(text) if part]
