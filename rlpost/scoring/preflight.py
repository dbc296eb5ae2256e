"""The checks of a verifier before a run depends on it, whether scoring or an environment uses it."""

from __future__ import annotations

from collections.abc import Sequence

from rlpost.errors import SelfCheckError
from rlpost.protocols import SelfTestingVerifier, Verifier
from rlpost.scoring.stages import named_failure
from rlpost.types import Prompt


def check_verifier(verifier: Verifier, who: str, prompts: Sequence[Prompt], conformance: bool) -> str:
    """Test a verifier that can test itself, and let it look at the prompts.

    Args:
        verifier: the verifier.
        who: what it is called in messages.
        prompts: prompts whose answers it must be able to verify.
        conformance: test it on its own gold answers and known cheats.

    Returns:
        One line: the verifier and its conformance result.

    Raises:
        SelfCheckError: if it does not accept a gold answer, or accepts a cheat.
        DataError: for prompts whose answers it cannot verify.
    """
    said = verifier.fingerprint
    if not isinstance(verifier, SelfTestingVerifier):
        return said
    with named_failure(who):
        if conformance:
            report = verifier.conformance()
            said = report.summary()
            if report.failures:
                raise SelfCheckError(
                    f"{said}; rewards from it would train for the wrong thing: mend it, or set "
                    "selfcheck.conformance=false if you know why"
                )
        verifier.check_prompts(prompts)
    return said
