"""Building, loading, scoring and writing models. Not covered: GGUF files, several ranks, vLLM reading the folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from rlpost.config.schema import ScratchModel
from rlpost.data.models import build_scratch, check_folder, load, resolve_path, save_folder
from rlpost.errors import ModelError
from rlpost.learner.logprob_model import LogprobModel

IDS = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 0, 0]])
ATTENTION = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def test_scores_are_the_log_softmax_at_the_position_before_the_token(tiny_model: str) -> None:
    model = load(tiny_model, "float32")
    index, tokens = torch.tensor([[2, 3], [5, 6]]), torch.tensor([[8, 9], [8, 7]])
    for temperature in (1.0, 0.5):
        found = LogprobModel(model, temperature)(IDS, ATTENTION, index, tokens)
        for row in range(2):
            length = int(ATTENTION[row].sum())
            logits = model(input_ids=IDS[row : row + 1, :length]).logits[0] / temperature
            for t in range(2):
                expected = logits[index[row, t] - 5 * row].log_softmax(-1)[tokens[row, t]]
                torch.testing.assert_close(found[row, t], expected, atol=1e-5, rtol=1e-5)
    cold = LogprobModel(model, 1.0)(IDS, ATTENTION, index, tokens, temperature=0.5)
    torch.testing.assert_close(cold, found)


@pytest.mark.parametrize("chunks", [2, 3, 4, 7])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_chunks_change_neither_scores_nor_gradients(
    tiny_model: str, chunks: int, dtype: str, checkpointing: bool
) -> None:
    """The head is tied to the embeddings, so that its gradient has two parts."""
    results = []
    for number in (1, chunks):
        model = load(tiny_model, dtype).train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        index, tokens = torch.tensor([2, 3, 5, 6]), torch.tensor([8, 9, 8, 7])
        found = LogprobModel(model)(IDS, ATTENTION, index, tokens, chunks=number)
        (found * torch.tensor([1.0, -2.0, 0.5, 3.0])).sum().backward()
        results.append((found.detach(), [p.grad for p in model.parameters()]))
    close = {"atol": 1e-5, "rtol": 1e-4} if dtype == "float32" else {"atol": 0.02, "rtol": 0.05}
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], **close)


class NoSelection(torch.nn.Module):
    """A model that cannot restrict the logits to selected positions."""

    def __init__(self, inner: torch.nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool = False):
        return self.inner(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)


def test_models_that_give_all_logits_score_the_same(tiny_model: str) -> None:
    model = load(tiny_model, "float32")
    arguments = (IDS, ATTENTION, torch.tensor([2, 3, 6]), torch.tensor([8, 9, 7]))
    with torch.no_grad():
        torch.testing.assert_close(LogprobModel(model)(*arguments), LogprobModel(NoSelection(model))(*arguments))


@pytest.mark.parametrize("tied", [True, False])
def test_a_written_folder_holds_every_weight(tiny_model: str, tmp_path: Path, tied: bool) -> None:
    """transformers lists tied names per *class*: Llama lists lm_head even where this model does not tie it."""
    source = tmp_path / "source"
    shutil.copytree(tiny_model, source)
    spec = ScratchModel(hidden_size=64, heads=2, layers=1, max_positions=64, tie_embeddings=tied)
    build_scratch(spec, 64, source, seed=2)
    model = load(source, "float32")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    save_folder(model, {n: p.detach().clone() for n, p in model.named_parameters()}, source, tmp_path / "out")
    again = load(tmp_path / "out", "float32")
    mine, theirs = dict(model.named_parameters()), dict(again.named_parameters())
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert torch.equal(value, theirs[name]), name
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()


def test_the_same_seed_builds_the_same_model(tiny_model: str, tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        shutil.copytree(tiny_model, tmp_path / name)
        build_scratch(ScratchModel(hidden_size=64, heads=2, layers=1, max_positions=64), 64, tmp_path / name, seed)
        weights.append(load(tmp_path / name, "float32").model.embed_tokens.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_feed_forward_width_is_eight_thirds_rounded_up_to_32(tiny_model: str) -> None:
    # 64 · 8 / 3 = 170.7
    assert load(tiny_model, "float32").config.intermediate_size == 192


def test_folders_without_a_model_are_refused_in_one_line(tmp_path: Path) -> None:
    for prepare, message in [
        ("absent", "no such folder"),
        ("empty", "has no config.json"),
        ("bare", "has no weights"),
        ("junk", "cannot load"),
    ]:
        folder = tmp_path / prepare
        if prepare != "absent":
            folder.mkdir()
        if prepare in ("bare", "junk"):
            (folder / "config.json").write_text('{"model_type": "no_such_model"}')
        if prepare == "junk":
            (folder / "model.safetensors").write_bytes(b"")
        with pytest.raises(ModelError, match=message) as caught:
            load(folder, "float32") if prepare == "junk" else check_folder(folder)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="package 'other' is not known"):
        resolve_path("package:other")


def test_damaged_weights_are_refused_in_one_line(tiny_model: str, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(ModelError, match="cannot load"):
        load(folder, "float32")
