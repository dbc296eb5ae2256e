"""Proof terms written as tactic scripts: one term has many, from a single `exact` to one tactic per node."""

from __future__ import annotations

import random
from collections.abc import Iterator

from rlpost_verifiers.lean.problems.terms import Absurd, App, Cases, Inject, Lam, Pair, Term, Writer


def script_tokens(term: Term, prefix: tuple[str, ...] = (), rng: random.Random | None = None) -> list[str]:
    """The term as ``by tactic; tactic; …`` on one line, its variables named as in `terms.term_tokens`.

    Args:
        term: a closed term.
        prefix: names introduced first, before the term's own.
        rng: decides anew at each node whether to go on in tactics or to give the rest as a term. None: in tactics down
            to variables and applications.

    >>> from rlpost_verifiers.lean.problems.terms import Var
    >>> " ".join(script_tokens(Lam(7, Lam(8, Pair(Var(8), Var(7)))), ("p", "q")))
    'by intro p q h1 h2 ; constructor ; exact h2 ; exact h1'
    """
    writer = _Script(rng)
    tactics = writer.tactics(term, {}, prefix)
    return ["by", *(token for i, tactic in enumerate(tactics) for token in ((";",) if i else ()) + tactic)]


class _Script(Writer):
    """Writes one script; every tactic works on the first goal that is open."""

    def __init__(self, rng: random.Random | None):
        super().__init__()
        self._rng = rng

    def tactics(self, term: Term, names: dict[int, str], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        if isinstance(term, Lam) or prefix:
            introduced, term, names = self.bind(term, names)
            yield ("intro", *prefix, *introduced)
        if self._ends_here():
            yield ("exact", *self.write(term, names))
            return
        match term:
            case Pair(left, right):
                yield ("constructor",)
                yield from self.tactics(left, names)
                yield from self.tactics(right, names)
            case Inject(side, body):
                yield (("left", "right")[side],)
                yield from self.tactics(body, names)
            case Cases(either, left, right):
                yield ("apply", *self.write_closed(either, names), ".elim")
                yield from self.tactics(left, names)
                yield from self.tactics(right, names)
            case Absurd(contradiction):
                yield ("apply", "False", ".elim")
                yield from self.tactics(contradiction, names)
            case App(function, argument) if self._rng is not None and self._rng.random() < 0.5:
                yield ("apply", *self.write_closed(function, names))
                yield from self.tactics(argument, names)
            case _:
                yield ("exact", *self.write(term, names))

    def _ends_here(self) -> bool:
        return self._rng is not None and self._rng.random() < 0.3
