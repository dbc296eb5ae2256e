"""LeanDojo's data as rows of a data set, read from a benchmark file or from a traced repository's folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlpost.config.choices import check_choices
from rlpost.errors import DataError
from rlpost_verifiers.lean.dojo import benchmark, traced
from rlpost_verifiers.lean.dojo.benchmark import Premise, TheoremTrace
from rlpost_verifiers.lean.dojo.retrieval import add_premises
from rlpost_verifiers.lean.dojo.tasks import Imports, Sources, make_task

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Settings:
    imports: Imports
    unreadable: Literal["refuse", "drop"]

    def __post_init__(self) -> None:
        check_choices(self, "lean_dojo_theorems: ")


def theorems(
    path: str,
    repo: str | None = None,
    imports: Imports = "file",
    unreadable: Literal["refuse", "drop"] = "refuse",
    retrieve: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """The data source ``lean_dojo_theorems``: a row for each theorem that is proved by tactics.

    ``prompt`` is the goal before the first tactic: unlike the source text it shows the section's variables. Other
    columns: ``theorem_statement`` (source text, empty where the benchmark leaves it out), ``tactics`` (all traced
    tactics, so those nested in others come twice), ``full_name``, ``file_path``, ``start``, ``end``, ``url``,
    ``commit``. Theorems proved by a term have no trace and are left out.

    With the repository's source at hand, a row is a proof task for the verifiers ``lean.…`` as well, and has the
    columns of `rlpost_verifiers.lean.dojo.tasks.make_task` for the templates. A benchmark's ``corpus.jsonl`` is not
    enough for that: it holds no ``open`` lines, variables and namespaces.

    Args:
        path: a benchmark file such as ``random/train.json``, or the folder of a traced repository.
        repo: folder of the repository at the commit that was traced; a traced repository is its own.
        imports: ``file``: a theorem is checked with what its file imports (verifiers on a toolchain, ``imports: ''``);
            ``backend``: with what the verifier is set to import, which may hold the theorem itself.
        unreadable: ``refuse`` a theorem whose source is missing, changed or cannot be split, or ``drop`` it with a
            warning; how many were dropped is said in the end.
        retrieve: arguments of `rlpost_verifiers.lean.dojo.retrieval.add_premises`, which adds the column ``premises``.

    Raises:
        DataError: for a file or folder that does not hold such theorems, or a theorem that is refused.
        MissingPackageError: for a folder, if LeanDojo is not installed; for ``retrieve``, if bm25s is not.
    """
    settings = _Settings(imports, unreadable)
    found = [theorem for theorem in _read_theorems(path) if theorem.steps]
    rows = [_goal(theorem) for theorem in found]
    folder = repo if repo is not None else path if _is_folder(path) else None
    if folder is not None:
        rows = _with_tasks(found, rows, Sources(Path(folder).expanduser()), settings)
    elif rows:
        _log.warning(
            "%s: %d theorems are goals without a statement that a verifier could check; for that give repo: the folder "
            "of %s at commit %s", path, len(rows), rows[0]["url"], rows[0]["commit"][:12],
        )  # fmt: skip
    return rows if retrieve is None else add_premises(rows, **retrieve)


def _goal(theorem: TheoremTrace) -> dict[str, Any]:
    return {
        "id": theorem.id,
        "prompt": theorem.steps[0].state_before,
        "theorem_statement": theorem.statement or "",
        "tactics": [step.tactic for step in theorem.steps],
        "start": list(theorem.start),
        "end": list(theorem.end),
        **_origin(theorem),
    }


def _with_tasks(
    found: list[TheoremTrace], rows: list[dict[str, Any]], sources: Sources, settings: _Settings
) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    dropped = 0
    for theorem, row in zip(found, rows, strict=True):
        try:
            kept.append({**row, **make_task(theorem, sources, settings.imports)})
        except DataError as error:
            if settings.unreadable == "refuse":
                raise DataError(f"{theorem.id}: {error}; mend it, or set unreadable: drop") from None
            _log.warning("%s left out: %s", theorem.id, error)
            dropped += 1
    if dropped:
        _log.warning("%d theorems were left out because they cannot be stated, %d are left", dropped, len(kept))
    return kept


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
