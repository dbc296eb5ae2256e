r"""What changes while a model is trained: from one published version to the next, and since the start.

Of each tensor, in the number format that is published: the share of bfloat16 casts that a step changed, that differ
from the start, and that were changed once and are back (touched, then cancelled; "RL Finetunes Small Subnetworks",
arXiv 2505.11711, tells these apart); the norm of the step; and the angle between the weights before and after it,
:math:`\arccos(\langle w, w'\rangle / \lVert w\rVert\lVert w'\rVert)`, which analyses of learning-rate warmup follow.
Two versions and one bit for each weight are held on the host.
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
    """Follows the versions of a model.

    Args:
        weights: the starting ones, by name; they are copied. None on ranks that take part in gathering only.
    """

    def __init__(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        self.start = {name: _flat(tensor).clone() for name, tensor in weights}
        self.before = {name: tensor.clone() for name, tensor in self.start.items()}
        self.touched = {name: np.zeros(-(-len(tensor) // 8), np.uint8) for name, tensor in self.start.items()}

    def track(self, weights: Iterable[tuple[str, Tensor]]) -> dict[str, TensorDelta]:
        """Compare a version with the one looked at before and with the start."""
        return {name: self._look(name, _flat(tensor)) for name, tensor in weights}

    def resume(self, weights: Iterable[tuple[str, Tensor]], folder: Path) -> None:
        """Go on from the version that was the present one when `save` wrote into ``folder``.

        Raises:
            CheckpointError: if what is there is damaged or another model's.
        """
        now = {name: _flat(tensor) for name, tensor in weights}
        if not self.start:
            return
        for name, tensor in now.items():
            self.before[name].copy_(tensor)
        if not (folder / FILE).is_file():  # the run was not watched so far
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
        """Write which entries were ever touched, and the version looked at last unless it is the ``present`` one."""
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
    """Between vectors of two lengths whose difference has this squared length; the law of cosines by half the angle,
    which is exact for small ones.
    """
    if not one or not two:
        return 0.0
    return 2 * math.asin(min(math.sqrt(max(step - (one - two) ** 2, 0.0) / (one * two)) / 2, 1.0))


def _flat(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu").reshape(-1).contiguous()
