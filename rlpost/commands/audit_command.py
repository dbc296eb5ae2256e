"""The command ``rlpost audit``; what it does is imported when it runs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable


def add_audit(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command; ``add`` is the function of that name in `rlpost.cli.parser`."""
    text = "how far what two recommenders show to the same users differs, beside chance"
    command = add("audit", _audit, text, config=False)
    command.add_argument("first", help="the baseline's lists: an evaluation, a run folder, a TREC run, Rankify's JSON")
    command.add_argument("second", help="the other's, in any of these forms")
    command.add_argument("--groups", metavar="FILE", help="table of items and groups (default: the evaluations' own)")
    command.add_argument("--item-column", default="item", metavar="NAME", help="its column with the item (item)")
    command.add_argument("--group-column", default="group", metavar="NAME", help="its column with the group (group)")
    command.add_argument("--users", metavar="FILE", help="table with query and user, where users have several queries")
    command.add_argument("--names", metavar="FILE", help="table with docno and name, such as trec export wrote")
    command.add_argument("--attention", choices=["log", "rbp", "top"], default="log",
                         help="what a rank is worth: log discount, RBP, or 1 (log)")  # fmt: skip
    command.add_argument("--patience", type=float, default=0.8, metavar="X", help="of rbp (0.8)")
    command.add_argument("--cut", type=int, metavar="K", help="only the first K places count (all)")
    command.add_argument("--movers", type=int, default=10, metavar="N", help="items to list (10)")
    command.add_argument("--draws", type=int, default=999, metavar="N", help="draws of the noise (999)")
    command.add_argument("--seed", type=int, default=0, help="of the draws (0)")
    command.add_argument("--markdown", metavar="FILE", help="write the report as Markdown, too")
    command.add_argument("--force", action="store_true", help="replace the file if it exists")


def _audit(arguments: argparse.Namespace) -> None:
    from rlpost.commands.audit import audit_files, document, render
    from rlpost.commands.list_files import write_new
    from rlpost.evaluation.audit import AuditSettings

    settings = AuditSettings(
        arguments.attention, arguments.patience, arguments.cut, arguments.movers, arguments.draws, arguments.seed
    )
    found = audit_files(
        arguments.first, arguments.second, groups=arguments.groups, item_column=arguments.item_column,
        group_column=arguments.group_column, users=arguments.users, names=arguments.names, settings=settings,
    )  # fmt: skip
    titles = (arguments.first, arguments.second)
    text = render(found, settings, titles)
    if arguments.markdown is not None:
        write_new({arguments.markdown: text.split("\n")}, arguments.force)
    print(json.dumps(document(found, settings, titles), ensure_ascii=False) if arguments.json else text)
