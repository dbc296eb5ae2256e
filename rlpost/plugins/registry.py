"""The registry of names: a plain table for what ships here, entry points for third parties, all imported on use.

A name is one of

* a key of `BUILTIN` for its kind (``outcome``),
* an entry point of the group ``rlpost.<kind>`` that another distribution declares,
* ``module:attribute`` (``my_rewards.style:brevity``),
* ``path.py:attribute`` (``./rewards.py:brevity``), loaded from that file; relative to the working directory.

Modules are also looked for in the working directory, after everywhere else.
"""

from __future__ import annotations

import difflib
import importlib
import operator
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from rlpost.errors import UserError, describe_error
from rlpost.plugins import objects, usercode

BUILTIN: dict[str, dict[str, str]] = {
    "losses": dict.fromkeys(("clipped", "cispo", "gmpo", "dppo_tv", "dppo_kl"), "rlpost.algorithms.losses:policy_loss"),
    "advantages": {
        "group_relative": "rlpost.algorithms.advantages:group_advantages",
        "maxrl": "rlpost.algorithms.advantages:maxrl_advantages",
    },
    "engines": {"vllm": "rlpost.rollout.vllm.engine:build_engine"},
    "environments": {
        "lean.repair": "rlpost_verifiers.lean.environments.repair:LeanRepair",
        "lean.tactics": "rlpost_verifiers.lean.environments.tactics:TacticProof",
    },
    "constraints": {"catalog_list": "rlpost_verifiers.catalog.constraint:CatalogList"},
    "rewards": {
        "outcome": "rlpost_rewards.outcome:Outcome",
        "overlong": "rlpost_rewards.overlong:Overlong",
        "ranking": "rlpost_rewards.ranking:Ranking",
        "subgoals": "rlpost_rewards.subgoals:Subgoals",
        "trl": "rlpost_rewards.trl_adapter:TrlReward",
        "turns": "rlpost_rewards.turns:TurnReturns",
        "unlikeliness": "rlpost_rewards.unlikeliness:Unlikeliness",
    },
    "verifiers": {
        "lean.embedded": "rlpost_verifiers.lean.verifier:LeanVerifier",
        "lean.cli": "rlpost_verifiers.lean.verifier:LeanCommand",
        "lean.repl": "rlpost_verifiers.lean.verifier:LeanReplPool",
        "lean.kimina": "rlpost_verifiers.lean.verifier:LeanService",
        "function": "rlpost_verifiers.function:FunctionVerifier",
        "catalog": "rlpost_verifiers.catalog.verifier:CatalogVerifier",
        "math": "rlpost_verifiers.math.verifier:MathVerifier",
    },
    "commands": {
        "verify lean": "rlpost_verifiers.lean.command:verify_file",
        "verify lean --conformance": "rlpost_verifiers.lean.command:show_conformance",
        "verify catalog": "rlpost_verifiers.catalog.command:verify_file",
        "demonstrate": "rlpost_verifiers.catalog.command:demonstrate_file",
        "doctor lean": "rlpost_verifiers.lean.command:diagnose",
        "doctor math": "rlpost_verifiers.math.command:diagnose",
    },
    "templates": {
        "lean.released": "rlpost_verifiers.lean.prompts:RELEASED",
        "lean.bare": "rlpost_verifiers.lean.prompts:BARE",
        "lean.whole_proof": "rlpost_verifiers.lean.prompts:WHOLE_PROOF",
        "lean.reasoning": "rlpost_verifiers.lean.prompts:REASONING",
        "lean.deepseek_v2": "rlpost_verifiers.lean.prompts:DEEPSEEK_V2",
        "lean.deepseek_v2_non_cot": "rlpost_verifiers.lean.prompts:DEEPSEEK_V2_NON_COT",
        "lean.goedel_v2": "rlpost_verifiers.lean.prompts:GOEDEL_V2",
        "lean.kimina": "rlpost_verifiers.lean.prompts:KIMINA",
        "lean.kimina_preview": "rlpost_verifiers.lean.prompts:KIMINA_PREVIEW",
        "lean.kimina_rl": "rlpost_verifiers.lean.prompts:KIMINA_RL",
        "lean.stp": "rlpost_verifiers.lean.prompts:STP",
    },
    "template_needs": {
        "lean.released": "rlpost_verifiers.lean.prompts:RELEASED_NEEDS",
        "lean.bare": "rlpost_verifiers.lean.prompts:BARE_NEEDS",
        "lean.stp": "rlpost_verifiers.lean.prompts:STP_NEEDS",
        **dict.fromkeys(
            (
                "lean.whole_proof",
                "lean.reasoning",
                "lean.deepseek_v2",
                "lean.deepseek_v2_non_cot",
                "lean.goedel_v2",
                "lean.kimina",
                "lean.kimina_preview",
                "lean.kimina_rl",
            ),
            "rlpost_verifiers.lean.prompts:WHOLE_NEEDS",
        ),
    },
    "sources": {
        "jsonl": "rlpost.data.jsonl:read_jsonl",
        "csv": "rlpost.data.csv_files:read_csv",
        "parquet": "rlpost.data.tables:read_parquet",
        "hf_disk": "rlpost.data.tables:read_hf_disk",
        "lean_dojo_premises": "rlpost_verifiers.lean.dojo.sources:premises",
        "lean_dojo_tactics": "rlpost_verifiers.lean.dojo.sources:tactics",
        "lean_dojo_theorems": "rlpost_verifiers.lean.dojo.sources:theorems",
        "lean_repairs": "rlpost_verifiers.lean.repairs:rows",
        "lean_statements": "rlpost_verifiers.lean.statements:rows",
        "lean_tactics": "rlpost_verifiers.lean.environments.demonstrations:rows",
        "lean_theorems": "rlpost_verifiers.lean.theorems:rows",
        "catalog_candidates": "rlpost_verifiers.catalog.candidates:rows",
        "catalog_conversations": "rlpost_verifiers.catalog.conversations:rows",
        "catalog_demonstrations": "rlpost_verifiers.catalog.demonstrated:rows",
        "logged_clicks": "rlpost_verifiers.catalog.clicks:rows",
        "reddit_conversations": "rlpost_verifiers.catalog.sources:reddit",
        "redial": "rlpost_verifiers.catalog.sources:redial",
        "arithmetic": "rlpost_verifiers.math.problems:rows",
    },
}


