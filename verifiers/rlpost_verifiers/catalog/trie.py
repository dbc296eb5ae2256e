r"""A trie over token sequences, as flat arrays: of a million sequences it takes some 100 MB and seconds to build.

The sequences are sorted, so the leaves below a node are a run of neighbours; nodes are numbered level by level, so a
node's children are a run of neighbours, too. With T nodes (node 0 is the root) over n sequences:

    token   int32[T]      token that leads to the node
    low     int32[T]      first leaf below it
    high    int32[T]      one past the last leaf below it
    first   int32[T + 1]  its first child; its children end where the next node's begin
    item    int32[n]      number of the sequence of each leaf
    leaf    int32[n]      leaf of each sequence
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

NAMES = ("token", "low", "high", "first", "item", "leaf")


class TokenTrie:
    """The arrays of a trie, and the questions that a walk asks.

    Args:
        arrays: as the module's docstring lists them.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self.arrays = dict(arrays)
        self.token = arrays["token"]
        # indexing a memoryview takes 40 ns, an array 100
        self._token, self._low, self._high = arrays["token"].data, arrays["low"].data, arrays["high"].data
        self._first, self._item, self._leaf = arrays["first"].data, arrays["item"].data, arrays["leaf"].data

    def __reduce__(self) -> tuple[type[TokenTrie], tuple[dict[str, np.ndarray]]]:
        return TokenTrie, (self.arrays,)

    def leaf_of(self, item: int) -> int:
        """The leaf of a sequence."""
        return self._leaf[item]

    def item_at(self, node: int) -> int | None:
        """The sequence that ends at a node; None if none does."""
        return self._item[self._low[node]] if self._first[node] == self._first[node + 1] else None

    def open_tokens(self, node: int, used: Sequence[int]) -> np.ndarray:
        """Tokens that lead from a node to a leaf that is not used, ascending.

        Args:
            node: the node.
            used: leaves that must not be reached, ascending.
        """
        begin, end = self._first[node], self._first[node + 1]
        tokens = self.token[begin:end]
        inside = used[bisect_left(used, self._low[node]) : bisect_left(used, self._high[node])] if used else ()
        if not inside:
            return tokens
        counts: dict[int, int] = {}
        for leaf in inside:
            child = bisect_right(self._low, leaf, begin, end) - 1
            counts[child] = counts.get(child, 0) + 1
        full = [child - begin for child, count in counts.items() if count == self._high[child] - self._low[child]]
        return np.delete(tokens, full) if full else tokens

    def child(self, node: int, token: int, used: Sequence[int]) -> int | None:
        """The node that a token leads to; None if there is none, or all leaves below it are used."""
        begin, end = self._first[node], self._first[node + 1]
        found = bisect_left(self._token, token, begin, end)
        if found == end or self._token[found] != token:
            return None
        low, high = self._low[found], self._high[found]
        taken = bisect_left(used, high) - bisect_left(used, low) if used else 0
        return found if taken < high - low else None


def build(flat: np.ndarray, starts: np.ndarray) -> TokenTrie:
    """The trie of n distinct sequences, of which none begins with another.

    Args:
        flat: ``[M]`` int32, the sequences' tokens, one sequence after the other.
        starts: ``[n + 1]`` int64, where each sequence begins in ``flat``, and where the last one ends.

    Raises:
        ValueError: for a sequence that is empty or begins another one; the message has their numbers.
    """
    order = _sorted(flat, starts)
    begin, length = starts[:-1][order], np.diff(starts)[order]
    if not length.size or not length.min():
        raise ValueError(f"sequence {order[0] if length.size else 0} is empty")
    parent, alive = np.zeros(len(order), np.int64), np.arange(len(order))
    tokens, lows, highs = [np.array([-1])], [np.array([0])], [np.array([len(order)])]
    above: list[np.ndarray] = []
    depth, made = 0, 1
    while alive.size:
        token, owner = flat[begin[alive] + depth], parent[alive]
        new = np.ones(len(alive), bool)
        new[1:] = (owner[1:] != owner[:-1]) | (token[1:] != token[:-1])
        heads = np.flatnonzero(new)
        last = alive[np.append(heads[1:], len(alive)) - 1]
        tokens.append(token[heads])
        lows.append(alive[heads])
        highs.append(last + 1)
        above.append(owner[heads])
        number = np.cumsum(new) - 1
        parent[alive] = made + number
        made += len(heads)
        depth += 1
        goes_on = length[alive] > depth
        sizes = last + 1 - alive[heads]
        if not (goes_on | (sizes[number] == 1)).all():
            at = int(alive[~goes_on & (sizes[number] > 1)][0])
            raise ValueError(f"sequence {order[at + 1]} begins with sequence {order[at]}")
        alive = alive[goes_on]
    first = np.searchsorted(np.concatenate(above), np.arange(made + 1)) + 1
    leaf = np.empty(len(order), np.int32)
    leaf[order] = np.arange(len(order), dtype=np.int32)
    parts = {"token": np.concatenate(tokens), "low": np.concatenate(lows), "high": np.concatenate(highs)}
    parts |= {"first": first, "item": order, "leaf": leaf}
    return TokenTrie({name: np.ascontiguousarray(parts[name], np.int32) for name in NAMES})


def _sorted(flat: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Numbers of the sequences in lexicographic order: big-endian bytes compare as the tokens do."""
    data, at = flat.astype(">u4").tobytes(), (starts * 4).tolist()
    keys = [data[one:other] for one, other in pairwise(at)]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
