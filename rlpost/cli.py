"""The command line: a thin layer over Python functions.

Exit status: 0 done (also when proofs were rejected), 1 a run or check failed, 2 the input was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rlpost.commands.audit_command import add_audit
from rlpost.commands.harvest_command import add_harvest
from rlpost.commands.prove_command import add_prove
from rlpost.commands.sparsity import add_sparsity
from rlpost.commands.trec_command import add_trec
from rlpost.errors import RlpostError, UserError, describe_error


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    arguments = parse(argv)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # so that SIGTERM cleans up as Ctrl-C does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return int(arguments.handler(arguments) or 0)
    except UserError as error:
        return _fail(error, 2)
    except RlpostError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of our output is gone, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # of a library, or a bug of ours
        return _fail(_unexpected(error), 1)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of a command; overrides may come before, between and after the options."""
    top = parser()
    arguments, rest = top.parse_known_args(argv)
    strange = [item for item in rest if item.startswith("-") or "=" not in item or not hasattr(arguments, "overrides")]
    if strange:
        top.error(f"unrecognized arguments: {' '.join(strange)}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="rlpost", description="RL post-training of language models that checks itself.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, handler: Any, text: str, config: bool = True) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(handler=handler)
        command.add_argument("--json", action="store_true", help="print one JSON document instead of text")
        if config:
            command.add_argument("config", help="YAML configuration")
            command.add_argument(
                "overrides", nargs="*", metavar="section.key=value", help="values that win over the file"
            )
        return command

    train = add("train", _train, "run a configuration")
    train.add_argument("--resume", action="store_true", help="continue from the run folder's last checkpoint")
    train.add_argument(
        "--allow-changes", action="store_true", help="with --resume: go on with settings that make it another run"
    )
    sft = add("sft", _sft, "supervised warm start")
    sft.add_argument("--output", help="model folder to write (default: sft/ in the run folder)")
    sft.add_argument("--quiet", action="store_true", help="no progress bar")
    add_harvest(add)
    evaluate = add("evaluate", _evaluate, "greedy accuracy and pass@k of a model on the held-out prompts")
    evaluate.add_argument("--model", required=True, help="Hugging Face folder")
    evaluate.add_argument("--split", choices=["eval", "train"], default="eval", help="which prompts (default: eval)")
    evaluate.add_argument("--output", metavar="FILE", help="write every prompt's outcomes, a JSON line each")
    evaluate.add_argument(
        "--robustness", choices=["sts"], help="instead: strategic text in items' descriptions, and defences against it"
    )
    evaluate.add_argument(
        "--set", action="append", default=[], metavar="key=value", help="a setting of --robustness, e.g. targets=5"
    )
    chat = add("chat", _chat, "talk to a trained model; a line is a turn, an empty one begins anew")
    chat.add_argument("--model", required=True, help="Hugging Face folder")
    chat.add_argument("--text", help="say this and leave")
    chat.add_argument("--temperature", type=float, default=0.0, help="0: greedy (default)")
    chat.add_argument(
        "--set", action="append", default=[], metavar="column=value", help="a further column of the data's rows"
    )
    add_prove(add)
    add("plan", _plan, "a dry run: every fault, and which actor gets what on which node, before anything starts")
    add("config", _config, "the resolved configuration, each value with where it came from")
    demonstrate = add(
        "demonstrate", _demonstrate, "a teacher's lists, moved into a catalog, to start from", config=False
    )
    demonstrate.add_argument("file", help="conversations, JSON lines")
    demonstrate.add_argument("--output", required=True, metavar="FILE", help="demonstrations to write, JSON lines")
    demonstrate.add_argument("--catalog", help="JSONL, CSV or Parquet of items (default: the films that ship)")
    demonstrate.add_argument("--lists", metavar="FILE", help="the teacher's lists, JSON lines")
    demonstrate.add_argument("--endpoint", metavar="URL", help="or a server that speaks OpenAI's protocol, to be asked")
    demonstrate.add_argument("--teacher", metavar="MODEL", help="its model")
    demonstrate.add_argument("--rate", action="store_true", help="ask it to rate candidates too")
    demonstrate.add_argument("--embedder", metavar="DIR", help="sentence-transformers model (default: a small one)")
    demonstrate.add_argument("--set", action="append", default=[], metavar="key=value", help="a setting, e.g. size=10")
    add_audit(add)
    add_trec(commands)
    report = add("report", _report, "write report.html, a run as one page", config=False)
    report.add_argument("run", help="run folder")
    add_sparsity(add)
    add("doctor", _doctor, "what is installed, what works here, and how to mend the rest", config=False)
    verify = commands.add_parser("verify", help="judge answers from a file")
    kinds = verify.add_subparsers(required=True, metavar="KIND")
    lean = kinds.add_parser("lean", help="check Lean proofs; a JSON verdict per line")
    lean.set_defaults(handler=_verify_lean)
    lean.add_argument("file", nargs="?", help='JSON lines {"name", "statement", "proof"}; - for standard input')
    lean.add_argument("--conformance", action="store_true", help="show the backend gold proofs and cheats instead")
    lean.add_argument("--backend", default="embedded", help="which Lean checks: embedded, cli, repl or kimina")
    lean.add_argument(
        "--set", action="append", default=[], metavar="key=value", help="a setting of the backend, e.g. project=DIR"
    )
    lean.add_argument("--workers", type=int, default=1, help="proofs checked at a time")
    lean.add_argument("--timeout", type=float, default=10.0, help="CPU seconds per proof")
    lean.add_argument("--json", action="store_true", help="accepted for symmetry; the output is JSON lines anyway")
    catalog = kinds.add_parser("catalog", help="check lists of recommendations; a JSON verdict per line")
    catalog.set_defaults(handler=_verify_catalog)
    catalog.add_argument("file", help='JSON lines {"name", "text"}; - for standard input')
    catalog.add_argument("--catalog", help="JSONL, CSV or Parquet of items (default: the films that ship)")
    catalog.add_argument(
        "--set", action="append", default=[], metavar="key=value", help="a setting, e.g. similarity=90"
    )
    catalog.add_argument("--json", action="store_true", help="accepted for symmetry; the output is JSON lines anyway")
    return top


