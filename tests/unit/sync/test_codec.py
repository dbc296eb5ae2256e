"""Checksums and refusals. Not covered: round trips of random tensors (tests/property/test_codec_roundtrip.py)."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from rlpost.sync.codec import checksum, checksums, decode, encode, raw_bytes
from rlpost.types import TensorPayload


def test_bytes_by_hand() -> None:
    # 1.0 is 0x3f800000 in float32 and 0x3f80 in bfloat16, little-endian
    assert encode(torch.tensor([1.0])).data.tolist() == [0, 0, 0x80, 0x3F]
    assert encode(torch.tensor([1.0], dtype=torch.bfloat16)).data.tolist() == [0x80, 0x3F]
    assert encode(torch.tensor([[1.0]], dtype=torch.bfloat16)).shape == (1, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_the_checksum_differs_when_one_bit_differs(dtype: torch.dtype) -> None:
    payload = encode(torch.arange(40).to(dtype))
    whole = checksum(payload)
    for byte in range(payload.nbytes):
        other = payload.data.copy()
        other[byte] ^= 1 << (byte % 8)
        assert checksum(TensorPayload(payload.dtype, payload.shape, other)) != whole


def test_the_checksum_of_a_view_is_that_of_its_bytes_in_rows() -> None:
    matrix = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    assert checksum(matrix.T) == checksum(matrix.T.contiguous()) != checksum(matrix)
    assert checksum(matrix[1:]) == checksum(encode(matrix[1:]))


def test_checksums_of_many_tensors_equal_those_of_each_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlpost.sync.codec._BATCH_BYTES", 1000)
    tensors = {f"t{i}": torch.full((i * 7 % 400,), float(i)) for i in range(100)}
    found = checksums(tensors.items())
    assert list(found) == list(tensors)
    assert found == {name: checksum(tensor) for name, tensor in tensors.items()}
    assert checksums((name, encode(tensor)) for name, tensor in tensors.items()) == found
    assert checksums([]) == {}


def test_checksums_do_not_hold_copies_of_the_whole_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlpost.sync.codec._BATCH_BYTES", 1)
    made: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def copies() -> Iterator[tuple[str, torch.Tensor]]:
        nonlocal most
        for number in range(200):
            tensor = torch.ones(1000) * number
            made.append(weakref.ref(tensor))
            most = max(most, sum(ref() is not None for ref in made))
            yield str(number), tensor

    assert len(checksums(copies())) == 200
    assert most <= 2 * torch.get_num_threads() + 4


def test_a_tensor_that_cannot_be_summed_is_not_passed_over() -> None:
    with pytest.raises(NotImplementedError, match="meta"):
        checksums([("a", torch.ones(3)), ("b", torch.ones(3, device="meta"))])


def test_minus_zero_and_nan_patterns_are_told_apart() -> None:
    assert checksum(torch.tensor([0.0])) != checksum(torch.tensor([-0.0]))


def test_a_payload_owns_its_bytes() -> None:
    tensor = torch.ones(3)
    payload = encode(tensor)
    tensor.zero_()
    assert decode(payload).tolist() == [1.0, 1.0, 1.0]


def test_a_shared_payload_is_the_tensor_itself() -> None:
    tensor = torch.ones(3, dtype=torch.bfloat16)
    payload = encode(tensor, shared=True)
    tensor.zero_()
    assert decode(payload).tolist() == [0.0, 0.0, 0.0]


def test_columns_are_copied_once_and_own_their_bytes() -> None:
    matrix = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    payload = encode(matrix.T)
    matrix.zero_()
    assert decode(payload).tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]


def test_a_parameter_is_encoded_without_its_gradient() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    assert decode(encode(parameter)).requires_grad is False
    assert raw_bytes(parameter).nbytes == 8


def test_read_only_bytes_can_be_decoded() -> None:
    data = np.frombuffer(np.float32([1.5]).tobytes(), np.uint8)
    assert not data.flags.writeable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(TensorPayload("float32", (1,), data)).tolist() == [1.5]


def test_bytes_that_do_not_fill_the_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"4 bytes for float32 \(2,\), expected 8"):
        decode(TensorPayload("float32", (2,), np.zeros(4, np.uint8)))
