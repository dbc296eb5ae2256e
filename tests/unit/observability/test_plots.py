"""Curves from figures, and the files that are written. Not covered: how they look."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlpost.observability.plots import Curve, curve_over_k, draw, draw_run, uplift_curve

FIGURES = {
    **{"pass@1": 0.2, "pass@1_se": 0.1, "pass@1_low": 0.1, "pass@1_high": 0.3},
    **{"pass@16": 0.9, "pass@16_low": 0.8, "pass@16_high": 1.0, "pass@4": 0.5, "pass@4_low": 0.4, "pass@4_high": 0.6},
    **{"greedy": 0.3, "prompts": 4.0},
}


def test_a_curve_over_k_is_in_the_order_of_n() -> None:
    found = curve_over_k("after", FIGURES)
    assert found == Curve("after", [1, 4, 16], [0.2, 0.5, 0.9], [0.1, 0.4, 0.8], [0.3, 0.6, 1.0])
    assert curve_over_k("after", {"pass@1": 0.2, "pass@1_low": 0.1, "pass@1_high": 0.3}) is None


def test_an_uplift_curve_has_wilsons_interval() -> None:
    found = uplift_curve("after", [[0, 10, 5, 0.1], [3, 4, 4, 2.0]])
    assert (found.x, found.y) == ([0, 3], [0.5, 1.0])
    # Wilson 1927, n = 10, p = 0.5, z = 1.96: 0.5 ± 0.2634
    assert (found.low[0], found.high[0]) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    # n = 4, p = 1: from 1 / (1 + z² / 4)
    assert (found.low[1], found.high[1]) == pytest.approx((0.5101, 1.0), abs=1e-4)


def test_a_drawing_is_the_same_twice_but_for_its_ids(tmp_path: Path) -> None:
    file = draw([Curve("a", [1, 2], [0, 1], [0, 0], [1, 1])], tmp_path / "new" / "f.svg", title="t", x="N", y="pass@N")
    text = file.read_text()
    assert "<svg" in text
    assert "<dc:date>" not in text


def test_what_others_are_compared_with_is_dashed_and_has_no_band(tmp_path: Path) -> None:
    plain, reference = (
        Curve("a", [1, 2], [0.2, 0.3], [0.1, 0.2], [0.3, 0.4], reference) for reference in (False, True)
    )
    bands, dashes = [], []
    for curve in (plain, reference):
        text = draw([curve], tmp_path / "x.svg", title="t", x="x", y="y").read_text()
        bands.append("FillBetweenPolyCollection" in text)
        dashes.append(text.count("stroke-dasharray"))
    assert bands == [True, False]
    assert dashes[0] == 0 < dashes[1]


def test_a_run_draws_what_it_has(tmp_path: Path) -> None:
    assert draw_run(tmp_path) == []
    rows = [{"step": 0, "when": "before", **FIGURES}, {"step": 3, "when": "after", **FIGURES}]
    (tmp_path / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [path.name for path in draw_run(tmp_path)] == ["pass_at_n.svg"]
    (tmp_path / "evaluations").mkdir()
    followed = {"step": 3, "when": "after", "share": 0.5, "change": 0.1, "by_rank": [[0, 10, 5, 0.1], [1, 2, 0, -1.0]]}
    (tmp_path / "evaluations" / "uplift.jsonl").write_text(json.dumps(followed) + "\n")
    assert [path.name for path in draw_run(tmp_path)] == ["pass_at_n.svg", "uplift.svg"]
