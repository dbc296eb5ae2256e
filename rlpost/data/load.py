"""The data sets that a configuration names, as tokenized prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from rlpost.config.schema import DataSection, RunConfig
from rlpost.data.curriculum import by_pass_rate
from rlpost.data.decontaminate import decontaminate
from rlpost.data.models import context_length
from rlpost.data.notes import gold_in_prompts, special_in_prompts
from rlpost.data.prompts import to_prompts
from rlpost.data.template_needs import check_template
from rlpost.data.text import shown
from rlpost.data.tokenizer import TextCodec
from rlpost.errors import DataError, RlpostError, describe_error
from rlpost.plugins import registry
from rlpost.trajectory import TokenizedPrompt
from rlpost.types import CANDIDATES, FORCED, Prompt


def rows(section: DataSection, arguments: str | dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Rows of ``data.source`` for one split; ``arguments`` is a path or keyword arguments.

    Raises:
        DataError: if the source cannot take the arguments, fails, finds no rows, or gives something else than mappings
            of columns.
    """
    source = registry.resolve("sources", section.source)
    try:
        found = source(arguments) if isinstance(arguments, str) else source(**arguments)
        # a table of pandas iterates over the names of its columns
        found = found.to_dict("records") if hasattr(found, "iterrows") else found
        listed = list(cast("Iterable[object]", found if found is not None else ()))
    except TypeError as error:
        raise DataError(f"{where}: source {section.source!r} cannot take {arguments!r} ({error})") from None
    except RlpostError:
        raise
    except Exception as error:  # the source may be the user's own code
        raise DataError(f"{where}: source {section.source!r} failed ({describe_error(error)})") from error
    if not listed:
        raise DataError(f"{where}: source {section.source!r} found no rows for {arguments!r}")
    for number, row in enumerate(listed):
        if not isinstance(row, Mapping):
            raise DataError(
                f"{where}, row {number}: source {section.source!r} gave {shown(row)}, expected a mapping of columns"
            )
    return cast("list[dict[str, Any]]", listed)


def prompts(section: DataSection, split: str) -> list[Prompt]:
    """Prompts of the split ``train`` or ``eval``; training prompts are selected by `rlpost.data.curriculum` if set.

    Raises:
        DataError: as `rows` and `to_prompts`, or if the split is not configured.
    """
    arguments = section.train if split == "train" else section.eval
    where = f"data.{split}"
    if arguments is None:
        raise DataError(f"{where}: missing; give a path or arguments of source {section.source!r}")
    found = make_prompts(section, rows(section, arguments, where), where)
    if split == "eval":
        check_fair(found, where)
    return by_pass_rate(found, section.curriculum) if split == "train" and section.curriculum else found


def check_fair(held_out: Sequence[Prompt], where: str) -> None:
    """Raise DataError for held-out prompts whose candidates hold items because they are the right ones."""
    forced = [prompt.id for prompt in held_out if prompt.columns.get(FORCED)]
    if forced:
        raise DataError(
            f"{where}: {len(forced)} of {len(held_out)} prompts, such as {forced[0]!r}, hold relevant items that were "
            "put among their candidates, which tells the answer; leave force_relevant to data.train"
        )


def make_prompts(
    section: DataSection, found: Sequence[Mapping[str, Any]], where: str, *, repeated_ids: bool = False
) -> list[Prompt]:
    """Rows as prompts in the form that the section describes; ``repeated_ids`` as of `to_prompts`.

    Raises:
        DataError: as `to_prompts`.
        UserError: for an unknown template name.
    """
    template, chat = templates(section)
    return to_prompts(
        found,
        prompt_key=section.prompt_key,
        id_key=section.id_key,
        template=template,
        chat_template=chat,
        last_assistant=section.last_assistant,
        tools_key=section.tools_key,
        repeated_ids=repeated_ids,
        where=where,
    )


def templates(section: DataSection) -> tuple[str | None, Sequence[tuple[str, str]] | None]:
    """The text template or the chat template of a section, names resolved; neither where a column holds the prompts.

    Raises:
        UserError: for an unknown template name.
    """
    template, chat = section.template, section.chat_template
    if template is not None and "{" not in template:
        known = registry.resolve("templates", template)
        return (known, None) if isinstance(known, str) else (None, known)
    return template, None if template is not None else chat


