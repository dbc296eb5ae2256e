"""A plain function as a verifier: the shortest way from an idea to a reward."""

from __future__ import annotations

import hashlib
import inspect
import math
import numbers
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlpost.errors import UserError
from rlpost.plugins.registry import resolve
from rlpost.types import Verdict, VerifyItem

Judge = Callable[[str, Mapping[str, Any]], Any]
"""``f(text, columns)`` that returns a bool, a finite number or None."""


class FunctionVerifier:
    """Verifies an answer with ``function(text, columns)``.

    The function returns True or False, a finite number (the score; accepted if positive), or None where it cannot
    tell. None leaves the answer undecided with reason ``unavailable``. An exception, or a value of any other kind,
    leaves it undecided with reason ``crashed`` and a message in the evidence: a broken function says nothing about the
    answer.

    Args:
        function: a callable, or its name as ``module:attribute`` or ``path.py:attribute``.

    Raises:
        UserError: for a name that cannot be loaded, or an object that cannot be called.

    >>> verifier = FunctionVerifier(lambda text, columns: text == columns["answer"])
    >>> [verdict.score for verdict in verifier.verify_batch([VerifyItem({"answer": "4"}, "4")])]
    [1.0]
    """

    def __init__(self, function: Judge | str) -> None:
        found = resolve("verifiers", function) if isinstance(function, str) else function
        if not callable(found):
            raise UserError(f"function is {function!r}, which cannot be called; give f(text, columns)")
        self._function: Judge = found
        self._fingerprint = f"function/{_name(found)}/{_digest(found)}"

    @property
    def fingerprint(self) -> str:
        """The function's name and a hash of its source."""
        return self._fingerprint

    def verify_batch(self, items: Sequence[VerifyItem]) -> list[Verdict]:
        """One verdict for each item, in order; equal texts with the same columns object are verified once."""
        known: dict[tuple[str, int], Verdict] = {}
        for item in items:
            key = (item.text, id(item.columns))
            if key not in known:
                known[key] = self._judge(item)
        return [known[item.text, id(item.columns)] for item in items]

    def close(self) -> None:
        """Does nothing: there is no process to end."""

    def __enter__(self) -> FunctionVerifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _judge(self, item: VerifyItem) -> Verdict:
        start, cpu = time.perf_counter(), time.thread_time()
        evidence: dict[str, Any] = {}
        try:
            result = self._function(item.text, item.columns)
        except Exception as error:
            score, reason = None, "crashed"
            evidence["messages"] = [f"{type(error).__name__}: {error}"]
        else:
            score, reason = _score(result)
            if reason == "crashed":
                evidence["messages"] = [f"returned {result!r}; return a bool, a finite number or None"]
        outcome = "undecided" if score is None else "accepted" if score > 0 else "rejected"
        return Verdict(
            outcome=outcome,
            score=score,
            reason=reason or outcome,
            assurance="" if score is None else "function",
            evidence=evidence,
            seconds=time.perf_counter() - start,
            cpu_seconds=time.thread_time() - cpu,
            backend=self._fingerprint,
        )


def _score(result: Any) -> tuple[float | None, str]:
    """The score and an empty reason, or None and the reason."""
    if result is None:
        return None, "unavailable"
    # scalars of numpy and torch
    plain = result.item() if hasattr(result, "item") else result
    if isinstance(plain, numbers.Real) and math.isfinite(plain):
        return float(plain), ""
    return None, "crashed"


def _name(function: Any) -> str:
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{kind.__module__}:{kind.__qualname__}"


def _digest(function: Any) -> str:
    try:
        source = inspect.getsource(function if hasattr(function, "__qualname__") else type(function))
    except (OSError, TypeError):
        # a built-in, or typed at a prompt: without source, the fingerprint rests on the name alone
        source = ""
    return hashlib.sha256(source.encode()).hexdigest()[:8]
