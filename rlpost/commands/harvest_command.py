"""The command ``rlpost harvest``; what it does is imported when it runs."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlpost.commands.harvest import Harvest


def add_harvest(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command; ``add`` is the function of that name in `rlpost.cli.parser`."""
    command = add("harvest", _harvest, "accepted answers of finished runs, as rows for sft.train", config=False)
    command.set_defaults(overrides=[])  # those that come after the options
    command.add_argument("runs", nargs="+", metavar="RUN", help="run folder, or section.key=value for their settings")
    command.add_argument("--output", required=True, metavar="FILE", help="JSON lines to write")
    command.add_argument("--per-prompt", type=int, default=4, metavar="N", help="most answers to a prompt; 0: all (4)")
    command.add_argument(
        "--pick",
        choices=["shortest", "diverse", "first"],
        default="shortest",
        help="which of them (shortest); diverse: the farthest from those chosen, by words and their neighbours",
    )
    command.add_argument("--seed", type=int, default=0, help="of diverse, where answers are equally far (0)")
    command.add_argument(
        "--assurance", action="append", default=[], metavar="NAME", help="e.g. kernel_replayed; several: any of them"
    )
    command.add_argument("--min-reward", type=float, metavar="X", help="least reward; needed where nothing is verified")
    command.add_argument(
        "--held-out",
        action="append",
        default=[],
        metavar="FILE",
        help="further held-out prompts, beside the runs' data.eval: rows, a configuration, or a run folder",
    )
    command.add_argument(
        "--contamination",
        choices=["refuse", "drop", "allow"],
        default="refuse",
        help="answers to held-out prompts (refuse)",
    )
    command.add_argument(
        "--completion-key", metavar="COLUMN", help="column of the answer (the runs' sft.completion_key)"
    )
    command.add_argument("--force", action="store_true", help="replace the file if it exists")


def _harvest(arguments: argparse.Namespace) -> None:
    settings = [one for one in arguments.runs if "=" in one and not Path(one).exists()]
    from rlpost.commands.harvest import Choice, harvest
    from rlpost.commands.harvest_rows import Demands

    found = harvest(
        [one for one in arguments.runs if one not in settings],
        arguments.output,
        demands=Demands(tuple(arguments.assurance), arguments.min_reward),
        choice=Choice(arguments.per_prompt or None, arguments.pick, arguments.seed, arguments.contamination),
        held_out=arguments.held_out,
        completion_key=arguments.completion_key,
        overrides=[*settings, *arguments.overrides],
        force=arguments.force,
    )
    print(json.dumps(dataclasses.asdict(found), ensure_ascii=False) if arguments.json else _render(found))


def _quoted(value: str) -> str:
    """A value as the command line takes it: YAML, which drops bare blanks."""
    return value if value and value.replace("_", "").isalnum() else json.dumps(value, ensure_ascii=False)


def _render(found: Harvest) -> str:
    from rlpost.commands.harvest import REASONS, listed

    lines = [*found.notes, f"{found.output}: {found.rows} rows for {found.prompts} prompts, of {found.read} rows read"]
    lines += [f"  {number:>7}  {REASONS[reason]}" for reason, number in found.left_out.items()]
    sizes = ", ".join(f"{name} {value:g}" for name, value in found.tokens.items())
    lines.append(f"tokens of an answer: {sizes}; longest row with its prompt: {found.longest_row}")
    lines.append(f"accepted on: {listed(found.assurances)}")
    lines += [
        f"{run}: {own['written']} of {own['read']} rows" for run, own in found.runs.items() if len(found.runs) > 1
    ]
    settings = (f"sft.{name}={value if name == 'train' else _quoted(value)}" for name, value in found.sft.items())
    lines.append(f"to train on them: {shlex.join(['rlpost', 'train', 'CONFIG', *settings])}")
    return "\n".join(lines)
