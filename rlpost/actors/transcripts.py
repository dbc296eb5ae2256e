"""Transcripts are written by a task on the driver's machine, which reads what the driver holds only by reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import ray
from rlpost.actors.handles import Fetcher
from rlpost.actors.remote import wait
from rlpost.errors import RolloutsLostError
from rlpost.trajectory import GroupReceipt

_WRITE_S = 600.0


class RayTranscripts:
    """`rlpost.protocols.TranscriptWriter` as a task, which goes on while the next step begins.

    A transcript whose trajectories are gone with the machine that held them is given up: the step itself is done.

    Args:
        log: called with a line about a transcript that is given up.
    """

    def __init__(self, log: Callable[[str], object]) -> None:
        self.log = log
        self.under_way: Any = None

    def write(self, path: str, groups: Sequence[GroupReceipt], advantages: Sequence[Sequence[float | None]]) -> None:
        """See `TranscriptWriter`."""
        self.finish()
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        task = ray.remote(_write).options(num_cpus=0, scheduling_strategy=here)
        self.under_way = task.remote(path, list(groups), [list(row) for row in advantages])

    def answers(
        self, groups: Sequence[GroupReceipt], members: Sequence[Sequence[int]]
    ) -> list[list[tuple[str, tuple[str, ...]]]]:
        """See `TranscriptWriter`."""
        if not groups:
            return []
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        task = ray.remote(_answers).options(num_cpus=0, scheduling_strategy=here)
        call = task.remote(list(groups), [list(row) for row in members])
        return wait([call], "rejected answers", _WRITE_S, RolloutsLostError)[0]

    def finish(self) -> None:
        """See `TranscriptWriter`."""
        task, self.under_way = self.under_way, None
        if task is not None:
            try:
                wait([task], "transcript", _WRITE_S, RolloutsLostError)
            except RolloutsLostError as error:
                self.log(f"{error}; this step has no transcript")


def _write(path: str, groups: list[GroupReceipt], advantages: list[list[float | None]]) -> None:
    from rlpost.observability.transcripts import lines, write
    from rlpost.scoring.receipts import opened

    fetch = Fetcher()

    def rows() -> Iterator[dict[str, Any]]:
        for group, row in zip(groups, advantages, strict=True):
            yield from lines(opened(group, fetch), group.ticket, row)

    write(path, rows())


def _answers(groups: list[GroupReceipt], members: list[list[int]]) -> list[list[tuple[str, tuple[str, ...]]]]:
    from rlpost.scoring.receipts import answers_of

    fetch = Fetcher()
    return [answers_of(group, row, fetch) for group, row in zip(groups, members, strict=True)]
