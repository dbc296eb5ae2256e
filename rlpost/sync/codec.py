"""Tensors as plain bytes and their checksums, the same on every process and device."""

from __future__ import annotations

import functools
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
import xxhash
from torch import Tensor

from rlpost.types import TensorPayload

Named = tuple[str, Tensor | TensorPayload]

_BATCH_BYTES = 4 << 20
"""Bytes that a thread checksums at a time: hundreds of a model's tensors are so small that passing one to a thread
takes longer than its checksum."""


def raw_bytes(tensor: Tensor) -> np.ndarray:
    """The bytes of a tensor, row-major, ``uint8 [bytes]``; numpy knows no bfloat16, bytes need no dtype."""
    flat = tensor.detach().to("cpu").contiguous().flatten()
    return flat.view(torch.uint8).numpy() if flat.numel() else np.zeros(0, np.uint8)


def encode(tensor: Tensor, shared: bool = False) -> TensorPayload:
    """Encode a tensor for transfer to another process.

    Args:
        tensor: a tensor on any device.
        shared: let the payload share the tensor's memory; it must be used before that changes or is freed. Otherwise
            it owns its bytes, and later updates of the tensor do not reach it.
    """
    data = raw_bytes(tensor)
    if not shared and data.ctypes.data == tensor.data_ptr():
        data = data.copy()
    return TensorPayload(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), data)


def decode(payload: TensorPayload) -> Tensor:
    """The tensor of a payload. It shares the payload's memory and must not be written to.

    Raises:
        ValueError: if the bytes do not fill the shape.
    """
    dtype = getattr(torch, payload.dtype)
    expected = int(np.prod(payload.shape, dtype=np.int64)) * dtype.itemsize
    if payload.data.nbytes != expected:
        raise ValueError(f"{payload.data.nbytes} bytes for {payload.dtype} {payload.shape}, expected {expected}")
    if not expected:
        return torch.empty(payload.shape, dtype=dtype)
    if not payload.data.flags.writeable:
        _hear_the_warning()
    return torch.from_numpy(payload.data).view(dtype).reshape(payload.shape)


@functools.cache
def _hear_the_warning() -> None:
    """Trigger torch's warning about read-only memory here, where it is suppressed; torch gives it once per process.

    Payloads that arrive through Ray are read-only, and decoded tensors are only copied from.
    """
    data = np.zeros(1, np.uint8)
    data.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.from_numpy(data)


def checksum(tensor: Tensor | TensorPayload) -> str:
    """128-bit xxh3 of the bytes. It detects mistakes, not deliberate forgery."""
    data = tensor.data if isinstance(tensor, TensorPayload) else raw_bytes(tensor)
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(data).data)


def checksums(tensors: Iterable[Named]) -> dict[str, str]:
    """`checksum` of each tensor by name, in their order, on as many threads as torch uses here.

    Args:
        tensors: names with tensors or payloads. Each may still be read after the next ones are requested, so it must
            not be a parameter that is gathered for the moment only (ZeRO stage 3).
    """
    threads, found = torch.get_num_threads(), dict[str, str]()
    pending: deque[Future[dict[str, str]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for batch in _batches(tensors):
            pending.append(pool.submit(lambda part: {name: checksum(tensor) for name, tensor in part}, batch))
            # bounded, so that temporaries such as copies in another dtype are not held for the whole model
            if len(pending) > 2 * threads:
                found |= pending.popleft().result()
        while pending:
            found |= pending.popleft().result()
    return found


def _batches(tensors: Iterable[Named]) -> Iterator[list[Named]]:
    batch, size = list[Named](), 0
    for name, tensor in tensors:
        batch.append((name, tensor))
        size += tensor.nbytes
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
