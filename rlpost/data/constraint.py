"""The decoding constraint of a configuration, made for a model's tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from rlpost.config.schema import RunConfig
from rlpost.data.tokenizer import TextCodec
from rlpost.decoding import DecodingConstraint, RemarkingConstraint
from rlpost.errors import ConfigError
from rlpost.plugins.build import build_constraint


class CodecTokens:
    """`rlpost.decoding.AnswerTokens` of a model's tokenizer.

    Attributes:
        end: the token that ends an answer.
        fingerprint: hash of the tokenizer.

    Args:
        codec: the tokenizer.
        stop: ``rollout.stop``.

    Raises:
        ConfigError: if a stop string is text, which could end a list inside an item.
        ModelError: if no token ends an answer.
    """

    def __init__(self, codec: TextCodec, stop: Sequence[str] = ()):
        _, strings = codec.stop_tokens(stop)
        if strings:
            raise ConfigError(
                f"rollout.stop: {strings[0]!r} could end an answer that rollout.constraint has not ended; remove it "
                "(a special token may stand there)"
            )
        self._codec, self.end = codec, codec.end_token(stop)
        self.fingerprint = hashlib.sha256(codec.tokenizer.backend_tokenizer.to_str().encode()).hexdigest()

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """See `rlpost.decoding.AnswerTokens`."""
        return self._codec.encode_texts(texts)

    def texts(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """See `rlpost.decoding.AnswerTokens`."""
        return self._codec.decode_texts(ids)


def constraint_of(config: RunConfig, folder: str | Path) -> DecodingConstraint | None:
    """The constraint that ``rollout.constraint`` names, None without one.

    Args:
        config: the run configuration.
        folder: Hugging Face folder with the policy's tokenizer.

    Raises:
        UserError: if the name is unknown, the arguments do not fit, or the tokenizer does not.
    """
    if config.rollout.constraint is None:
        return None
    codec = TextCodec(folder, config.model.trust_remote_code, config.data.special_tokens)
    return build_constraint(config, CodecTokens(codec, config.rollout.stop))


def check_constraint(config: RunConfig, folder: str | Path, log: Callable[[str], None] = lambda _: None) -> None:
    """Make the constraint once before anything is started, and verify that its longest answer is not cut.

    Args:
        config: the run configuration.
        folder: Hugging Face folder with the policy's tokenizer.
        log: called with what the constraint has to say.

    Raises:
        ConfigError: if an answer could be cut.
        UserError: as `constraint_of`.
    """
    constraint = constraint_of(config, folder)
    if constraint is None:
        return
    limits = {"rollout.max_tokens": config.rollout.max_tokens}
    if config.evaluation.sampling.max_tokens is not None:
        limits["evaluation.sampling.max_tokens"] = config.evaluation.sampling.max_tokens
    for name, limit in limits.items():
        if constraint.max_tokens > limit:
            raise ConfigError(
                f"{name}: {limit} would cut the longest answer that rollout.constraint allows, which has "
                f"{constraint.max_tokens} tokens; set it to {constraint.max_tokens} or more"
            )
    for note in constraint.notes if isinstance(constraint, RemarkingConstraint) else ():
        log(f"rollout.constraint: {note}")
