"""What a configuration asks for that is not there or does not fit, found before Ray or an engine is started.

Each check stands by itself, so that all faults are found at once.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rlpost.config.schema import RunConfig
from rlpost.data.constraint import check_constraint
from rlpost.data.load import prompts, templates, tokenized_prompts
from rlpost.data.models import resolve_path
from rlpost.data.repair_prompts import repair_prompts
from rlpost.errors import RlpostError, describe_error
from rlpost.loop.model_faults import model_faults
from rlpost.plugins import registry, ship
from rlpost.plugins.build import build_environment, build_stage, build_verifier, check_verifier_arguments
from rlpost.plugins.trial_algorithm import try_algorithm
from rlpost.scoring.score import Scorer
from rlpost.types import Prompt

_GB = 2**30
_KEYS = {
    "": "arguments",
    "rewards": "scoring.rewards",
    "verifiers": "scoring.verifier",
    "losses": "algorithm.loss",
    "advantages": "algorithm.advantage",
    "engines": "rollout.engine",
    "environments": "environment.name",
    "constraints": "rollout.constraint.name",
    "sources": "data.source",
}
"""Keys whose values are names of plug-ins, by kind."""


def run_faults(config: RunConfig) -> list[str]:
    """The faults that the start of a run would show late: packages, verifier, model, tuning, engine, output folder.

    The start of a run itself reads data and plug-ins before it starts anything.
    """
    return _unique(
        [
            *package_faults(config),
            *asked(lambda: check_verifier_arguments(config.scoring)),
            *output_faults(config),
            *model_faults(config, starting_folder(config)),
        ]
    )


def all_faults(config: RunConfig, also: Callable[[], Any] = lambda: None) -> list[str]:
    """Everything that can be known of a run before it starts, data and the user's own code included.

    Args:
        config: the run configuration.
        also: a further check, which raises.

    Returns:
        A line for each fault: what, the value, what to do.
    """
    folder = starting_folder(config)
    found = [*package_faults(config), *output_faults(config), *plugin_faults(config), *asked(also)]
    if folder is None and config.model.path is not None:
        found += asked(lambda: resolve_path(str(config.model.path)))
    if folder is not None:
        found += asked(lambda: check_constraint(config, folder))
    shown, rows = data_faults(config, folder)
    found += rows
    if not any(line.startswith("scoring.") for line in found):
        found += asked(lambda: _score(config, shown))
    return _unique([*found, *model_faults(config, folder)])


def asked(check: Callable[[], Any], key: str = "") -> list[str]:
    """The line of a check that raises, after ``key`` unless it begins with a key already; none if it does not raise."""
    try:
        check()
    except RlpostError as error:
        line = str(error)
        return [line if key and line.startswith(key.partition(".")[0] + ".") else f"{key}{line}"]
    except Exception as error:  # of a library: also a fault, and the checks after it are still wanted
        return [f"{key}{describe_error(error)}"]
    return []


def starting_folder(config: RunConfig) -> str | None:
    """Folder of the policy that the run starts from; None if it is not there, or the warm start is still to be made."""
    made = Path(config.folder) / "sft"
    if config.sft is not None and (made / "config.json").is_file():
        return str(made)
    if config.model.path is None:
        return None
    try:
        return resolve_path(config.model.path)
    except RlpostError:
        return None  # `all_faults` and the start of a run say why


def package_faults(config: RunConfig) -> Iterator[str]:
    """Packages that a setting needs and that are not installed, with the command that installs them."""
    for wanted, module, line in (
        (
            config.logging.wandb_project is not None,
            "wandb",
            "logging.wandb_project: Weights & Biases is not installed; pip install 'rlpost[wandb]'",
        ),
        (
            config.logging.tensorboard,
            "tensorboard",
            "logging.tensorboard: TensorBoard is not installed; pip install 'rlpost[tensorboard]'",
        ),
        (
            config.learner_engine == "deepspeed",
            "deepspeed",
            "learner.engine: DeepSpeed is not installed; pip install 'rlpost[cpu]' or 'rlpost[gpu]', or set "
            "learner.engine: torch",
        ),
        (
            config.tuning.method == "lora" or config.tuning.method.startswith("peft:"),
            "peft",
            f"tuning.method: {config.tuning.method} needs PEFT; pip install peft",
        ),
        (
            config.rollout.engine == "vllm",
            "vllm",
            "rollout.engine: vLLM is not installed; pip install 'rlpost[cpu]' or, with CUDA, 'rlpost[gpu]'",
        ),
        (config.sft is not None, "trl", "sft: TRL is not installed; pip install trl"),
        (config.data.source == "hf_disk", "datasets", "data.source: hf_disk needs datasets; pip install datasets"),
        (
            config.optimizer.name.startswith("pytorch_optimizer:"),
            "pytorch_optimizer",
            f"optimizer.name: {config.optimizer.name} needs that package; pip install pytorch_optimizer",
        ),
    ):
        if wanted and importlib.util.find_spec(module) is None:
            yield line


def output_faults(config: RunConfig) -> Iterator[str]:
    """A run folder that cannot be written, or a disk without room for the model and a checkpoint."""
    here = Path(config.folder).absolute()
    while not here.exists():
        here = here.parent
    if not here.is_dir() or not os.access(here, os.W_OK):
        yield f"run.output_dir: {config.run.output_dir}: {here} cannot be written to; give another folder"
        return
    needed, free = _bytes_on_disk(config), shutil.disk_usage(here).free
    if needed > free:
        yield (
            f"run.output_dir: {config.run.output_dir} has {free / _GB:.1f} GB free, the model and a checkpoint need "
            f"about {needed / _GB:.1f} GB; free some space or give another folder"
        )


def plugin_faults(config: RunConfig) -> Iterator[str]:
    """Names that are not known or cannot be loaded, arguments that do not fit, and rules of losses and advantages."""
    unknown: set[str] = set()
    for kind, name in [*ship.named(config), ("sources", config.data.source)]:
        lines = asked(lambda kind=kind, name=name: registry.resolve(kind or "rewards", name))
        unknown |= {name} if lines else set()
        yield from (f"{_KEYS[kind]}: {line}" for line in lines)
    yield from asked(lambda: templates(config.data), "data.template: ")
    for spec in config.scoring.rewards:
        if spec.name not in unknown:
            yield from asked(lambda spec=spec: build_stage(spec))
    if config.scoring.verifier not in unknown:
        yield from asked(lambda: _make_verifier(config))
    environment = config.environment
    if environment is not None and environment.name not in unknown:
        yield from asked(lambda: build_environment(environment))
    if not unknown & {config.algorithm.loss, config.algorithm.advantage}:
        yield from asked(lambda: try_algorithm(config))


def data_faults(config: RunConfig, folder: str | None) -> tuple[list[Prompt], list[str]]:
    """The prompts of both splits that could be made, and what is wrong with them, each split by itself."""
    found: list[Prompt] = []
    lines: list[str] = []
    only_train = config.model_copy(update={"data": config.data.model_copy(update={"eval": None})})

    if folder is None:
        for split in ("train", *(["eval"] if config.data.eval is not None else [])):
            lines += asked(lambda split=split: found.extend(prompts(config.data, split)), f"data.{split}: ")
        return found, lines

    def encode(part: RunConfig, training: bool) -> Callable[[], None]:
        def read() -> None:
            train, held_out = tokenized_prompts(part, folder, training=training)
            found.extend(one.prompt for split in (train, held_out) for one in split)
            if train:
                repair_prompts(part, folder, train)

        return read

    lines += asked(encode(only_train, True), "data.train: ")
    if config.data.eval is not None:
        lines += asked(encode(config, False), "data.eval: ")
        if not lines:  # what only shows in the two together: prompts of the one among those of the other
            lines += asked(lambda: tokenized_prompts(config, folder, training=True))
    return found, lines


def _score(config: RunConfig, found: list[Prompt]) -> None:
    """Let the verifier look at the gold answers, and try the user's own verifiers and rewards on a prompt."""
    if not found:
        return
    scorer = Scorer(config.scoring, dialogues=config.environment is not None)
    try:
        scorer.preflight(found, conformance=False, trials=config.selfcheck.plugins)
    finally:
        scorer.close()


def _make_verifier(config: RunConfig) -> None:
    verifier = build_verifier(config.scoring)
    if verifier is not None:
        verifier.close()


def _bytes_on_disk(config: RunConfig) -> float:
    """Bytes of the final model and one checkpoint; 0 if the model is not known yet."""
    from rlpost.data.models import tensor_shapes
    from rlpost.tuning.memory import learner_bytes

    folder = starting_folder(config)
    shapes = tensor_shapes(folder) if folder is not None else None
    if shapes is None:
        return 0.0
    parts = learner_bytes(config, shapes)
    stored = parts["weights"] + parts["method"] + (parts["masters"] + parts["optimizer"]) * config.learner.workers
    return float(parts["weights"] + stored)


def _unique(lines: list[str]) -> list[str]:
    return list(dict.fromkeys(lines))
