"""Do trajectories end as they say, and is one that was cut paid as the configuration says?

No tokenizer is asked: an engine stops at an end token wherever it samples one, so a token that ends one answer and
stands inside another is none.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlpost.config.schema import RunConfig
from rlpost.errors import SelfCheckError
from rlpost.trajectory import GroupReceipt, Trajectory

CUT = ("length", "turns")
"""How trajectories end that are cut."""


def check_ends(trajectories: Sequence[Trajectory]) -> None:
    """Look for end tokens that are none. Answers that end by a stop string are not for this check.

    Raises:
        SelfCheckError: for a token that ends an answer, and inside an answer did not end it.
    """
    ends: set[int] = set()
    inside: set[int] = set()
    for trajectory in trajectories:
        for turn in trajectory.turns:
            ids = trajectory.token_ids[turn.start : turn.stop].tolist()
            if turn.finish == "stop" and ids:
                ends.add(ids.pop())
            inside.update(ids)
    wrong = sorted(ends & inside)
    if wrong:
        raise SelfCheckError(
            f"endings: token {wrong[0]} ends an answer, and stands inside an answer that goes on after it: answers "
            "that were cut are named done, the end token is stripped or doubled, or the engine stops for a reason of "
            "its own; say how answers end (rollout.stop), do not train on"
        )


def check_lengths(groups: Sequence[GroupReceipt], config: RunConfig) -> None:
    """Verify that answers are cut at ``rollout.max_tokens`` and nowhere else. Dialogues have budgets of their own.

    Raises:
        SelfCheckError: for an answer that was cut before, or is longer.
    """
    if config.environment is not None:
        return
    most, room = config.rollout.max_tokens, config.rollout.max_model_len
    for group in groups:
        for one in group.trajectories:
            early = one.status == "length" and one.sampled < most and (room is None or one.length < room)
            if early or one.sampled > most:
                said = "was cut" if early else "went on"
                raise SelfCheckError(
                    f"endings: answer {one.index} to prompt {group.prompt.id!r} has {one.sampled} tokens "
                    f"(status {one.status}) and {said}, with rollout.max_tokens {most}; the engine uses another "
                    "limit, or names finished answers cut"
                )


def check_rejected(groups: Sequence[GroupReceipt]) -> None:
    """Verify that trajectories that were cut are worth no more than finished ones, for ``scoring.truncated: reject``.

    Raises:
        SelfCheckError: for one that got more than the worst finished answer of its group, for the whole or for a part.
    """
    for group in groups:
        paid = [
            [(span.stage, span.index, span.value) for span in reward or () if span.channel == "reward"]
            for reward in group.rewards
        ]
        cut = [one.status in CUT for one in group.trajectories]
        finished = [part for was_cut, parts in zip(cut, paid, strict=True) if not was_cut for part in parts]
        for one, was_cut, parts in zip(group.trajectories, cut, paid, strict=True):
            for stage, index, value in parts if was_cut else ():
                worst = min((v for s, i, v in finished if (s, i) == (stage, index)), default=value)
                if value > worst:
                    raise SelfCheckError(
                        f"endings: answer {one.index} to prompt {group.prompt.id!r} was cut and got the reward "
                        f"{value:.4g} for {f'part {index} of {stage}' if stage else 'the whole'}, more than the worst "
                        f"finished one ({worst:.4g}), with scoring.truncated reject; do not train on"
                    )
