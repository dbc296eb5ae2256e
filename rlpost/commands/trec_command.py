"""The commands ``rlpost trec export`` and ``rlpost trec import``; what they do is imported when they run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

_LIST_KS = (5, 10)


def add_trec(commands: Any) -> None:
    """Declare the commands; ``commands`` are the subparsers of `rlpost.cli.parser`."""
    trec = commands.add_parser("trec", help="lists and judgements in TREC's formats, out and in")
    kinds = trec.add_subparsers(required=True, metavar="DIRECTION")
    text = "the lists of an evaluation for trec_eval, pytrec_eval, ir_measures and Rankify"
    out = kinds.add_parser("export", help=text, description=text)
    out.set_defaults(handler=_export)
    out.add_argument("evaluation", help="outcomes of an evaluation (rlpost evaluate --output), or a run folder")
    out.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="run to write, and FILE.names.jsonl next to it"
    )
    out.add_argument("--qrels", metavar="FILE", help="what is relevant, to write too")
    out.add_argument("--rankify", metavar="FILE", help="the lists as Rankify's JSON, to write too")
    out.add_argument("--questions", metavar="FILE", help="table with id and question, for Rankify (default: ids)")
    out.add_argument("--names", metavar="FILE", help="table with docno and name (default: ids made of names)")
    out.add_argument("--places", choices=["keep", "drop"], default="keep",
                     help="places without a document of their own (keep: a placeholder holds their rank)")  # fmt: skip
    out.add_argument("--tag", help="name of the system (default: the evaluation's)")
    text = "judge the lists of another system by qrels, as an evaluation of ours"
    into = kinds.add_parser("import", help=text, description=text)
    into.set_defaults(handler=_import)
    into.add_argument("run", help="TREC run (also .gz), or Rankify's JSON")
    into.add_argument("--qrels", required=True, metavar="FILE", help="TREC's four columns, or BEIR's three")
    into.add_argument("-o", "--output", required=True, metavar="FILE", help="outcomes to write, JSON lines")
    into.add_argument("--names", metavar="FILE", help="table with docno and name, such as export wrote")
    into.add_argument("--questions", metavar="FILE", help="table with id and question, for what Rankify saved")
    into.add_argument("--k", type=int, action="append", metavar="N", help="cut-off of nDCG and recall (5 and 10)")
    for command in (out, into):
        command.add_argument("--force", action="store_true", help="replace files that are there")
        command.add_argument("--json", action="store_true", help="print one JSON document instead of text")


def _export(arguments: argparse.Namespace) -> None:
    from rlpost.commands.list_files import evaluation, mapping, write_new
    from rlpost.evaluation import rankify
    from rlpost.evaluation.exchange import export
    from rlpost.evaluation.trec import qrels_lines, run_lines, whole_grades

    docnos = mapping(arguments.names, "name", "docno")
    found = export(evaluation(arguments.evaluation), docnos, arguments.places)
    grades, factor = whole_grades(found.qrels)
    if factor != 1:
        found.notes.append(f"relevances are multiplied by {factor:g} and rounded, as qrels hold whole numbers")
    tag = arguments.tag or Path(arguments.evaluation).stem or "rlpost"
    names = [{"docno": docno, "name": name} for docno, name in found.names.items()]
    names += [{"qid": query, "id": name} for query, name in found.queries.items() if query != name]
    files: dict[str, Any] = {
        arguments.output: run_lines(found.run, tag),
        f"{arguments.output}.names.jsonl": (json.dumps(one, ensure_ascii=False) for one in names),
    }
    if arguments.qrels is not None:
        files[arguments.qrels] = qrels_lines(grades)
    if arguments.rankify is not None:
        questions = mapping(arguments.questions, "id", "question")
        files[arguments.rankify] = [json.dumps(rankify.documents(found, questions), ensure_ascii=False, indent=1)]
    write_new(files, arguments.force)
    figures = {"queries": len(found.run), "lines": sum(map(len, found.run.values())), "grade_factor": factor}
    _show(arguments.json, {"files": list(files), **figures}, found.notes)


def _import(arguments: argparse.Namespace) -> None:
    from rlpost.commands import list_files
    from rlpost.errors import UserError
    from rlpost.evaluation import trec
    from rlpost.evaluation.exchange import judge
    from rlpost.evaluation.outcomes import figures

    ks = tuple(arguments.k or _LIST_KS)
    if min(ks) < 1:
        raise UserError(f"--k: {min(ks)} is no cut-off; give 1 or more")
    read, names = list_files.plain_text, list_files.names(arguments.names)
    questions = list_files.mapping(arguments.questions, "id", "question")
    found, notes = list_files.foreign(arguments.run, read(arguments.run), questions)
    qrels = trec.read_qrels(read(arguments.qrels).split("\n"), arguments.qrels)
    judged, more = judge(found, qrels, names.items, names.queries)
    lines = (json.dumps(asdict(one), ensure_ascii=False) for one in judged)
    list_files.write_new({arguments.output: lines}, arguments.force)
    _show(arguments.json, {"files": [arguments.output], **figures(judged, (), ks)}, [*notes, *more])


def _show(as_json: bool, figures: Mapping[str, Any], notes: list[str]) -> None:
    if as_json:
        print(json.dumps({**figures, "notes": notes}, ensure_ascii=False))
        return
    for note in notes:
        print(f"note: {note}")
    means = {name: value for name, value in figures.items() if f"{name}_low" in figures}
    for name, value in means.items():
        print(f"{name:<20}{value:>8.4f}  [{figures[f'{name}_low']:.4f}, {figures[f'{name}_high']:.4f}]")
    counts = ("queries", "lines", "prompts")
    print("  ".join(f"{name} {figures[name]:g}" for name in counts if name in figures))
    print("\n".join(figures["files"]))
