"""``rlpost evaluate --robustness``: a trained recommender under text that sellers write into descriptions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlpost.config.schema import RunConfig
from rlpost.data.load import held_out_tokens, prompts
from rlpost.data.models import context_length, resolve_path
from rlpost.data.template_needs import check_template
from rlpost.data.tokenizer import TextCodec
from rlpost.errors import DataError, UserError
from rlpost.evaluation.lists import listed
from rlpost.evaluation.robustness import Answer, RobustnessSettings, Trial, attack_figures, quality_figures
from rlpost.loop.evaluate import cluster
from rlpost.loop.robustness import SEARCHED, Robustness, measure
from rlpost.loop.session import Session
from rlpost.loop.start import session
from rlpost.rollout.sampling import evaluation_settings, requests
from rlpost.trajectory import TokenizedPrompt
from rlpost.types import Prompt, Verdict

_ROOM = 256
"""Tokens that an attack may add to a prompt: the longest fixed one has some 60 in words of one letter each."""
_AT_ONCE = 512
"""Lists per batch, which bounds memory."""
_K = 10

Log = Callable[[str], None]


def robustness(
    config: RunConfig,
    model: str | Path,
    settings: RobustnessSettings | None = None,
    *,
    output: str | Path | None = None,
    log: Log = lambda _: None,
) -> Robustness:
    """Measure what attacks on items' descriptions do to the greedy lists of a model; see `rlpost.loop.robustness`.

    Args:
        config: configuration with held-out prompts (``data.eval``) that describe candidates, and a verifier that names
            the items of a list (``catalog``).
        model: Hugging Face folder.
        settings: what is attacked.
        output: file for every trial, a JSON line each.
        log: called with lines about progress.

    Raises:
        UserError: if the input is wrong, or nothing in it can be attacked.
        RlpostError: if engines or verifier fail.
    """
    folder = resolve_path(str(model))
    check_template(config)
    if config.environment is not None:
        raise UserError("robustness: environment is set; lists of several turns cannot be attacked yet")
    codec = TextCodec(folder, config.model.trust_remote_code, config.data.special_tokens)
    asked = prompts(config.data, "eval")[: config.evaluation.max_prompts]
    answer = held_out_tokens(config)
    encoded = [TokenizedPrompt(one, np.asarray(codec.encode(one), np.int32)) for one in asked]
    longest = max(len(one.token_ids) for one in encoded)
    room = min(config.rollout.max_model_len or context_length(folder), longest + _ROOM + answer)
    if longest + answer > room:
        raise DataError(
            f"robustness: a prompt of {longest} tokens and an answer of {answer} do not fit {room} positions"
        )
    rollout = config.rollout.model_copy(update={"max_model_len": room})
    log(f"starting Ray and the engines for {len(encoded)} prompts")
    with session(config.model_copy(update={"rollout": rollout}), folder, training=False, asked=encoded,
                 log=log) as running:  # fmt: skip
        policy = _Policy(running, codec, room - answer)
        found = measure(asked, policy, settings or RobustnessSettings(), lambda one: cluster(one.columns, config), log)
    if output is not None:
        write(output, found.trials)
    return found


class _Policy:
    """Greedy lists of the session's engines, as the verifier reads them."""

    def __init__(self, running: Session, codec: TextCodec, room: int):
        self.running, self.codec, self.room = running, codec, room
        drawn = evaluation_settings(running.config)
        self.settings = replace(drawn, temperature=0.0, top_p=1.0, top_k=-1)

    def __call__(self, asked: Sequence[Prompt]) -> list[Answer | None]:
        """The list for each prompt; None for one that is too long, or whose list is undecided."""
        encoded = [TokenizedPrompt(one, np.asarray(self.codec.encode(one), np.int32)) for one in asked]
        fit = [number for number, one in enumerate(encoded) if len(one.token_ids) <= self.room]
        found: list[Answer | None] = [None] * len(asked)
        for start in range(0, len(fit), _AT_ONCE):
            chunk = fit[start : start + _AT_ONCE]
            batch = requests(
                [encoded[number] for number in chunk], run_seed=self.running.config.run.seed, step=0, group_size=1,
                stream="robustness", first_slot=start,
            )  # fmt: skip
            groups = self.running.scoring.score(self.running.rollouts.generate(batch, self.settings))
            for number, group in zip(chunk, groups, strict=True):
                found[number] = _answer(self.running.fetch(group.evidence)[0])
        return found


def _answer(verdict: Verdict | None) -> Answer | None:
    if verdict is None or verdict.outcome == "undecided":
        return None
    if "items" not in verdict.evidence:
        raise UserError("robustness: scoring.verifier names no items of a list; use catalog")
    judged = listed(verdict)
    return Answer(tuple(verdict.evidence["items"]), None if judged is None else judged.ndcg(_K))


def write(path: str | Path, trials: Sequence[Trial]) -> None:
    """Write trials as JSON lines."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in trials), encoding="utf-8")


def document(found: Robustness) -> dict[str, Any]:
    """The figures as plain data."""
    texts = {one.item: one.text for one in found.trials if one.attack == SEARCHED}
    return {
        "targets": dict(found.targets),
        "described": found.described,
        "lists": found.asked,
        "attacks": attack_figures(found.trials),
        "quality": quality_figures(found.quality),
        "searched": texts,
    }


def render(found: Robustness) -> str:
    """The figures as Markdown."""
    rows = attack_figures(found.trials)
    lines = [
        f"{len(found.targets)} items attacked in {sum(found.targets.values())} prompts, of {found.described} that "
        f"describe items; {found.asked} lists. Differences to the same prompt under the same defence without the "
        "attack, with 95 % intervals over prompts.",
        "",
        "| attack | defence | in the list before | after | difference | discount of its rank | lost |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        known = "listed" in row
        cells = [f"{float(row['listed before']):.3f}", f"{float(row['listed after']):.3f}"] if known else ["", ""]
        cells += [_difference(row, "listed"), _difference(row, "discount")] if known else ["", ""]
        lines.append(f"| {row['attack']} | {row['defence']} | {' | '.join(cells)} | {float(row['lost']):.0f} |")
    if quality := quality_figures(found.quality):
        lines += ["", "| defence, nobody attacks | nDCG@10 | change |", "|---|---|---|"]
        lines += [
            f"| {one['defence']} | {float(one['ndcg@10']):.3f} | {_difference(one, 'change')} |" for one in quality
        ]
    for item, text in {one.item: one.text for one in found.trials if one.attack == SEARCHED}.items():
        lines += ["", f"Searched for {item}: {text}"]
    return "\n".join(lines)


def _difference(row: Mapping[str, str | float], name: str) -> str:
    low, high = (float(row[f"{name}_{end}"]) for end in ("low", "high"))
    return f"{float(row[name]):+.3f} [{low:+.3f}, {high:+.3f}]"
