"""From a finished Lean process to a ruling: what it printed, then what it compiled."""

from __future__ import annotations

from rlpost_verifiers.lean.embedded.audit import audit
from rlpost_verifiers.lean.embedded.olean import Olean, OleanError
from rlpost_verifiers.lean.messages import LeanOutput, Ruling, Run, classify


def judge(
    run: Run, output: LeanOutput, compiled: bytes | None, prelude: Olean, cpu_limit: float
) -> tuple[Ruling, tuple[str, ...]]:
    """The ruling on a proof and the axioms it rests on; accepted only if the compiled module bears Lean out.

    Args:
        run: how the process ended.
        output: ``parse_output(run.output)``.
        compiled: the module it wrote, None if none.
        prelude: what the module may build on.
        cpu_limit: the limit it ran under, in seconds.
    """
    ruling = classify(run, output, cpu_limit)
    if ruling.outcome != "accepted":
        return ruling, ()
    if compiled is None:
        return Ruling("undecided", "crashed", "Lean reported success and wrote no module"), ()
    try:
        return audit(Olean(compiled), prelude)
    except OleanError as error:
        return Ruling("undecided", "crashed", f"the compiled module cannot be read: {error}"), ()
