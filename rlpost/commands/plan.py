"""``rlpost plan``: a dry run. Every fault that can be known, and every actor's placement and memory.

Neither Ray (except to look at a cluster that the configuration names) nor an engine is started.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from rlpost.actors.cluster import cluster, nodes, this_machine
from rlpost.actors.placement import Plan, memory_bytes, place
from rlpost.config.load import numbered
from rlpost.config.schema import RunConfig
from rlpost.data.models import tensor_shapes, widths
from rlpost.errors import InfrastructureError
from rlpost.loop.faults import all_faults, starting_folder
from rlpost.tuning.memory import activations, trained


def plan(config: RunConfig, known: Sequence[str] = (), wrong: Sequence[str] = ()) -> Plan:
    """Look for faults, and place every actor on this machine, or on the cluster that the configuration names.

    Args:
        config: the run configuration.
        known: faults that are known already, such as broken rules between keys.
        wrong: keys that are known to be wrong, in whose place the configuration holds defaults.
    """
    found = all_faults(config, partial(_read_warm_start, config))
    faults = [*known, *(line for line in found if not line.startswith(tuple(f"{key}:" for key in wrong)))]
    # the size of a model that the warm start is to make, or that is not there, is not known
    folder = starting_folder(config)
    shapes = tensor_shapes(folder) if folder is not None else None
    if config.cluster.address == "local":
        placed = place(config, [this_machine(config.cluster)], shapes)
        return replace(placed, faults=tuple(faults))
    try:
        with cluster(config.cluster):
            placed = place(config, nodes(), shapes)
    except InfrastructureError as error:
        return Plan((), (), (*faults, str(error)))
    return replace(placed, faults=tuple(faults))


def _read_warm_start(config: RunConfig) -> None:
    if config.sft is not None:
        from rlpost.commands.sft import read_pairs

        read_pairs(config, config.sft)


def render(found: Plan, config: RunConfig) -> str:
    """The plan as text: a line per actor, one per node with its resources, memory by part, what is missing, and a
    numbered line per fault.
    """
    faults = numbered(found.faults)
    if not found.placements:
        return "\n".join([*(f"missing: {text}" for text in found.missing), *faults])
    rows = [("actor", "node", "threads", "GPUs", "memory at least")]
    for placement in found.placements:
        memory = "not known yet" if placement.memory_gb is None else f"{placement.memory_gb:.1f} GB"
        rows.append((placement.name, placement.node.address, str(placement.threads), f"{placement.gpus:g}", memory))
    length = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, length, strict=True)).rstrip() for row in rows]
    for node in dict.fromkeys(placement.node for placement in found.placements):
        lines.append(f"node {node.address} has {node.cpus} cores, {node.gpus} GPUs, {node.memory_gb:.1f} GB")
    return "\n".join([*lines, *_parts(found, config), *(f"missing: {text}" for text in found.missing), *faults])


def _parts(found: Plan, config: RunConfig) -> Iterator[str]:
    """Lines about the memory of the first engine and the first learner rank; none if the model is not known."""
    folder = starting_folder(config)
    shapes = tensor_shapes(folder) if folder is not None else None
    if folder is None or shapes is None:
        return
    for kind in ("rollout", "learner"):
        placement = found.of(kind)[0]
        parts = {name: size for name, size in memory_bytes(placement, config, shapes).items() if size}
        yield f"{placement.name} holds " + ", ".join(f"{name} {size / 2**20:,.1f} MiB" for name, size in parts.items())
    owned = trained(config, shapes)
    total = sum(map(math.prod, shapes.values()))
    count = "as many as PEFT finds" if owned is None else f"{owned.size:,}"
    yield f"trained: {count} of {total:,} parameters ({config.tuning.method}, {config.optimizer.name})"
    try:
        estimate = activations(config, widths(folder))
    except KeyError:
        return
    how = "with" if config.learner.gradient_checkpointing else "without"
    yield f"activations of a micro-batch, {how} checkpointing: about {estimate / 2**20:,.0f} MiB more (an estimate)"
