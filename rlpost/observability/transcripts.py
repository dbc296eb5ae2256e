"""Transcripts: every trajectory of a step with its tokens' log-probabilities, verdict, reward and advantage."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlpost.trajectory import Group, Ticket, Trajectory
from rlpost.types import Message, Prompt


def write(path: str, rows: Iterator[dict[str, Any]]) -> None:
    """Write rows as JSON lines; the file is there once all of them are."""
    partial = Path(f"{path}.partial")
    with partial.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    os.replace(partial, path)


def lines(group: Group, ticket: Ticket | None, advantages: Sequence[float | None]) -> Iterator[dict[str, Any]]:
    """One row for each trajectory of a group.

    Positions (``reward``, ``segments``) are those of tokens in the trajectory, whose prompt begins at 0. ``logprobs``
    are the engine's, of the sampled tokens in order, where they were asked for.
    """
    for member, advantage in enumerate(advantages):
        yield _line(group, ticket, member, advantage)


def _line(group: Group, ticket: Ticket | None, member: int, advantage: float | None) -> dict[str, Any]:
    one, verdict, reward = group.trajectories[member], group.verdicts[member], group.rewards[member]
    prompt, last = group.prompt, one.turns[-1]
    return {
        "prompt_id": prompt.id,
        "prompt": asked(prompt),
        "repairs": prompt.repairs,
        "member": member,
        "completion": one.text,
        "tokens": one.sampled,
        "prompt_tokens": one.prompt_tokens,
        "status": one.status,
        "finish_reason": last.finish,
        "policy_version": one.versions[-1][0] if one.versions else None,
        "ticket": None if ticket is None else ticket.number,
        "seed": None if ticket is None else ticket.seeds[member],
        "outcome": verdict.outcome if verdict else None,
        "reason": verdict.reason if verdict else None,
        "assurance": verdict.assurance if verdict else None,
        "verifier": verdict.backend if verdict else None,
        "evidence": dict(verdict.evidence) if verdict else None,
        "seconds": verdict.seconds if verdict else None,
        "reward": None if reward is None else [[s.start, s.stop, s.value, s.index, s.channel] for s in reward],
        "reward_total": None if reward is None else sum(s.value for s in reward if s.channel == "reward"),
        "reward_by_stage": {name: added[member] for name, added in group.stage_rewards.items()},
        "extras": {name: values[member] for name, values in group.extras.items()},
        "advantage": advantage,
        "segments": [_segment(segment) for segment in one.segments],
        "versions": [list(span) for span in one.versions],
        "logprobs": _sampled(one),
    }


def asked(prompt: Prompt) -> str | list[list[Any]]:
    """What a transcript records of a prompt: its text, or its messages."""
    return prompt.text if prompt.text is not None else [_message(m) for m in prompt.messages or ()]


def _message(message: Message) -> list[Any]:
    """Role and content, and what else the chat template read (tool calls, say), if there is something."""
    return [message.role, message.content, *([dict(message.fields)] if message.fields else [])]


def _segment(segment: Any) -> Mapping[str, Any]:
    found = {"origin": segment.origin, "start": segment.start, "stop": segment.stop, "turn": segment.turn}
    heard = {"roles": list(segment.roles)} if segment.roles else {}
    further = {"text": segment.text, "finish": segment.finish, "reward": segment.reward}
    further |= {} if segment.failed is None else {"failed": segment.failed}
    return found | heard if segment.origin == "prompt" else found | further | heard


def _sampled(trajectory: Trajectory) -> list[float | None] | None:
    if trajectory.logprobs is None:
        return None
    values = trajectory.logprobs[trajectory.mask].astype(float)
    return [round(value, 6) if np.isfinite(value) else None for value in values.tolist()]
