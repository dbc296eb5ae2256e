"""Proof terms written as tactic scripts: one term has many, from a single `exact` to one tactic per node."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from rlpost_verifiers.lean.problems.terms import Absurd, App, Cases, Inject, Lam, Pair, Term, Writer

# Probabilities that a script departs from the plain one: that it gives the rest as a term, applies a function to a goal
# still to prove, or uses the less common of two tactics.
_ENDS, _STEPS_BACK, _RARE = 0.3, 0.5, 0.2


def script_tokens(term: Term, prefix: tuple[str, ...] = (), rng: random.Random | None = None) -> list[str]:
    """The term as ``by tactic; tactic; …`` on one line, its variables named as in `terms.term_tokens`.

    Args:
        term: a closed term.
        prefix: names introduced first, before the term's own.
        rng: draws at each node whether to continue in tactics or to give the rest as a term, and which tactic to use.
            None: always the same script, in tactics down to variables and applications.

    >>> from rlpost_verifiers.lean.problems.terms import Var
    >>> " ".join(script_tokens(Lam(7, Lam(8, Pair(Var(8), Var(7)))), ("p", "q")))
    'by intro p q h1 h2 ; constructor ; exact h2 ; exact h1'
    """
    writer = _Script(rng)
    tactics = writer.tactics(term, {}, prefix)
    return ["by", *(token for i, tactic in enumerate(tactics) for token in ((";",) if i else ()) + tactic)]


class _Script(Writer):
    """Writes one script; every tactic applies to the first open goal."""

    def __init__(self, rng: random.Random | None):
        super().__init__()
        self._rng = rng

    def tactics(self, term: Term, names: dict[int, str], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        if isinstance(term, Lam) or prefix:
            introduced, term, names = self.bind(term, names)
            yield from self._introduce([*prefix, *introduced])
        if self._happens(_ENDS):
            yield ("exact", *self.write(term, names))
            return
        match term:
            case Pair(left, right):
                yield ("refine", "⟨", "?_", ",", "?_", "⟩") if self._happens(_RARE) else ("constructor",)
                yield from self.tactics(left, names)
                yield from self.tactics(right, names)
            case Inject(side, body):
                constructor = ("Or.inl", "Or.inr")[side]
                yield ("apply", constructor) if self._happens(_RARE) else (("left", "right")[side],)
                yield from self.tactics(body, names)
            case Cases(either, left, right):
                closed = tuple(self.write_closed(either, names))
                yield ("apply", "Or.elim", *closed) if self._happens(_RARE) else ("apply", *closed, ".elim")
                yield from self.tactics(left, names)
                yield from self.tactics(right, names)
            case Absurd(contradiction):
                yield ("apply", "False", ".elim")
                yield from self.tactics(contradiction, names)
            case App(function, argument) if self._happens(_STEPS_BACK):
                yield ("apply", *self.write_closed(function, names))
                yield from self.tactics(argument, names)
            case _:
                yield ("exact", *self.write(term, names))

    def _introduce(self, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """``intro`` of all names at once, or in several tactics."""
        together: list[str] = []
        for name in names:
            if together and self._happens(_RARE):
                yield ("intro", *together)
                together = []
            together.append(name)
        yield ("intro", *together)

    def _happens(self, probability: float) -> bool:
        return self._rng is not None and self._rng.random() < probability
