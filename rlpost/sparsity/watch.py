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
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from rlpost.errors import CheckpointError
from rlpost.sparsity.counting import follow
from rlpost.sparsity.moved import Moved

FILE = "touched.safetensors"


class Watch:
    """Follows the versions of a model.

    Args:
        weights: the starting ones, by name; they are copied.
    """

    def __init__(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        self.start = {name: _flat(tensor).clone() for name, tensor in weights}
        self.before = {name: tensor.clone() for name, tensor in self.start.items()}
        self.touched = {name: np.zeros(-(-len(tensor) // 8), np.uint8) for name, tensor in self.start.items()}

    def look(self, weights: Iterable[tuple[str, Tensor]]) -> dict[str, Moved]:
        """Compare a version with the one looked at before and with the start."""
        return {name: self._look(name, _flat(tensor)) for name, tensor in weights}

    def resume(self, weights: Iterable[tuple[str, Tensor]], folder: Path) -> None:
        """Go on from a version that was looked at when ``folder`` was written by `save`.

        Raises:
            CheckpointError: if what is there is damaged or another model's.
        """
        for name, tensor in weights:
            self.before[name].copy_(_flat(tensor))
        if not (folder / FILE).is_file():  # the run was not watched so far
            return
        try:
            stored = load_file(folder / FILE)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{folder / FILE}: cannot be read ({error}); resume from another checkpoint"
            ) from None
        if {n: len(bits) for n, bits in stored.items()} != {n: len(bits) for n, bits in self.touched.items()}:
            raise CheckpointError(f"{folder / FILE}: it is of another model; resume from another checkpoint")
        # what is read may lie in read-only memory
        self.touched = {name: bits.copy() for name, bits in stored.items()}

    def save(self, folder: Path) -> None:
        """Write which entries were ever touched; the versions can be had again from the model."""
        save_file(self.touched, folder / FILE)

    def _look(self, name: str, now: Tensor) -> Moved:
        counts, sums = np.zeros(5, np.int64), np.zeros(5)
        follow(self.start[name], self.before[name], now, self.touched[name], counts, sums)
        self.before[name].copy_(now)
        step, total, dot, one, two = map(float, sums)
        # sin² by the difference: rounding is at 1e-8 radians, far below what a step turns
        angle = math.atan2(math.sqrt(max(one * two - dot * dot, 0.0)), dot) if one and two else 0.0
        stepped, changed, cancelled, stored_stepped, stored_changed = map(int, counts)
        return Moved(
            len(now), stepped, changed, cancelled, stored_stepped, stored_changed,
            math.sqrt(step), math.sqrt(total), angle,
        )  # fmt: skip


def _flat(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu").reshape(-1).contiguous()
