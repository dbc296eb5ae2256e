"""LeanDojo's data as rows of a data set, read from a benchmark file or from a traced repository's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlpost_verifiers.lean.dojo import benchmark, traced
from rlpost_verifiers.lean.dojo.benchmark import Premise, TheoremTrace


def theorems(path: str) -> list[dict[str, Any]]:
    """The data source ``lean_dojo_theorems``: a row for each theorem that is proved by tactics.

    ``prompt`` is the goal before the first tactic: unlike the source text it shows the section's variables. Other
    columns: ``theorem_statement`` (source text, empty where the benchmark leaves it out), ``tactics`` (all traced
    tactics, so those nested in others come twice), ``full_name``, ``file_path``, ``start``, ``end``, ``url``,
    ``commit``. Theorems proved by a term have no trace and are left out.

    Args:
        path: a benchmark file such as ``random/train.json``, or the folder of a traced repository.

    Raises:
        DataError: for a file or folder that does not hold such theorems.
        MissingPackageError: for a folder, if LeanDojo is not installed.
    """
    return [
        {
            "id": theorem.id,
            "prompt": theorem.steps[0].state_before,
            "theorem_statement": theorem.statement or "",
            "tactics": [step.tactic for step in theorem.steps],
            "start": list(theorem.start),
            "end": list(theorem.end),
            **_origin(theorem),
        }
        for theorem in _read_theorems(path)
        if theorem.steps
    ]


def tactics(path: str) -> list[dict[str, Any]]:
    """The data source ``lean_dojo_tactics``: a row for each tactic in the trace of a proof.

    ``prompt`` is the state it was applied to, ``tactic`` the target (set ``sft.completion_key: tactic``). Other
    columns: ``annotated_tactic`` (premises marked by ``<a>…</a>``), ``premises`` (their full names), ``state_after``,
    ``step`` (index in the theorem, from 0), ``full_name``, ``file_path``, ``url``, ``commit``.

    Args:
        path: a benchmark file such as ``random/train.json``, or the folder of a traced repository.

    Raises:
        DataError: as `theorems`.
        MissingPackageError: as `theorems`.
    """
    return [
        {
            "id": f"{theorem.id}#{number}",
            "prompt": step.state_before,
            "tactic": step.tactic,
            "annotated_tactic": step.annotated,
            "premises": list(step.premises),
            "state_after": step.state_after,
            "step": number,
            **_origin(theorem),
        }
        for theorem in _read_theorems(path)
        for number, step in enumerate(theorem.steps)
    ]


def premises(path: str) -> list[dict[str, Any]]:
    """The data source ``lean_dojo_premises``: a row for each definition or theorem that proofs may use.

    ``prompt`` is its code, without the proof if it is a theorem. Other columns: ``full_name``, ``path``, ``kind``
    (LeanDojo's name of the syntax node, e.g. ``commanddeclaration``), ``start``, ``end``.

    Args:
        path: a benchmark's ``corpus.jsonl``, or the folder of a traced repository.

    Raises:
        DataError: as `theorems`.
        MissingPackageError: as `theorems`.
    """
    return [
        {
            "id": premise.id,
            "prompt": premise.code,
            "full_name": premise.full_name,
            "path": premise.path,
            "kind": premise.kind,
            "start": list(premise.start),
            "end": list(premise.end),
        }
        for premise in _read_premises(path)
    ]


def _read_theorems(path: str) -> list[TheoremTrace]:
    return traced.read_theorems(path) if _is_folder(path) else benchmark.read_theorems(path)


def _read_premises(path: str) -> list[Premise]:
    return traced.read_premises(path) if _is_folder(path) else benchmark.read_premises(path)


def _is_folder(path: str) -> bool:
    return Path(path).expanduser().is_dir()


def _origin(theorem: TheoremTrace) -> dict[str, str]:
    return {
        "full_name": theorem.full_name,
        "file_path": theorem.file_path,
        "url": theorem.url,
        "commit": theorem.commit,
    }
