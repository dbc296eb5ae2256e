"""``rlpost sft``: supervised warm start on prompts and targets with TRL's SFTTrainer. Only this module imports trl."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlpost.commands.harvest_write import SOURCE_COLUMN
from rlpost.config.schema import RunConfig, SftSection
from rlpost.config.tuning import OptimizerSection
from rlpost.data import bpe, load, models, wordlevel
from rlpost.data.constraint import check_constraint
from rlpost.data.messages import ASSISTANT, read_messages
from rlpost.data.text import as_text, shown
from rlpost.data.tokenizer import TextCodec
from rlpost.errors import ConfigError, DataError, InfrastructureError, MissingPackageError, RlpostError, describe_error
from rlpost.optim.build import build_optimizer
from rlpost.types import Prompt


@dataclass(frozen=True, slots=True)
class SftResult:
    """The result of a warm start.

    Attributes:
        folder: the model folder.
        rows: number of rows that were trained on.
        updates: number of updates.
        loss: mean of the last tenth of logged losses.
        notes: a line for what is to be known about the rows.
    """

    folder: str
    rows: int
    updates: int
    loss: float
    notes: tuple[str, ...] = ()


def warm_start(config: RunConfig, target: str | Path, *, quiet: bool = False) -> SftResult:
    """Fine-tune ``model`` on ``sft.train`` and write a Hugging Face folder.

    Prompts are tokenized by the same codec as in the loop, and the loss covers the targets only. A target of several
    turns is tokenized as an episode is, and the loss leaves out what the environment says, and turns of weight 0.

    Args:
        config: the run configuration, with a section ``sft``.
        target: folder to write; it is replaced only if everything succeeds.
        quiet: show no progress bar.

    Raises:
        ConfigError: without a section ``sft``.
        DataError: for rows without the target column, or too long for ``sft.max_length``.
        ModelError: for a tokenizer without an end token.
    """
    if config.sft is None:
        raise ConfigError("sft: missing; add the section to warm-start a model")
    from rlpost.loop.checkpoint import atomic_folder

    pairs = read_pairs(config, config.sft)
    work = Path(tempfile.mkdtemp(prefix="rlpost-sft-"))
    try:
        base = starting_folder(config, pairs, work)
        codec = TextCodec(base, config.model.trust_remote_code, config.data.special_tokens)
        # faults of what follows the warm start, found before it
        codec.stop_tokens(config.rollout.stop)
        check_constraint(config, base)
        rows, notes = token_rows(codec, pairs, config.sft.max_length)
        model = models.load(base, "float32", config.model.trust_remote_code)
        with _in_one_line():
            trainer = _trainer(config, config.sft, model, codec, rows, work, quiet)
            trainer.train()
        with atomic_folder(Path(target)) as partial:
            state = {name: p.detach() for name, p in model.named_parameters()}
            models.save_folder(model, state, base, partial)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    last = losses[-max(len(losses) // 10, 1) :]
    return SftResult(str(target), len(rows), int(trainer.state.global_step), sum(last) / max(len(last), 1), notes)


@contextmanager
def _in_one_line() -> Iterator[None]:
    """What TRL raises, as one line."""
    try:
        yield
    except RlpostError:
        raise
    except Exception as error:
        raise InfrastructureError(f"sft: TRL's trainer fails ({describe_error(error)})") from error


class Shown(str):
    """A turn of the policy that is part of a target's context, and not learned."""

    __slots__ = ()


Target = tuple[str, ...]
"""Texts of a target in turn: the policy's, the environment's, the policy's, and so on; of one turn, one text."""


def read_pairs(config: RunConfig, section: SftSection) -> list[tuple[Prompt, Target]]:
    """Prompts of the warm start, each with its target.

    Raises:
        DataError: for a row without the target column.
    """
    data = config.data if section.source is None else config.data.model_copy(update={"source": section.source})
    rows = load.rows(data, section.train, "sft.train")
    _check_prefix(rows, section)
    targets = [_target(row.get(section.completion_key), number, section) for number, row in enumerate(rows)]
    return list(zip(load.make_prompts(data, rows, "sft.train", repeated_ids=True), targets, strict=True))


