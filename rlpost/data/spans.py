"""Character spans of tokens: which part of a decoded text each token wrote, whatever the decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What decoders write for bytes that are no character, or not yet one."""

Span = tuple[int, int]

_LONGEST_RUN = 64
"""Tokens of broken bytes that are decoded together; beyond, two that share one replacement character may not share a
span."""


def token_spans(tokens: Sequence[int], text: str, decode: Callable[[Sequence[int]], str]) -> list[Span]:
    """Half-open spans of ``text``, one for each token, in order of their starts; together they cover the text.

    A decoder's text of some tokens need not begin with its text of fewer: bytes become a character, or (with the
    byte-fallback decoders of Gemma's and Llama 2's tokenizers) letters become replacement characters when a later byte
    breaks their run. So the text of all tokens is taken as given, and the text of the tokens up to each is compared
    with it: as far as the two agree, it is written. Tokens are decoded from the last one after which the two agreed
    wholly, so the cost is linear in the number of tokens.

    Args:
        tokens: token ids, no special ones.
        text: the text of all tokens together.
        decode: text of tokens.

    Returns:
        Spans parallel to ``tokens``. Where a token ends inside a character, it and those that end the character share
        it. A token without text has an empty span.
    """
    spans: list[Span] = []
    written = anchor = before = 0  # characters; the tokens whose text is known begin at `before`, and end at `anchor`
    known, at = "", 0  # their text, and where the text after it begins
    for number in range(len(tokens)):
        piece = decode(tokens[before : number + 1])[len(known) :]
        agreed = _agreed(piece, text, at)
        start, written = written, max(written, at + agreed)
        if number == len(tokens) - 1:
            written = len(text)
        open_end = written < len(text) and len(piece) > agreed
        if start == written and not open_end and start and piece.endswith(BROKEN):
            start -= 1  # one more byte of what is a single replacement character
        spans.append((max(start, spans[-1][0]) if spans else start, written + open_end))
        long = number - before > _LONGEST_RUN
        if piece and text.startswith(piece, at) and (long or not piece.endswith(BROKEN)):
            before, anchor, at = anchor, number + 1, written
            known = decode(tokens[before:anchor])
    return spans


def _agreed(piece: str, text: str, at: int) -> int:
    """Number of characters of a piece that are those of the text from a place on; a replacement character of the text
    agrees with any, which is what became of it.
    """
    size = 0
    for mine, final in zip(piece, text[at : at + len(piece)], strict=False):
        if mine != final and final != BROKEN:
            break
        size += 1
    return size
