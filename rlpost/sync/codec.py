"""Tensors as plain bytes and their checksums, the same on every process and device."""

from __future__ import annotations

import numpy as np
import torch
import xxhash
from torch import Tensor

from rlpost.types import TensorPayload


def raw_bytes(tensor: Tensor) -> np.ndarray:
    """The bytes of a tensor, row-major, ``uint8 [bytes]``; numpy knows no bfloat16, bytes need no dtype."""
    flat = tensor.detach().to("cpu").contiguous().flatten()
    return flat.view(torch.uint8).numpy() if flat.numel() else np.zeros(0, np.uint8)


def encode(tensor: Tensor) -> TensorPayload:
    """A tensor for the wire. The payload owns its bytes: later updates of the tensor do not reach it."""
    return TensorPayload(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), raw_bytes(tensor).copy())


def decode(payload: TensorPayload) -> Tensor:
    """The tensor of a payload.

    Raises:
        ValueError: if the bytes do not fill the shape.
    """
    dtype = getattr(torch, payload.dtype)
    expected = int(np.prod(payload.shape, dtype=np.int64)) * dtype.itemsize
    if payload.data.nbytes != expected:
        raise ValueError(f"{payload.data.nbytes} bytes for {payload.dtype} {payload.shape}, expected {expected}")
    if not expected:
        return torch.empty(payload.shape, dtype=dtype)
    # what arrives through Ray is read-only memory; torch warns about such arrays, and vLLM only copies from them
    data = payload.data if payload.data.flags.writeable else payload.data.copy()
    return torch.from_numpy(data).view(dtype).reshape(payload.shape)


def checksum(tensor: Tensor | TensorPayload) -> str:
    """128-bit xxh3 of the bytes. It catches mistakes; it is not meant to stop a forger."""
    data = tensor.data if isinstance(tensor, TensorPayload) else raw_bytes(tensor)
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(data).data)
