"""Findings as figures next to those of the null model: over all tensors, by kind of module, by layer and by tensor."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rlpost.sparsity.compare import Compared
from rlpost.sparsity.counting import (
    BEYOND_ATOL,
    BEYOND_ULP,
    CHANGED,
    OUTWARD,
    ROW_SQUARES,
    ROWS,
    STORED,
    STORED_BEYOND,
    UP,
    VALUES,
    ZERO_SIGN,
    Counts,
    bin_edges,
)
from rlpost.sparsity.expected import Chance, Expected, together
from rlpost.sparsity.nullmodel import CODES
from rlpost.sparsity.pairs import Pair

_LAYER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")
_QUANTILES = (0.1, 0.5, 0.9)
_TOP = (0.01, 0.1)
OUTSIDE = "outside"
"""Layer name for tensors that belong to no layer."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number found and the null model's prediction of it; None where there is none."""

    value: float | None
    null: float | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Figures of one tensor, or of several together.

    Attributes:
        name: name of the tensor, layer or kind of module.
        tensors: number of tensors.
        entries: number of entries in all of them.
        still: number of tensors in which no bfloat16 cast changed.
        figures: figures by the names in `FIGURES`.
        octaves: (exponent e of |w| in [2^e, 2^(e+1)), entries, changed entries, changed entries by the null model).
        sizes: (exponent e of |Δ| in [2^e, 2^(e+1)), changed entries, changed entries by the null model).
    """

    name: str
    tensors: int
    entries: int
    still: int
    figures: Mapping[str, Figure]
    octaves: Sequence[tuple[int, int, int, float | None]]
    sizes: Sequence[tuple[int, int, float | None]]


FIGURES = {
    "unchanged": "share of entries whose bfloat16 cast is the same",
    "within_atol": "share of entries whose bfloat16 casts differ by at most the tolerance",
    "within_ulp": "share of entries whose bfloat16 casts are the same or neighbours",
    "stored_unchanged": "share of entries whose stored values are the same",
    "stored_within_atol": "share of entries whose stored values differ by at most the tolerance",
    "risen": "share of the changed stored values that rose",
    "outward": "share of the changed stored values that grew in magnitude",
    "norm": "norm of the update",
    "relative_norm": "the same over the norm of the weights",
    "rms": "root mean square of Δ over changed entries",
    "largest": "largest |Δ|",
    **{f"quantile_{round(q * 100)}": f"{round(q * 100)} % quantile of |Δ| over changed entries" for q in _QUANTILES},
    **{f"top_{round(t * 100)}": f"share of the squared norm that {round(t * 100)} % of the entries have" for t in _TOP},
    "still_rows": "share of rows in which no cast changed",
    "row_dispersion": "variance of changed entries by row over that of independent ones",
    "still_columns": "share of columns in which no cast changed",
    "column_dispersion": "the same by column",
    "zero_signs": "entries that are zero in both, with another sign",
}  # fmt: skip
"""Description of each figure. Those of rows and columns exist for single matrices only."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of comparing two checkpoints.

    Attributes:
        before: path of the checkpoint before training.
        after: path of the checkpoint after training.
        atol: tolerance of the ``within_atol`` figures.
        null: displacement of the null model, in words; empty where there is none (`rlpost.sparsity.expected.chance`).
        start: share of the weights before training that bfloat16 represents exactly.
        whole: all tensors together.
        modules: one part per kind of module.
        layers: one part per layer.
        tensors: one part per tensor.
        only_before: tensors that AFTER lacks.
        only_after: tensors that BEFORE lacks.
        left_out: tensors and files that are not compared, name to reason.
        uncompared: entries of each checkpoint that are not compared; a head that is the embeddings is not counted.
        renamed: prefixes before and after by which names were matched, and the number of tensors.
        merged: number of layers that AFTER, if it is an adapter, was merged into.
        matrices: the `rlpost.sparsity.matrices.MatrixFindings` of the inspected matrices.
    """

    before: str
    after: str
    atol: float
    null: str
    start: float
    whole: Part
    modules: Sequence[Part]
    layers: Sequence[Part]
    tensors: Sequence[Part]
    only_before: Sequence[str]
    only_after: Sequence[str]
    left_out: Mapping[str, str]
    uncompared: tuple[int, int] = (0, 0)
    renamed: Sequence[tuple[str, str, int]] = ()
    merged: int = 0
    matrices: Sequence[Any] = ()

    def document(self) -> dict[str, Any]:
        """The findings as plain data."""
        return asdict(self)


def findings(
    pair: Pair, items: Sequence[Compared], chance: Chance | None, atol: float, matrices: Sequence[Any] = ()
) -> Findings:
    """Assemble the findings from the counts of all tensors."""
    codes = together(items)
    return Findings(
        pair.before.path,
        pair.after.path,
        atol,
        chance.made if chance else "",
        float(codes[0].sum() / max(codes.sum(), 1)),
        part("all", items, chance),
        [part(name, group, chance) for name, group in _grouped(items, module_of).items()],
        [part(name, group, chance) for name, group in sorted(_grouped(items, layer_of).items(), key=_by_number)],
        [part(item.name, [item], chance) for item in items],
        pair.only_before,
        pair.only_after,
        pair.left_out,
        pair.uncompared,
        pair.renamed,
        pair.after.merged,
        matrices,
    )


def layer_of(name: str) -> str:
    """Number of the layer a tensor belongs to, as text."""
    found = _LAYER.search(name)
    return found[1] if found else OUTSIDE


def module_of(name: str) -> str:
    """Kind of module: the last part of the name before ``weight``; a bias is a kind of its own (``up_proj.bias``)."""
    words = name.removesuffix(".weight").split(".")
    return ".".join(words[-2:]) if words[-1] == "bias" and len(words) > 1 else words[-1]


def part(name: str, items: Sequence[Compared], chance: Chance | None) -> Part:
    """Compute the figures of some tensors together."""
    counts = Counts(codes=np.zeros((0, CODES), np.int64))
    for item in items:
        counts.add(item.counts)
    entries = sum(item.size for item in items)
    expected = chance.expect(items) if chance is not None and entries else None
    codes = together(items)
    figures = _shares(counts, entries, expected) | _sizes(counts, codes, entries, expected)
    if len(items) == 1 and items[0].columns_changed is not None:
        figures |= _structure(items[0], expected)
    still = sum(not item.counts.tally[CHANGED] for item in items)
    return Part(
        name, len(items), entries, still, figures, _octaves(counts, codes, chance), _histogram(counts, expected)
    )


def _shares(counts: Counts, entries: int, expected: Expected | None) -> dict[str, Figure]:
    def share(index: int) -> float | None:
        return 1 - int(counts.tally[index]) / entries if entries else None

    def null(value: float | None) -> float | None:
        return None if value is None else value / entries

    chance = expected or Expected(0.0)
    unchanged = chance.unchanged if expected else None
    drawn = chance.drawn
    within = chance.within_atol if chance.stored else drawn and drawn.within_atol
    stored = int(counts.tally[STORED])
    return {
        "unchanged": Figure(share(CHANGED), null(unchanged)),
        "within_atol": Figure(share(BEYOND_ATOL), null(chance.within_atol)),
        "within_ulp": Figure(share(BEYOND_ULP), null(chance.within_ulp)),
        "stored_unchanged": Figure(share(STORED), null(unchanged) if chance.stored else None),
        "stored_within_atol": Figure(share(STORED_BEYOND), null(within)),
        "risen": Figure(int(counts.tally[UP]) / stored if stored else None, drawn and drawn.risen),
        "outward": Figure(int(counts.tally[OUTWARD]) / stored if stored else None, drawn and drawn.outward),
        "zero_signs": Figure(int(counts.tally[ZERO_SIGN])),
    }


def _sizes(counts: Counts, codes: np.ndarray, entries: int, expected: Expected | None) -> dict[str, Figure]:
    drawn = expected.drawn if expected is not None else None
    bins, squares = (drawn.bins, drawn.squares) if drawn is not None else (None, None)
    weight = float(np.sqrt((codes.sum(axis=0)[:0x7F80] * np.square(VALUES[:0x7F80].astype(np.float64))).sum()))
    norm = float(np.sqrt(counts.squares.sum()))
    null_norm = None if squares is None else float(np.sqrt(squares.sum()))
    found = {
        "norm": Figure(norm, null_norm),
        "relative_norm": Figure(
            norm / weight if weight else None, null_norm / weight if null_norm is not None and weight else None
        ),
        "rms": Figure(_rms(counts.bins, counts.squares), _rms(bins, squares)),
        "largest": Figure(float(counts.largest[0])),
    }
    for share in _QUANTILES:
        found[f"quantile_{round(share * 100)}"] = Figure(_quantile(counts.bins, share), _quantile(bins, share))
    for share in _TOP:
        one, two = _top(counts.bins, counts.squares, share * entries), _top(bins, squares, share * entries)
        found[f"top_{round(share * 100)}"] = Figure(one, two)
    return found


def _rms(bins: np.ndarray | None, squares: np.ndarray | None) -> float | None:
    return None if bins is None or squares is None or not bins.sum() else float(np.sqrt(squares.sum() / bins.sum()))


def _quantile(bins: np.ndarray | None, share: float) -> float | None:
    """Quantile of |Δ|; entries are assumed to be spread evenly within a bin."""
    if bins is None or not bins.sum():
        return None
    edges, total = bin_edges(), np.cumsum(bins)
    at = int(np.searchsorted(total, share * total[-1]))
    before = total[at - 1] if at else 0.0
    return float(edges[at] + (edges[at + 1] - edges[at]) * (share * total[-1] - before) / bins[at])


def _top(bins: np.ndarray | None, squares: np.ndarray | None, count: float) -> float | None:
    """Share of the squared norm that the ``count`` largest entries hold; a bin that is split counts in proportion."""
    if bins is None or squares is None or not squares.sum():
        return None
    number, amount = np.cumsum(bins[::-1]), np.cumsum(squares[::-1])
    return float(np.interp(count, np.concatenate([[0], number]), np.concatenate([[0], amount])) / amount[-1])


def _structure(item: Compared, expected: Expected | None) -> dict[str, Figure]:
    """Figures of rows and columns; the null model assumes that each row's weights are drawn from the whole tensor's."""
    columns, rows = item.shape[-1], item.size // max(item.shape[-1], 1)
    changed, tally = int(item.counts.tally[CHANGED]), item.counts.tally
    kept = None if expected is None else expected.unchanged / item.size
    known = expected is not None
    return {
        "still_rows": Figure(1 - int(tally[ROWS]) / rows, None if kept is None else kept**columns),
        "still_columns": Figure(1 - (item.columns_changed or 0) / columns, None if kept is None else kept**rows),
        "row_dispersion": Figure(_dispersion(changed, int(tally[ROW_SQUARES]), rows, columns), 1.0 if known else None),
        "column_dispersion": Figure(_dispersion(changed, item.column_squares, columns, rows), 1.0 if known else None),
    }


def _dispersion(changed: int, squares: int, lines: int, length: int) -> float | None:
    density = changed / (lines * length)
    if not 0 < density < 1:
        return None
    return (squares / lines - (density * length) ** 2) / (length * density * (1 - density))


def _octaves(counts: Counts, codes: np.ndarray, chance: Chance | None) -> list[tuple[int, int, int, float | None]]:
    by_code = codes.sum(axis=0)
    totals = by_code.reshape(256, 128).sum(axis=1)
    changing = None if chance is None else chance.changing(codes).reshape(256, 128).sum(axis=1)
    occurring = np.flatnonzero(totals)
    return [
        (e - 127, int(totals[e]), int(counts.octaves[e]), None if changing is None else float(changing[e]))
        for e in (range(occurring[0], occurring[-1] + 1) if len(occurring) else ())
    ]


def _histogram(counts: Counts, expected: Expected | None) -> list[tuple[int, int, float | None]]:
    exponents = np.log2(bin_edges()[:-1:8]).round().astype(int)
    found = counts.bins.reshape(-1, 8).sum(axis=1)
    drawn = expected.drawn if expected is not None else None
    null = None if drawn is None else drawn.bins.reshape(-1, 8).sum(axis=1)
    return [
        (int(exponents[k]), int(found[k]), None if null is None else float(null[k]))
        for k in range(len(found))
        if found[k] or (null is not None and null[k])
    ]


def _grouped(items: Iterable[Compared], key: Any) -> dict[str, list[Compared]]:
    groups: dict[str, list[Compared]] = {}
    for item in items:
        groups.setdefault(key(item.name), []).append(item)
    return groups


def _by_number(entry: tuple[str, Any]) -> tuple[int, str]:
    name = entry[0]
    return (int(name), "") if name.isdigit() else (-1, name)
