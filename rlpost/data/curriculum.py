"""Training prompts chosen and ordered by how often the starting policy solves them."""

from __future__ import annotations

import logging
from pathlib import Path

from rlpost.config.schema import CurriculumSettings
from rlpost.errors import DataError
from rlpost.evaluation import outcomes
from rlpost.types import Prompt

_log = logging.getLogger(__name__)


def by_pass_rate(prompts: list[Prompt], settings: CurriculumSettings) -> list[Prompt]:
    """The prompts whose measured pass rate is within the limits, in the configured order.

    The completions of a prompt that is always or never solved have equal outcomes and, without reward shaping, no
    advantage; leaving the prompt out saves its rollouts (``lowest`` and ``highest``). The number of those is logged.

    Args:
        prompts: training prompts.
        settings: file with the measured outcomes, limits on the pass rate, and order.

    Raises:
        DataError: for a prompt without a decided measurement, or if none is left.
    """
    measured = outcomes.read(Path(settings.outcomes))
    if not outcomes.judged(measured):
        raise DataError(
            f"data.curriculum: {settings.outcomes} holds rewards without verdicts, which make no pass rate; measure "
            "again with scoring.pass_threshold, the reward from which an answer is right"
        )
    rates = {o.id: o.accepted / o.decided for o in measured if o.decided}
    lacking = [prompt.id for prompt in prompts if prompt.id not in rates]
    if lacking:
        raise DataError(
            f"data.curriculum: {len(lacking)} of {len(prompts)} prompts have no pass rate in {settings.outcomes} (the "
            f"first is {lacking[0]!r}); measure them with rlpost evaluate --split train --output FILE"
        )
    chosen = [prompt for prompt in prompts if settings.lowest <= rates[prompt.id] <= settings.highest]
    if not chosen:
        raise DataError(
            f"data.curriculum: no prompt has a pass rate from {settings.lowest:g} to {settings.highest:g}; widen them"
        )
    if len(chosen) < len(prompts):
        _log.warning(
            "data.curriculum: %d of %d training prompts are left out, whose pass rate is not from %g to %g",
            len(prompts) - len(chosen),
            len(prompts),
            settings.lowest,
            settings.highest,
        )
    if settings.order == "shuffled":
        return chosen
    return sorted(chosen, key=lambda prompt: rates[prompt.id], reverse=settings.order == "easy_first")
