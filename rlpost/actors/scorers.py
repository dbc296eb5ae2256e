"""The pool of scoring workers: groups are scored as they come, and undecided checks are retried on another worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import ray
from rlpost.actors import env_vars
from rlpost.actors.placement import Placement
from rlpost.actors.pool import ActorPool, spawn
from rlpost.actors.recovery import Supervisor
from rlpost.actors.remote import wait
from rlpost.actors.workers import ScoringWorker
from rlpost.config.schema import RunConfig
from rlpost.errors import RolloutsLostError
from rlpost.plugins.ship import Shipped
from rlpost.rollout.sampling import round_robin
from rlpost.scoring.score import undecided
from rlpost.trajectory import GroupReceipt
from rlpost.types import Prompt, Verdict


class RayScoringPool(ActorPool):
    """`rlpost.protocols.ScoringPool` on Ray, one actor per worker.

    Args:
        config: the run configuration, from which verifier and rewards are built.
        placements: one placement per worker.
        supervisor: counts losses and finds new places.
        shipped: the user's own code.
        needs: what the reward stages read besides texts; see `rlpost.protocols.RewardStage`.
    """

    def __init__(
        self,
        config: RunConfig,
        placements: Sequence[Placement],
        supervisor: Supervisor,
        shipped: Shipped,
        needs: frozenset[str],
    ):
        super().__init__("scoring", placements, lambda one: spawn(ScoringWorker, one, env_vars.scoring()), supervisor)
        self.config, self.shipped, self.needs = config, shipped, needs

    def begin(self, index: int) -> Any:
        """Start the worker's verifier; returns the reference to wait for."""
        return self.handles[index].setup.remote(self.config, self.shipped)

    def preflight(self, prompts: Sequence[Prompt], *, conformance: bool, trials: bool) -> list[Any]:
        """Start the checks before a run, each worker on its share of the prompts; returns the references to wait for.

        Each reference resolves to one line about the verifier: see `rlpost.scoring.score.Scorer.preflight`.
        """
        shares = round_robin(prompts, len(self.handles))
        return [
            handle.preflight.remote([prompts[i] for i in share], conformance, trials)
            for handle, share in zip(self.handles, shares, strict=True)
        ]

    def unverifiable(self, prompts: Sequence[Prompt], timeout_s: float) -> list[str | None]:
        """For each prompt why its answers cannot be verified, or None, each worker asked about its share.

        Raises:
            RlpostError: as `rlpost.scoring.score.Scorer.unverifiable`.
        """
        shares = round_robin(prompts, len(self.handles))
        asked = [
            handle.unverifiable.remote([prompts[i] for i in share])
            for handle, share in zip(self.handles, shares, strict=True)
        ]
        found: list[str | None] = [None] * len(prompts)
        for share, problems in zip(shares, wait(asked, "scoring: reading the statements", timeout_s), strict=True):
            for place, problem in zip(share, problems, strict=True):
                found[place] = problem
        return found

    @contextmanager
    def queue(self) -> Iterator[RayScoringQueue]:
        """Open a queue that takes groups one by one while others are being scored."""
        queue = RayScoringQueue(self)
        try:
            yield queue
        finally:
            queue.close()

    def score(self, groups: Sequence[GroupReceipt]) -> list[GroupReceipt]:
        """Score groups whose trajectories are all there; returns them in order."""
        with self.queue() as queue:
            for position, group in enumerate(groups):
                queue.submit(position, group)
            scored = queue.results()
        return [scored[position] for position in range(len(groups))]

    def finish(self, groups: Sequence[GroupReceipt]) -> list[GroupReceipt]:
        """Run the reward stages that need the learner's log-probabilities; returns the groups in order."""
        shares = [share for share in round_robin(groups, len(self.handles)) if share]
        parts = [[groups[position] for position in share] for share in shares]
        calls = [(handle, handle.finish.remote(part)) for handle, part in zip(self.handles, parts, strict=False)]
        found: dict[int, GroupReceipt] = {}
        for index, (share, part, call) in enumerate(zip(shares, parts, calls, strict=True)):
            answer = self.persist(
                index, lambda h, p=part: h.finish.remote(p), "finish rewards", self.config.scoring.batch_timeout_s,
                call, RolloutsLostError,
            )  # fmt: skip
            found.update(zip(share, answer, strict=True))
        return [found[position] for position in range(len(groups))]

    def baselines(
        self, train: Sequence[Prompt], prompts: Sequence[Prompt], places: int, teacher: str | None
    ) -> dict[str, list[Verdict]]:
        """See `rlpost.protocols.ScoringPool.baselines`; one worker does it."""
        shared = ray.put(list(train)), ray.put(list(prompts))
        return self.persist(
            0, lambda handle: handle.baselines.remote(*shared, places, teacher), "baselines",
            self.config.scoring.batch_timeout_s,
        )  # fmt: skip


