"""The placement of actors on nodes with threads, GPUs and memory, computed and checked before anything starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rlpost.config.schema import LearnerSection, RolloutSection, RunConfig
from rlpost.tuning.memory import Shapes, engine_bytes, learner_bytes

Kind = Literal["rollout", "learner", "scoring", "environment"]

_BASE_GB = {"rollout": 1.0, "learner": 0.7, "scoring": 0.2, "environment": 0.2}
"""GiB that an actor holds before any weights: measured with a model of 0.14 M parameters on CPU."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster with its cores, GPUs and memory in GiB, as Ray reports them.

    >>> Node("a1", "10.0.0.1", 8, 1, 30.0).gpus
    1
    """

    id: str
    address: str
    cpus: int
    gpus: int
    memory_gb: float


@dataclass(frozen=True, slots=True)
class Placement:
    """The node and the resources of one actor.

    Attributes:
        kind: rollout, learner, scoring or environment.
        index: number within its kind, 0-based; for a learner its rank.
        node: the node it runs on.
        threads: CPU threads it computes with.
        gpus: GPUs it is given; a fraction if actors share one.
        memory_gb: memory it needs at least, in GiB on the device it computes on; None if the model is not known yet.

    >>> Placement("rollout", 0, Node("a1", "10.0.0.1", 8, 1, 30.0), 1, 1.0, None).name
    'rollout0'
    """

    kind: Kind
    index: int
    node: Node
    threads: int
    gpus: float
    memory_gb: float | None

    @property
    def name(self) -> str:
        """Name in metrics and messages, e.g. ``rollout0``."""
        return f"{self.kind}{self.index}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The placements of all actors, a line with numbers for each resource that the nodes lack, and the faults of the
    configuration that `rlpost plan` finds.

    >>> Plan((), ("2 GPUs needed, 1 there",)).missing[0]
    '2 GPUs needed, 1 there'
    """

    placements: tuple[Placement, ...]
    missing: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    def of(self, kind: Kind) -> list[Placement]:
        """The placements of a kind, in order."""
        return [placement for placement in self.placements if placement.kind == kind]


def place(config: RunConfig, nodes: Sequence[Node], shapes: Shapes | None = None) -> Plan:
    """Place every actor of a run.

    Without a GPU, rollouts and learners take turns on the same cores, so each kind is spread over all nodes and its
    actors divide a node's cores among themselves only. With GPUs, every engine (times ``rollout.tensor_parallel``) and
    every learner rank gets GPUs of its own; if there are too few, engines and a single rank share them evenly. Scoring
    workers and environments are spread over the nodes by cores.

    Args:
        config: number of actors and threads of each kind.
        nodes: machines that are alive.
        shapes: shapes of the model's tensors, from which memory is predicted; None if they are not known.

    Returns:
        The plan; ``missing`` says in numbers why it cannot be carried out.
    """
    if not nodes:
        return Plan((), ("no node is alive",))
    plan = _on_gpus(config, nodes) if any(node.gpus for node in nodes) else _on_cores(config, nodes)
    placements = tuple(
        replace(placement, memory_gb=_memory_gb(placement, config, shapes)) for placement in plan.placements
    )
    return Plan(placements, (*plan.missing, *_memory_missing(placements, nodes)))


def place_again(placement: Placement, placements: Sequence[Placement], nodes: Sequence[Node]) -> Placement | None:
    """A new placement for a lost actor: on its own node if that is alive, else where the fewest of its kind run.

    Args:
        placement: placement of the lost actor.
        placements: placements of all other actors.
        nodes: machines that are alive.

    Returns:
        The placement; None if no node has cores, or the GPUs it needs, free.
    """
    for node in nodes:
        if node.id == placement.node.id:
            return placement
    free = {node.id: node.gpus - sum(s.gpus for s in placements if s.node.id == node.id) for node in nodes}
    # heads of clusters often offer no cores, so that nothing runs there
    fitting = [node for node in nodes if (free[node.id] >= placement.gpus - 1e-6 if placement.gpus else node.cpus > 0)]
    if not fitting:
        return None

    def crowding(node: Node) -> tuple[float, str]:
        same = sum(other.node.id == node.id and other.kind == placement.kind for other in placements)
        return same / max(node.cpus, 1), node.id

    best = min(fitting, key=crowding)
    return replace(placement, node=best, threads=max(min(placement.threads, best.cpus), 1))


