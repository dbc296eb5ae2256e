"""The checks of a verifier before a run: of the scoring workers' one, and of those that environments bring along."""

from __future__ import annotations

from collections.abc import Sequence

from rlpost.errors import SelfCheckError
from rlpost.protocols import SelfTestingVerifier, Verifier
from rlpost.scoring.stages import named_failure
from rlpost.types import Prompt


def check_verifier(verifier: Verifier, who: str, prompts: Sequence[Prompt], conformance: bool) -> str:
    """Test a verifier on its own gold answers and known cheats, and on the prompts, as far as it can be.

    Args:
        verifier: the verifier.
        who: what it is called in messages.
        prompts: prompts whose answers it must be able to verify.
        conformance: test it on gold answers and cheats, if it has some.

    Returns:
        One line about it.

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
