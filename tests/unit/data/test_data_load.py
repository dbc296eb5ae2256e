"""Loading data sets that a configuration names. Not covered: the readers themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlpost.config.load import from_dict
from rlpost.config.schema import DataSection, RunConfig
from rlpost.data.load import held_out_tokens, prompts, tokenized_prompts
from rlpost.errors import ConfigError, DataError, UserError
from support import tokenizer_kinds


def source(folder: Path) -> str:
    file = folder / "mine.py"
    file.write_text("def rows(count, word='w'):\n    return [{'prompt': f'{word}{i}'} for i in range(count)]\n")
    return f"{file}:rows"


def test_a_path_is_the_sources_first_argument(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"id": "x", "q": "1+1"}) + "\n")
    section = DataSection(source="jsonl", train=str(file), eval=str(file), template="{q}=")
    assert [(p.id, p.text) for p in prompts(section, "train")] == [("x", "1+1=")]
    assert prompts(section, "eval") == prompts(section, "train")


def test_a_function_of_ones_own_is_given_keyword_arguments(tmp_path: Path) -> None:
    section = DataSection(source=source(tmp_path), train={"count": 2, "word": "v"})
    assert [p.text for p in prompts(section, "train")] == ["v0", "v1"]


def test_bad_arguments_and_empty_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.train: source .* cannot take {'size': 2}"):
        prompts(DataSection(source=source(tmp_path), train={"size": 2}), "train")
    with pytest.raises(DataError, match=r"data\.train: source .* found no rows"):
        prompts(DataSection(source=source(tmp_path), train={"count": 0}), "train")
    with pytest.raises(DataError, match=r"data\.eval: missing"):
        prompts(DataSection(source=source(tmp_path), train={"count": 1}), "eval")
    with pytest.raises(DataError, match=r"data\.train: source 'jsonl' cannot take {}"):
        prompts(DataSection(), "train")


def test_an_unknown_source_names_the_nearest() -> None:
    with pytest.raises(UserError, match="source 'jsonlines' is not known; did you mean jsonl"):
        prompts(DataSection(source="jsonlines", train="x"), "train")


def test_messages_name_the_split_and_row(tmp_path: Path) -> None:
    section = DataSection(source=source(tmp_path), train={"count": 1}, eval={"count": 1}, prompt_key="q")
    with pytest.raises(DataError, match=r"^data\.eval, row 0: no column 'q'"):
        prompts(section, "eval")


def test_held_out_prompts_leave_room_for_the_longer_answers_of_evaluations(tiny_model: str, tmp_path: Path) -> None:
    texts = {"short": "p", "long": "p → " * 30 + "p"}
    files = {name: tmp_path / f"{name}.jsonl" for name in texts}
    for name, text in texts.items():
        files[name].write_text(json.dumps({"id": name, "prompt": text}) + "\n")

    def configured(train: str, held_out: str, answer: int | None, **evaluation: object) -> RunConfig:
        data = {"train": str(files[train]), "eval": str(files[held_out])}
        sampling = {"max_tokens": answer}
        rest = {"rollout": {"max_tokens": 32}, "evaluation": {"sampling": sampling, **evaluation}}
        return from_dict({"model": {"path": tiny_model}, "scoring": {"verifier": "function"}, "data": data, **rest})

    # the model has 256 positions: the long prompt of about 60 tokens fits beside 32 tokens, and not beside 224
    train, held_out = tokenized_prompts(configured("long", "short", 224), tiny_model, training=True)
    assert (len(train), len(held_out)) == (1, 1)
    with pytest.raises(DataError, match=r"prompt 'long' .* fit beside evaluation\.sampling\.max_tokens 224; .* lower"):
        tokenized_prompts(configured("short", "long", 224), tiny_model, training=True)
    with pytest.raises(DataError, match=r"evaluation\.sampling\.max_tokens: 256 leaves no room for a prompt"):
        tokenized_prompts(configured("short", "short", 256), tiny_model, training=False)
    # answers that are followed are sampled as in training, which may be longer
    assert held_out_tokens(configured("short", "short", 8)) == 8
    assert held_out_tokens(configured("short", "short", 8, uplift_prompts=1)) == 32


def test_what_is_to_be_known_of_the_data_is_said_at_the_start(tmp_path: Path) -> None:
    model = tokenizer_kinds.write(tmp_path / "model", kind="byte_level")
    (model / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))
    file = tmp_path / "a.jsonl"
    asked = ["say <|im_end|>", "The capital is Paris. What is it?", "2+2?"]
    rows = [{"prompt": [{"role": "user", "content": text}], "answer": "Paris"} for text in asked]
    file.write_text("\n".join(map(json.dumps, rows)))
    config = RunConfig.model_validate({"data": {"train": str(file)}, "model": {"path": str(model)}})
    said: list[str] = []
    train, _ = tokenized_prompts(config, str(model), training=True, log=said.append)
    assert len(train) == 3
    assert [line.split(",")[0] for line in said] == [
        "data.train: 1 of 3 prompts hold their own gold answer (column 'answer')",
        "data.train: 1 of 3 prompts hold the text of a special token",
        "model.path: the chat template ends the assistant's turn with '<|im_end|>'",
    ]


def test_a_stop_string_that_can_never_be_found_is_refused_before_the_start(tmp_path: Path) -> None:
    model = tokenizer_kinds.write(tmp_path / "model")
    (model / "config.json").write_text("{}")
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"prompt": "x"}))
    config = RunConfig.model_validate({"data": {"train": str(file)}, "rollout": {"stop": ["<|im_end|>\n"]}})
    with pytest.raises(ConfigError, match=r"rollout\.stop: .* give '<\|im_end\|>' alone"):
        tokenized_prompts(config, str(model), training=True)
