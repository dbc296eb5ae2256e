"""The HTML report: complete, escaped, self-contained. Not covered: how it looks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlpost.errors import UserError
from rlpost.observability.report import write_report


def run_folder(folder: Path, rows: list[dict]) -> Path:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "evaluations.jsonl").write_text(
        json.dumps({"step": 0, "when": "before", "pass@1": 0.25, "pass@1_se": 0.05}) + "\n"
        + json.dumps({"step": 2, "when": "after", "sampling": "temperature 0.6 <i>", "pass@1": 0.5, "pass@1_se": 0.06})
        + "\n"
    )  # fmt: skip
    (folder / "transcripts").mkdir()
    sample = {"prompt": "p < q", "completion": "<script>alert(1)</script>", "outcome": "rejected", "reason": "failed"}
    (folder / "transcripts" / "step_000001.jsonl").write_text(json.dumps(sample) + "\n")
    (folder / "config.yaml").write_text("run: {name: <b>}\n")
    return folder


def test_a_report_shows_figures_and_lets_no_text_of_the_model_become_markup(tmp_path: Path) -> None:
    rows = [
        {"step": 0, "reward_mean": 0.0, "policy_version": 1.0},
        {"step": 1, "reward_mean": 1.0, "policy_version": 2.0},
    ]
    page = write_report(run_folder(tmp_path, rows)).read_text()
    assert "0.250 ± 0.050" in page
    assert "0.500 ± 0.060" in page
    # an evaluation of an earlier version does not say how it sampled
    assert "<tr><td>sampling</td><td>–</td><td>temperature 0.6 &lt;i&gt;</td></tr>" in page
    # step 0 at the bottom left, step 1 at the top right: 8 pixels from each edge of 300 × 110
    assert "points='8.0,102.0 292.0,8.0'" in page
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "http" not in page


def test_one_step_and_missing_values_are_drawn(tmp_path: Path) -> None:
    rows = [{"step": 0, "reward_mean": 0.5, "entropy": None, "policy_version": 1.0}]
    page = write_report(run_folder(tmp_path, rows)).read_text()
    assert "points='8.0,102.0 292,102.0'" in page
    assert "<b>entropy</b>" not in page


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        write_report(tmp_path)
