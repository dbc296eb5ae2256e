"""Short forms of records for tests: trajectories of one turn, groups, and what the driver holds of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlpost.scoring.receipts import receipt_of
from rlpost.selfcheck.plain_samples import PlainSample
from rlpost.trajectory import (
    FinishReason,
    Group,
    GroupReceipt,
    Receipt,
    Ticket,
    TokenizedPrompt,
    Trajectory,
    one_turn,
)
from rlpost.types import Prompt, TrainSample


def answer(
    text: str, index: int = 0, *, prompt: Sequence[int] = (1,), finish: FinishReason = "stop", **options: Any
) -> Trajectory:
    """A trajectory whose answer has one token per character, with character spans."""
    ids = tuple(map(ord, text))
    return one_turn(
        prompt, ids, text, offsets=[(i, i + 1) for i in range(len(text))], finish=finish, index=index, **options
    )


def receipt(group: Group, ticket: Ticket | None = None) -> GroupReceipt:
    """What the driver holds of a group, with the things themselves for handles."""
    bare = GroupReceipt(
        ticket,
        group.prompt,
        tuple(map(Receipt.of, group.trajectories)),
        group.trajectories,
        evidence=group.verdicts or None,
        proximal=group.learner_logprobs or None,
    )
    return receipt_of(bare, group)


def tokenized(name: str, ids: Sequence[int] = (1,), **options: Any) -> TokenizedPrompt:
    """A prompt with its token ids."""
    return TokenizedPrompt(Prompt(name, text=options.pop("text", name), **options), np.array(ids, np.int32))


def sample(
    prompt: Sequence[int],
    completion: Sequence[int],
    *,
    advantages: Sequence[float] | float = 0.0,
    spans: Sequence[int] | int = 0,
    mask: Sequence[bool] | None = None,
    rollout: Sequence[float] | None = None,
    proximal: Sequence[float] | None = None,
    reference: Sequence[float] | None = None,
    version: int = 0,
    part: int = 0,
) -> TrainSample:
    """A training sample; all sequences run over the completion, whose tokens are trained on unless ``mask`` says no."""
    begin, size = len(prompt), len(completion)

    def whole(values: Any, fill: float, dtype: Any) -> np.ndarray:
        return np.concatenate([np.full(begin, fill, dtype), np.broadcast_to(np.asarray(values, dtype), size)])

    trained = whole(True if mask is None else mask, False, bool)
    return TrainSample(
        token_ids=np.array([*prompt, *completion], np.int32),
        mask=trained,
        advantages=whole(advantages, 0.0, np.float32),
        span_ids=whole(spans, -1, np.int32),
        versions=np.where(trained, np.int32(version), np.int32(-1)),
        rollout_logprobs=None if rollout is None else whole(rollout, np.nan, np.float32),
        proximal_logprobs=None if proximal is None else whole(proximal, np.nan, np.float32),
        ref_logprobs=None if reference is None else whole(reference, np.nan, np.float32),
        part=part,
    )


def plain(samples: Sequence[TrainSample]) -> list[PlainSample]:
    """Training samples as an independent path would make them of the same trajectories and rewards."""
    return [
        PlainSample(
            number=number,
            part=one.part,
            token_ids=one.token_ids,
            places=np.flatnonzero(one.mask),
            advantages=one.advantages[one.mask].astype(np.float64),
            spans=one.span_ids[one.mask],
            rollout=None if one.rollout_logprobs is None else one.rollout_logprobs[one.mask].astype(np.float64),
        )
        for number, one in enumerate(samples)
    ]
