"""What an engine holds after a weight update, for the check of coverage: engines have their own code for this."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from rlpost.sync.codec import decode
from rlpost.sync.publish import ADAPTER
from rlpost.types import WeightUpdate


def received(
    first: WeightUpdate | None,
    update: WeightUpdate,
    starting: Callable[[str], Tensor],
    add: Callable[[str, Tensor], Tensor],
) -> Callable[[str], Tensor | None]:
    """What an engine holds of a tensor, by its published name; None if it never got it.

    Args:
        first: the update before, which a difference needs.
        update: the update.
        starting: the starting model's tensors, which engines have loaded.
        add: the starting tensor of a name plus a change ``[out, in]`` of it.
    """

    def sent(name: str) -> Tensor | None:
        base = None if first is None or name not in first.payload else decode(first.payload[name])
        if name not in update.payload:
            return starting(name) if update.manifest.kind == "values" else base
        values = decode(update.payload[name])
        if name not in update.index:
            return values
        held = (starting(name) if base is None else base).cpu().clone()
        held.view(-1)[decode(update.index[name]).long()] = values.to(held)
        return held

    def adapted(name: str) -> Tensor | None:
        layer = name.removesuffix(".weight")
        keys = [ADAPTER.format(layer, letter) for letter in "AB"]
        pair = [decode(update.payload[key]).float() for key in keys if key in update.payload]
        return add(name, pair[1] @ pair[0]) if len(pair) == 2 else starting(name)

    return adapted if update.manifest.kind == "adapter" else sent
