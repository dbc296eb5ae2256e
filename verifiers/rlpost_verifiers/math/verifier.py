"""Accepts an answer that is mathematically equal to the gold one."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib import metadata
from queue import SimpleQueue
from typing import Any, Literal

from rlpost.errors import DataError, InfrastructureError, UserError
from rlpost.types import Prompt, Verdict, VerifyItem
from rlpost_verifiers.cache import VerdictCache
from rlpost_verifiers.math.answers import (
    AnswerSettings,
    NoAnswerError,
    Several,
    Where,
    final_answer,
    refuse_bombs,
    refuse_unevaluated,
)
from rlpost_verifiers.math.comparer import Comparer, Finding
from rlpost_verifiers.math.conformance import Report, examine

Unevaluated = Literal["reject", "allow"]

_RULES = 2
"""Version of the rules in `answers` and `child`, part of the fingerprint."""


class MathVerifier:
    """Compares the final answer in a text with the column ``answer``, using the package math-verify.

    Implements `Verifier` and `SelfTestingVerifier` of `rlpost.protocols`. Reasons of accepted answers: ``correct``; of
    rejected ones: ``wrong``, ``no_answer``, ``several_answers``, ``unevaluated``, ``unreadable``, ``too_long``,
    ``too_big``, ``memory``, and ``timeout`` where the answer used up its CPU seconds; of undecided ones: ``crashed``,
    ``bad_gold``, and ``timeout`` where wall clock ran out without the CPU being used.

    Numbers are equal if they agree to six decimal places, sets without regard to order; units are not compared.

    Args:
        timeout_s: CPU limit of one comparison, in seconds.
        workers: number of comparing processes.
        gold_key: column with the gold answer, text or a number.
        where: part of the text that holds the answer: ``auto``, ``boxed``, ``equals`` or ``text``; `AnswerSettings` has
            the details of this and the next two.
        several: ``reject`` a text whose boxes disagree, or take the ``last`` box.
        spaced_digits: read ``1 2`` as 12.
        unevaluated: ``reject`` or ``allow`` answers that contain operations where the gold answer is a plain number.
        memory_mb: limit on the address space of a comparing process, in MiB.
        cache_size: number of decided verdicts kept in memory.

    Raises:
        UserError: for a setting out of range.
        MissingPackageError: if math-verify is not installed.
    """

    def __init__(
        self,
        timeout_s: float = 5.0,
        workers: int = 1,
        gold_key: str = "answer",
        where: Where = "auto",
        several: Several = "reject",
        spaced_digits: bool = False,
        unevaluated: Unevaluated = "reject",
        memory_mb: int = 2048,
        cache_size: int = 100_000,
    ) -> None:
        for name, value, allowed in (
            ("where", where, ("auto", "boxed", "equals", "text")),
            ("several", several, ("reject", "last")),
            ("unevaluated", unevaluated, ("reject", "allow")),
        ):
            if value not in allowed:
                raise UserError(f"{name} is {value!r}; give {', '.join(allowed)}")
        if workers < 1 or timeout_s <= 0:
            raise UserError(f"workers is {workers} and timeout_s {timeout_s}; give at least 1, and more than 0")
        self._settings = AnswerSettings(where, several, spaced_digits)
        self._gold_key, self._unevaluated = gold_key, unevaluated == "reject"
        self._fingerprint = _fingerprint(self._settings, unevaluated, timeout_s)
        self._cache = VerdictCache(cache_size)
        self._comparers = [Comparer(timeout_s, memory_mb) for _ in range(workers)]
        self._free: SimpleQueue[Comparer] = SimpleQueue()
        for comparer in self._comparers:
            self._free.put(comparer)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="math-verify")
        self._closed = threading.Event()

    @property
    def fingerprint(self) -> str:
        """Versions of math-verify and sympy, and a hash of the settings."""
        return self._fingerprint

    def verify_batch(self, items: Sequence[VerifyItem]) -> list[Verdict]:
        """One verdict for each item, in order; equal answers to equal gold answers are compared once.

        Raises:
            DataError: for an item without a gold answer.
            InfrastructureError: after `close`, or if no comparing process starts.
        """
        if self._closed.is_set():
            raise InfrastructureError("this math verifier is closed; make another")
        found: list[Verdict | tuple[str, str]] = [self._read(item) for item in items]
        asked = list(dict.fromkeys(pair for pair in found if not isinstance(pair, Verdict)))
        verdicts = dict(zip(asked, self._pool.map(self._decide, asked), strict=True))
        return [pair if isinstance(pair, Verdict) else verdicts[pair] for pair in found]

    def conformance(self) -> Report:
        """Verify known gold answers and cheats under the current settings; see `rlpost_verifiers.math.conformance`."""
        return examine(self, self._gold_key, self._settings, self._unevaluated)

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Refuse a data set with unreadable gold answers before training starts.

        Raises:
            DataError: with their number, and the first one's prompt and cause.
            InfrastructureError: if no comparing process starts.
        """
        golds = {self._gold(prompt.columns, f"prompt {prompt.id!r}"): prompt.id for prompt in reversed(prompts)}
        findings = dict(zip(golds, self._pool.map(lambda gold: self._ask(gold, None), golds), strict=True))
        bad = [(golds[gold], finding) for gold, finding in findings.items() if finding.reason != "readable"]
        if bad:
            first, finding = bad[-1]
            raise DataError(
                f"{len(bad)} of {len(golds)} gold answers cannot be used; first, prompt {first!r}: {finding.said}; "
                f"mend column {self._gold_key!r} or drop the row"
            )

    def close(self) -> None:
        """End the comparing processes; repeated calls do nothing."""
        self._closed.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for comparer in self._comparers:
            comparer.close()

    def __enter__(self) -> MathVerifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, item: VerifyItem) -> Verdict | tuple[str, str]:
        """Gold answer and answer, or a verdict if the text is rejected without a comparison."""
        gold = self._gold(item.columns, "an item")
        try:
            answer = final_answer(item.text, self._settings)
            if self._unevaluated:
                refuse_unevaluated(answer, gold)
            refuse_bombs(answer)
        except NoAnswerError as error:
            evidence = {"gold": gold, "messages": [error.args[1]]}
            return Verdict("rejected", 0.0, error.reason, evidence=evidence, cpu_seconds=0.0, backend=self._fingerprint)
        return gold, answer

    def _gold(self, columns: Mapping[str, Any], where: str) -> str:
        value = columns.get(self._gold_key)
        text = str(value).strip() if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""
        if not text:
            raise DataError(
                f"{where}: column {self._gold_key!r} holds {value!r}, a gold answer is needed; set "
                f"scoring.verifier_args.gold_key (columns are {', '.join(columns)})"
            )
        return text

    def _decide(self, pair: tuple[str, str]) -> Verdict:
        gold, answer = pair
        key = f"{gold}\0{answer}"
        known = self._cache.get(key)
        if known is not None:
            return known
        verdict = self._verdict(gold, answer, self._ask(gold, answer))
        self._cache.put(key, verdict)
        return verdict

    def _ask(self, gold: str, answer: str | None) -> Finding:
        comparer = self._free.get()
        try:
            return comparer.ask(gold, answer)
        finally:
            self._free.put(comparer)

    def _verdict(self, gold: str, answer: str, finding: Finding) -> Verdict:
        undecided = not finding.own_fault or finding.reason == "bad_gold"
        outcome = "undecided" if undecided else "accepted" if finding.reason == "correct" else "rejected"
        return Verdict(
            outcome=outcome,
            score={"accepted": 1.0, "rejected": 0.0, "undecided": None}[outcome],
            reason=finding.reason,
            assurance="" if undecided else "math_verify",
            evidence={"answer": answer, "gold": gold, "messages": [finding.said]},
            seconds=finding.seconds,
            cpu_seconds=finding.cpu_seconds,
            backend=self._fingerprint,
        )


def _fingerprint(settings: AnswerSettings, unevaluated: str, timeout_s: float) -> str:
    """The fingerprint, also without the packages: the constructor reports later what is missing."""

    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "absent"

    rules = repr((_RULES, sorted(asdict(settings).items()), unevaluated, timeout_s))
    digest = hashlib.sha256(rules.encode()).hexdigest()[:8]
    return f"math-verify/{version('math-verify')}/sympy {version('sympy')}/{digest}"