def names(kind: str) -> list[str]:
    """All known names of ``kind``, third-party entry points included."""
    return sorted({*BUILTIN[kind], *(point.name for point in metadata.entry_points(group=f"rlpost.{kind}"))})


_ADOPTED: dict[tuple[str, str], str] = {}
"""Names that the driver has looked up for this process: (kind, name) to ``module:attribute``."""


def adopt(targets: Mapping[tuple[str, str], str]) -> None:
    """Resolve these names from now on as the driver did; the kind ``""`` matches any."""
    _ADOPTED.update(targets)


def resolve(kind: str, name: str) -> Any:
    """The object that ``name`` stands for.

    Args:
        kind: a key of `BUILTIN`.
        name: key, entry point, ``module:attribute`` or ``path.py:attribute``; see the module's docstring.

    Raises:
        UserError: for an unknown name (with similar known names) or one that cannot be loaded.
    """
    if name.startswith(objects.PREFIX):
        return _object(kind, name)
    module, attribute = locate(kind, name)
    return operator.attrgetter(attribute)(module)


def _object(kind: str, name: str) -> Any:
    """The object that a configuration was given itself."""
    found = objects.find(name)
    if found is None:
        raise UserError(
            f"{_singular(kind)} {name!r} was a Python object, which this process was not given; start or resume with "
            "rlpost.train in Python and the same object, or name it as module:attribute or path.py:attribute"
        )
    return found


def locate(kind: str, name: str) -> tuple[ModuleType, str]:
    """The module that holds ``name``, imported, and the attribute there.

    Raises:
        UserError: for an unknown name or one that cannot be loaded.
    """
    target = _target(kind, name)
    module = _load(target, kind, name)
    attribute = target.rpartition(":")[2]
    try:
        operator.attrgetter(attribute)(module)
    except AttributeError:
        public = [n for n in vars(module) if not n.startswith("_")]
        close = difflib.get_close_matches(attribute, public, n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        where = target.rpartition(":")[0]
        raise UserError(f"{_singular(kind)} {name!r}: {where} has no {attribute!r}{hint}") from None
    return module, attribute


def _target(kind: str, name: str) -> str:
    """``module:attribute`` or ``path.py:attribute``."""
    if name in BUILTIN[kind]:
        return BUILTIN[kind][name]
    for key in ((kind, name), ("", name)):
        if key in _ADOPTED:
            return _ADOPTED[key]
    declared = {f"{p.module}:{p.attr}" for p in metadata.entry_points(group=f"rlpost.{kind}") if p.name == name}
    if len(declared) > 1:
        raise UserError(
            f"{_singular(kind)} {name!r} is declared by several packages ({', '.join(sorted(declared))}); "
            "give one of these"
        )
    if declared:
        return declared.pop()
    module, colon, attribute = name.rpartition(":")
    if colon and module and attribute and (module.endswith(".py") or not module.startswith(".")):
        return name
    close = difflib.get_close_matches(name, names(kind), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names(kind))}"
    raise UserError(f"{_singular(kind)} {name!r} is not known; {hint} (or give module:attribute or path.py:attribute)")


def _load(target: str, kind: str, name: str) -> ModuleType:
    where = target.rpartition(":")[0]
    try:
        if where.endswith(".py"):
            return usercode.load_file(where)
        if name not in BUILTIN[kind]:
            usercode.search_also(Path.cwd())
        return importlib.import_module(where)
    except ImportError as error:
        raise UserError(
            f"{_singular(kind)} {name!r}: cannot import {where} ({error}); install or correct it"
        ) from error
    except (Exception, SystemExit) as error:
        place = usercode.place_of(error)
        raise UserError(
            f"{_singular(kind)} {name!r}: importing it fails at {place} ({describe_error(error)}); mend it there"
        ) from error


def _singular(kind: str) -> str:
    return "loss" if kind == "losses" else kind[:-1]
