"""What ``rlpost plan`` shows: every actor's seat, before anything is started."""

from __future__ import annotations

from rlpost.actors.cluster import cluster, nodes, this_machine
from rlpost.actors.placement import Plan, place
from rlpost.config.schema import RunConfig
from rlpost.learner.models import count_parameters, resolve_path


def plan(config: RunConfig) -> Plan:
    """Seat every actor on this machine, or on the cluster that the configuration names.

    Raises:
        RlpostError: if the cluster cannot be reached, or the model's folder is not there.
    """
    # a model that the warm start has yet to make has no size yet
    parameters = count_parameters(resolve_path(config.model.path)) if config.model.path else None
    if config.cluster.address == "local":
        return place(config, [this_machine(config.cluster)], parameters)
    with cluster(config.cluster):
        return place(config, nodes(), parameters)


def render(found: Plan) -> str:
    """The plan as lines for people: a line per actor, a total per node, and what is missing."""
    rows = [("actor", "node", "threads", "GPUs", "memory at least")]
    for seat in found.seats:
        memory = "not known yet" if seat.memory_gb is None else f"{seat.memory_gb:.1f} GB"
        rows.append((seat.name, seat.node.address, str(seat.threads), f"{seat.gpus:g}", memory))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for node in dict.fromkeys(seat.node for seat in found.seats):
        lines.append(f"node {node.address} has {node.cpus} cores, {node.gpus} GPUs, {node.memory_gb:.1f} GB")
    return "\n".join([*lines, *(f"missing: {text}" for text in found.missing)])
