"""Best-first search over states that are reached by steps with log-probabilities: the queue, and nothing else.

Polu & Sutskever 2020 ("Generative Language Modeling for Automated Theorem Proving") expand the state with the largest
cumulative log-probability; BFS-Prover (Xin et al. 2025, arXiv 2502.03438) divides it by a power of the path's length,
so that deep proofs are not starved:

    score(s) = Σ_{t < L} log p(a_t | s_t) / L^α        α = 0: cumulative; α = 1: mean per step
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

State = TypeVar("State")


@dataclass(frozen=True, slots=True)
class Node(Generic[State]):
    """A state with the best known way to it.

    Attributes:
        key: equal for states that are the same.
        state: what the caller needs to go on from here.
        logprob: sum of the steps' log-probabilities from the root, in nats.
        depth: number of steps from the root.

    >>> Node("goals", None, -1.5, 2).depth
    2
    """

    key: Hashable
    state: State
    logprob: float
    depth: int


def score(logprob: float, depth: int, alpha: float) -> float:
    """The priority of a state, larger is better; the root's is its log-probability.

    >>> score(-4.0, 2, 0.0), score(-4.0, 2, 1.0), score(-4.0, 4, 0.5)
    (-4.0, -2.0, -2.0)
    """
    return logprob / max(depth, 1) ** alpha


class Frontier(Generic[State]):
    """The states that may be expanded next, best first. Equal states are expanded once, with the best way to them that
    was known then; ties go to the state that came first.

    Args:
        alpha: α of the length normalisation, 0 or more.
        max_depth: states deeper than this are not kept.

    Raises:
        ValueError: for a negative ``alpha`` or a ``max_depth`` below 1.

    >>> frontier: Frontier[str] = Frontier()
    >>> pushed = [frontier.push(*one) for one in (("a", "", -2.0, 1), ("b", "", -1.0, 1), ("a", "better", -0.5, 2))]
    >>> pushed, [frontier.pop().state for _ in range(len(frontier))], frontier.push("a", "again", 0.0, 1)
    ([True, True, True], ['better', ''], False)
    """

    def __init__(self, alpha: float = 0.0, max_depth: int = 1_000_000):
        if not alpha >= 0 or max_depth < 1:
            raise ValueError(f"alpha is {alpha} and max_depth {max_depth}; give 0 or more, and 1 or more")
        self.alpha, self.max_depth = alpha, max_depth
        self.expanded: dict[Hashable, Node[State]] = {}
        """The states that `pop` has given out, by key, in that order."""
        self._best: dict[Hashable, Node[State]] = {}
        self._heap: list[tuple[float, int, Hashable]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._best)

    def push(self, key: Hashable, state: State, logprob: float, depth: int) -> bool:
        """Add a state; returns whether it was kept.

        It is not if it was expanded already, is as well known in another way, lies too deep, or has no probability: a
        log-probability that is not a number or -∞.
        """
        if depth > self.max_depth or key in self.expanded or not logprob > float("-inf"):
            return False
        known = self._best.get(key)
        mine = score(logprob, depth, self.alpha)
        if known is not None and score(known.logprob, known.depth, self.alpha) >= mine:
            return False
        self._add(Node(key, state, logprob, depth))
        return True

    def pop(self) -> Node[State] | None:
        """The best state, which counts as expanded from now on; None if there is none."""
        while self._heap:
            value, _, key = heapq.heappop(self._heap)
            node = self._best.get(key)
            if node is None or -value != score(node.logprob, node.depth, self.alpha):
                continue  # an entry that a better way to the same state has replaced
            del self._best[key]
            self.expanded[key] = node
            return node
        return None

    def reopen(self) -> int:
        """Put all expanded states back, for a policy that may try other steps in them; returns their number."""
        nodes, self.expanded = list(self.expanded.values()), {}
        for node in nodes:
            self._add(node)
        return len(nodes)

    def _add(self, node: Node[State]) -> None:
        self._best[node.key] = node
        self._count += 1
        heapq.heappush(self._heap, (-score(node.logprob, node.depth, self.alpha), self._count, node.key))
