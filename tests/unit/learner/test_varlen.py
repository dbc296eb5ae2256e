"""Sequences of queries and keys by hand, and attention over them. FlashAttention needs a GPU (tests marked gpu). Not
covered: the gradient of a whole model (tests/property/test_learner_invariance.py).
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rlpost.config.load import from_dict
from rlpost.errors import ModelError
from rlpost.learner.build import build_learner
from rlpost.learner.collate import visible
from rlpost.learner.varlen import attend, varlen_sequences

CPU = torch.device("cpu")
# two prompts of 2 and 1 tokens with completions of 3 and 1, and of 2
SEGMENT = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1])
BRANCH = np.array([0, 0, 1, 1, 1, 2, 0, 1, 1])


def test_varlen_sequences_by_hand() -> None:
    found = varlen_sequences(SEGMENT, BRANCH, CPU)
    assert found.cu_seqlens_q.tolist() == [0, 2, 5, 6, 7, 9]
    assert found.cu_seqlens_k.tolist() == [0, 2, 7, 10, 11, 14]
    assert found.key_positions.tolist() == [0, 1, 0, 1, 2, 3, 4, 0, 1, 5, 6, 6, 7, 8]
    assert (found.max_seqlen_q, found.max_seqlen_k) == (3, 5)
    assert found.bounds[1] == (2, 5, 2, 7)


def attended(device: torch.device, dtype: torch.dtype, tolerance: float) -> None:
    """Varlen attention equals torch's attention under the block mask, with grouped queries, forward and backward."""
    torch.manual_seed(0)
    given = [torch.randn(1, heads, 9, 16, device=device, dtype=dtype, requires_grad=True) for heads in (4, 2, 2)]
    layer = SimpleNamespace(num_key_value_groups=2, is_causal=True)
    mask = torch.from_numpy(visible(SEGMENT[None], BRANCH[None])[:, None]).to(device)
    outputs = []
    for runs in (None, varlen_sequences(SEGMENT, BRANCH, device)):
        found, _ = attend(layer, *given, mask if runs is None else None, scaling=0.3, varlen_sequences=runs)
        weights = torch.arange(found.numel(), device=device, dtype=dtype).view(found.shape) / found.numel()
        outputs.append([found, *torch.autograd.grad((found * weights).sum(), given)])
    for masked, separate in zip(*outputs, strict=True):
        torch.testing.assert_close(separate, masked, atol=tolerance, rtol=tolerance)


def test_varlen_attention_equals_attention_under_the_block_mask() -> None:
    attended(CPU, torch.float32, 1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_flash_varlen_attention_equals_attention_under_the_block_mask() -> None:
    attended(torch.device("cuda"), torch.bfloat16, 2e-2)


def test_a_model_without_support_for_varlen_attention_is_refused(
    tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    config = from_dict(
        {
            "model": {"path": tiny_model, "dtype": "float32"},
            "scoring": {"verifier": "function"},
            "learner": {"engine": "torch", "attention": "varlen"},
        }
    )
    assert build_learner(config, tiny_model, CPU).passes.layout.varlen
    monkeypatch.setattr(LlamaForCausalLM, "_supports_attention_backend", False)
    with pytest.raises(ModelError, match=r"learner.attention: varlen, but its attention layers take no implementation"):
        build_learner(config, tiny_model, CPU)