def tokenized_prompts(
    config: RunConfig, model: str, *, training: bool, log: Callable[[str], None] = lambda _: None
) -> tuple[list[TokenizedPrompt], list[TokenizedPrompt]]:
    """Training and held-out prompts with their token ids, each checked to fit the model.

    Args:
        config: data settings, and the lengths in ``rollout`` that limit a prompt.
        model: Hugging Face folder with the tokenizer.
        training: whether to load training prompts; False: only held-out ones, the first list is empty.
        log: called with what is to be known of the data, see `rlpost.data.notes`.

    Raises:
        DataError: for a prompt that is too long, with its id and length; or as `prompts` and `decontaminate`.
        ModelError: if nothing ends an answer.
        ConfigError: for a stop string that can never be found, or settings that do not fit a named template.
    """
    check_template(config)
    codec = TextCodec(model, config.model.trust_remote_code, config.data.special_tokens)
    codec.check_end(config.rollout.stop)
    positions = config.rollout.max_model_len or context_length(model)

    def encode(chosen: Sequence[Prompt], tokens: int) -> list[TokenizedPrompt]:
        name = _limit_name(config, tokens)
        limit = min(positions - tokens, config.data.max_prompt_tokens or positions)
        if limit < 1:
            raise DataError(
                f"{name}: {tokens} leaves no room for a prompt in the model's {context_length(model)} positions; "
                "lower it"
            )
        found = [TokenizedPrompt(prompt, np.asarray(codec.encode(prompt), np.int32)) for prompt in chosen]
        if config.data.max_prompt_tokens is not None and limit == config.data.max_prompt_tokens:
            check_lengths(found, limit, None, "data.max_prompt_tokens")
        check_lengths(found, limit, tokens, name)
        return found

    held_out = prompts(config.data, "eval") if config.data.eval is not None else []
    train = decontaminate(prompts(config.data, "train"), held_out, config.data.contamination) if training else []
    asked = held_out[: config.evaluation.max_prompts]
    for found, where in ((train, "data.train"), (asked, "data.eval")):
        for line in (
            gold_in_prompts(found, config.scoring, where),
            special_in_prompts(found, codec.special.values(), where),
        ):
            if line is not None:
                log(line)
    if unheeded := codec.unheeded_turn_end([*train, *asked][0], config.rollout.stop):
        log(f"model.path: {unheeded}")
    return encode(train, config.trajectory_tokens), encode(asked, held_out_tokens(config))


def held_out_tokens(config: RunConfig) -> int:
    """Largest number of tokens after a held-out prompt: evaluations, and answers to be followed as in training."""
    followed = config.trajectory_tokens if config.evaluation.uplift_prompts else 0
    return max(config.evaluation_tokens, followed)


def _limit_name(config: RunConfig, tokens: int) -> str:
    """The setting that allows trajectories of this many tokens."""
    if tokens != config.trajectory_tokens:
        return "evaluation.sampling.max_tokens"
    return "environment.max_tokens" if config.environment is not None else "rollout.max_tokens"


def check_lengths(tokenized: Sequence[TokenizedPrompt], limit: int, max_tokens: int | None, name: str) -> None:
    """Raise DataError for the first prompt of more than ``limit`` tokens.

    Args:
        tokenized: the prompts.
        limit: most tokens of a prompt.
        max_tokens: tokens that have to fit after it; None: ``name`` limits the prompt itself.
        name: the setting that is in the way.
    """
    for one in tokenized:
        if len(one.token_ids) > limit:
            offered = one.prompt.columns.get(CANDIDATES)
            many = f" with its {len(offered)} candidates" if isinstance(offered, list) else ""
            remedy = "offer fewer candidates (k), shorter descriptions (characters)" if many else "shorten it, drop it"
            if max_tokens is None:
                raise DataError(
                    f"prompt {one.prompt.id!r} has {len(one.token_ids)} tokens{many}, {name} allows {limit}; {remedy}, "
                    f"or raise {name}"
                )
            raise DataError(
                f"prompt {one.prompt.id!r} has {len(one.token_ids)} tokens{many}, {limit} fit beside {name} "
                f"{max_tokens}; {remedy}, or lower {name}"
            )
