"""What a tuning method's own files say of the trained weights, read back for the check of coverage."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from rlpost.errors import ConfigError
from rlpost.sync.codec import checksum
from rlpost.tuning import masks


def saved_delta(
    folder: Path,
    starting: Callable[[str], Tensor],
    add: Callable[[str, Tensor], Tensor],
    trained: Mapping[str, Tensor],
) -> Callable[[str], Tensor | None] | None:
    """The trained weights by published name, from a folder that a method has written into.

    Args:
        folder: folder with ``adapter/`` or ``subnetwork/``, or neither.
        starting: the starting model's tensors.
        add: the starting tensor of a name plus a change ``[out, in]`` of it.
        trained: the trained parameters with the values that were saved. A method's files that only PEFT can read must
            hold each of them.

    Returns:
        None without files, or where they hold the parameters themselves.

    Raises:
        ConfigError: for a trained parameter that is not in PEFT's files.
    """
    if (folder / "subnetwork").is_dir():
        return _subnetwork(folder / "subnetwork", starting)
    if not (folder / "adapter").is_dir():
        return None
    settings: dict[str, Any] = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter" / "adapter_model.safetensors")
    if "modules_to_save" not in settings:  # rlpost's own folder of plain matrices
        return _plain(settings, tensors, starting, add)
    held = {(tuple(one.shape), checksum(one)) for one in tensors.values()}
    absent = [name for name, one in trained.items() if (tuple(one.shape), checksum(one)) not in held]
    if absent:
        raise ConfigError(
            f"tuning: {absent[0]} is trained, but PEFT does not save it with the adapter ({len(absent)} of "
            f"{len(trained)} such); leave it out of what is trained, or use another tuning.method"
        )
    return None


def _plain(
    settings: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    starting: Callable[[str], Tensor],
    add: Callable[[str, Tensor], Tensor],
) -> Callable[[str], Tensor | None]:
    """W + s B A."""
    rank = settings["r"]
    scale = settings["lora_alpha"] / (math.sqrt(rank) if settings.get("use_rslora") else rank)

    def held(name: str) -> Tensor | None:
        layer = f"base_model.model.{name.removesuffix('.weight')}"
        a, b = (tensors.get(f"{layer}.lora_{letter}.weight") for letter in "AB")
        return starting(name) if a is None or b is None else add(name, scale * (b.float() @ a.float()))

    return held


def _subnetwork(folder: Path, starting: Callable[[str], Tensor]) -> Callable[[str], Tensor | None]:
    """The starting weights with the saved values in the places of the saved mask."""
    mask, values = masks.load(folder / "mask.safetensors"), load_file(folder / "values.safetensors")

    def held(name: str) -> Tensor | None:
        found = starting(name).cpu().clone()
        if name in values:
            found.view(-1)[mask.tensors[name].index().long()] = values[name].to(found)
        return found

    return held
