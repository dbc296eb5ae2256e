"""What ``rlpost harvest`` finds in one run: accepted answers, each with its prompt's row and where it comes from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlpost.config.load import load as load_config
from rlpost.config.schema import RunConfig
from rlpost.data import load
from rlpost.data.text import shown
from rlpost.errors import ConfigError, DataError, UserError
from rlpost.observability import transcript_rows
from rlpost.observability.transcripts import asked
from rlpost.types import Prompt


@dataclass(frozen=True, slots=True)
class Answer:
    """An accepted answer.

    Attributes:
        prompt: the prompt with its row.
        target: the texts of policy and environment in turn, as `rlpost.commands.sft.Target`.
        tokens: number of tokens that the policy sampled.
        length: number of all tokens, the prompt's included.
        source: where it comes from: run, step, ticket, seed, policy version, reward, verdict and verifier.
    """

    prompt: Prompt
    target: tuple[str, ...]
    tokens: int
    length: int
    source: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Demands:
    """What an answer must have: an assurance among these (empty: any), and at least this reward (None: any, with a
    verdict).
    """

    assurance: Collection[str] = ()
    min_reward: float | None = None


class FinishedRun:
    """A run folder that is read.

    Args:
        folder: the run folder, which holds ``config.yaml``.
        overrides: ``section.key=value`` items that win over it, e.g. for data that has moved.

    Attributes:
        path: the run folder.
        config: its configuration.
        name: the run's name.
        version: the version of rlpost that made it.
        prefix: ``sft.completion_prefix``, which is taken off its answers. One without a section ``sft`` has none, and
            takes that of the runs that it is harvested with.

    Raises:
        UserError: if it is no run folder.
        ConfigError: if its configuration cannot be read.
    """

    def __init__(self, folder: str | Path, overrides: Sequence[str] = ()) -> None:
        self.path = Path(folder)
        record = self.path / "config.yaml"
        if not record.is_file():
            what = "is not there" if not self.path.exists() else "holds no config.yaml"
            raise UserError(f"{folder}: no run folder, it {what}; give runs/<name>")
        try:
            self.config: RunConfig = load_config(record, overrides).config
        except ConfigError as error:
            raise ConfigError(f"{record}: {error}") from None
        self.name = self.config.run.name
        self.version = _version(self.path / "environment.json")
        self.prefix = self.config.sft.completion_prefix if self.config.sft is not None else ""
        self._prompts: dict[str, Prompt] | None = None

    def prompts(self) -> dict[str, Prompt]:
        """The run's training prompts by id, as ``data.train`` gives them now.

        Raises:
            DataError: if the data cannot be read.
        """
        if self._prompts is None:
            where = f"{self.path}, data.train"
            rows = load.rows(self.config.data, self.config.data.train, where)
            self._prompts = {prompt.id: prompt for prompt in load.make_prompts(self.config.data, rows, where)}
        return self._prompts

    def held_out(self) -> list[Prompt]:
        """The run's held-out prompts; empty if it has none.

        Raises:
            DataError: if the data cannot be read.
        """
        return load.prompts(self.config.data, "eval") if self.config.data.eval is not None else []

    def answers(self, demands: Demands, count: Counter[str], note: Callable[[str], object]) -> Iterator[Answer]:
        """The accepted answers of the transcripts, in order; what becomes of all others is counted.

        Raises:
            DataError: for an answer whose prompt is not that of the data, or that has no verdict where no reward is
                demanded.
        """
        for step, row in transcript_rows.rows(self.path, count, note):
            refused = self._refused(row, demands, step)
            target = None if refused else self._target(row["segments"])
            if refused or isinstance(target, str) or target is None:
                count[refused or str(target)] += 1
            else:
                length = max(segment["stop"] for segment in row["segments"])
                yield Answer(self._prompt(row, step), target, row["tokens"], length, self._source(row, step))

    def _refused(self, row: Mapping[str, Any], demands: Demands, step: int) -> str:
        """Why an answer is not taken, as a name of `rlpost.commands.harvest.REASONS`; empty if it is."""
        total, least = row["reward_total"], demands.min_reward
        if row["outcome"] == "undecided" or (row["outcome"] is None and total is None):
            return "undecided"
        if row["status"] != "done":
            return "truncated"
        if row.get("repairs") is not None:
            return "repairs"
        if row["outcome"] is None and least is None:
            raise DataError(
                f"{self.path}, step {step}: prompt {shown(row['prompt_id'])} has a reward and no verdict, so nothing "
                "says what is accepted; give --min-reward"
            )
        if row["outcome"] not in (None, "accepted"):
            return "rejected"
        if least is not None and (total is None or not total >= least):
            return "below"
        if demands.assurance and row.get("assurance") not in demands.assurance:
            return "assurance"
        return ""

    def _target(self, segments: Sequence[Mapping[str, Any]]) -> tuple[str, ...] | str:
        """The target, or why there is none.

        A target is what policy and environment say in turn. An observation that was cut, that came before the first
        turn, or that was no user's message would be written otherwise from its text than the policy has read it.
        """
        said = segments[1:]
        turns = ["policy" if place % 2 == 0 else "environment" for place in range(len(said))]
        if (
            not said
            or segments[0].get("origin") != "prompt"
            or segments[0].get("roles")
            or [one.get("origin") for one in said] != turns
        ):
            return "no_target"
        if len(said) % 2 == 0:  # the environment's last word is not trained on
            said = said[:-1]
        if any(_altered(one) for one in said):
            return "no_target"
        texts = tuple(one["text"] for one in said)
        if any(not text.strip() for text in texts[::2]):
            return "empty"
        if any(not text.startswith(self.prefix) for text in texts[::2]):
            return "prefix"
        return tuple(text if place % 2 else text.removeprefix(self.prefix) for place, text in enumerate(texts))

    def _prompt(self, row: Mapping[str, Any], step: int) -> Prompt:
        name = row["prompt_id"]
        known, given = self.prompts().get(name), row["prompt"]
        place = f"{self.path}, step {step}: prompt {shown(name)}"
        remedy = "the data has changed since; name the data of then with data.train=…"
        if known is None:
            raise DataError(f"{place} ({shown(given)}) is not among the {len(self.prompts())} of data.train; {remedy}")
        now = json.loads(json.dumps(asked(known), default=str))
        if now != given:
            raise DataError(
                f"{place} was {_differing(given, now)}, and data.train has {_differing(now, given)}; {remedy}"
            )
        return known

    def _source(self, row: Mapping[str, Any], step: int) -> dict[str, Any]:
        kept = ("prompt_id", "member", "ticket", "seed", "policy_version", "outcome", "reason", "assurance", "verifier")
        return {
            "run": self.name,
            "step": step,
            **{key: row.get(key) for key in kept},
            "reward": row["reward_total"],
            "tokens": row["tokens"],
            "completion_prefix": self.prefix,
            "rlpost": self.version,
        }


def _altered(segment: Mapping[str, Any]) -> bool:
    if segment["origin"] == "policy":
        # U+FFFD stands for bytes that are no character: the text is not what was sampled
        return segment.get("finish") != "stop" or "\ufffd" in segment["text"]
    return segment.get("finish") == "length" or segment.get("roles", ["user"]) != ["user"]


def _differing(one: Any, other: Any) -> str:
    """The part of a prompt that begins shortly before the first difference from another, for a message."""
    text, second = (
        given if isinstance(given, str) else json.dumps(given, ensure_ascii=False) for given in (one, other)
    )
    same = next((i for i, pair in enumerate(zip(text, second, strict=False)) if pair[0] != pair[1]), len(second))
    start = max(same - 20, 0)
    return shown(("…" if start else "") + text[start:])


def _version(path: Path) -> str | None:
    """The version of rlpost that made the run; None if it is not recorded."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found["packages"]["rlpost"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
