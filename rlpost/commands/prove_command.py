"""The command ``rlpost prove``; what it does is imported when it runs."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rlpost.errors import UserError

if TYPE_CHECKING:
    from rlpost.commands.prove import Proofs
    from rlpost.config.schema import RunConfig


def add_prove(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command; ``add`` is the function of that name in `rlpost.cli.parser`."""
    command = add("prove", _prove, "find proofs of the theorems in a file with a trained model", config=False)
    command.add_argument("file", help="JSON lines: rows with statement, or declarations (theorem … := by sorry)")
    command.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="values that win over the configuration"
    )
    command.add_argument("--model", required=True, metavar="DIR", help="Hugging Face folder, e.g. RUN/model")
    command.add_argument(
        "--config", metavar="FILE", help="configuration it was trained with (default: that of its run folder)"
    )
    command.add_argument("--method", choices=["sampling", "best_first"], help="prove.method (sampling)")
    command.add_argument(
        "--output", metavar="FILE", help="results to write or go on with (default: STEM.proofs.jsonl here)"
    )
    command.add_argument("--attempts", type=int, metavar="N", help="prove.attempts, model calls per theorem (32)")
    command.add_argument("--seconds", type=float, metavar="S", help="prove.seconds, per theorem (no limit)")


def _prove(arguments: argparse.Namespace) -> None:
    config = _configuration(arguments)
    from rlpost.commands.prove import prove_file

    # Ray announces lost actors on standard output
    with contextlib.redirect_stdout(sys.stderr):
        found = prove_file(arguments.file, arguments.model, config=config, output=arguments.output, log=_say)
    print(json.dumps({"output": found.output, **found.figures}) if arguments.json else render(found))


def _configuration(arguments: argparse.Namespace) -> RunConfig:
    from rlpost.config.load import load

    given = {"method": arguments.method, "attempts": arguments.attempts, "seconds": arguments.seconds}
    options = [f"prove.{name}={value}" for name, value in given.items() if value is not None]
    if arguments.config is not None:
        return load(arguments.config, [*arguments.overrides, *options]).config
    from rlpost.commands.prove import config_file
    from rlpost.data.models import resolve_path

    if not Path(arguments.model).exists() and not arguments.model.startswith("package:"):
        raise UserError(f"--model: no such folder {arguments.model}; give a Hugging Face model folder")
    return load(config_file(resolve_path(arguments.model)), [*arguments.overrides, *options]).config


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def render(found: Proofs) -> str:
    """The figures as text."""
    all_ = found.figures
    decided = int(all_["theorems"] - all_["unreadable"] - all_["undecided"])
    lines = [f"{int(all_['proved'])} of {decided} theorems proved"]
    if "share" in all_:
        lines[0] += f": {all_['share']:.1%} (95 % Wilson {all_['share_low']:.1%} to {all_['share_high']:.1%})"
    words = {
        "not_proved": "not proved within the budget",
        "exhausted": "exhausted: no state left to expand",
        "unreadable": "unreadable, not counted",
        "undecided": "undecided, not counted; the same command tries them again",
    }
    lines += [f"  {int(all_[name]):>7}  {text}" for name, text in words.items() if all_[name]]
    first = next((row for row in found.rows if row.outcome in ("unreadable", "undecided")), None)
    if first is not None:
        lines.append(f"  first of these, {first.id}: {first.detail}")
    lines.append(
        f"{int(all_['model_calls'])} model calls, {int(all_['tokens'])} tokens, {int(all_['attempts'])} whole proofs "
        f"checked, {int(all_['states'])} tactics run"
    )
    if "proofs_per_second" in all_:
        lines.append(
            f"{all_['seconds']:.1f} s, {all_['states_per_second']:.1f} tactics and {all_['proofs_per_second']:.2f} "
            "proofs found per second"
        )
    return "\n".join([*lines, found.output])