def _on_cores(config: RunConfig, nodes: Sequence[Node]) -> Plan:
    placements: list[Placement] = []
    missing: list[str] = []
    cores = sum(node.cpus for node in nodes)
    if config.rollout.tensor_parallel > cores:
        missing.append(f"rollout.tensor_parallel: {config.rollout.tensor_parallel} cores needed, {cores} there")
    kinds: tuple[tuple[Kind, RolloutSection | LearnerSection], ...] = (
        ("rollout", config.rollout),
        ("learner", config.learner),
    )
    for kind, section in kinds:
        if section.threads is None and section.workers > cores:
            missing.append(f"{kind}.workers: {section.workers} actors need as many cores, {cores} there")
        chosen = _spread(section.workers, nodes)
        for index, node in enumerate(chosen):
            threads = section.threads or max(node.cpus // chosen.count(node), 1)
            placements.append(Placement(kind, index, node, threads, 0.0, None))
    return Plan((*placements, *_scoring(config, nodes)), tuple(missing))


def _on_gpus(config: RunConfig, nodes: Sequence[Node]) -> Plan:
    rollout, learner = config.rollout, config.learner
    total = sum(node.gpus for node in nodes)
    wanted = rollout.workers * rollout.tensor_parallel + learner.workers
    share = 1.0 if wanted <= total else 1 / -(-wanted // total)
    if share < 1.0 and (learner.workers > 1 or rollout.tensor_parallel > 1):
        text = (
            f"{wanted} GPUs needed ({rollout.workers} engines × {rollout.tensor_parallel} + {learner.workers} learner "
            f"ranks, which cannot share), {total} there"
        )
        return Plan(_scoring(config, nodes), (text,))
    free = {node.id: float(node.gpus) for node in nodes}
    placements: list[Placement] = []
    missing: list[str] = []

    def take(kind: Kind, index: int, gpus: float, threads: int | None) -> None:
        fitting = [node for node in nodes if free[node.id] >= gpus - 1e-6]
        if not fitting:
            missing.append(f"{kind}{index}: {gpus:g} GPUs on one node needed, at most {max(free.values()):g} free")
            return
        node = min(fitting, key=lambda n: (free[n.id], n.id))  # best fit: keeps whole nodes for what needs them
        free[node.id] -= gpus
        placements.append(Placement(kind, index, node, threads or 0, gpus, None))

    for index in range(rollout.workers):
        take("rollout", index, share * rollout.tensor_parallel, rollout.threads)
    for index in range(learner.workers):
        take("learner", index, share, learner.threads)
    return Plan((*_shared_cores(placements), *_scoring(config, nodes)), tuple(missing))


def _shared_cores(placements: Sequence[Placement]) -> Iterator[Placement]:
    """Placements without threads get their node's cores divided by the processes there; a sync's checksums use them."""
    here = Counter[str]()
    for placement in placements:
        here[placement.node.id] += max(round(placement.gpus), 1)  # an engine over several GPUs has a process for each
    for placement in placements:
        yield (
            placement
            if placement.threads
            else replace(placement, threads=max(placement.node.cpus // here[placement.node.id], 1))
        )


def _scoring(config: RunConfig, nodes: Sequence[Node]) -> tuple[Placement, ...]:
    kinds: tuple[tuple[Kind, int], ...] = (
        ("scoring", config.scoring.workers),
        ("environment", config.environment.workers if config.environment else 0),
    )
    return tuple(
        Placement(kind, index, node, 1, 0.0, None)
        for kind, workers in kinds
        for index, node in enumerate(_spread(workers, nodes))
    )


def _spread(workers: int, nodes: Sequence[Node]) -> list[Node]:
    """A node for each worker, the one with the most cores per worker first."""
    usable = [node for node in nodes if node.cpus] or list(nodes)
    chosen: list[Node] = []
    for _ in range(workers):
        chosen.append(max(usable, key=lambda n: (n.cpus / (chosen.count(n) + 1), n.id)))
    return chosen


def memory_bytes(placement: Placement, config: RunConfig, shapes: Shapes) -> dict[str, int]:
    """Bytes that an actor holds, by part; see `rlpost.tuning.memory`."""
    if placement.kind == "rollout":
        return engine_bytes(config, shapes, on_gpu=placement.gpus > 0)
    return learner_bytes(config, shapes) if placement.kind == "learner" else {}


def _memory_gb(placement: Placement, config: RunConfig, shapes: Shapes | None) -> float | None:
    """GiB of the actor's libraries and of what it holds; activations are left out."""
    if placement.kind in ("scoring", "environment"):
        return _BASE_GB[placement.kind]
    if shapes is None:
        return None
    return _BASE_GB[placement.kind] + sum(memory_bytes(placement, config, shapes).values()) / 2**30


def _memory_missing(placements: Sequence[Placement], nodes: Sequence[Node]) -> list[str]:
    missing = []
    for node in nodes:
        here = [
            placement
            for placement in placements
            if placement.node.id == node.id and not placement.gpus and placement.memory_gb is not None
        ]
        needed = sum(placement.memory_gb or 0.0 for placement in here)
        if needed > node.memory_gb:
            names = ", ".join(placement.name for placement in here)
            missing.append(f"node {node.address}: {needed:.1f} GB needed ({names}), {node.memory_gb:.1f} GB there")
    return missing
