"""Findings as plots, and as one self-contained HTML page."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rlpost.observability.plots import Bars, draw_bars, draw_heat
from rlpost.observability.report import STYLE, inline
from rlpost.sparsity.findings import FIGURES, Findings, Part, layer_of, module_of
from rlpost.sparsity.overlap import Overlap
from rlpost.sparsity.render import NO_NULL, not_compared, number, short_names

_ROWS = 60


def pictures(found: Findings, folder: Path) -> list[Path]:
    """Write the plots of the findings as SVG and PNG.

    Returns:
        The files: ``unchanged`` and ``against_null`` by layer and module, ``sizes`` of changes, ``octaves`` of weights.
    """
    written = _heat(found, folder / "unchanged", "share of entries unchanged (bfloat16)", lambda p: _value(p), None)
    if found.null:
        title = "unchanged, minus what the null model expects"
        written += _heat(found, folder / "against_null", title, lambda p: _difference(p), 0.0)
    sizes, octaves = found.whole.sizes, found.whole.octaves
    if sizes:
        bars = Bars([f"{e}" for e, *_ in sizes], [n for _, n, _ in sizes], [null for *_, null in sizes])
        written += draw_bars(
            bars, folder / "sizes", title="sizes of changes", x="log₂ |Δ|, rounded down", y="entries",
            expected="null model",
        )  # fmt: skip
    bars = Bars(
        [f"{e}" for e, *_ in octaves],
        [changed / max(total, 1) for _, total, changed, _ in octaves],
        [None if null is None or not total else null / total for _, total, _, null in octaves],
    )
    return written + draw_bars(
        bars, folder / "octaves", title="who changes: small weights first", x="log₂ |w|, rounded down",
        y="share of entries changed (bfloat16)", expected="null model",
    )  # fmt: skip


def overlap_matrix(found: Sequence[Overlap], folder: Path) -> list[Path]:
    """Plot the share in common for each pair of runs, and its excess over magnitude-matched chance."""
    runs = list(dict.fromkeys(name for one in found for name in (one.first, one.second)))
    shares: dict[tuple[str, str], float | None] = {}
    beyond: dict[tuple[str, str], float | None] = {}
    for one in found:
        chances = one.chance("magnitude")
        for pair, share, chance in (
            ((one.first, one.second), one.share_of_first, chances[0]),
            ((one.second, one.first), one.share_of_second, chances[1]),
        ):
            shares[pair] = share
            beyond[pair] = None if share is None or chance is None else share - chance
    written: list[Path] = []
    for name, values, title, middle in (
        ("overlap", shares, "share of a row's changes that the column's run made too", None),
        ("overlap_beyond_chance", beyond, "the share in common, minus magnitude-matched chance", 0.0),
    ):
        table = [[values.get((row, column)) for column in runs] for row in runs]
        names = list(short_names(runs).values())
        written += draw_heat(
            table, folder / name, rows=names, columns=names, title=title, x="other run", y="run", label="share",
            middle=middle,
        )  # fmt: skip
    return written


def _heat(
    found: Findings, path: Path, title: str, value: Callable[[Part], float | None], middle: float | None
) -> list[Path]:
    cells: dict[tuple[str, str], list[Part]] = {}
    for part in found.tensors:
        cells.setdefault((layer_of(part.name), module_of(part.name)), []).append(part)
    layers = [part.name for part in found.layers][:_ROWS]
    modules = [part.name for part in found.modules]
    table = [[_mean(cells.get((layer, module), []), value) for module in modules] for layer in layers]
    return draw_heat(
        table, path, rows=layers, columns=modules, title=title, x="module", y="layer", label="share", middle=middle
    )  # fmt: skip


def _mean(parts: Sequence[Part], value: Callable[[Part], float | None]) -> float | None:
    """Mean over the tensors of one cell (e.g. experts), weighted by entries."""
    known = [(part.entries, found) for part in parts if (found := value(part)) is not None]
    total = sum(entries for entries, _ in known)
    return sum(entries * found for entries, found in known) / total if total else None


def _value(part: Part) -> float | None:
    return part.figures["unchanged"].value


def _difference(part: Part) -> float | None:
    figure = part.figures["unchanged"]
    return None if figure.value is None or figure.null is None else figure.value - figure.null


def write_page(found: Findings, file: Path) -> Path:
    """Write one self-contained HTML file, without scripts."""
    with TemporaryDirectory(prefix="rlpost-") as scratch:
        drawn = [inline(path) for path in pictures(found, Path(scratch)) if path.suffix == ".svg"]
    whole = found.whole
    missing = [line for line in not_compared(found) if not line.startswith("only ")]
    missing += [f"only before: {n}" for n in found.only_before] + [f"only after: {n}" for n in found.only_after]
    parts = [
        "<h1>What training changed</h1>",
        f"<p><code>{html.escape(found.before)}</code> → <code>{html.escape(found.after)}</code>: {whole.entries:,} "
        f"entries of {whole.tensors} tensors, {found.start:.1%} of them on bfloat16's values before; "
        f"tolerance {found.atol:g}.</p>",
        f"<p>Null model: {html.escape(found.null or NO_NULL)}. It moves every weight by noise that "
        "knows nothing of it; only what differs from it can say something about learning.</p>",
        *(f"<p>{html.escape(text)}</p>" for text in missing),
        "<h2>All tensors</h2>",
        _table(("figure", "found", "null", "what it is"), [
            (name, number(figure.value), number(figure.null), FIGURES[name]) for name, figure in whole.figures.items()
        ]),
        "<h2>Pictures</h2>",
        *(f"<figure style='width:auto;margin:1rem 0'>{one}</figure>" for one in drawn),
        *(_section(kind, group) for kind, group in (("modules", found.modules), ("layers", found.layers))),
        _closer(found),
        f"<details><summary>Tensors</summary>{_section('tensors', found.tensors)}</details>",
    ]  # fmt: skip
    page = f"<!doctype html><meta charset=utf-8><title>What training changed</title><style>{STYLE}</style>"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page + "\n".join(parts), encoding="utf-8")
    return file


def _section(kind: str, parts: Sequence[Part]) -> str:
    names = ("unchanged", "within_atol", "within_ulp", "relative_norm", "top_1")
    head = (kind[:-1], "entries", "still", *(f"{name} (null)" for name in names))
    rows = [
        (part.name, f"{part.entries:,}", f"{part.still}/{part.tensors}",
         *(f"{number(part.figures[n].value)} ({number(part.figures[n].null)})" for n in names))
        for part in parts
    ]  # fmt: skip
    return f"<h2>By {kind[:-1]}</h2>{_table(head, rows)}"


def _closer(found: Findings) -> str:
    if not found.matrices:
        return ""
    head = ("matrix", "shape", "changed", "rank", "shuffled", "null", "row dispersion (null)", "columns (null)")
    rows = [
        (one.name, f"{one.shape[0]}×{one.shape[1]}", f"{one.found.changed:,}", str(one.found.rank),
         str(one.shuffled_rank), number(one.null.rank if one.null else None),
         f"{number(one.found.rows)} ({number(one.null.rows if one.null else None)})",
         f"{number(one.found.columns)} ({number(one.null.columns if one.null else None)})")
        for one in found.matrices
    ]  # fmt: skip
    return f"<h2>A closer look</h2>{_table(head, rows)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    kinds = ["" if name in (head[0], "what it is") else " class=n" for name in head]
    body = "".join(
        "<tr>" + "".join(f"<td{k}>{html.escape(cell)}</td>" for k, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"
