"""The check of the math verifier in ``rlpost doctor``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from rlpost.errors import RlpostError
from rlpost_verifiers.math.verifier import MathVerifier


def diagnose() -> Iterator[tuple[str, Literal["ok", "note", "broken"], str, str]]:
    """Whether the math verifier passes its conformance check here: topic, state, text, remedy."""
    try:
        with MathVerifier(timeout_s=5.0) as verifier:
            report = verifier.conformance()
    except RlpostError as error:
        yield "math", "broken", str(error), "pip install --force-reinstall 'rlpost[math]'"
        return
    yield "math", "broken" if report.failures else "ok", report.summary(), ""
