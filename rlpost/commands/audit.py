"""An audit of exposure from files, and its report in words, as a document and as Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlpost.commands import list_files
from rlpost.evaluation.audit import LEVEL, Audit, AuditSettings, Distance, Shift, audit


def audit_files(
    first: str | Path,
    second: str | Path,
    *,
    groups: str | Path | None = None,
    item_column: str = "item",
    group_column: str = "group",
    users: str | Path | None = None,
    names: str | Path | None = None,
    settings: AuditSettings | None = None,
) -> Audit:
    """Compare the lists of two files; see `rlpost.evaluation.audit.audit`.

    Args:
        first: the baseline's lists: outcomes of an evaluation, a run folder, a TREC run, or Rankify's JSON.
        second: the other's.
        groups: table of items and their groups; None: the groups in the evaluations.
        item_column: its column with the item.
        group_column: its column with the group.
        users: table with ``query`` and ``user``; None: the clusters of the evaluations.
        names: table with ``docno`` and ``name``.
        settings: how exposure is counted.

    Raises:
        UserError: if a file or setting cannot be used.
    """
    known = list_files.names(None if names is None else str(names))
    owner = list_files.mapping(None if users is None else str(users), "query", "user")
    of_item = None if groups is None else list_files.groups(str(groups), item_column, group_column)
    (a, noted), (b, more) = (list_files.rankings(str(path), known) for path in (first, second))
    a, b = ([replace(one, cluster=owner.get(one.query, one.cluster)) for one in lists] for lists in (a, b))
    found = audit(a, b, settings, of_item)
    return replace(found, notes=(*noted, *more, *found.notes))


def document(found: Audit, settings: AuditSettings, titles: tuple[str, str]) -> dict[str, Any]:
    """The audit as plain data."""
    plain = dataclasses.asdict(found)
    for key in ("groups", "movers"):
        plain[key] = [{**dataclasses.asdict(one), "difference": one.difference} for one in getattr(found, key)]
    return {
        "first": titles[0],
        "second": titles[1],
        "statement": statement(found),
        "attention": settings.described,
        "level": LEVEL,
        **plain,
    }


def statement(found: Audit) -> str:
    """The answer in words, with its confidence."""
    said: list[str] = []
    if found.groups:
        sure = [one for one in found.groups if one.low > 0 or one.high < 0]
        if sure:
            # of two groups that trade the same share, the one that gained
            farthest = max(sure, key=lambda one: (round(abs(one.difference), 9), one.difference))
            said.append(
                f"With 95 % confidence, the share of exposure of {farthest.name!r} differs by {_moved(farthest)} "
                f"({farthest.first:.1%} by the first, {farthest.second:.1%} by the second)"
                + (f"; {len(sure)} of {len(found.groups)} groups differ" if found.groups[1:] else "")
            )
        else:
            most = max(max(abs(one.low), abs(one.high)) for one in found.groups)
            said.append(
                f"With 95 % confidence, no group's share of exposure differs by more than {100 * most:.1f} points"
            )
        if found.group_variation is not None:
            said.append(f"Total variation over groups {_beside(found.group_variation)}")
    said.append(f"Total variation over items {_beside(found.variation)}")
    return ". ".join(said) + "."


def _moved(one: Shift) -> str:
    return f"{100 * one.difference:+.1f} points [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"


def _beside(one: Distance) -> str:
    verdict = "more than chance" if one.p <= 1 - LEVEL else "no more than chance gives"
    return f"{one.value:.3f} (noise {one.noise:.3f}, 95 % of it below {one.noise_high:.3f}; p {one.p:.3g}: {verdict})"


def render(found: Audit, settings: AuditSettings, titles: tuple[str, str]) -> str:
    """The audit as Markdown."""
    lines = ["# Exposure audit", "", f"{titles[0]} (first) against {titles[1]} (second)", "", statement(found), ""]
    lines += [
        f"- {found.queries} queries of {found.users} users, {found.items} items; attention: {settings.described}",
        f"- attention on places without an item of their own: {found.unnamed[0]:.1%} and {found.unnamed[1]:.1%}",
        f"- Jensen–Shannon divergence over items {_beside(found.divergence)} (bits)",
        f"- noise: the two lists of each user change sides by the toss of a coin, {settings.draws} times",
        *(f"- note: {note}" for note in found.notes),
    ]
    if found.groups:
        lines += ["", "## Groups", "", "Intervals hold for all groups at once; p is adjusted for their number.", ""]
        lines += _table("group", found.groups)
    if found.movers:
        told = f"{found.moved} of {found.items} items differ at 5 % after adjustment for their number. The largest:"
        lines += ["", "## Items", "", told, "", *_table("item", found.movers)]
    return "\n".join(lines)


def _table(title: str, rows: Sequence[Shift]) -> list[str]:
    lines = [f"| {title} | first | second | difference, points | p |", "|---|---|---|---|---|"]
    for one in rows:
        name = " ".join(one.name.replace("|", "\\|").split())
        lines.append(
            f"| {name} | {one.first:.2%} | {one.second:.2%} | {_moved(one).replace(' points', '')} | {one.p:.3g} |"
        )
    return lines
