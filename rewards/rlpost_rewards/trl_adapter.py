"""Unchanged use of reward functions that were written for TRL."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from rlpost.errors import UserError
from rlpost.trajectory import Group, Trajectory
from rlpost.types import Reward, SpanReward
from rlpost_rewards.combine import add


class TrlReward:
    """Adds ``weight · f(prompts, completions, **columns)``, one span over the whole trajectory.

    The function is called once per group with parallel lists, by keyword: ``prompts`` and ``completions`` (texts, or
    message lists where the prompt is a chat), ``completion_ids``, and every further column of the data set; arguments
    it does not take are left out. Coroutine functions are awaited.

    A ``None`` in its answer means "does not apply": the completion keeps the reward of other stages. A completion that
    no stage rewards stays undecided and never counts as 0.

    Args:
        function: reward function with the signature of TRL's ``reward_funcs``; it may be a coroutine function.
        weight: factor on its values.
    """

    needs: tuple[str, ...] = ()

    def __init__(self, function: Callable[..., Any], weight: float = 1.0):
        self.function, self.weight = function, weight
        self.name = _name(function)

    def __call__(self, group: Group) -> Sequence[Reward | None]:
        """See `rlpost.protocols.RewardStage`.

        Raises:
            UserError: if the function returns the wrong number or kind of values, or needs a missing column.
        """
        members = [i for i, reward in enumerate(group.rewards) if reward is not None]
        values = self._call(group, members)
        result: list[Reward | None] = list(group.rewards)
        for member, value in zip(members, values, strict=True):
            reward = result[member]
            if value is not None and reward is not None:
                size = group.trajectories[member].length
                result[member] = add(reward, SpanReward(0, size, self.weight * value))
        return result

    def _call(self, group: Group, members: Sequence[int]) -> list[float | None]:
        if not members:
            return []
        arguments = _accepted(self.function, _arguments(group, members))
        answer = self.function(**arguments)
        if inspect.isawaitable(answer):
            answer = asyncio.run(_await(answer))
        if not isinstance(answer, Iterable):
            raise UserError(f"reward {self.name!r} answered {answer!r}; a list with one value per completion is needed")
        values = list(cast("Iterable[Any]", answer))
        if len(values) != len(members):
            raise UserError(
                f"reward {self.name!r} answered {len(values)} values for {len(members)} completions; one each is needed"
            )
        return [None if value is None else self._number(value) for value in values]

    def _number(self, value: Any) -> float | None:
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise UserError(f"reward {self.name!r} answered {value!r}; numbers or None are needed") from None
        # TRL writes "does not apply" as NaN once None has been through a tensor
        if math.isnan(number):
            return None
        if math.isinf(number):
            raise UserError(f"reward {self.name!r} answered {value!r}; finite numbers or None are needed")
        return number


async def _await(answer: Any) -> Any:
    return await answer


def _arguments(group: Group, members: Sequence[int]) -> dict[str, Any]:
    prompt, chosen = group.prompt, [group.trajectories[i] for i in members]
    arguments: dict[str, Any] = {key: [value] * len(members) for key, value in prompt.columns.items()}
    if prompt.messages is None:
        arguments["prompts"], arguments["completions"] = [prompt.text] * len(members), [one.text for one in chosen]
    else:
        chat = [message.as_dict() for message in prompt.messages]
        arguments["prompts"] = [chat] * len(members)
        arguments["completions"] = [_messages(one) for one in chosen]
    arguments["completion_ids"] = [one.token_ids[one.prompt_tokens :].tolist() for one in chosen]
    arguments.pop("prompt", None)
    return arguments


def _messages(trajectory: Trajectory) -> list[dict[str, str]]:
    """What follows the prompt as chat messages, the environment's included."""
    roles = {"policy": "assistant", "environment": "user"}
    return [{"role": roles[one.origin], "content": one.text} for one in trajectory.segments if one.origin in roles]


def _accepted(function: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return arguments
    required = [p.name for p in parameters.values() if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    missing = [name for name in required if name not in arguments]
    if missing:
        columns = ", ".join(arguments)
        raise UserError(f"reward {_name(function)!r} wants {missing[0]!r}, which the data has not; there are {columns}")
    return {name: value for name, value in arguments.items() if name in parameters}


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)
