"""Settings that are refused before vLLM is loaded."""

from __future__ import annotations

import pytest

from rlpost.rollout.vllm.compat import check_adapters, check_shards


def test_heads_that_cannot_be_shared_out_are_refused(tiny_model: str) -> None:
    check_shards(tiny_model, 1)
    check_shards(tiny_model, 2)
    with pytest.raises(ValueError, match="3 processes cannot share 2 key/value heads; use a divisor of 2"):
        check_shards(tiny_model, 3)


def test_adapters_in_float32_are_refused_on_gpu() -> None:
    check_adapters("float32", 16, cpu=True)
    check_adapters("float32", None, cpu=False)
    check_adapters("bfloat16", 16, cpu=False)
    with pytest.raises(ValueError, match=r"adapters need bfloat16, got float32; use bfloat16, or sync.kind: full"):
        check_adapters("float32", 16, cpu=False)
