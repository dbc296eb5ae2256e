"""``rlpost prove``: proofs of the theorems in a file, found with a trained model, each checked by the full verifier."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np

from rlpost.config.load import load
from rlpost.config.schema import RewardSpec, RunConfig
from rlpost.data.load import make_prompts, templates
from rlpost.data.models import context_length, resolve_path
from rlpost.data.tokenizer import TextCodec
from rlpost.errors import DataError, UserError
from rlpost.evaluation.proofs import Marks, ProofRow, figures, results
from rlpost.loop.prove import Engines, Search, WholeProofs, prove
from rlpost.loop.resume import fingerprint
from rlpost.loop.start import session
from rlpost.loop.tactic_search import BestFirst, StatePolicy, WholeProofPolicy
from rlpost.plugins.build import build_verifier
from rlpost.protocols import ProvingVerifier
from rlpost.rollout.sampling import evaluation_settings
from rlpost.trajectory import TokenizedPrompt
from rlpost.types import Prompt

_ABOVE = 3
"""Folders above a model that may be its run folder: ``RUN/model``, ``RUN/checkpoints/step_000008/…``."""
_EVERY_S = 10.0

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Proofs:
    """The result of the command.

    Attributes:
        output: the file with a row per theorem.
        figures: see `rlpost.evaluation.proofs.figures`.
        rows: the row of each theorem, in the file's order.
    """

    output: str
    figures: Mapping[str, float]
    rows: tuple[ProofRow, ...]


def prove_file(
    file: str | Path,
    model: str | Path,
    *,
    config: RunConfig | None = None,
    output: str | Path | None = None,
    log: Log = lambda _: None,
) -> Proofs:
    """Look for proofs of the theorems in a file; goes on where an earlier command with this output ended.

    Args:
        file: JSON lines, see `rlpost_verifiers.lean.given.read_given`.
        model: Hugging Face folder.
        config: configuration with the template, verifier and sampling that the model was trained with, and the section
            ``prove``; None: that of the run folder in which the model lies.
        output: results, a line per theorem; None: ``STEM.proofs.jsonl`` in the working directory.
        log: called with lines about progress.

    Raises:
        UserError: if the input is wrong, or the output is of something else.
        RlpostError: if engines or verifier fail; what was found until then is in the output.
    """
    folder = resolve_path(str(model))
    config = for_proving(config or load(config_file(folder)).config, folder, log)
    target = Path(output) if output is not None else Path(f"{Path(file).stem}.proofs.jsonl")
    verifier = build_verifier(config.scoring)
    if not isinstance(verifier, ProvingVerifier):
        if verifier is not None:
            verifier.close()
        raise UserError(
            f"scoring.verifier: {config.scoring.verifier!r} does not check proofs; give a configuration with lean.…"
        )
    try:
        return _Command(str(file), folder, config, target, verifier, log).run()
    finally:
        verifier.close()


def config_file(folder: str) -> Path:
    """The configuration of the run folder that a model folder lies in.

    Raises:
        UserError: if it lies in none.
    """
    for above in Path(folder).resolve().parents[:_ABOVE]:
        if (above / "config.yaml").is_file() and (above / "metrics.jsonl").is_file():
            return above / "config.yaml"
    raise UserError(
        f"--model: {folder} lies in no run folder, so how it was prompted is not known; give --config FILE with the "
        "data.template, scoring.verifier and rollout that it was trained with"
    )


def for_proving(config: RunConfig, folder: str, log: Log = lambda _: None) -> RunConfig:
    """The configuration without what a search does not need: rewards, environment, log-probabilities for training."""
    if config.environment is not None:
        log("environment: left out; answers have one turn")
    if config.rollout.constraint is not None:
        log("rollout.constraint: left out; proofs are searched for among all texts")
        config = config.model_copy(update={"rollout": config.rollout.model_copy(update={"constraint": None})})
    scoring = config.scoring.model_copy(update={"rewards": (RewardSpec(name="outcome"),)})
    drawn, section = evaluation_settings(config), config.prove
    if section.method == "best_first" and section.state_template is not None:
        length = section.state_tokens + min(section.tactic_tokens, drawn.max_tokens)
        length = min(config.rollout.max_model_len or length, context_length(folder))
        config = config.model_copy(update={"rollout": config.rollout.model_copy(update={"max_model_len": length})})
    return config.model_copy(update={"scoring": scoring, "environment": None})


class _Command:
    """One call of the command, from rows to figures."""

    def __init__(self, file: str, folder: str, config: RunConfig, target: Path, verifier: ProvingVerifier, log: Log):
        self.file, self.folder, self.config, self.target = file, folder, config, target
        self.verifier, self.log = verifier, log
        self.codec = TextCodec(folder, config.model.trust_remote_code, config.data.special_tokens)
        self.codec.check_end(config.rollout.stop)
        self.marks = Marks(
            method=config.prove.method,
            seed=config.run.seed,
            model=fingerprint(folder),
            verifier=verifier.fingerprint,
            settings=settings_hash(config),
        )
        self.positions = min(config.rollout.max_model_len or context_length(folder), context_length(folder))

    def run(self) -> Proofs:
        """Read, search, and write the results."""
        key = self.config.data.id_key
        given = self.verifier.read_theorems(self.file, id_key=key, shown=_fields(self.config))
        statements = {row[key]: str(row["statement"]) for row, _ in given}
        fresh: list[ProofRow] = []
        with results(self.target, statements, self.marks) as (known, record):
            done = {name for name, row in known.items() if row.outcome != "undecided"}
            if done:
                rest = "going on with the rest" if len(done) < len(given) else "nothing is left to do"
                self.log(f"{self.target}: {len(done)} of {len(given)} theorems are settled, {rest}")

            def settle(row: ProofRow) -> None:
                record(row)
                known[row.id] = row
                fresh.append(row)

            prompts = self._readable([(row, why) for row, why in given if row[key] not in done], settle)
            try:
                seconds = self._search(prompts, settle, len(given)) if prompts else 0.0
            except KeyboardInterrupt:
                self.log(f"{len(fresh)} theorems settled in {self.target}; the same command goes on from there")
                raise
            rows = tuple(known[row[key]] for row, _ in given)
        return Proofs(str(self.target), figures(rows, fresh, seconds), rows)

    def _readable(
        self, given: Sequence[tuple[dict[str, Any], str | None]], settle: Callable[[ProofRow], None]
    ) -> list[TokenizedPrompt]:
        """The theorems that can be asked for; the others are settled as unreadable.

        Raises:
            DataError: if no row has what the prompt is made of: the file does not fit the configuration.
        """
        key = self.config.data.id_key
        rows = {row[key]: row for row, _ in given}
        problems = {row[key]: why for row, why in given if why is not None}
        found: list[TokenizedPrompt] = []
        fault: DataError | None = None
        for row in (row for row, why in given if why is None):
            try:
                found.append(self._tokenized(row))
            except DataError as error:
                fault = fault or error
                problems[row[key]] = str(error)
        if fault is not None and not found:
            raise fault
        unreadable = self.verifier.unverifiable([one.prompt for one in found]) if found else []
        problems |= {one.prompt.id: why for one, why in zip(found, unreadable, strict=True) if why is not None}
        for name, why in problems.items():
            search = Search(TokenizedPrompt(_bare(rows[name], name), np.zeros(0, np.int32)), self.config.prove, 0)
            search.end("unreadable", why)
            settle(self._row(search))
        return [one for one in found if one.prompt.id not in problems]

    def _tokenized(self, row: dict[str, Any]) -> TokenizedPrompt:
        [prompt] = make_prompts(self.config.data, [row], self.file)
        ids = np.asarray(self.codec.encode(prompt), np.int32)
        room = self.positions - evaluation_settings(self.config).max_tokens
        if len(ids) > room and not self._by_state:
            raise DataError(f"{self.file}, {prompt.id}: the prompt has {len(ids)} tokens, {room} fit beside answers")
        return TokenizedPrompt(prompt, ids)

    @property
    def _by_state(self) -> bool:
        return self.config.prove.method == "best_first" and self.config.prove.state_template is not None

    def _search(self, prompts: Sequence[TokenizedPrompt], settle: Callable[[ProofRow], None], total: int) -> float:
        """Search for proofs of all prompts; returns the seconds that it took, the start of the engines left out."""
        policy = self._policy(prompts)
        tactics = self.verifier.tactics() if policy is not None else None
        shown = time.monotonic()
        count = proved = 0

        def settled(search: Search) -> None:
            nonlocal shown, count, proved
            settle(self._row(search))
            count, proved = count + 1, proved + (search.outcome == "proved")
            if time.monotonic() - shown > _EVERY_S or count == len(prompts):
                shown = time.monotonic()
                self.log(f"{total - len(prompts) + count} of {total} theorems settled, {proved} proved")

        self.log(f"starting Ray and the engines for {len(prompts)} theorems")
        with session(self.config, self.folder, training=False, asked=prompts, log=self.log) as running:
            begun = time.monotonic()
            engines = Engines(running.rollouts.generate, running.scoring.score, running.fetch)
            if policy is None or tactics is None:
                method: Any = WholeProofs(running.config, engines)
            else:
                method = BestFirst(running.config, engines, policy, tactics)
            prove(prompts, method, self.config.prove, settled)
            return time.monotonic() - begun

    def _policy(self, prompts: Sequence[TokenizedPrompt]) -> WholeProofPolicy | StatePolicy | None:
        if self.config.prove.method == "sampling":
            return None
        if self._by_state:
            return StatePolicy(self.config, self.codec, self.positions)
        policy = WholeProofPolicy(self.config, self.codec, self.positions)
        # the engine has room for every prompt with its opening and as much as a whole proof may have
        longest = max(len(one.token_ids) + len(policy.begun(one.prompt)) for one in prompts)
        policy.positions = min(self.positions, longest + policy.room + 1)
        rollout = self.config.rollout.model_copy(update={"max_model_len": policy.positions})
        self.config = self.config.model_copy(update={"rollout": rollout})
        return policy

    def _row(self, search: Search) -> ProofRow:
        assert search.outcome is not None
        columns = search.prompt.prompt.columns
        return ProofRow(
            id=search.prompt.prompt.id,
            name=str(columns.get("name") or search.prompt.prompt.id),
            statement=str(columns["statement"]),
            outcome=search.outcome,
            proof=search.proof,
            detail=search.detail,
            attempts=search.attempts,
            model_calls=search.calls,
            tokens=search.tokens,
            states=search.states,
            seconds=round(search.seconds, 3),
            **asdict(self.marks),
        )


def settings_hash(config: RunConfig) -> str:
    """A hash of the settings that a result depends on, next to method, seed, model and verifier."""
    document = config.model_dump(mode="json")
    chosen = {
        "prove": document["prove"],
        "sampling": asdict(evaluation_settings(config)),
        "verifier": [document["scoring"][key] for key in ("verifier", "verifier_args", "timeout_s", "truncated")],
        "prompt": [document["data"][key] for key in ("template", "chat_template", "prompt_key", "special_tokens")],
        "dtype": config.model.dtype,
    }
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]


def _fields(config: RunConfig) -> set[str] | None:
    """The columns that the prompt's template shows; None without a template."""
    text, chat = templates(config.data)
    if text is None and chat is None:
        return None
    texts = [text] if text is not None else [content for _, content in chat or ()]
    return {name for one in texts for _, name, _, _ in Formatter().parse(one) if name}


def _bare(row: Mapping[str, Any], name: str) -> Prompt:
    return Prompt(name, text="", columns=row)
