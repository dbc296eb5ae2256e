"""`rlpost doctor` with real packages: vLLM, DeepSpeed, Ray, Lean, math-verify and torch each do a little work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.processes import Command

pytestmark = [pytest.mark.vllm, pytest.mark.deepspeed, pytest.mark.ray, pytest.mark.lean, pytest.mark.slow]


def test_everything_that_is_installed_here_works(tmp_path: Path) -> None:
    status, out, err = Command(["doctor", "--json"], tmp_path).start().finish(400)
    findings = json.loads(out)
    assert status == 0, [f for f in findings if f["state"] == "broken"]
    assert err == ""
    states = {f["topic"]: f["state"] for f in findings}
    for topic in ("vllm runs", "deepspeed runs", "ray runs", "torch runs", "conformance", "math"):
        assert states[topic] == "ok", topic


def test_a_broken_package_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shadow" / "ray").mkdir(parents=True)
    (tmp_path / "shadow" / "ray" / "__init__.py").write_text("raise ImportError('libray is missing')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "shadow"), prepend=":")
    status, out, _ = Command(["doctor"], tmp_path).start().finish(400)
    assert status == 1
    lines = out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("broken"))
    assert "ray runs" in lines[at]
    assert "failed while importing ray: ImportError: libray is missing" in lines[at]
    assert "hides the installed package" in lines[at + 1]
    assert sum(line.startswith("broken") for line in lines) == 1
