r"""How weights change during training: from one published version to the next, and since the start.

For each tensor, in the number format that is published: the share of bfloat16 casts that a step changed, the share that
differ from the start, and the share that changed once and are back at the start (touched, then cancelled; "RL Finetunes
Small Subnetworks", arXiv 2505.11711, distinguishes these); the norm of the step; and the angle between the weights
before and after it, :math:`\arccos(\langle w, w'\rangle / \lVert w\rVert\lVert w'\rVert)`, which analyses of
learning-rate warmup follow. The host holds two versions and one bit per weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlpost.errors import CheckpointError, first_line
from rlpost.sparsity.counting import follow
from rlpost.sparsity.deltas import TensorDelta

FILE = "touched.safetensors"
_BEFORE = "before."


class ChangeTracker:
    """Compares the successive versions of a model.

    Args:
        weights: starting weights as (name, tensor); they are copied. Empty on ranks that only take part in gathering.
    """

    def __init__(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        self.start = {name: _flat(tensor).clone() for name, tensor in weights}
        self.before = {name: tensor.clone() for name, tensor in self.start.items()}
        self.touched = {name: np.zeros(-(-len(tensor) // 8), np.uint8) for name, tensor in self.start.items()}

    def track(self, weights: Iterable[tuple[str, Tensor]]) -> dict[str, TensorDelta]:
        """Compare a version with the one tracked before it and with the start."""
        return {name: self._look(name, _flat(tensor)) for name, tensor in weights}

    def resume(self, weights: Iterable[tuple[str, Tensor]], folder: Path) -> None:
        """Continue from ``weights``, the present version when `save` wrote into ``folder``.

        Raises:
            CheckpointError: if the file there is damaged or belongs to another model.
        """
        now = {name: _flat(tensor) for name, tensor in weights}
        if not self.start:
            return
        for name, tensor in now.items():
            self.before[name].copy_(tensor)
        if not (folder / FILE).is_file():  # changes were not tracked before this checkpoint
            return
        try:
            stored = load_file(folder / FILE)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{folder / FILE}: cannot be read ({first_line(error)}); resume from another checkpoint"
            ) from None
        before = {n.removeprefix(_BEFORE): t for n, t in stored.items() if n.startswith(_BEFORE)}
        touched = {n: t.numpy().copy() for n, t in stored.items() if not n.startswith(_BEFORE)}
        if {n: len(bits) for n, bits in touched.items()} != {n: len(bits) for n, bits in self.touched.items()}:
            raise CheckpointError(f"{folder / FILE}: it is of another model; resume from another checkpoint")
        self.touched = touched
        for name, tensor in before.items():
            self.before[name].copy_(tensor)

    def save(self, folder: Path, present: bool) -> None:
        """Write which entries were ever touched, and the last tracked version unless it is the ``present`` one."""
        tensors = {name: torch.from_numpy(bits) for name, bits in self.touched.items()}
        if not present:
            tensors |= {f"{_BEFORE}{name}": tensor for name, tensor in self.before.items()}
        save_file(tensors, folder / FILE)

    def _look(self, name: str, now: Tensor) -> TensorDelta:
        counts, sums = np.zeros(5, np.int64), np.zeros(4)
        follow(self.start[name], self.before[name], now, self.touched[name], counts, sums)
        self.before[name].copy_(now)
        step, total, one, two = map(float, sums)
        stepped, changed, cancelled, stored_stepped, stored_changed = map(int, counts)
        return TensorDelta(
            len(now), stepped, changed, cancelled, stored_stepped, stored_changed,
            math.sqrt(step), math.sqrt(total), _angle(step, math.sqrt(one), math.sqrt(two)),
        )  # fmt: skip


def _angle(step: float, one: float, two: float) -> float:
    """Angle between two vectors from their lengths and the squared length of their difference; the law of cosines in
    its half-angle form is exact for small angles.
    """
    if not one or not two:
        return 0.0
    return 2 * math.asin(min(math.sqrt(max(step - (one - two) ** 2, 0.0) / (one * two)) / 2, 1.0))


def _flat(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu").reshape(-1).contiguous()
