"""A task on Ray. Run by ``rlpost doctor``."""

from __future__ import annotations

from rlpost.system.smoke_test import begin, doing, found

_TASK_S = 60.0


def _add(one: int, other: int) -> int:
    return one + other


def main() -> None:
    """Start a cluster of one core, run a task, stop the cluster."""
    doing("importing ray")
    import ray
    from rlpost.actors.cluster import cluster
    from rlpost.config.schema import ClusterSection

    doing("starting a local cluster")
    with cluster(ClusterSection(cpus=1)):
        doing("running a task")
        answer = ray.get(ray.remote(_add).remote(40, 2), timeout=_TASK_S)
        doing("stopping the cluster")
    if answer != 42:
        raise ArithmeticError(f"a task that adds 40 and 2 answered {answer}")
    found(f"{ray.__version__} started here and ran a task")


if __name__ == "__main__":
    begin()
    main()
