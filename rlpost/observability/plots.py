"""Figures of one run or of several side by side. Only this module imports matplotlib."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlpost.algorithms.intervals import wilson
from rlpost.observability.sinks import read_lines, read_metrics

_LEGEND = 6
"""Most curves whose names fit into the axes; the legend of more stands below them."""
_AT_K = re.compile(r"([a-z]+)@(\d+)")


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a figure and the band around it; the four sequences run parallel. One that others are compared with
    (``reference``) is dashed and has no band.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    reference: bool = False


def curve_over_k(label: str, figures: Mapping[str, Any], measure: str = "pass") -> Curve | None:
    """A measure at k over k, such as ``pass`` or ``ndcg``, from the figures of an evaluation; None for fewer than two
    k.
    """
    matches = [found for name in figures if (found := _AT_K.fullmatch(name)) and found[1] == measure]
    ks = sorted(int(found[2]) for found in matches)
    if len(ks) < 2:
        return None
    y, low, high = ([figures[f"{measure}@{k}{end}"] for k in ks] for end in ("", "_low", "_high"))
    return Curve(label, ks, y, low, high)


def hits_curve(label: str, lists: Sequence[str]) -> Curve | None:
    """Share of lists with a hit at each rank, with 95 % Wilson intervals, from their marks; None for no list."""
    longest = max(map(len, lists), default=0)
    if not longest:
        return None
    counts = [sum(marks[rank : rank + 1] == "h" for marks in lists) for rank in range(longest)]
    ends = [wilson(count, len(lists)) for count in counts]
    shares = [count / len(lists) for count in counts]
    return Curve(label, list(range(1, longest + 1)), shares, [low for low, _ in ends], [high for _, high in ends])


def uplift_curve(label: str, by_rank: Sequence[Sequence[float]]) -> Curve:
    """Share of right answers that became likelier, by rank, with a 95 % Wilson interval for each rank."""
    ends = [wilson(int(rose), int(count)) for _, count, rose, *_ in by_rank]
    shares = [rose / count for _, count, rose, *_ in by_rank]
    return Curve(label, [row[0] for row in by_rank], shares, [low for low, _ in ends], [high for _, high in ends])


def draw(curves: Sequence[Curve], path: Path, *, title: str, x: str, y: str, base: int | None = None) -> Path:
    """Write curves with their bands as SVG, or in the format of the suffix.

    Args:
        curves: lines of the figure, at least one.
        path: file to write; its folder is made.
        title: title of the figure.
        x: label of the horizontal axis.
        y: label of the vertical axis.
        base: base of a logarithmic horizontal axis; None for a linear one.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for curve in curves:
        if curve.reference:
            axes.plot(curve.x, curve.y, linestyle="--", linewidth=1, label=curve.label)
            continue
        (line,) = axes.plot(curve.x, curve.y, marker="o", markersize=3, label=curve.label)
        axes.fill_between(curve.x, curve.low, curve.high, color=line.get_color(), alpha=0.15, linewidth=0)
    if base is not None:
        axes.set_xscale("log", base=base)
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    if len(curves) > _LEGEND:
        figure.legend(loc="outside lower center", frameon=False, fontsize="small", ncols=4)
    else:
        axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


@dataclass(frozen=True, slots=True)
class Bars:
    """A histogram with expected heights: ``x`` names the bars; the expected height is None if there is none."""

    x: Sequence[str]
    found: Sequence[float]
    expected: Sequence[float | None]


