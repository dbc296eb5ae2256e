r"""Constrained decoding: which tokens may come next in an answer, as a pure function of the answer's tokens so far.

With A(y_<t) the tokens that a constraint allows after y_<t, the policy of a run with ``rollout.constraint`` is

    π_c(y_t | x, y_<t) = π(y_t | x, y_<t) / Σ_{v ∈ A(y_<t)} π(v | x, y_<t)   for y_t ∈ A(y_<t), and 0 otherwise.

The engine samples from it and the learner scores it: each finds A by itself, from tokens alone, and nothing about A
passes between them. Ratios, KL terms and entropies are those of π_c.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import numpy as np

from rlpost.errors import ConstraintError


class AnswerTokens(Protocol):
    """What a constraint is given of the policy's tokenizer."""

    @property
    def end(self) -> int:
        """The token that ends an answer."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of the tokenizer."""
        ...

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens around it."""
        ...

    def texts(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Text of each row of token ids, as the verifier will read it."""
        ...


class DecodingConstraint(Protocol):
    """The tokens that may follow each prefix of an answer.

    ``rollout.constraint.name: module:Class`` names one of your own: it is called with `AnswerTokens` and the
    arguments of the configuration, in the process of each engine and of each learner rank.
    """

    @property
    def fingerprint(self) -> str:
        """Hash of what it allows."""
        ...

    @property
    def max_tokens(self) -> int:
        """Number of tokens of the longest answer that it allows, the end token included."""
        ...

    def allowed(self, prefix: Sequence[int]) -> np.ndarray:
        """Ids ``[K]`` of the tokens that may follow a prefix, ascending and distinct; none after an end token.

        It depends on nothing but the prefix. This is the definition: `WalkingConstraint.walk` may be faster and must
        allow the same, which the check of the first batch's gradient compares.

        Raises:
            ConstraintError: for a prefix that is not allowed itself.
        """
        ...


class Walk(Protocol):
    """The state of one answer."""

    def allowed(self) -> np.ndarray:
        """Ids of the tokens that may come next, as `DecodingConstraint.allowed`; not to be changed."""
        ...

    def advance(self, token: int) -> None:
        """Add a token.

        Raises:
            ConstraintError: for a token that may not come next.
        """
        ...


@runtime_checkable
class WalkingConstraint(Protocol):
    """A constraint that follows an answer token by token, which costs less than to read each prefix anew."""

    def walk(self) -> Walk:
        """The state of an answer without tokens."""
        ...


@runtime_checkable
class RemarkingConstraint(Protocol):
    """A constraint that has something to say to the user at the start of a run."""

    @property
    def notes(self) -> Sequence[str]:
        """Lines of text."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class AllowedIds:
    """The tokens allowed at each of n places, row by row.

    Attributes:
        offsets: ``[n + 1]`` int64, where each place's ids begin in ``ids``, and where the last one's end.
        ids: ``[M]`` int32, ascending within a place.

    >>> AllowedIds(np.array([0, 2, 3]), np.array([4, 9, 1], np.int32)).offsets.tolist()
    [0, 2, 3]
    """

    offsets: np.ndarray
    ids: np.ndarray


def walk_of(constraint: DecodingConstraint) -> Walk:
    """The state of an answer without tokens."""
    if isinstance(constraint, WalkingConstraint):
        return constraint.walk()
    return _PrefixWalk(constraint)


def along(constraint: DecodingConstraint, token_ids: Sequence[int]) -> AllowedIds:
    """The tokens allowed at each place of an answer.

    Raises:
        ConstraintError: for a token that is not allowed at its place.
    """
    walk, rows = walk_of(constraint), list[np.ndarray]()
    for place, token in enumerate(token_ids):
        rows.append(walk.allowed())
        try:
            walk.advance(token)
        except ConstraintError as error:
            raise ConstraintError(f"token {token} at place {place} of an answer: {error}") from None
    return joined(rows)


def joined(rows: Sequence[np.ndarray]) -> AllowedIds:
    """Ids of n places as one record."""
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    ids = np.concatenate(rows).astype(np.int32, copy=False) if rows else np.zeros(0, np.int32)
    return AllowedIds(offsets, ids)


def chained(parts: Sequence[AllowedIds]) -> AllowedIds:
    """The places of several answers, one answer after the other."""
    sizes = np.concatenate([np.zeros(1, np.int64), *(np.diff(part.offsets) for part in parts)])
    ids = [part.ids for part in parts]
    return AllowedIds(np.cumsum(sizes), np.concatenate(ids) if ids else np.zeros(0, np.int32))


class _PrefixWalk:
    """The state of an answer under a constraint that reads prefixes only."""

    def __init__(self, constraint: DecodingConstraint):
        self._constraint, self._prefix = constraint, list[int]()
        self._next: np.ndarray | None = None

    def allowed(self) -> np.ndarray:
        if self._next is None:
            self._next = np.asarray(self._constraint.allowed(self._prefix))
        return self._next

    def advance(self, token: int) -> None:
        allowed = self.allowed()
        place = int(np.searchsorted(allowed, token))
        if place == len(allowed) or allowed[place] != token:
            raise refused(cast("Sequence[int]", allowed))
        self._prefix.append(token)
        self._next = None


def refused(allowed: Sequence[int]) -> ConstraintError:
    """The error for a token that is not among the allowed ones."""
    few = ", ".join(map(str, allowed[:4])) + (", …" if len(allowed) > 4 else "")
    return ConstraintError(f"not one of the {len(allowed)} that the constraint allows there ({few or 'the end'})")
