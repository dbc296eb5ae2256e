"""Texts that stay undecided again and again, where a policy could hide: an undecided answer costs it nothing."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

_SHOWN = 60
"""Characters of a text in the log."""
_NOTED = 3
"""Equal undecided answers of one batch that are told; a text in a second batch is always told."""


class UndecidedTexts:
    """The undecided answers of the last batches, by what they say.

    Args:
        window: number of batches that are remembered.
        normal_form: answers with the same normal form are the same.

    >>> texts = UndecidedTexts(5)
    >>> texts.add(["a", "a", "b"])
    ({'undecided_same_share': 0.6666666666666666, 'undecided_repeated': 0.0}, [])
    >>> texts.add(["a"])
    ({'undecided_repeated': 1.0}, ["answers that begin 'a' stayed undecided in 2 of the last 2 batches (3 in all)"])
    """

    def __init__(self, window: int, normal_form: Callable[[str], str] = lambda text: " ".join(text.split())) -> None:
        self._batches: deque[Counter[str]] = deque(maxlen=window)
        self._normal_form = normal_form
        self._told: set[str] = set()

    def add(self, texts: Sequence[str]) -> tuple[dict[str, float], list[str]]:
        """Remember the undecided answers of one batch, which may be none.

        Returns:
            ``undecided_same_share``, the largest share of this batch's undecided answers that say the same (left out
            for fewer than two); ``undecided_repeated``, the number of texts undecided in two or more of the last
            batches (left out where nothing is); and a line for each text that is told for the first time.
        """
        counts = Counter(map(self._normal_form, texts))
        self._batches.append(counts)
        seen = Counter(text for batch in self._batches for text in batch)
        repeated = [text for text, batches in seen.items() if batches > 1]
        found: dict[str, float] = {}
        if len(texts) > 1:
            found["undecided_same_share"] = max(counts.values()) / len(texts)
        if seen:
            found["undecided_repeated"] = float(len(repeated))
        noted = [text for text, number in counts.items() if number >= _NOTED or seen[text] > 1]
        fresh = [text for text in noted if text not in self._told]
        self._told.update(fresh)
        return found, [self._line(text, seen[text]) for text in fresh]

    def _line(self, text: str, batches: int) -> str:
        shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
        total = sum(batch[text] for batch in self._batches)
        where = f"{batches} of the last {len(self._batches)} batches"
        return f"answers that begin {shown!r} stayed undecided in {where} ({total} in all)"
