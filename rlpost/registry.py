"""Names to objects: a plain table for what ships here, entry points for third parties, nothing imported early.

A name is one of

* a key of `BUILTIN` for its kind (``outcome``),
* an entry point of the group ``rlpost.<kind>`` that another distribution declares,
* ``module:attribute`` (``my_rewards.style:brevity``),
* ``path.py:attribute`` (``./rewards.py:brevity``), loaded from that file.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from importlib import metadata
from pathlib import Path
from typing import Any

from rlpost.errors import UserError

BUILTIN: dict[str, dict[str, str]] = {
    "rewards": {
        "outcome": "rlpost_rewards.outcome:Outcome",
        "trl": "rlpost_rewards.trl_adapter:TrlReward",
    },
    "verifiers": {
        "lean.embedded": "rlpost_verifiers.lean.verifier:LeanVerifier",
        "lean.cli": "rlpost_verifiers.lean.verifier:LeanCommand",
        "lean.repl": "rlpost_verifiers.lean.verifier:LeanReplPool",
        "lean.kimina": "rlpost_verifiers.lean.verifier:LeanService",
        "function": "rlpost_verifiers.function:FunctionVerifier",
    },
    "commands": {
        "verify lean": "rlpost_verifiers.lean.command:verify_file",
        "verify lean --conformance": "rlpost_verifiers.lean.command:show_conformance",
        "doctor lean": "rlpost_verifiers.lean.command:diagnose",
    },
    "sources": {
        "jsonl": "rlpost.data.prompts:read_jsonl",
        "parquet": "rlpost.data.tables:read_parquet",
        "hf_disk": "rlpost.data.tables:read_hf_disk",
        "lean_dojo_premises": "rlpost_verifiers.lean.dojo.sources:premises",
        "lean_dojo_tactics": "rlpost_verifiers.lean.dojo.sources:tactics",
        "lean_dojo_theorems": "rlpost_verifiers.lean.dojo.sources:theorems",
        "lean_theorems": "rlpost_verifiers.lean.theorems:rows",
    },
}


def names(kind: str) -> list[str]:
    """Every known name of ``kind``, third-party entry points included."""
    return sorted({*BUILTIN[kind], *(point.name for point in metadata.entry_points(group=f"rlpost.{kind}"))})


def resolve(kind: str, name: str) -> Any:
    """The object behind ``name``.

    Args:
        kind: ``rewards``, ``verifiers``, ``sources`` or ``commands``.
        name: see the module's docstring.

    Raises:
        UserError: for a name nobody knows (with the near misses) or one that cannot be loaded.
    """
    if name in BUILTIN[kind]:
        return _load(BUILTIN[kind][name], kind, name)
    for point in metadata.entry_points(group=f"rlpost.{kind}"):
        if point.name == name:
            return point.load()
    module, colon, attribute = name.rpartition(":")
    if colon and module and attribute and (module.endswith(".py") or not module.startswith(".")):
        return _load(name, kind, name)
    close = difflib.get_close_matches(name, names(kind), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names(kind))}"
    raise UserError(f"{kind[:-1]} {name!r} is not known; {hint} (or give module:attribute or path.py:attribute)")


def _load(target: str, kind: str, name: str) -> Any:
    module_name, _, attribute = target.rpartition(":")
    try:
        module = (
            _module_from_file(Path(module_name))
            if module_name.endswith(".py")
            else importlib.import_module(module_name)
        )
    except ImportError as error:
        raise UserError(
            f"{kind[:-1]} {name!r}: cannot import {module_name} ({error}); install or correct it"
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        public = [n for n in vars(module) if not n.startswith("_")]
        close = difflib.get_close_matches(attribute, public, n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise UserError(f"{kind[:-1]} {name!r}: {module_name} has no {attribute!r}{hint}") from None


def _module_from_file(path: Path) -> Any:
    if not path.is_file():
        raise ImportError(f"no file {path}")
    spec = importlib.util.spec_from_file_location(f"rlpost_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