@dataclass(slots=True, eq=False)
class _Submitted:
    """A group to score, with the number of attempts so far and the worker of the last one."""

    position: int
    group: GroupReceipt
    tries: int = 0
    last: int = -1


class RayScoringQueue:
    """`rlpost.protocols.ScoringQueue` over the workers of a pool.

    One thread per worker takes an equal share of the waiting groups, so batches are small while groups come one by one
    and grow when many wait. A group with undecided checks is put back for another worker, at most ``scoring.retries``
    times; the attempt with the fewest undecided checks counts.

    Args:
        pool: the scoring workers.
    """

    def __init__(self, pool: RayScoringPool):
        self.pool, self.workers = pool, len(pool.handles)
        self.retries, self.deadline = pool.config.scoring.retries, pool.config.scoring.batch_timeout_s
        self._waiting: list[_Submitted] = []
        self._done: dict[int, GroupReceipt] = {}
        self._open, self._expected = True, 0
        self._error: BaseException | None = None
        self._change = threading.Condition()
        for index in range(self.workers):
            threading.Thread(target=self._work, args=(index,), daemon=True).start()

    def submit(self, position: int, group: GroupReceipt) -> None:
        """Queue a group for verification and rewards."""
        with self._change:
            self._waiting.append(_Submitted(position, group))
            self._expected += 1
            self._change.notify_all()

    def results(self) -> dict[int, GroupReceipt]:
        """Wait until all submitted groups are scored; returns them by position.

        Raises:
            RlpostError: the error of a worker that failed.
        """
        with self._change:
            self._change.wait_for(lambda: self._error is not None or len(self._done) == self._expected)
            if self._error is not None:
                raise self._error
            return dict(self._done)

    def close(self) -> None:
        """End the threads."""
        with self._change:
            self._open = False
            self._change.notify_all()

    def _work(self, index: int) -> None:
        try:
            while batch := self._take(index):
                self._collect(index, batch, self._score(index, [item.group for item in batch]))
        except BaseException as error:  # raised in the thread that waits for the results
            with self._change:
                self._error = self._error or error
                self._change.notify_all()

    def _score(self, index: int, groups: list[GroupReceipt]) -> list[GroupReceipt]:
        """The groups as a worker scores them; their full verdicts stay where they were made."""
        evidence: list[Any] = []

        def ask(handle: Any) -> Any:
            scored, *evidence[:] = handle.score.options(num_returns=1 + len(groups)).remote(groups)
            return scored

        scored = self.pool.persist(index, ask, "score", self.deadline, gone=RolloutsLostError)
        return [replace(group, evidence=handle) for group, handle in zip(scored, evidence, strict=True)]

    def _take(self, index: int) -> list[_Submitted]:
        """This worker's share of the waiting groups; empty when the queue is closed."""
        with self._change:
            self._change.wait_for(lambda: not self._open or self._error is not None or bool(self._for(index)))
            if not self._open or self._error is not None:
                return []
            mine = self._for(index)
            share = mine[: -(-len(mine) // self.workers)]
            self._waiting = [item for item in self._waiting if item not in share]
            return share

    def _for(self, index: int) -> list[_Submitted]:
        return [item for item in self._waiting if self.workers == 1 or item.last != index]

    def _collect(self, index: int, batch: Sequence[_Submitted], answers: Sequence[GroupReceipt]) -> None:
        with self._change:
            for item, answer in zip(batch, answers, strict=True):
                if item.tries and undecided(answer) >= undecided(item.group):
                    answer = item.group
                if item.tries < self.retries and _worth_retrying(answer):
                    self._waiting.append(_Submitted(item.position, answer, item.tries + 1, index))
                else:
                    self._done[item.position] = answer
            self._change.notify_all()


def _worth_retrying(group: GroupReceipt) -> bool:
    aborted = sum(receipt.status == "aborted" for receipt in group.trajectories)
    return undecided(group) > aborted
