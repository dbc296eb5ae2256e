"""Shared fixtures: a tiny real model with a real tokenizer, made once per session."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

# The same examples in every run, and no deadline for an example: machines stall.
settings.register_profile("rlpost", deadline=None, derandomize=True)
settings.load_profile("rlpost")

CORPUS = [
    "∀ p q : Prop, p → q → p := fun p q h1 h2 => h1",
    "∀ p q r : Prop, p ∧ q → q ∨ r := fun p q r h1 => Or.inl h1.2",
    "¬ (p ↔ q) ⟨h1, h2.1⟩ False.elim h3 trivial",
]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Models this small are faster on one core, and tests run side by side."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untrained two-layer Llama with tied embeddings; head size 32, the smallest that vLLM's CPU attention takes."""
    from rlpost.config.schema import ScratchModel
    from rlpost.data.models import build_scratch
    from rlpost.data.wordlevel import build

    folder = tmp_path_factory.mktemp("tiny") / "model"
    size = build(CORPUS, folder, 256)
    build_scratch(ScratchModel(hidden_size=64, heads=2, layers=2, max_positions=256), size, folder, seed=1)
    return str(folder)
