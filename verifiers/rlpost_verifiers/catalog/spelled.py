"""The items of a catalog as the token sequences that a list is made of, by their place in it.

A list is N items, one a line, and the token that ends the answer. What a tokenizer makes of a name depends on what
stands around it: the newline behind it, which may be merged with its last letters, and the newline before it, after
which some tokenizers write no space. So there are up to three spellings: of the first item, of the last, and of those
between.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlpost.decoding import AnswerTokens
from rlpost.errors import UserError
from rlpost_verifiers.catalog import trie
from rlpost_verifiers.catalog.trie import TokenTrie

RANK = "{rank}"
_ROLES = ("first", "between", "last")
_BATCH = 20_000
"""Texts that are tokenised at a time: the lists of Python integers take some 300 bytes a text."""
_TRIED = 64
"""Whole lists that are compared with the tokenizer's own tokens."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a list looks like.

    Attributes:
        size: number of items, at least 1.
        lead: what stands before each item; ``{rank}`` is its place, from 1.
    """

    size: int
    lead: str

    @property
    def number(self) -> str:
        """The part of ``lead`` that is tokenised by itself, because it differs from place to place; empty if none."""
        return self.lead.rstrip() if RANK in self.lead else ""

    @property
    def front(self) -> str:
        """The part of ``lead`` that is tokenised with the item."""
        return self.lead[len(self.number) :]

    def role(self, rank: int) -> str:
        """The spelling of the item at a place, from 0."""
        return "last" if rank == self.size - 1 else "first" if rank == 0 else "between"

    @property
    def roles(self) -> tuple[str, ...]:
        """The spellings that occur."""
        return tuple(role for role in _ROLES if role in {self.role(rank) for rank in range(self.size)})

    def before(self, rank: int) -> str:
        """What stands before the item at a place, from the end of the item before it on."""
        return ("\n" if rank else "") + self.number.replace(RANK, str(rank + 1))

    def text(self, names: Sequence[str]) -> str:
        """The list of these names."""
        return "\n".join(f"{self.lead.replace(RANK, str(place))}{name}" for place, name in enumerate(names, 1))


@dataclass(frozen=True, slots=True)
class Spelling:
    """The token sequences of n items, and their trie.

    Attributes:
        flat: ``[M]`` int32, the sequences, one after the other.
        starts: ``[n + 1]`` int64, where each begins.
        trie: their trie.
    """

    flat: np.ndarray
    starts: np.ndarray
    trie: TokenTrie

    @property
    def lengths(self) -> np.ndarray:
        """``[n]`` number of tokens of each item."""
        return np.diff(self.starts)


@dataclass(frozen=True, slots=True)
class SpelledCatalog:
    """The items of a catalog in tokens.

    Attributes:
        layout: what a list looks like.
        numbers: for each place the tokens ``[k]`` int32 of ``Layout.number``, and of the newline before it where the
            item before it does not hold that.
        spellings: the items by role.
        otherwise: share of whole lists that the tokenizer itself gives other tokens.
    """

    layout: Layout
    numbers: tuple[np.ndarray, ...]
    spellings: Mapping[str, Spelling]
    otherwise: float

    def at(self, rank: int) -> Spelling:
        """The items at a place, from 0."""
        return self.spellings[self.layout.role(rank)]

    def save(self, folder: Path) -> None:
        """Write the arrays."""
        for role, spelling in self.spellings.items():
            arrays = {"flat": spelling.flat, "starts": spelling.starts, **spelling.trie.arrays}
            for name, values in arrays.items():
                np.save(folder / f"{role}.{name}.npy", values)
        np.save(folder / "numbers.npy", np.concatenate([*self.numbers, np.zeros(0, np.int32)]))
        np.save(folder / "number_sizes.npy", np.array([len(one) for one in self.numbers]))
        np.save(folder / "otherwise.npy", np.array([self.otherwise]))

    @classmethod
    def mapped(cls, folder: Path, layout: Layout) -> SpelledCatalog:
        """The arrays that `save` wrote.

        Raises:
            OSError, ValueError: if files are missing or damaged.
        """

        def load(name: str) -> np.ndarray:
            return np.load(folder / f"{name}.npy", mmap_mode="r")

        spellings = {
            role: Spelling(
                load(f"{role}.flat"),
                load(f"{role}.starts"),
                TokenTrie({name: load(f"{role}.{name}") for name in trie.NAMES}),
            )
            for role in layout.roles
        }
        sizes = np.load(folder / "number_sizes.npy")
        numbers = np.split(np.load(folder / "numbers.npy"), np.cumsum(sizes)[:-1])
        return cls(layout, tuple(numbers), spellings, float(np.load(folder / "otherwise.npy")[0]))


def spell(names: Sequence[str], layout: Layout, tokens: AnswerTokens) -> SpelledCatalog:
    """Tokenise the items of a catalog.

    Args:
        names: the items as they are written, distinct, each on one line.
        layout: what a list looks like.
        tokens: the policy's tokenizer.

    Raises:
        UserError: for a name that does not read the same after it is tokenised.
    """
    numbers = tuple(
        np.array(_within(tokens, "\n" if rank else "", [layout.before(rank).removeprefix("\n")])[0], np.int32)
        if layout.number
        else np.zeros(0, np.int32)
        for rank in range(layout.size)
    )
    spellings: dict[str, Spelling] = {}
    for role in layout.roles:
        rank = {"first": 0, "between": 1, "last": layout.size - 1}[role]
        spellings[role] = _spelling(names, layout, rank, tokens)
    found = SpelledCatalog(layout, numbers, spellings, 0.0)
    return SpelledCatalog(layout, numbers, spellings, _compare(found, names, tokens))


def _spelling(names: Sequence[str], layout: Layout, rank: int, tokens: AnswerTokens) -> Spelling:
    """The items at a place of the list."""
    behind, last = ("", True) if rank == layout.size - 1 else ("\n", False)
    before, parts, sizes = layout.before(rank), list[np.ndarray](), [np.zeros(1, np.int64)]
    for begin in range(0, len(names), _BATCH):
        texts = [f"{layout.front}{name}{behind}" for name in names[begin : begin + _BATCH]]
        rows = _within(tokens, before, texts)
        _check(names[begin : begin + _BATCH], texts, rows, before, tokens)
        if last:
            rows = [[*row, tokens.end] for row in rows]
        sizes.append(np.array([len(row) for row in rows], np.int64))
        parts.append(np.array([token for row in rows for token in row], np.int32))
    flat, starts = np.concatenate(parts), np.cumsum(np.concatenate(sizes))
    try:
        return Spelling(flat, starts, trie.build(flat, starts))
    except ValueError as error:
        raise UserError(
            f"rollout.constraint: the tokenizer gives two items the same tokens ({error} of {len(names)} items); use "
            "another rollout.constraint.spell, or a tokenizer that tells them apart"
        ) from None


def _within(tokens: AnswerTokens, before: str, texts: Sequence[str]) -> list[list[int]]:
    """Tokens of texts as they are behind ``before``; as they are alone where a token would reach over the border."""
    if not before:
        return tokens.ids(texts)
    [base] = tokens.ids([before])
    whole = tokens.ids([before + text for text in texts])
    over = [place for place, row in enumerate(whole) if row[: len(base)] != base or len(row) == len(base)]
    found = [row[len(base) :] for row in whole]
    for place, row in zip(over, tokens.ids([texts[place] for place in over]), strict=True):
        found[place] = row
    return found


def _check(
    names: Sequence[str], texts: Sequence[str], rows: Sequence[Sequence[int]], before: str, tokens: AnswerTokens
) -> None:
    """Refuse items whose text is not what their tokens say."""
    [base] = tokens.ids([before]) if before else [[]]
    said = tokens.texts([[*base, *row] for row in rows])
    [start] = tokens.texts([base])
    wrong = [place for place, (text, read) in enumerate(zip(texts, said, strict=True)) if not _same(read, start + text)]
    if wrong:
        place = wrong[0]
        raise UserError(
            f"rollout.constraint: the tokenizer writes {names[place]!r} as {said[place][len(start) :].strip()!r} "
            f"({len(wrong)} items like it among the {len(texts)} first looked at); leave such items out of the "
            "catalog, or use a tokenizer that knows all letters (special tokens have no text: add semantic ids as "
            "ordinary tokens)"
        )


def _compare(found: SpelledCatalog, names: Sequence[str], tokens: AnswerTokens) -> float:
    """Share of drawn lists that the tokenizer gives other tokens than they have piece by piece.

    Raises:
        UserError: if such a list reads otherwise.
    """
    draw, other = random.Random(0), 0
    size = found.layout.size
    for _ in range(_TRIED):
        items = draw.sample(range(len(names)), size)
        text = found.layout.text([names[item] for item in items])
        ids: list[int] = []
        for rank, item in enumerate(items):
            spelling = found.at(rank)
            ids += [*found.numbers[rank], *spelling.flat[spelling.starts[item] : spelling.starts[item + 1]]]
        ids = [int(token) for token in ids[:-1]]
        [read], [own] = tokens.texts([ids]), tokens.ids([text])
        if not _same(read, text):
            raise UserError(
                f"rollout.constraint: a list whose items are tokenised one by one reads {read[:80]!r}, and should read "
                f"{text[:80]!r}; use another rollout.constraint.lead"
            )
        other += own != ids
    return other / _TRIED


def _same(one: str, other: str) -> bool:
    """Whether two texts are equal, in whatever form of Unicode."""
    return one == other or unicodedata.normalize("NFKC", one) == unicodedata.normalize("NFKC", other)
