"""A custom verifier, as small as possible: is the number in the answer even or odd, as the prompt asks?

    rlpost train configs/examples/parity.yaml

It shows every method: `fingerprint`, `verify_batch` and `close` are required, `conformance` and `check_prompts` are
optional. `rewards/README.md` has the contract.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rlpost.errors import DataError
from rlpost.types import Prompt, Verdict, VerifyItem

_GOLD = (("even", "12"), ("odd", "7"), ("even", " 0 "))
_CHEATS = (("even", "7"), ("odd", "12"), ("odd", ""), ("even", "12 7"), ("even", "even"), ("odd", "1.5"))


def rows(count: int, start: int = 0) -> list[dict[str, str]]:
    """A data source: prompts that ask for an even or an odd number. Every fourth answer, for the warm start, is wrong,
    so that there is something to learn from the verifier.
    """
    found: list[dict[str, str]] = []
    for i in range(start, start + count):
        kind, answer = ("even", "odd")[i % 2], i // 2 % 5 * 2 + (i % 2 if i % 8 < 6 else 1 - i % 2)
        found.append({"id": str(i), "prompt": f"one {kind} number :", "parity": kind, "answer": f" {answer}"})
    return found


@dataclass(frozen=True)
class Report:
    """Result of the conformance test: descriptions of the cases with a wrong verdict."""

    failures: tuple[str, ...]

    def summary(self) -> str:
        """One line with the number of failures and the first."""
        first = f"; first: {self.failures[0]}" if self.failures else ""
        return f"parity: {len(self.failures)} of {len(_GOLD) + len(_CHEATS)} known answers judged wrong{first}"


class ParityVerifier:
    """Accepts one whole number of the parity in the column ``parity``.

    Args:
        largest: larger numbers are rejected, so that a long row of digits gets no reward.
    """

    def __init__(self, largest: int = 999) -> None:
        self._largest = largest

    @property
    def fingerprint(self) -> str:
        """Name, version and all settings that a verdict depends on."""
        return f"parity/1/{self._largest}"

    def verify_batch(self, items: Sequence[VerifyItem]) -> list[Verdict]:
        """Return one verdict per item, in order. Anything but one whole number is rejected."""
        return [self._judge(item.text, str(item.columns["parity"])) for item in items]

    def close(self) -> None:
        """Do nothing: there is no process to end."""

    def conformance(self) -> Report:
        """Verify gold answers, which must be accepted, and cheats, which must not, or the run does not start.

        They are shuffled, as training mixes right and wrong answers: verdicts in another order would pass otherwise.
        """
        cases = [(*case, "accepted") for case in _GOLD] + [(*case, "rejected") for case in _CHEATS]
        random.Random(0).shuffle(cases)
        verdicts = self.verify_batch([VerifyItem({"parity": parity}, text) for parity, text, _ in cases])
        wrong = [
            f"{text!r} for {parity!r} was not {outcome}"
            for (parity, text, outcome), verdict in zip(cases, verdicts, strict=True)
            if verdict.outcome != outcome
        ]
        return Report(tuple(wrong))

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Raise DataError for a prompt whose answers cannot be verified."""
        for prompt in prompts:
            if prompt.columns.get("parity") not in ("even", "odd"):
                raise DataError(
                    f"prompt {prompt.id!r}: column 'parity' is {prompt.columns.get('parity')!r}; even or odd"
                )

    def _judge(self, text: str, parity: str) -> Verdict:
        number = re.fullmatch(r"\s*([0-9]{1,9})\s*", text)
        if number is None or int(number[1]) > self._largest:
            return Verdict("rejected", 0.0, "no_number", backend=self.fingerprint)
        if (int(number[1]) % 2 == 0) != (parity == "even"):
            return Verdict("rejected", 0.0, "wrong_parity", backend=self.fingerprint)
        return Verdict("accepted", 1.0, "right_parity", backend=self.fingerprint)
