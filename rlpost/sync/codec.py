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
"""What a thread sums at a time: a model has hundreds of tensors that take less than handing them over does."""


def raw_bytes(tensor: Tensor) -> np.ndarray:
    """The bytes of a tensor, row-major, ``uint8 [bytes]``; numpy knows no bfloat16, bytes need no dtype."""
    flat = tensor.detach().to("cpu").contiguous().flatten()
    return flat.view(torch.uint8).numpy() if flat.numel() else np.zeros(0, np.uint8)


def encode(tensor: Tensor, shared: bool = False) -> TensorPayload:
    """A tensor for the wire.

    Args:
        tensor: on any device.
        shared: the payload may lie over the tensor's own memory, and is used before that changes or goes. Otherwise
            it owns its bytes: later updates of the tensor do not reach it.
    """
    data = raw_bytes(tensor)
    if not shared and data.ctypes.data == tensor.data_ptr():
        data = data.copy()
    return TensorPayload(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), data)


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
    if not payload.data.flags.writeable:
        _hear_the_warning()
    return torch.from_numpy(payload.data).view(dtype).reshape(payload.shape)


@functools.cache
def _hear_the_warning() -> None:
    """What arrives through Ray is read-only memory, of which torch warns, once in a process: here, where nobody hears
    it. Whoever decodes only copies from it.
    """
    data = np.zeros(1, np.uint8)
    data.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.from_numpy(data)


def checksum(tensor: Tensor | TensorPayload) -> str:
    """128-bit xxh3 of the bytes. It catches mistakes; it is not meant to stop a forger."""
    data = tensor.data if isinstance(tensor, TensorPayload) else raw_bytes(tensor)
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(data).data)


def checksums(tensors: Iterable[Named]) -> dict[str, str]:
    """`checksum` of each by name, in their order, on as many threads as torch uses here.

    Args:
        tensors: names with tensors or payloads. Each is still read when later ones are asked for: not for parameters
            that are only lent, as by ZeRO stage 3.
    """
    threads, found = torch.get_num_threads(), dict[str, str]()
    pending: deque[Future[dict[str, str]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for batch in _batches(tensors):
            pending.append(pool.submit(lambda part: {name: checksum(tensor) for name, tensor in part}, batch))
            # what is made on the way, such as a copy in another dtype, is not to be held for the whole model
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
