"""Encoding and decoding of tensors is bit-exact. Not covered: Ray's and vLLM's own transport."""

from __future__ import annotations

import pickle

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlpost.sync.codec import checksum, decode, encode

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int8, torch.bool]
SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)


def bits(tensor: torch.Tensor) -> list[int]:
    flat = tensor.contiguous().flatten()
    return flat.view(torch.uint8).tolist() if flat.numel() else []


@settings(deadline=None, derandomize=True, max_examples=120)
@given(
    dtype=st.sampled_from(DTYPES), shape=SHAPES, seed=st.integers(0, 999), turned=st.booleans(), readonly=st.booleans()
)
def test_round_trips_are_bit_exact(
    dtype: torch.dtype, shape: tuple[int, ...], seed: int, turned: bool, readonly: bool
) -> None:
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    # all bit patterns: NaNs with payloads, infinities, subnormal numbers
    raw = np.random.default_rng(seed).integers(0, 2 if dtype == torch.bool else 256, size, np.uint8)
    tensor = torch.from_numpy(raw).view(dtype).reshape(shape) if size else torch.empty(shape, dtype=dtype)
    tensor = tensor.transpose(0, -1) if turned and tensor.dim() > 1 else tensor
    payload = pickle.loads(pickle.dumps(encode(tensor)))
    payload.data.flags.writeable = not readonly
    found = decode(payload)
    assert (found.dtype, found.shape) == (dtype, tensor.shape)
    assert bits(found) == bits(tensor)
    assert checksum(found) == checksum(payload) == checksum(tensor)
    assert payload.nbytes == size


def test_scalars_and_empty_tensors() -> None:
    for tensor in (torch.tensor(1.5), torch.tensor(7), torch.zeros(0), torch.zeros(3, 0, 2, dtype=torch.bfloat16)):
        found = decode(encode(tensor))
        assert (found.shape, found.dtype) == (tensor.shape, tensor.dtype)
        assert torch.equal(found, tensor)
