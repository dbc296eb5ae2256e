"""From names in a configuration to the objects that judge and pay."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, cast

from rlpost.config.schema import RewardSpec, RunConfig, ScoringSection
from rlpost.errors import ConfigError, RlpostError, UserError
from rlpost.plugins import registry, usercode
from rlpost.protocols import RewardStage, Verifier


def build_stage(spec: RewardSpec) -> RewardStage:
    """A stage of the reward pipeline: a registered class, or a plain function in TRL's manner.

    Raises:
        UserError: if the name is unknown or the arguments do not fit.
    """
    target: Any = registry.resolve("rewards", spec.name)
    who = f"scoring.rewards: {spec.name!r}"
    if isinstance(target, type):
        return cast("RewardStage", _made(target, (), spec.arguments, who))
    return _made(registry.resolve("rewards", "trl"), (target,), spec.arguments, who)


def build_verifier(section: ScoringSection) -> Verifier | None:
    """The configured verifier, or None.

    Raises:
        UserError: if the name is unknown or the arguments do not fit.
    """
    if section.verifier is None:
        return None
    target = registry.resolve("verifiers", section.verifier)
    who = f"scoring.verifier_args: {section.verifier!r}"
    if not callable(target):
        raise UserError(f"scoring.verifier: {section.verifier!r} is {target!r}; a class is needed")
    arguments: dict[str, Any] = dict(section.verifier_args)
    if "timeout_s" in _parameters(target):
        arguments.setdefault("timeout_s", section.timeout_s)
    return _made(target, (), arguments, who)


def with_logprobs(config: RunConfig, stages: Sequence[RewardStage]) -> RunConfig:
    """The configuration, with engines that always report log-probabilities where a reward stage reads them.

    Args:
        config: of the run.
        stages: its reward stages.

    Raises:
        ConfigError: if they are told never to.
    """
    readers = [
        spec.name for spec, s in zip(config.scoring.rewards, stages, strict=True) if "engine_logprobs" in s.needs
    ]
    if not readers:
        return config
    if config.rollout.logprobs == "never":
        raise ConfigError(
            f"rollout.logprobs: never, but the reward {readers[0]!r} reads the engine's log-probabilities; set it auto"
        )
    rollout = config.rollout.model_copy(update={"logprobs": "always"})
    return config.model_copy(update={"rollout": rollout})


def _made(target: Any, given: tuple[Any, ...], arguments: Mapping[str, Any], who: str) -> Any:
    try:
        inspect.signature(target).bind(*given, **arguments)
    except TypeError as error:
        raise UserError(f"{who} cannot take {dict(arguments)} ({error})") from None
    except ValueError:  # some classes written in C tell nothing about their arguments
        pass
    try:
        return target(*given, **arguments)
    except RlpostError:
        raise
    except Exception as error:
        place = usercode.place_of(error)
        at = f" at {place}" if place else ""
        raise UserError(
            f"{who} cannot be made with {dict(arguments)}: fails{at} ({usercode.in_a_line(error)});"
            " mend it, or correct the arguments"
        ) from error


def _parameters(target: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except ValueError:
        return {}
