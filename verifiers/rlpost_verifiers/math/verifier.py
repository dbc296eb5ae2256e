"""Accepts an answer that is mathematically equal to the gold one."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from importlib import metadata
from queue import SimpleQueue
from typing import Any, Literal

from rlpost.errors import DataError, InfrastructureError, UserError
from rlpost.types import Prompt, Verdict, VerifyItem
from rlpost_verifiers.cache import VerdictCache
from rlpost_verifiers.math.answers import AnswerSettings, NoAnswerError, Several, Where, final_answers, refuse_bombs
from rlpost_verifiers.math.comparer import Comparer, Finding, Question
from rlpost_verifiers.math.conformance import Report, examine
from rlpost_verifiers.math.forms import in_usual_forms
from rlpost_verifiers.math.golds import NoGoldError, gold_text
from rlpost_verifiers.math.questions import asks_percent

Unevaluated = Literal["reject", "allow"]

_RULES = 3
"""Version of the rules of extraction, reading and comparing, part of the fingerprint."""


class MathVerifier:
    """Compares the final answer in a text with the column ``answer``; formulas are read by the package math-verify.

    Implements `Verifier` and `SelfTestingVerifier` of `rlpost.protocols`. Reasons of accepted answers: ``correct``; of
    rejected ones: ``wrong``, ``no_answer``, ``several_answers``, ``unevaluated``, ``unreadable``, ``too_long``,
    ``too_big``, ``memory``, and ``timeout`` where the answer used up its CPU seconds; of undecided ones: ``crashed``,
    ``bad_gold``, and ``timeout`` where wall clock ran out without the CPU being used.

    What is the same answer, by kind (`rlpost_verifiers.math.readings`):

    - Numbers are equal if their exact values are; a decimal of at least six places may stand for a number that it
      rounds. Where the gold answer is a number, the answer must be a finished one (`rlpost_verifiers.math.numbers` has
      the grammar): ``12 * 7`` is not 84.
    - ``50%`` is 0.5 and 1/2. It is 50 only where the gold answer is a percentage, or where the column ``question``,
      ``problem``, ``query``, ``instruction``, ``input``, ``prompt`` or ``messages`` asks for one.
    - Units may be left out on either side. If both sides have units of the table in `rlpost_verifiers.math.units`, they
      are compared: ``50 mm`` is 5 cm, ``5 m`` is not. Other nouns (``6 apples``) are not compared.
    - Lists and sets have no order; tuples, intervals and matrices do. Inequalities are intervals.
    - Words, multiple-choice letters and clock times are compared as such: ``listen`` is not silent.

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
        found: list[Verdict | Question] = [self._read(item) for item in items]
        asked = list(dict.fromkeys(part for part in found if isinstance(part, Question)))
        verdicts = dict(zip(asked, self._pool.map(self._decide, asked), strict=True))
        return [verdicts[part] if isinstance(part, Question) else part for part in found]

    def conformance(self) -> Report:
        """Verify known gold answers and cheats under the current settings; see `rlpost_verifiers.math.conformance`."""
        return examine(self, self._gold_key, self._settings, self._unevaluated)

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Refuse a data set with gold answers that do not accept themselves in any usual form, before training starts.

        The forms are those of `rlpost_verifiers.math.forms`.

        Raises:
            DataError: with their number, and the first one's prompt and cause.
            InfrastructureError: if no comparing process starts.
        """
        checks: dict[str, list[Question]] = {}
        said: dict[str, str] = {}
        for prompt in prompts:
            try:
                gold = gold_text(prompt.columns.get(self._gold_key))
            except NoGoldError as error:
                said[prompt.id] = self._no_gold(prompt.columns, error)
            else:
                checks.setdefault(prompt.id, []).append(self._check(gold))
        asked = list(dict.fromkeys(check for made in checks.values() for check in made))
        findings = dict(zip(asked, self._pool.map(self._ask, asked), strict=True))
        for name, made in checks.items():
            for finding in (findings[check] for check in made if findings[check].reason != "readable"):
                said.setdefault(name, f"{finding.said}; mend column {self._gold_key!r} or drop the row")
        if said:
            first = next(prompt.id for prompt in prompts if prompt.id in said)
            raise DataError(
                f"{len(said)} of {len(prompts)} gold answers cannot be used; first, prompt {first!r}: {said[first]}"
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

    def _read(self, item: VerifyItem) -> Verdict | Question:
        """The question to ask, or a verdict if the text is rejected without a comparison."""
        try:
            gold = gold_text(item.columns.get(self._gold_key))
        except NoGoldError as error:
            raise DataError(f"an item: {self._no_gold(item.columns, error)}") from None
        try:
            answers = final_answers(item.text, self._settings)
            for answer in answers:
                refuse_bombs(answer)
        except NoAnswerError as error:
            evidence = {"gold": gold, "messages": [error.args[1]]}
            return Verdict("rejected", 0.0, error.reason, evidence=evidence, cpu_seconds=0.0, backend=self._fingerprint)
        return Question(gold, answers, self._unevaluated, asks_percent(item.columns, self._gold_key))

    def _no_gold(self, columns: Mapping[str, Any], error: NoGoldError) -> str:
        return (
            f"column {self._gold_key!r} holds {columns.get(self._gold_key)!r:.80}, a gold answer is needed ({error}); "
            f"mend the row, or set scoring.verifier_args.gold_key (columns are {', '.join(columns)})"
        )

    def _check(self, gold: str) -> Question:
        answers: dict[str, None] = {}
        for form in in_usual_forms(gold, self._settings):
            try:
                answers.update(dict.fromkeys(final_answers(form, self._settings)))
            except NoAnswerError:
                continue
        return Question(gold, tuple(answers), check=True)

    def _decide(self, question: Question) -> Verdict:
        key = repr(question)
        known = self._cache.get(key)
        if known is not None:
            return known
        finding = self._ask(question)
        if finding.reason == "crashed" and self._ask(self._check(question.gold)).reason == "readable":
            # a text that brings the process down twice, while its gold answer does not, is to blame itself
            finding = self._ask(question)
            finding = replace(finding, own_fault=True) if finding.reason == "crashed" else finding
        verdict = self._verdict(question, finding)
        self._cache.put(key, verdict)
        return verdict

    def _ask(self, question: Question) -> Finding:
        comparer = self._free.get()
        try:
            return comparer.ask(question)
        finally:
            self._free.put(comparer)

    def _verdict(self, question: Question, finding: Finding) -> Verdict:
        undecided = not finding.own_fault or finding.reason == "bad_gold"
        outcome = "undecided" if undecided else "accepted" if finding.reason == "correct" else "rejected"
        return Verdict(
            outcome=outcome,
            score={"accepted": 1.0, "rejected": 0.0, "undecided": None}[outcome],
            reason=finding.reason,
            assurance="" if undecided else "math_verify",
            evidence={"answer": " | ".join(question.answers), "gold": question.gold, "messages": [finding.said]},
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
