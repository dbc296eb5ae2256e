"""The report of a run as one HTML file, without scripts or external files, readable without the run folder."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlpost.errors import UserError
from rlpost.observability.metrics import METRICS
from rlpost.observability.sinks import read_lines, read_metrics

_CHARTS = ("reward_mean", "pass_rate", "solved_share", "entropy", "kl", "grad_norm", "mismatch", "canary/probe_max",
           "undecided_share", "length_mean", "tokens_per_second", "seconds/step")  # fmt: skip
_WIDTH, _HEIGHT, _MARGIN = 300, 110, 8
_SAMPLES = 12

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse}td,th{padding:.25rem .7rem;border-bottom:1px solid #d8dee4;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}
.charts{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0;width:300px}
figcaption{font-size:.85rem}small{color:#57606a}
svg{background:#f6f8fa;border-radius:4px}polyline{fill:none;stroke:#0969da;stroke-width:1.6}
code{font-size:.85rem;white-space:pre-wrap;overflow-wrap:anywhere}
.accepted{color:#1a7f37}.rejected{color:#cf222e}.undecided{color:#9a6700}
"""


def write_report(run: str | Path) -> Path:
    """Write ``report.html`` into a run folder.

    Args:
        run: the run folder.

    Returns:
        Path of the file.

    Raises:
        UserError: if the folder holds no run.
    """
    folder = Path(run)
    rows = read_metrics(folder)
    if not rows:
        raise UserError(f"{run}: holds no run (metrics.jsonl is missing or empty); give a run folder")
    parts = [
        f"<h1>{html.escape(folder.name)}</h1>",
        f"<p>{len(rows)} steps, policy version {rows[-1].get('policy_version', 0):.0f}</p>",
        _evaluations(read_lines(folder / "evaluations.jsonl")),
        *(inline(file) for file in sorted((folder / "plots").glob("*.svg"))),
        "<h2>Course</h2><div class=charts>",
        *(_chart(name, rows) for name in _CHARTS if any(row.get(name) is not None for row in rows)),
        "</div>",
        _last_step(rows[-1]),
        _transcript(folder / "transcripts"),
        _details("Configuration", folder / "config.yaml"),
        _details("Environment", folder / "environment.json"),
    ]
    page = f"<!doctype html><meta charset=utf-8><title>{html.escape(folder.name)}</title><style>{STYLE}</style>"
    target = folder / "report.html"
    target.write_text(page + "\n".join(parts), encoding="utf-8")
    return target


def _evaluations(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return ""
    known = dict.fromkeys(name for row in rows for name in row)
    names = [
        name
        for name in known
        if name not in ("step", "when", "sampling") and not name.endswith(("_se", "_low", "_high"))
    ]
    head = "".join(f"<th>{html.escape(str(row['when']))}</th>" for row in rows)
    body = "".join(
        f"<tr><td>{html.escape(name)}</td>"
        + "".join(f"<td class=n>{_figure(row, name)}</td>" for row in rows)
        + "</tr>"
        for name in names
    )
    if any("sampling" in row for row in rows):
        body += "<tr><td>sampling</td>" + "".join(f"<td>{html.escape(row.get('sampling', '–'))}</td>" for row in rows)
        body += "</tr>"
    return f"<h2>Held-out prompts</h2><table><tr><th>measure</th>{head}</tr>{body}</table>"


def inline(file: Path) -> str:
    """The ``<svg>`` element of a file, without XML declaration and document type, which HTML does not allow."""
    text = file.read_text(encoding="utf-8")
    return text[text.index("<svg") :]


def _figure(row: dict[str, Any], name: str) -> str:
    if name not in row:
        return "–"
    error = row.get(f"{name}_se")
    return f"{row[name]:.3f}" + (f" ± {error:.3f}" if error is not None else "")


def _chart(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """Line chart of one metric over the steps, scaled to its own range; steps without a value are left out."""
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    low, high = min(v for _, v in points), max(v for _, v in points)
    first, last = points[0][0], points[-1][0]

    def place(step: float, value: float) -> str:
        x = _MARGIN + (step - first) / max(last - first, 1) * (_WIDTH - 2 * _MARGIN)
        y = _HEIGHT - _MARGIN - (value - low) / ((high - low) or 1.0) * (_HEIGHT - 2 * _MARGIN)
        return f"{x:.1f},{y:.1f}"

    line = " ".join(place(step, value) for step, value in points)
    if len(points) == 1:
        line += f" {_WIDTH - _MARGIN},{line.split(',')[1]}"
    family = f"{name.partition('/')[0]}/*"
    meaning = html.escape(METRICS.get(name) or METRICS.get(family, ""))
    return (
        f"<figure><svg width={_WIDTH} height={_HEIGHT} role=img aria-label='{html.escape(name)}'>"
        f"<polyline points='{line}'/></svg><figcaption><b>{html.escape(name)}</b> {points[-1][1]:.4g} "
        f"<small>{low:.4g} to {high:.4g}; {meaning}</small></figcaption></figure>"
    )


def _last_step(row: dict[str, Any]) -> str:
    cells = "".join(
        f"<tr><td>{html.escape(name)}</td><td class=n>{value:.4g}</td></tr>"
        for name, value in row.items()
        if name.startswith(("reason/", "seconds/", "rss_mb/", "canary/", "sync/")) and value is not None
    )
    return f"<h2>Last step</h2><table>{cells}</table>"


def _transcript(folder: Path) -> str:
    files = sorted(folder.glob("step_*.jsonl")) if folder.is_dir() else []
    if not files:
        return ""
    rows = "".join(_completion(row) for row in read_lines(files[-1])[:_SAMPLES])
    title = f"<h2>Completions of {html.escape(files[-1].stem)}</h2>"
    head = "<tr><th>prompt</th><th>completion</th><th>verdict</th><th>reward</th></tr>"
    return f"{title}<table>{head}{rows}</table>"


def _completion(row: dict[str, Any]) -> str:
    """A row of the transcript; without a verifier there is no verdict, and the reward says what the answer is worth."""
    total = row.get("reward_total")
    by_stage = ", ".join(f"{name} {value:.3g}" for name, value in row.get("reward_by_stage", {}).items() if value)
    verdict = "–" if row["outcome"] is None else html.escape(str(row["reason"]))
    return (
        f"<tr><td><code>{html.escape(str(row['prompt']))}</code></td>"
        f"<td><code>{html.escape(row['completion'])}</code></td><td class={row['outcome'] or 'none'}>{verdict}</td>"
        f"<td class=n>{'–' if total is None else f'{total:.4g}'}<br><small>{html.escape(by_stage)}</small></td></tr>"
    )


def _details(title: str, file: Path) -> str:
    if not file.is_file():
        return ""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".json":
        text = json.dumps(json.loads(text), indent=1)
    return f"<details><summary>{title}</summary><pre><code>{html.escape(text)}</code></pre></details>"