def draw_bars(bars: Bars, path: Path, *, title: str, x: str, y: str, expected: str) -> list[Path]:
    """Write a histogram with its expected heights as marks, as SVG and PNG; ``expected`` is the label of the marks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    places = range(len(bars.x))
    axes.bar(places, bars.found, color="#9ec5ee", label="found")
    known = [(place, value) for place, value in zip(places, bars.expected, strict=True) if value is not None]
    if known:
        axes.plot(*zip(*known, strict=True), "o-", color="#b3261e", markersize=3, linewidth=1, label=expected)
    step = max(-(-len(bars.x) // 12), 1)
    axes.set_xticks(list(places)[::step], list(bars.x)[::step])
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3, axis="y")
    axes.legend(frameon=False)
    return _save(figure, path)


def draw_heat(values: Sequence[Sequence[float | None]], path: Path, *, rows: Sequence[str], columns: Sequence[str],
              title: str, x: str, y: str, label: str, middle: float | None = None) -> list[Path]:  # fmt: skip
    """Write a matrix as coloured cells with their numbers, as SVG and PNG; None leaves a cell empty.

    Args:
        values: matrix of values, row by row.
        path: file to write; its suffix is replaced.
        rows: names of the rows.
        columns: names of the columns.
        title: title of the figure.
        x: label of the columns.
        y: label of the rows.
        label: label of the colour bar.
        middle: middle value of a diverging colour scale; None for a sequential scale.
    """
    import numpy as np
    from matplotlib.figure import Figure

    table = np.array([[np.nan if value is None else value for value in row] for row in values], float)
    width, height = 2.2 + 0.75 * len(columns), 1.6 + 0.32 * len(rows)
    figure = Figure(figsize=(max(width, 6.4), max(height, 3.0)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(table, aspect="auto", cmap="viridis" if middle is None else "RdBu_r")
    if middle is not None:
        spread = float(np.nanmax(np.abs(table - middle))) if np.isfinite(table).any() else 0.0
        image.set_clim(middle - (spread or 1.0), middle + (spread or 1.0))
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    for (row, column), value in np.ndenumerate(table):
        if np.isfinite(value):
            red, green, blue, _ = image.cmap(image.norm(value))
            ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
            axes.text(column, row, f"{value:.3g}", ha="center", va="center", fontsize=7, color=ink)
    axes.set(title=title, xlabel=x, ylabel=y)
    figure.colorbar(image, label=label)
    return _save(figure, path)


def _save(figure: Any, path: Path) -> list[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_suffix(".svg"), path.with_suffix(".png")]
    figure.savefig(files[0], metadata={"Date": None})
    figure.savefig(files[1], dpi=140)
    return files


def draw_run(folder: Path) -> list[Path]:
    """Write the plots of a run folder: pass@N of its evaluations; nDCG@k and hits by rank where answers are lists;
    changes of the weights; uplift by rank.

    Returns:
        The files written; none if the run has no data for them.
    """
    written: list[Path] = []
    rows = read_lines(folder / "evaluations.jsonl")
    curves = [curve for row in rows if (curve := curve_over_k(str(row["when"]), row)) is not None]
    if curves:
        target = folder / "plots" / "pass_at_n.svg"
        written.append(draw(curves, target, title="held-out prompts", x="N", y="pass@N (95 % over prompts)", base=2))
    written += _of_lists(folder, rows)
    shares = [row for row in read_metrics(folder) if "changes/changed_share" in row]
    if len(shares) > 1:
        steps = [row["step"] + 1 for row in shares]
        words = {"changed": "since the start", "stepped": "since the last look", "cancelled": "touched, then cancelled"}
        curves = []
        for name, label in words.items():
            values = [row[f"changes/{name}_share"] for row in shares]
            curves.append(Curve(label, steps, values, values, values))
        target = folder / "plots" / "changes.svg"
        y = "share of weights changed (bfloat16)"
        written.append(draw(curves, target, title="what changed", x="step", y=y))
    followed = read_lines(folder / "evaluations" / "uplift.jsonl")
    if followed:
        curves = [uplift_curve(str(row["when"]), row["by_rank"]) for row in followed]
        target = folder / "plots" / "uplift.svg"
        x, y = "rank by likelihood at the start (0: likeliest)", "share of right answers now likelier"
        written.append(draw(curves, target, title="uplift by rank", x=x, y=y))
    return written


def _of_lists(folder: Path, rows: Sequence[Mapping[str, Any]]) -> list[Path]:
    """nDCG over k and hits by rank, of evaluations and of the baselines beside them."""
    written: list[Path] = []
    curves = [curve for row in rows if (curve := curve_over_k(str(row["when"]), row, "ndcg")) is not None]
    if curves:
        target = folder / "plots" / "ndcg_at_k.svg"
        written.append(draw(curves, target, title="held-out prompts", x="k", y="nDCG@k (95 % over prompts)"))
    marks: dict[str, list[str]] = {}
    for title in (str(row["when"]) for row in rows):
        file = folder / "evaluations" / f"{title.replace(' ', '_')}.jsonl"
        marks[title] = [one["listed"]["marks"] for one in read_lines(file) if one.get("listed")]
    curves = [curve for title, lists in marks.items() if (curve := hits_curve(title, lists)) is not None]
    if curves:
        target = folder / "plots" / "hits_by_rank.svg"
        written.append(draw(curves, target, title="held-out prompts", x="rank", y="share of lists with a hit there"))
    return written
