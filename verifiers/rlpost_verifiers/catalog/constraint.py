"""Catalog-constrained decoding: an answer is a list of exactly N items of a catalog, no item twice."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import xxhash

from rlpost.decoding import AnswerTokens, refused
from rlpost.errors import ConstraintError, UserError
from rlpost_verifiers.catalog import spelled, trie
from rlpost_verifiers.catalog.cache import made_once
from rlpost_verifiers.catalog.items import Catalog, load_catalog
from rlpost_verifiers.catalog.spelled import RANK, Layout, SpelledCatalog, Spelling, spell

Spell = Literal["name", "title", "id"]
_MANY = 5000
"""Catalogs with more items are tokenised once for all processes of a node: below, it takes less than a second."""
_NOTHING = np.zeros(0, np.int32)


class CatalogList:
    """An answer is N lines, each with an item of the catalog that stands in no line before, and an end token.

    Implements `DecodingConstraint`, `WalkingConstraint` and `RemarkingConstraint` of `rlpost.decoding`. The likelihood
    of a list is that of its items one after the other: an item is taken with the probability that the policy gives its
    tokens among the items that are left (as in a Plackett-Luce model over token sequences).

    Args:
        tokens: the policy's tokenizer.
        catalog: path of a catalog file, or a loaded catalog, as of the verifier ``catalog``; None: the films that ship.
        columns: names of the file's columns, as there.
        items: use only the first ``items`` items of the catalog; None: all.
        size: N, number of items of an answer.
        spell: how an item is written: its ``name`` (``Title (Year)``), its ``title``, or its ``id``, as semantic ids
            such as ``<a_17><b_3>`` are. Items with one spelling are one item.
        lead: what stands before each item, such as ``- ``; ``{rank}`` is its place, from 1.

    Attributes:
        count: number of distinct items.
        layout: what a list looks like.
        spelled: the items in tokens.

    Raises:
        UserError: for a setting out of range, fewer than N distinct items, or a tokenizer that cannot write them.
        DataError: if the catalog cannot be read.
    """

    def __init__(
        self,
        tokens: AnswerTokens,
        catalog: str | Catalog | None = None,
        columns: Mapping[str, str] | None = None,
        items: int | None = None,
        size: int = 10,
        spell: Spell = "name",
        lead: str = "",
    ):
        _check_settings(size, spell, lead)
        whole = catalog if isinstance(catalog, Catalog) else load_catalog(catalog, columns)
        names = distinct(whole if items is None else whole.head(items), spell)
        if len(names) < size:
            raise UserError(
                f"rollout.constraint: size is {size}, and the catalog has {len(names)} distinct items; lower it, "
                "or give a larger catalog"
            )
        self.count, self.layout = len(names), Layout(size, lead)
        self.spelled = _spelled(names, self.layout, tokens)
        code = xxhash.xxh3_64_hexdigest(_key(names, self.layout, tokens))
        self._fingerprint = f"catalog_list/{code[:12]}"

    @property
    def fingerprint(self) -> str:
        """Hash of the items' spellings, the form of a list and the tokenizer."""
        return self._fingerprint

    @property
    def max_tokens(self) -> int:
        """Number of tokens of the longest list, the end token included; or more, where items differ by how much longer
        they are as first items than in between.
        """
        size, numbers = self.layout.size, sum(map(len, self.spelled.numbers))
        last = self.spelled.at(size - 1).lengths
        if size == 1:
            return numbers + int(last.max())
        before = self.spelled.at(0).lengths
        if size > 2:
            first, before = before, self.spelled.at(1).lengths
            numbers += int((first - before).max())
        order = np.argsort(-before, kind="stable")[:size]
        most = np.full(len(before), before[order[: size - 1]].sum())
        most[order[: size - 1]] += before[order[size - 1]] - before[order[: size - 1]]  # the last stands once
        return numbers + int((most + last).max())

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        share = self.spelled.otherwise
        if not share:
            return ()
        return (
            f"{share:.0%} of lists have other tokens than the tokenizer gives their text, because it joins characters "
            "over the borders of items; a policy that learned from texts gives them less probability (another "
            "rollout.constraint.lead may avoid that)",
        )

    def allowed(self, prefix: Sequence[int]) -> np.ndarray:
        """See `rlpost.decoding.DecodingConstraint`: the items that are left are looked through one by one."""
        rest, used = np.asarray(prefix, np.int64), list[int]()
        for rank in range(self.layout.size):
            number = self.spelled.numbers[rank]
            common = min(len(number), len(rest))
            if (rest[:common] != number[:common]).any():
                raise refused(number.tolist())
            if common < len(number):
                return number[common : common + 1]
            spelling, rest = self.spelled.at(rank), rest[common:]
            item, taken, following = _scan(spelling, rest, used)
            if item is None:
                return following
            used.append(item)
            rest = rest[taken:]
        if len(rest):
            raise refused([])
        return _NOTHING

    def walk(self) -> ListWalk:
        """See `rlpost.decoding.WalkingConstraint`."""
        return ListWalk(self.spelled)