def _train(arguments: argparse.Namespace) -> None:
    if arguments.allow_changes and not arguments.resume:
        raise UserError("--allow-changes: is for --resume; a run that starts has nothing to differ from")
    config = _load(arguments)  # before the heavy imports: a misspelt key should be reported at once
    from rich.console import Console

    from rlpost.api import train
    from rlpost.observability.progress import Display, evaluation_table
    from rlpost.rollout.sampling import describe, evaluation_settings

    console = Console()
    display = Display(console, enabled=not arguments.json, bar=config.logging.progress)
    with _only_json(arguments.json):
        result = train(config, resume=arguments.resume, allow_changes=arguments.allow_changes, display=display)
    if arguments.json:
        print(json.dumps({**dataclasses.asdict(result), "evaluations": dict(result.evaluations)}))
        return
    if result.evaluations:
        console.print(evaluation_table(result.evaluations, describe(evaluation_settings(config))))
    console.print(f"run folder: {result.folder}   model: {result.folder}/model", highlight=False)


def _sft(arguments: argparse.Namespace) -> None:
    config = _load(arguments)
    from rlpost.commands.sft import warm_start

    target = arguments.output or f"{config.folder}/sft"
    with _only_json(arguments.json):  # TRL prints a line for every logged loss
        result = warm_start(config, target, quiet=arguments.quiet or arguments.json)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(result)))
    elif not arguments.quiet:
        for note in result.notes:
            print(note)
        print(f"{result.rows} rows, {result.updates} updates, final loss {result.loss:.4f}: {result.folder}")


def _evaluate(arguments: argparse.Namespace) -> None:
    config = _load(arguments)
    if arguments.robustness is not None:
        return _robustness(arguments, config)
    if arguments.set:
        raise UserError("--set: is for --robustness; write section.key=value without it for the configuration")
    from rich.console import Console

    from rlpost.api import evaluate, for_split
    from rlpost.observability.progress import beside_baselines, evaluation_table
    from rlpost.rollout.sampling import describe, evaluation_settings

    sampling = describe(evaluation_settings(for_split(config, arguments.split)))
    with _only_json(arguments.json):
        figures = evaluate(config, arguments.model, split=arguments.split, output=arguments.output)
    if arguments.json:
        print(json.dumps({"model": arguments.model, "sampling": sampling, **figures}))
    else:
        Console().print(evaluation_table(beside_baselines(Path(arguments.model).name, figures), sampling))


def _robustness(arguments: argparse.Namespace, config: Any) -> None:
    from rlpost.api import for_split
    from rlpost.commands.robustness import document, render, robustness
    from rlpost.evaluation.robustness import RobustnessSettings

    given = _settings(arguments.set)
    try:
        settings = RobustnessSettings(**given)
    except TypeError as error:
        known = ", ".join(field.name for field in dataclasses.fields(RobustnessSettings))
        raise UserError(f"--robustness cannot take {given} ({error}); its settings are {known}") from None
    chosen = for_split(config, arguments.split)
    with contextlib.redirect_stdout(sys.stderr):  # Ray announces lost actors on standard output
        found = robustness(chosen, arguments.model, settings, output=arguments.output, log=_say)
    print(json.dumps({"model": arguments.model, **document(found)}) if arguments.json else render(found))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _chat(arguments: argparse.Namespace) -> None:
    config = _load(arguments)
    from rlpost.commands.chat import Chat, as_document, render

    with _only_json(arguments.json):
        talk = Chat(config, arguments.model, _settings(arguments.set), arguments.temperature)
    show = (lambda reply: json.dumps(as_document(reply), ensure_ascii=False)) if arguments.json else render
    try:
        if arguments.text is not None:
            print(show(talk.say(arguments.text)))
            return
        for line in _typed():
            if not line.strip():
                talk.forget()
                continue
            try:
                print(show(talk.say(line)), flush=True)
            except UserError as error:  # e.g. a conversation that has grown too long
                _fail(error, 2)
                talk.forget()
    finally:
        talk.close()


