"""The scoring workers: groups are judged as they come, what stays undecided is tried again elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rlpost.actors import env_vars
from rlpost.actors.placement import Seat
from rlpost.actors.pool import Crew, Supervisor, spawn
from rlpost.actors.workers import ScoringWorker
from rlpost.config.schema import RunConfig
from rlpost.plugins.ship import Shipped
from rlpost.rollout.sampling import spread
from rlpost.scoring.score import undecided
from rlpost.types import Group, Prompt


class ScoringGroup(Crew):
    """The scoring workers.

    Args:
        config: of the run.
        seats: one per worker.
        supervisor: see `rlpost.actors.pool.Supervisor`.
        shipped: the user's own rewards and verifiers.
    """

    def __init__(self, config: RunConfig, seats: Sequence[Seat], supervisor: Supervisor, shipped: Shipped):
        super().__init__("scoring", seats, lambda seat: spawn(ScoringWorker, seat, env_vars.scoring()), supervisor)
        self.config, self.shipped = config, shipped

    def begin(self, index: int) -> Any:
        """Begin starting the verifier."""
        return self.handles[index].setup.remote(self.config, self.shipped)

    def examine(self, prompts: Sequence[Prompt]) -> list[Any]:
        """Begin examining the verifiers, each on its share of the prompts; returns the references to wait for.

        Each resolves to one line about the verifier: see `rlpost.scoring.score.Scorer.examine`.
        """
        section = self.config.selfcheck
        shares = spread(prompts, len(self.handles))
        return [
            handle.examine.remote([prompts[i] for i in share], section.conformance, section.plugins)
            for handle, share in zip(self.handles, shares, strict=True)
        ]

    @contextmanager
    def desk(self) -> Iterator[Desk]:
        """A place to hand groups in one by one while others are being judged."""
        desk = Desk(self)
        try:
            yield desk
        finally:
            desk.shut()

    def score(self, groups: Sequence[Group]) -> list[Group]:
        """Judge groups that are all there already; in order."""
        with self.desk() as desk:
            for position, group in enumerate(groups):
                desk.hand_in(position, group)
            judged = desk.judged()
        return [judged[position] for position in range(len(groups))]


@dataclass(slots=True, eq=False)
class _Item:
    """A group to judge: how often it was tried, and by whom last."""

    position: int
    group: Group
    tries: int = 0
    last: int = -1


class Desk:
    """Groups on their way through the workers.

    A thread per worker takes its fair share of what lies there, so batches are small while groups trickle in and grow
    when they pile up. A group whose checks stay undecided is put back for another worker, ``scoring.retries`` times;
    the better of the answers counts.

    Args:
        group: the workers.
    """

    def __init__(self, group: ScoringGroup):
        self.group, self.workers = group, len(group.handles)
        self.retries, self.deadline = group.config.scoring.retries, group.config.scoring.batch_timeout_s
        self._waiting: list[_Item] = []
        self._done: dict[int, Group] = {}
        self._open, self._expected = True, 0
        self._error: BaseException | None = None
        self._change = threading.Condition()
        for index in range(self.workers):
            threading.Thread(target=self._work, args=(index,), daemon=True).start()

    def hand_in(self, position: int, group: Group) -> None:
        """Give a group to be judged."""
        with self._change:
            self._waiting.append(_Item(position, group))
            self._expected += 1
            self._change.notify_all()

    def judged(self) -> dict[int, Group]:
        """All groups handed in, by position, once every one is judged.

        Raises:
            RlpostError: what a worker ended with.
        """
        with self._change:
            self._change.wait_for(lambda: self._error is not None or len(self._done) == self._expected)
            if self._error is not None:
                raise self._error
            return dict(self._done)

    def shut(self) -> None:
        """Let the threads go."""
        with self._change:
            self._open = False
            self._change.notify_all()

    def _work(self, index: int) -> None:
        try:
            while batch := self._take(index):
                groups = [item.group for item in batch]
                answers = self.group.persist(index, lambda h, g=groups: h.score.remote(g), "score", self.deadline)
                self._settle(index, batch, answers)
        except BaseException as error:  # handed to whoever waits for the verdicts
            with self._change:
                self._error = self._error or error
                self._change.notify_all()

    def _take(self, index: int) -> list[_Item]:
        """This worker's share of what waits; empty when the desk is shut."""
        with self._change:
            self._change.wait_for(lambda: not self._open or self._error is not None or bool(self._for(index)))
            if not self._open or self._error is not None:
                return []
            mine = self._for(index)
            share = mine[: -(-len(mine) // self.workers)]
            self._waiting = [item for item in self._waiting if item not in share]
            return share

    def _for(self, index: int) -> list[_Item]:
        return [item for item in self._waiting if self.workers == 1 or item.last != index]

    def _settle(self, index: int, batch: Sequence[_Item], answers: Sequence[Group]) -> None:
        with self._change:
            for item, answer in zip(batch, answers, strict=True):
                if item.tries and undecided(answer) >= undecided(item.group):
                    answer = item.group
                if item.tries < self.retries and _worth_retrying(answer):
                    self._waiting.append(_Item(item.position, answer, item.tries + 1, index))
                else:
                    self._done[item.position] = answer
            self._change.notify_all()


def _worth_retrying(group: Group) -> bool:
    aborted = sum(completion.finish_reason == "abort" for completion in group.completions)
    return undecided(group) > aborted
