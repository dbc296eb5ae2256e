"""The warm start's model: its optimizer and its pieces. Not covered: what is trained on (test_sft_targets.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from rlpost.commands.sft import warm_start
from rlpost.config.schema import ModelSection, RunConfig
from rlpost.data import models
from rlpost.data.tokenizer import TextCodec

FILMS = ["Alien (1979)", "Up (2009)", "Heat (1995)", "Alien 3 (1992)"]


def configured(folder: Path, **sft: Any) -> RunConfig:
    rows = [
        {"prompt": f"I liked {one}. What next?\n", "proof": "\n".join([two, one, FILMS[0]])}
        for one in FILMS
        for two in FILMS
    ]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shape = {"hidden_size": 64, "heads": 2, "layers": 1, "vocabulary": 384, "whole_lines": 4, "max_positions": 64}
    return RunConfig.model_validate(
        {
            "model": {"path": None, "scratch": shape, "dtype": "float32"},
            "data": {"train": str(file)},
            "sft": {"train": str(file), "batch_size": 4, "lr": 4e-3, "max_length": 64, **sft},
        }
    )


def weights(folder: str) -> dict[str, torch.Tensor]:
    return {name: one.detach() for name, one in models.load(folder, "float32").named_parameters()}


def test_the_targets_lines_become_whole_pieces(tmp_path: Path) -> None:
    found = warm_start(configured(tmp_path, epochs=0.25), tmp_path / "model", quiet=True)
    codec = TextCodec(found.folder)
    assert len(codec.encode_target("\n".join(FILMS))) == 5


def test_muon_moves_matrices_by_all_directions_alike_and_the_rest_as_adamw(tmp_path: Path) -> None:
    begun = warm_start(configured(tmp_path), tmp_path / "start", quiet=True).folder
    moved: dict[str, dict[str, torch.Tensor]] = {}
    for name in ("adamw", "muon"):
        config = configured(tmp_path, epochs=0.5, optimizer=name)
        config = config.model_copy(update={"model": ModelSection(path=begun, dtype="float32")})
        after = weights(warm_start(config, tmp_path / name, quiet=True).folder)
        moved[name] = {key: after[key] - value for key, value in weights(begun).items()}
    matrix, table = "model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight"
    spread = {name: torch.linalg.svdvals(change[matrix]) for name, change in moved.items()}
    # orthogonalised: the directions that a gradient has are moved alike
    assert spread["muon"][2] > 0.7 * spread["muon"][0]
    assert spread["adamw"][2] < 0.5 * spread["adamw"][0]
    assert moved["adamw"][table].abs().max() > 0
    assert torch.allclose(moved["adamw"][table], moved["muon"][table], atol=1e-6)