def _typed() -> Iterator[str]:
    """Lines from standard input, with a prompt if it is a terminal."""
    while True:
        try:
            yield input("you> " if sys.stdin.isatty() else "")
        except EOFError:
            return


def _plan(arguments: argparse.Namespace) -> int:
    from rlpost.config.load import examine

    found = examine(arguments.config, arguments.overrides)
    if found.config is None:
        return _plan_refused(found.faults, arguments.json)
    config = found.config
    from rlpost.commands.plan import plan, render

    with _only_json(arguments.json):
        placed = plan(config, found.faults, found.wrong)
    print(json.dumps(dataclasses.asdict(placed)) if arguments.json else render(placed, config))
    return _fail(_count(placed.faults), 2) if placed.faults else int(bool(placed.missing))


def _plan_refused(faults: Sequence[str], as_json: bool) -> int:
    """The faults of a configuration that says too little to look further."""
    from rlpost.config.load import numbered

    document = json.dumps({"placements": [], "missing": [], "faults": list(faults)})
    print(document if as_json else "\n".join(numbered(faults)))
    return _fail(_count(faults), 2)


def _count(faults: Sequence[str]) -> str:
    return f"{len(faults)} faults; nothing was started" if faults[1:] else faults[0]


def _config(arguments: argparse.Namespace) -> None:
    from rlpost.config.load import flatten, load, origin_of

    loaded = load(arguments.config, arguments.overrides)
    leaves = flatten(loaded.config)
    if arguments.json:
        print(json.dumps({".".join(p): {"value": v, "from": origin_of(loaded.origins, p)} for p, v in leaves.items()}))
        return
    width = max(len(".".join(path)) + len(json.dumps(value, ensure_ascii=False)) for path, value in leaves.items()) + 4
    for path, value in leaves.items():
        text = f"{'.'.join(path)}: {json.dumps(value, ensure_ascii=False)}"
        print(f"{text:<{min(width, 80)}}  # {origin_of(loaded.origins, path)}")


def _report(arguments: argparse.Namespace) -> None:
    from rlpost.observability.report import write_report

    target = str(write_report(arguments.run))
    print(json.dumps({"report": target}) if arguments.json else target)


def _doctor(arguments: argparse.Namespace) -> int:
    from rlpost.commands.doctor import examine, render

    findings = examine()
    if arguments.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings]))
    else:
        print(render(findings))
    return int(any(finding.state == "broken" for finding in findings))


def _verify_lean(arguments: argparse.Namespace) -> int:
    from rlpost.plugins import registry

    if (arguments.file is None) != arguments.conformance:
        raise UserError("verify lean: give a file of proofs, or --conformance without one")
    settings = {"timeout_s": arguments.timeout, "workers": arguments.workers, **_settings(arguments.set)}
    if arguments.conformance:
        return registry.resolve("commands", "verify lean --conformance")(arguments.backend, arguments.json, **settings)
    return registry.resolve("commands", "verify lean")(arguments.file, arguments.backend, **settings)


def _verify_catalog(arguments: argparse.Namespace) -> int:
    from rlpost.plugins import registry

    run = registry.resolve("commands", "verify catalog")
    return run(arguments.file, arguments.catalog, **_settings(arguments.set))


def _demonstrate(arguments: argparse.Namespace) -> int:
    from rlpost.plugins import registry

    settings = _settings(arguments.set) | ({"embedder": arguments.embedder} if arguments.embedder else {})
    return registry.resolve("commands", "demonstrate")(
        arguments.file,
        arguments.output,
        catalog=arguments.catalog,
        lists=arguments.lists,
        url=arguments.endpoint,
        teacher=arguments.teacher,
        rate=arguments.rate,
        as_json=arguments.json,
        **settings,
    )


def _settings(pairs: Sequence[str]) -> dict[str, Any]:
    """``key=value`` pairs as a mapping, with values as in a configuration file."""
    from rlpost.config.load import parse_override

    return {".".join(path): value for path, value in map(parse_override, pairs)}


@contextlib.contextmanager
def _only_json(wanted: bool) -> Iterator[None]:
    """With JSON output, send all other lines to standard error: Ray announces lost actors on standard output."""
    if not wanted:
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _load(arguments: argparse.Namespace) -> Any:
    from rlpost.config.load import load

    return load(arguments.config, arguments.overrides).config


def _unexpected(error: Exception) -> str:
    """A line about an exception that nobody has foreseen; its traceback goes to a file, for a report of the fault."""
    with tempfile.NamedTemporaryFile("w", prefix="rlpost-traceback-", suffix=".txt", delete=False) as file:
        file.write("".join(traceback.format_exception(error)))
    return f"unexpected {describe_error(error)}; the traceback is in {file.name}"


def _fail(reason: object, status: int) -> int:
    print(f"rlpost: {reason}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