class ListWalk:
    """The state of one answer; see `rlpost.decoding.Walk`."""

    __slots__ = ("_items", "_node", "_number", "_rank", "_spelled", "_step", "_trie", "_used")

    def __init__(self, spelled: SpelledCatalog):
        self._spelled, self._items = spelled, list[int]()
        self._rank = -1
        self._begin()

    def allowed(self) -> np.ndarray:
        """See `rlpost.decoding.Walk`."""
        if self._step < len(self._number):
            return self._number[self._step : self._step + 1]
        if self._trie is None:
            return _NOTHING
        return self._trie.open_tokens(self._node, self._used)

    def advance(self, token: int) -> None:
        """See `rlpost.decoding.Walk`."""
        if self._step < len(self._number):
            if token != self._number[self._step]:
                raise refused(self.allowed().tolist())
            self._step += 1
            return
        child = None if self._trie is None else self._trie.child(self._node, token, self._used)
        if self._trie is None or child is None:
            raise refused(self.allowed().tolist())
        self._node = child
        item = self._trie.item_at(child)
        if item is not None:
            self._items.append(item)
            self._begin()

    def _begin(self) -> None:
        """Go on to the next place of the list."""
        self._rank += 1
        self._node = self._step = 0
        if self._rank == self._spelled.layout.size:
            self._trie, self._number = None, _NOTHING
            return
        self._number = self._spelled.numbers[self._rank]
        self._trie = self._spelled.at(self._rank).trie
        self._used: list[int] = []
        for item in self._items:
            insort(self._used, self._trie.leaf_of(item))


def distinct(catalog: Catalog, how: Spell) -> list[str]:
    """The items of a catalog as they are written, on one line each, every spelling once."""
    store = catalog.store

    def written() -> Iterator[str]:
        if how == "id":
            yield from (item.id for item in catalog.items)
        else:
            yield from map(store.name if how == "name" else store.title, range(len(store)))

    return [name for name in dict.fromkeys(" ".join(text.split()) for text in written()) if name]


def _check_settings(size: int, how: str, lead: str) -> None:
    if size < 1:
        raise UserError(f"rollout.constraint: size is {size}; give 1 or more items")
    if how not in ("name", "title", "id"):
        raise UserError(f"rollout.constraint: spell is {how!r}; use 'name', 'title' or 'id'")
    if any(letter in lead for letter in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"):
        raise UserError(f"rollout.constraint: lead is {lead!r}; an item and what stands before it are one line")
    if lead.count(RANK) > 1 or ("{" in lead.replace(RANK, "")):
        raise UserError(f"rollout.constraint: lead is {lead!r}; its one field is {RANK}, once")


def _scan(spelling: Spelling, rest: np.ndarray, used: Sequence[int]) -> tuple[int | None, int, np.ndarray]:
    """Read one item from the tokens of an answer.

    Returns:
        The item and its number of tokens; or None, 0 and the tokens that may come next where the answer ends before.
    """
    flat, starts = spelling.flat, spelling.starts
    left = np.setdiff1d(np.arange(len(starts) - 1), used)
    for depth in range(len(rest) + 1):
        whole = left[starts[left + 1] - starts[left] == depth]
        if len(whole):
            return int(whole[0]), depth, _NOTHING
        following = flat[starts[left] + depth]
        if depth == len(rest):
            return None, 0, np.unique(following)
        left = left[following == rest[depth]]
        if not len(left):
            raise refused(np.unique(following).tolist())
    raise ConstraintError("an answer was not read to its end")  # unreachable: the loop returns at its last depth


def _spelled(names: Sequence[str], layout: Layout, tokens: AnswerTokens) -> SpelledCatalog:
    """The items in tokens; of a large catalog from the cache folder."""
    if len(names) <= _MANY:
        return spell(names, layout, tokens)
    return made_once(
        f"spelled-{xxhash.xxh3_128_hexdigest(_key(names, layout, tokens))}",
        lambda folder: spell(names, layout, tokens).save(folder),
        lambda folder: SpelledCatalog.mapped(folder, layout),
    )


def _key(names: Sequence[str], layout: Layout, tokens: AnswerTokens) -> bytes:
    """What the token sequences depend on; the number of items only by the roles that it gives."""
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in (trie, spelled))
    told = f"{layout.size} {layout.lead!r} {tokens.fingerprint} {tokens.end}\n" + "\n".join(names)
    return told.encode("utf-8", "surrogatepass") + code


__all__ = ["CatalogList", "ListWalk", "distinct"]
