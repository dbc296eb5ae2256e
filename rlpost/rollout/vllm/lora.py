"""A LoRA adapter in vLLM: passed as a folder, and read back from the buffers that vLLM computes with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlpost.errors import InfrastructureError, first_line
from rlpost.tuning.method import Adapter

_NAME = re.compile(r"(.+)\.lora_([AB])\.weight")
_SLOT = 0
"""Slot of the only adapter that is loaded at a time."""


def is_adapter(name: str) -> bool:
    """Whether a published name is an adapter's.

    >>> is_adapter("model.layers.0.mlp.up_proj.lora_A.weight"), is_adapter("lm_head.weight")
    (True, False)
    """
    return _NAME.fullmatch(name) is not None


def parse(tensors: Mapping[str, Tensor]) -> Adapter:
    """The adapter that an update's tensors make."""
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        found = _NAME.fullmatch(name)
        assert found is not None
        halves.setdefault(found[1], {})[found[2]] = tensor
    return Adapter({n: (h["A"], h["B"]) for n, h in halves.items()}, max(h["A"].shape[0] for h in halves.values()))


class ActiveAdapter:
    """The adapter that an engine samples with; a new one for each version.

    vLLM identifies an adapter by its number, and its prefix cache identifies it by name: neither is ever used twice.

    Args:
        llm: ``vllm.LLM`` with adapters enabled.
    """

    def __init__(self, llm: Any):
        self.llm, self.number, self.request = llm, 0, None

    def replace(self, adapter: Adapter, folder: str, base: str) -> None:
        """Load an adapter and unload the previous one.

        Args:
            adapter: a plain LoRA adapter, relative to the engine's weights.
            folder: an empty folder, which may be deleted after the call.
            base: name of the starting model.

        Raises:
            InfrastructureError: if vLLM refuses it.
        """
        from vllm.lora.request import LoRARequest

        from rlpost.tuning.lora import save_adapter

        save_adapter(Path(folder), adapter, base)
        self.number += 1
        request = LoRARequest(f"policy-{self.number}", self.number, folder)
        engine, previous = self.llm.llm_engine, self.request
        if previous is not None:
            engine.remove_lora(previous.lora_int_id)
        try:
            accepted = engine.add_lora(request)
        except Exception as error:  # a refusal is whatever exception the worker raised
            raise InfrastructureError(f"vLLM refuses the adapter: {first_line(error)}") from error
        if not accepted:
            raise InfrastructureError("vLLM did not take the adapter")
        self.request = request


def adapter_views(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor | None]:
    """The matrices that vLLM multiplies with, by published name; None if it holds none of that shape.

    Args:
        model: vLLM's model.
        shapes: shapes by published name; names other than adapters' are ignored.
    """
    held = dict(_buffers(model, getattr(model, "packed_modules_mapping", {})))
    return {name: _cut(held.get(name), shape) for name, shape in shapes.items() if is_adapter(name)}


def _buffers(model: Any, packed: Mapping[str, list[str]]) -> Iterator[tuple[str, Tensor]]:
    for name, module in model.named_modules():
        stacked: Any = getattr(module, "lora_a_stacked", None)
        if not isinstance(stacked, tuple) or not hasattr(module, "lora_b_stacked"):
            continue
        before, _, last = name.rpartition(".")
        parts = packed.get(last, [last])
        for part, a, b in zip(parts, stacked, module.lora_b_stacked, strict=False):
            yield f"{before}.{part}.lora_A.weight", a[_SLOT, 0]
            yield f"{before}.{part}.lora_B.weight", b[_SLOT, 0]


def _cut(buffer: Tensor | None, shape: tuple[int, ...]) -> Tensor | None:
    """The published part of a buffer; the rest must be zero, or vLLM would multiply with more than was sent."""
    if buffer is None or buffer.shape[0] < shape[0] or buffer.shape[1] < shape[1]:
        return None
    part = buffer[: shape[0], : shape[1]]
    if int(torch.count_nonzero(buffer)) != int(torch.count_nonzero(part)):
        return None
    return part
