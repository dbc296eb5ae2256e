"""Tensors as plain bytes and their checksums, the same on every process and device."""

from __future__ import annotations

import warnings

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
    """The tensor of a payload, over the same memory: to be read from, not written to.

    Raises:
        ValueError: if the bytes do not fill the shape.
    """
    dtype = getattr(torch, payload.dtype)
    expected = int(np.prod(payload.shape, dtype=np.int64)) * dtype.itemsize
    if payload.data.nbytes != expected:
        raise ValueError(f"{payload.data.nbytes} bytes for {payload.dtype} {payload.shape}, expected {expected}")
    if not expected:
        return torch.empty(payload.shape, dtype=dtype)
    with warnings.catch_warnings():
        # what arrives through Ray is read-only memory, of which torch warns: whoever decodes only copies from it
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(payload.data).view(dtype).reshape(payload.shape)


def checksum(tensor: Tensor | TensorPayload) -> str:
    """128-bit xxh3 of the bytes. It catches mistakes; it is not meant to stop a forger."""
    data = tensor.data if isinstance(tensor, TensorPayload) else raw_bytes(tensor)
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(data).data)
