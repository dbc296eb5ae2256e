"""The data source ``lean_tactics``: generated theorems with the goals that Lean shows, and proofs step by step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from rlpost.errors import InfrastructureError, UserError
from rlpost_verifiers.lean import theorems
from rlpost_verifiers.lean.dojo import states
from rlpost_verifiers.lean.dojo.gym import ReplayGym
from rlpost_verifiers.lean.embedded.backend import EmbeddedLean
from rlpost_verifiers.lean.environments.tactics import check_template
from rlpost_verifiers.lean.task import ProofTask

_STYLES = ("tactic", "mixed")
_WALL_SECONDS = 600.0


def rows(
    count: int,
    seed: int,
    demonstrate: bool = True,
    style: str = "tactic",
    template: str = "{state}",
    workers: int = 2,
    **theorem: Any,
) -> list[dict[str, Any]]:
    """Theorems for ``lean.tactics``; the same arguments give the same rows.

    Each row is one of ``lean_theorems`` with ``state``, the goals as the embedded Lean prints them before any tactic,
    and, if asked for, ``turns``: tactic, goals, tactic, … up to the one that closes the last goal
    (``sft.completion_key``). A step takes about 10 ms of CPU time.

    Args:
        count: number of theorems.
        seed: seed of the theorems, and of the draws of a ``mixed`` script.
        demonstrate: give ``turns``.
        style: ``tactic``: always the same script, down to variables and applications; ``mixed``: one of many, which may
            end in a term anywhere.
        template: how goals are written in ``turns``, with ``{state}``: the environment's ``template``.
        workers: number of Lean processes that work at the same time.
        theorem: further arguments of ``lean_theorems``, such as ``split`` and ``max_tokens``.

    Raises:
        UserError: as ``lean_theorems``, or for another style, a wrong template or no worker.
        InfrastructureError: if Lean cannot be started, or does not accept a demonstration.
    """
    if style not in _STYLES:
        raise UserError(f"style is {style!r}; use {' or '.join(map(repr, _STYLES))}")
    check_template("template", template, {"state"})
    if workers < 1:
        raise UserError(f"workers is {workers}; Lean needs at least 1")
    asked = {"count": count, "seed": seed, "styles": {style: 1.0}, **theorem}
    found = _played(json.dumps(asked, sort_keys=True), demonstrate, workers)
    return [
        {**row, "turns": [template.format(state=text) if i % 2 else text for i, text in enumerate(row["turns"])]}
        if demonstrate
        else dict(row)
        for row in found
    ]


@lru_cache(maxsize=16)  # a run reads its data several times
def _played(asked: str, demonstrate: bool, workers: int) -> tuple[Mapping[str, Any], ...]:
    made = theorems.rows(**json.loads(asked))
    if not made:
        return ()
    with EmbeddedLean(workers=workers, wall_seconds=_WALL_SECONDS) as lean, ThreadPoolExecutor(workers) as pool:
        # a gym is used by one thread at a time
        shares = [made[i::workers] for i in range(workers)]
        done = list(pool.map(lambda share: _play(ReplayGym(lean, types=states), share, demonstrate), shares))
    return tuple(done[i % workers][i // workers] for i in range(len(made)))


def _play(gym: ReplayGym, share: Sequence[Mapping[str, Any]], demonstrate: bool) -> list[dict[str, Any]]:
    return [_row(gym, row, demonstrate) for row in share]


def _row(gym: ReplayGym, row: Mapping[str, Any], demonstrate: bool) -> dict[str, Any]:
    state: Any = gym.reset(ProofTask(row["statement"], "", name=row["id"]))
    found = {**row, "state": state.pp}
    if not demonstrate:
        return found
    turns: list[str] = []
    for tactic in map(str.strip, row["proof"].removeprefix("by ").split(";")):
        if turns:
            turns.append(state.pp)
        state = gym.run_tac(state, tactic)
        turns.append(tactic)
        if isinstance(state, states.LeanError):
            where = f"theorem {row['id']!r}, proof {row['proof']!r}"
            raise InfrastructureError(f"{where}: Lean refuses {tactic!r}: {state.error}")
    if not isinstance(state, states.ProofFinished):
        raise InfrastructureError(f"theorem {row['id']!r}: {row['proof']!r} leaves goals open")
    return {**found, "turns": turns}
