"""The command line as a parser: each command is reachable. Not covered: what the commands do."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlpost.cli import main, parse, parser


def leaves(top: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """A command line for every command, each required argument given as ``x`` or as its first choice."""
    nested = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    for name, command in (pair for action in nested for pair in action.choices.items()):
        yield from leaves(command, (*words, name))
    if nested:
        return
    given = list(words)
    for action in top._actions:
        if action.required:
            given += [*action.option_strings[:1], next(iter(action.choices or ["x"]))]
    yield given


@pytest.mark.parametrize("words", list(leaves(parser())), ids=" ".join)
def test_no_argument_of_a_command_hides_its_handler(words: list[str]) -> None:
    """An argument whose name is that of the handler replaces it; the command then fails when it is called."""
    assert callable(parse(words).handler)


def test_a_report_is_written_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 0, "reward_mean": 0.5}) + "\n")
    assert main(["report", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(tmp_path / "report.html")}
