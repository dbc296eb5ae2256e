"""Renders findings as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from rlpost.sparsity.findings import FIGURES, Figure, Findings, Part
from rlpost.sparsity.overlap import Overlap

NO_NULL = "none: nothing has changed, or no noise leaves so many as they were"
_COLUMNS = ("unchanged", "within_atol", "within_ulp", "relative_norm")


def wide_console() -> Console:
    """A console at least 140 wide: tables keep their columns whole, and a narrower terminal wraps the lines."""
    return Console(width=max(Console().width, 140))


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)


def number(value: float | None) -> str:
    """Format a share or norm with four digits; a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 else f"{value:.3e}"


def render(found: Findings, by: Sequence[str]) -> Iterator[Table | str]:
    """Yield lines and tables: all tensors together, then the groups named in ``by``, then the inspected matrices."""
    whole = found.whole
    yield f"{found.before} → {found.after}"
    yield (
        f"{whole.entries:,} entries of {whole.tensors} tensors, {found.start:.1%} of them on bfloat16's values before; "
        f"tolerance {found.atol:g}"
    )
    yield f"null: {found.null or NO_NULL}"
    yield from not_compared(found)
    yield _whole(whole)
    for kind in by:
        yield _groups(kind, getattr(found, f"{kind}s"))
    if found.matrices:
        yield _matrices(found.matrices)
    if not_moved := [part.name for part in found.layers if part.still == part.tensors]:
        yield f"layers that did not move: {', '.join(not_moved)}"
    elif whole.still:
        names = [part.name for part in found.tensors if part.still]
        yield f"tensors that did not move: {len(names)}, e.g. {names[0]}"


def not_compared(found: Findings) -> Iterator[str]:
    """Lines on what was matched otherwise than by name, and what was not compared."""
    if found.merged:
        yield f"adapter: merged into {found.merged} layers"
    for before, after, count in found.renamed:
        yield f"names: {before or 'no prefix'} before is {after or 'no prefix'} after ({count} tensors)"
    for text, names in (("only before", found.only_before), ("only after", found.only_after)):
        if names:
            yield f"{text}: {len(names)} tensors, e.g. {names[0]}"
    for name, reason in found.left_out.items():
        yield f"left out: {name} ({reason})"
    for text, count in zip(("before", "after"), found.uncompared, strict=True):
        if count:
            share = count / (found.whole.entries + count)
            yield f"not compared: {count:,} of the entries {text} ({share:.2%})"


def _whole(part: Part) -> Table:
    table = _table("all tensors")
    for name in ("", "found", "null", "what it is"):
        table.add_column(name, justify="right" if name in ("found", "null") else "left")
    for name, figure in part.figures.items():
        table.add_row(name, number(figure.value), number(figure.null), FIGURES[name])
    return table


def _groups(kind: str, parts: Sequence[Part]) -> Table:
    table = _table(f"by {kind}, found | null")
    table.add_column(kind)
    for name in ("entries", "still", *_COLUMNS):
        table.add_column(name, justify="right")
    for part in parts:
        cells = (_both(part.figures[name]) for name in _COLUMNS)
        table.add_row(part.name, f"{part.entries:,}", f"{part.still}/{part.tensors}", *cells)
    return table


def _both(figure: Figure) -> str:
    return f"{number(figure.value)} | {number(figure.null)}"


def _matrices(matrices: Sequence[Any]) -> Table:
    table = _table("a closer look (rank: singular values above max(m, n) ε σ₁, float32's ε)")
    for name in ("matrix", "shape", "changed", "rank", "shuffled", "null", "rows", "null", "columns", "null"):
        table.add_column(name, justify="left" if name == "matrix" else "right")
    for one in matrices:
        null = one.null
        shape = f"{one.shape[0]}×{one.shape[1]}"
        ranks = (one.found.rank, one.shuffled_rank, null.rank if null else None)
        lines = ((one.found.rows, null and null.rows), (one.found.columns, null and null.columns))
        table.add_row(
            one.name, shape, f"{one.found.changed:,}", *(number(value) for value in ranks),
            *(number(value) for pair in lines for value in pair),
        )  # fmt: skip
    return table


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Shorten paths by the parts that all of them begin and end with.

    >>> short_names(["runs/a/model", "runs/b/model"])
    {'runs/a/model': 'a', 'runs/b/model': 'b'}
    """
    parts = {path: Path(path).parts for path in dict.fromkeys(paths)}
    if len(parts) < 2:
        return {path: path for path in parts}
    first = _alike(list(parts.values()))
    last = _alike([every[first:][::-1] for every in parts.values()])
    return {path: str(Path(*every[first : len(every) - last])) for path, every in parts.items()}


def _alike(rows: Sequence[Sequence[str]]) -> int:
    """Number of leading parts that all rows share; at least one part of each row is kept."""
    count = 0
    while all(len(row) > count + 1 for row in rows) and len({row[count] for row in rows}) == 1:
        count += 1
    return count


def render_overlap(found: Sequence[Overlap]) -> Table:
    """A table with a row per pair: the changes in common and those expected by chance, with standard errors."""
    table = _table("changed entries (bfloat16 casts) in common, as shares of each")
    for name in (
        "runs",
        "changed",
        "in common",
        "density",
        "by tensor",
        "|w|-matched",
        "noise",
        "excess",
        "± (entries)",
        "± (tensors)",
        "Jaccard",
    ):
        table.add_column(name, justify="left" if name == "runs" else "right")
    short = short_names([name for one in found for name in (one.first, one.second)])
    for one in found:
        table.add_row(
            f"{short[one.first]}\n{short[one.second]}",
            "\n".join(f"{count:,}" for count in one.changed),
            f"{number(one.share_of_first)}\n{number(one.share_of_second)}",
            *("\n".join(map(number, one.chance(kind)[:2])) for kind in ("density", "tensor", "magnitude", "noise")),
            number(one.excess),
            number(one.error),
            number(one.error_by_tensor),
            f"{number(one.jaccard)}\n({number(one.chance('magnitude')[2])})",
        )  # fmt: skip
    return table
