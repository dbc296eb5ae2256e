"""The items of a catalog that fit a text best, by words or by vectors; the only use of bm25s for catalogs.

words     BM25 (Robertson and Zaragoza 2009, as Lucene computes it) of the text's words in names, aliases and
          attributes of the items, in the canonical form of titles
vectors   cosine similarity of the text to what `embedding.describe` says of the items
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

import numpy as np

from rlpost.errors import MissingPackageError
from rlpost_verifiers.catalog.embedding import describe
from rlpost_verifiers.catalog.items import Catalog, Item
from rlpost_verifiers.catalog.names import canonical
from rlpost_verifiers.catalog.streamed import StreamedScores
from rlpost_verifiers.catalog.vectors import Embed, item_vectors


class Retriever(Protocol):
    """Finds items for texts."""

    def best(self, texts: Sequence[str], size: int, left_out: Sequence[Collection[int]]) -> list[list[int]]:
        """Numbers of up to ``size`` items for each text, best first; ties in the catalog's order.

        Args:
            texts: what is looked for.
            size: most items of each.
            left_out: items that may not be found, for each text.
        """
        ...


class Bm25:
    """Retrieval by words. Only items that share a word with the text are found.

    Args:
        catalog: the items.

    Raises:
        MissingPackageError: if bm25s is not installed.
    """

    def __init__(self, catalog: Catalog):
        try:
            import bm25s
        except ImportError as error:
            raise MissingPackageError(f"retrieval: needs bm25s ({error}); pip install 'rlpost[retrieval]'") from error
        self._index: Any = bm25s.BM25(method="lucene")
        numbers: dict[str, int] = {}
        # of each word one number is kept, not a text per item that has it
        words = [[numbers.setdefault(word, len(numbers)) for word in _words(item)] for item in catalog.items]
        self._numbers = numbers
        self._index.index((words, numbers), show_progress=False)

    def best(self, texts: Sequence[str], size: int, left_out: Sequence[Collection[int]]) -> list[list[int]]:
        """See `Retriever.best`."""
        return [self._found(text, size, out) for text, out in zip(texts, left_out, strict=True)]

    def _found(self, text: str, size: int, out: Collection[int]) -> list[int]:
        asked = dict.fromkeys(canonical(text).split())
        known = [self._numbers[word] for word in asked if word in self._numbers]
        if not known:
            return []
        scores = np.array(self._index.get_scores_from_ids(known))
        scores[list(out)] = 0.0
        places = np.flatnonzero(scores > 0)
        if len(places) > size:
            least = np.partition(scores[places], len(places) - size)[len(places) - size]
            places = places[scores[places] >= least]
        return places[np.argsort(-scores[places], kind="stable")][:size].tolist()


class Embedded:
    """Retrieval by vectors.

    Args:
        catalog: the items.
        embed: maps n texts to unit vectors ``[n, d]``.
    """

    def __init__(self, catalog: Catalog, embed: Embed):
        self._items, self._embed = item_vectors(catalog.items, embed), embed

    def best(self, texts: Sequence[str], size: int, left_out: Sequence[Collection[int]]) -> list[list[int]]:
        """See `Retriever.best`."""
        if not texts:
            return []
        scores = StreamedScores(self._items, np.asarray(self._embed(texts), np.float32), [{}] * len(texts))
        return scores.best(range(len(texts)), size, left_out)


def _words(item: Item) -> list[str]:
    names = " ".join((describe(item), *item.aliases, *_listed(item)))
    return canonical(f"x {names}").split()[1:]


def _listed(item: Item) -> list[str]:
    """Texts in attributes that are lists, such as several genres."""
    cells = [cell for cell in item.attributes.values() if isinstance(cell, (list, tuple))]
    return [text for cell in cells for text in cell if isinstance(text, str)]
