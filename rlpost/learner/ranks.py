"""The process group of the data-parallel ranks, and the values they exchange."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch


def join(device: torch.device) -> int:
    """Join the process group and return this rank.

    The environment describes the group (``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``, ``MASTER_PORT``).
    """
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return int(os.environ["RANK"])


def leave() -> None:
    """Leave the process group, if there is one."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def sums(values: dict[str, float], world: int, device: torch.device) -> dict[str, float]:
    """Sums of the values over all ranks; every rank passes the same keys."""
    if world == 1:
        return values
    keys = sorted(values)
    total = torch.tensor([values[k] for k in keys], dtype=torch.float64)
    total = total.to(device) if device.type == "cpu" else total.float().to(device)
    torch.distributed.all_reduce(total)
    return dict(zip(keys, total.tolist(), strict=True))


def shares(found: dict[int, np.ndarray], world: int) -> dict[int, np.ndarray]:
    """The results of all ranks together, by sample."""
    if world == 1:
        return found
    parts: list[Any] = [None] * world
    torch.distributed.all_gather_object(parts, found)
    return {row: values for part in parts for row, values in part.items()}