def _check_prefix(rows: Sequence[Mapping[str, Any]], section: SftSection) -> None:
    """Harvested answers get back the prefix that was taken off them, no other and none a second time."""
    for number, row in enumerate(rows):
        taken = _harvested(row).get("completion_prefix", section.completion_prefix)
        if taken != section.completion_prefix:
            raise DataError(
                f"sft.train, row {number}: rlpost harvest took sft.completion_prefix {taken!r} off its answer, and it "
                f"is {section.completion_prefix!r} here; set {taken!r}, or the answers are not what was sampled"
            )


def _harvested(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where a row of ``rlpost harvest`` comes from; empty for other rows."""
    found = row.get(SOURCE_COLUMN)
    return found if isinstance(found, Mapping) else {}


def _target(value: Any, number: int, section: SftSection) -> Target:
    place = f"sft.train, row {number}: column {section.completion_key!r}"
    given: list[Any] = list(value) if isinstance(value, (list, tuple, np.ndarray)) else [value]
    weights = [_weight(one) for one in given]
    if given and all(isinstance(one, Mapping) for one in given) and None in weights:
        given, weights = _spoken(given, place), [None] * len(given)
    texts = [one["content"] if weight is not None else one for one, weight in zip(given, weights, strict=True)]
    if (
        len(given) % 2 != 1
        or not all(isinstance(one, (str, int, float)) for one in texts)
        or any(weight is not None for weight in weights[1::2])
        or weights[-1] == 0
    ):
        raise DataError(
            f"{place} holds {shown(value)}, expected text, or a list of texts (or chat messages), of policy and "
            "environment in turn, that begins and ends with the policy (whose earlier turns may be {content: text, "
            "weight: 0}); set sft.completion_key"
        )
    said = [as_text(one, place) for one in texts]
    return tuple(
        text if i % 2 else (Shown if weights[i] == 0 else str)(section.completion_prefix + text)
        for i, text in enumerate(said)
    )


def _weight(turn: Any) -> int | None:
    """The weight of a turn that is given with one, 0 or 1; None for anything else."""
    if isinstance(turn, dict) and set(turn) == {"content", "weight"} and turn["weight"] in (0, 1):
        return int(turn["weight"])
    return None


def _spoken(value: Sequence[Any], place: str) -> list[str]:
    """The texts of a demonstration that is given as chat messages: the assistant's and the others' in turn.

    Raises:
        DataError: for two messages of one side in a row, or none of the assistant's at the ends.
    """
    messages = read_messages(value, place)
    wrong = next((n for n, one in enumerate(messages) if (one.role == ASSISTANT) != (n % 2 == 0)), None)
    if wrong is not None:
        raise DataError(
            f"{place}, message {wrong}: role {messages[wrong].role!r}, where the assistant and others speak in "
            "turn, the assistant first; put what comes before the answer into the prompt"
        )
    return [one.content or "" for one in messages]


def starting_folder(config: RunConfig, pairs: Sequence[tuple[Prompt, Target]], work: Path) -> str:
    """Folder of the model to fine-tune. With ``model.scratch`` it is built here, with a vocabulary from all texts of
    the run: those of the warm start, and the prompts (and targets, if known) of training and evaluation.
    """
    scratch = config.model.scratch
    if scratch is None:
        assert config.model.path is not None
        return models.resolve_path(config.model.path)
    texts = [one for prompt, target in pairs for one in (prompt.text or "", *target)]
    for split in ("train", "eval"):
        if split == "train" or config.data.eval is not None:
            texts += [_known_text(config, prompt) for prompt in load.prompts(config.data, split)]
    folder = work / "scratch"
    if scratch.vocabulary is None:
        size = wordlevel.build(texts, folder, scratch.max_positions)
    else:
        lines = bpe.frequent_lines((text for _, target in pairs for text in target[::2]), scratch.whole_lines)
        size = bpe.build(texts, folder, scratch.max_positions, scratch.vocabulary, lines)
    models.build_scratch(scratch, size, folder, config.run.seed)
    return str(folder)


def _known_text(config: RunConfig, prompt: Prompt) -> str:
    section = config.sft
    target = prompt.columns.get(section.completion_key) if section else None
    known = f"{section.completion_prefix}{target}" if section and isinstance(target, str) else ""
    return (prompt.text or "") + known


def token_rows(
    codec: TextCodec, pairs: Sequence[tuple[Prompt, Target]], limit: int
) -> tuple[list[dict[str, list[int]]], tuple[str, ...]]:
    """Token ids and labels of the rows, and notes on harvested ones that are not tokenised as they were sampled.

    A policy can sample what its tokenizer does not read back: ``p`` and ``h1`` make ``ph1``, which may be no word of
    its vocabulary. Training on the unknown token would teach it to write that, so such a row is left out.
    """
    rows: list[dict[str, list[int]]] = []
    unknown = otherwise = 0
    strange = {codec.tokenizer.unk_token_id} - {None, codec.tokenizer.eos_token_id}  # GPT-2's is its end token
    for prompt, target in pairs:
        row, source = _row(codec, prompt, target, limit), _harvested(prompt.columns)
        trained = [token for token in row["labels"] if token >= 0]
        if source and strange & set(trained):
            unknown += 1
            continue
        otherwise += source.get("tokens", len(trained)) != len(trained)
        rows.append(row)
    notes = {
        "are left out: their answers have words that the tokenizer does not know": unknown,
        "have another number of tokens than were sampled (another tokenizer or split, or a stop string)": otherwise,
    }
    if not rows:
        raise DataError(f"sft.train: the answers of all {unknown} rows have words that the tokenizer does not know")
    return rows, tuple(f"sft.train: {count} of {len(pairs)} rows {what}" for what, count in notes.items() if count)


def _row(codec: TextCodec, prompt: Prompt, target: Target, limit: int) -> dict[str, list[int]]:
    ids = list(codec.encode(prompt))
    labels = [-100] * len(ids)
    dialogue = codec.dialogue(prompt)
    for turn, text in enumerate(target):
        if turn % 2 == 0:
            said = list(codec.encode_target(text))
            labels += [-100] * len(said) if isinstance(text, Shown) else said
        else:
            heard, rewritten = dialogue.observe(target[turn - 1], ids[-1], text)
            if rewritten:
                raise DataError(
                    f"sft.train, prompt {prompt.id!r}: the chat template rewrites earlier turns, so several cannot be "
                    "one row; give a row for each turn, or use another template"
                )
            said = heard.tolist()
            labels += [-100] * len(said)
        ids += said
    if len(ids) > limit:
        raise DataError(
            f"sft.train, prompt {prompt.id!r}: {len(ids)} tokens, sft.max_length is {limit}; raise it or drop the row"
        )
    return {"input_ids": ids, "labels": labels}


def _trainer(
    config: RunConfig,
    section: SftSection,
    model: Any,
    codec: TextCodec,
    rows: list[dict[str, list[int]]],
    work: Path,
    quiet: bool,
) -> Any:
    try:
        from trl.trainer.sft_config import SFTConfig
        from trl.trainer.sft_trainer import SFTTrainer
    except ImportError as error:
        raise MissingPackageError(
            f"TRL cannot be imported ({error}); pip install 'rlpost[cpu]' or 'rlpost[gpu]'"
        ) from error
    import torch
    from datasets import Dataset

    arguments = SFTConfig(
        output_dir=str(work / "trainer"),
        seed=config.run.seed,
        num_train_epochs=section.epochs,
        per_device_train_batch_size=section.batch_size,
        learning_rate=section.lr,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        max_length=section.max_length,
        bf16=config.model.dtype == "bfloat16" and torch.cuda.is_available(),
        gradient_checkpointing=config.learner.gradient_checkpointing,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="group_by_length" if section.group_by_length else "random",
        logging_steps=10,
        save_strategy="no",
        report_to=[],
        disable_tqdm=quiet,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    optimizer = None  # TRL's own AdamW
    if section.optimizer != "adamw":
        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        optimizer = build_optimizer(named, OptimizerSection(name=section.optimizer, lr=section.lr))
    return SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=codec.tokenizer,
        optimizers=(optimizer, None),
    )
