"""Evidence over steps for faults that are smaller than the noise of one step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rlpost.errors import SelfCheckError
from rlpost.selfcheck.mismatch import MEANING, cause
from rlpost.selfcheck.sequential import excess_over_chance
from rlpost.types import Differences, Surprise, UpdateRecord

DRIFT = {"float32": 2e-4, "bfloat16": 5e-3}
"""Mean signed d that accumulated evidence has to exceed: rounding is the same each time the same context is scored, so
its mean over a class does not vanish."""

RECENT = 32
"""Steps after which the evidence of late steps is gathered anew."""

LEFT_OUT = {"float32": 1e-4, "bfloat16": 5e-4}
"""Share of the learner's distribution that the engine's samples may leave out without explanation."""

SURPRISE = {"float32": 0.005, "bfloat16": 0.03}
"""Mean surprise above or below the entropy, in nats per token, that rounding may cause."""


@dataclass(slots=True)
class Ledger:
    """Sums over some steps.

    Attributes:
        sums: sums of d so far, by class.
        surprise: sums so far of what the sampled tokens say of the learner's distribution.
        steps: number of steps whose tokens are in it.
        prompts: contexts of the groups that are in it.
        groups: number of these groups.
        chosen: whether trajectories were left out of some step.
    """

    sums: dict[str, Differences] = field(default_factory=dict[str, Differences])
    surprise: Surprise = field(default_factory=Surprise)
    steps: int = 0
    prompts: set[bytes] = field(default_factory=set[bytes])
    groups: int = 0
    chosen: bool = False

    @property
    def visits(self) -> float:
        """Groups per prompt, at least 1."""
        return max(self.groups / max(len(self.prompts), 1), 1.0)

    def add(self, updates: Sequence[UpdateRecord], whole: bool, prompts: Sequence[bytes]) -> None:
        """Add the first pass of a step."""
        self.steps += 1
        self.prompts.update(prompts)
        self.groups += len(prompts)
        self.chosen |= not whole
        for update in updates:
            for name, found in update.differences.items():
                if name != "stale":
                    self.sums[name] = self.sums.get(name, Differences()) + found
            if update.first and whole:
                old, new = self.surprise, update.surprise
                self.surprise = Surprise(
                    old.tokens + new.tokens,
                    old.entropy + new.entropy,
                    old.excess + new.excess,
                    old.variance + new.variance,
                )


class Evidence:
    """Evidence over steps for a difference that is smaller than one step's noise.

    Three tests that may be looked at after every step: of the share of the learner's distribution that the engine
    samples from, of the mean d of each class, and of how surprising samples are. Each looks at all steps, and at the
    last ones by themselves, so that a fault that comes late is not lost in what was healthy before.

    Args:
        dtype: ``float32`` or ``bfloat16``.
        group: completions per prompt. Tokens of a group share their contexts, and so their rounding, and while little
            is learned a prompt's later groups do too: all groups of a prompt count as one for the test of mean d.
    """

    def __init__(self, dtype: str, group: int):
        self.dtype, self.group = dtype, group
        self.whole, self.recent = Ledger(), Ledger()

    def add(self, updates: Sequence[UpdateRecord], numerics: float, whole: bool, prompts: Iterable[bytes] = ()) -> None:
        """Add a step, and decide.

        Args:
            updates: what the learner recorded.
            numerics: mean |d| in nats per token that the parity check last attributed to rounding.
            whole: whether every trajectory of the step is in it: a choice by outcome would favour surprising tokens.
            prompts: the context of each group, equal for groups of the same prompt.

        Raises:
            SelfCheckError: once the evidence decides, with the step at which it did.
        """
        first = [update for update in updates if update.epoch == 0]
        if self.recent.steps == RECENT:
            self.recent = Ledger()
        known = list(prompts)
        for ledger in (self.whole, self.recent):
            ledger.add(first, whole, known)
            self._truncated(ledger)
            self._shifted(ledger, max(DRIFT[self.dtype], numerics))
            self._surprised(ledger)

    def _truncated(self, ledger: Ledger) -> None:
        """E[π/q] over samples of q is 1 whatever the rounding, unless q leaves out a part of π.

        That holds for all samples together. Among those that are left of a choice by outcome, some tokens are more
        frequent, and the rounding of each comes again with its context.
        """
        found = sum(ledger.sums.values(), Differences())
        variance = found.square * (self.group * ledger.visits if ledger.chosen else 1.0)
        if found.excess < 0 and excess_over_chance(found.excess, found.tokens * LEFT_OUT[self.dtype], variance) > 0:
            raise SelfCheckError(
                f"mismatch: over {ledger.steps} steps and {found.tokens:.0f} tokens the engine sampled from only "
                f"{1.0 + found.excess / found.tokens:.2%} of the distribution that the learner scores, which is less "
                "than chance explains: top-p, top-k, a minimum probability or length, or banned tokens; do not train on"
            )

    def _shifted(self, ledger: Ledger, drift: float) -> None:
        for name, found in ledger.sums.items():
            variance = found.square * self.group * ledger.visits
            if excess_over_chance(found.signed, found.tokens * drift, variance) > 0:
                raise SelfCheckError(
                    f"mismatch: over {ledger.steps} steps and {found.tokens:.0f} tokens ({MEANING[name]}) the loss "
                    f"and the engine differ by {found.mean:+.3g} nats on average, less than the noise of one step "
                    f"({found.mean_absolute:.3g}) and more than rounding explains ({drift:.3g}): "
                    f"{cause(ledger.sums)}; do not train on"
                )

    def _surprised(self, ledger: Ledger) -> None:
        found = ledger.surprise
        if excess_over_chance(found.excess, found.tokens * SURPRISE[self.dtype], found.variance) > 0:
            mean, entropy = found.excess / found.tokens, found.entropy / found.tokens
            less = "more likely than samples of it are: the engine samples more sharply (temperature, top-p, greedy)"
            more = "less likely than samples of it are: the engine samples more evenly, or from another context"
            raise SelfCheckError(
                f"mismatch: {found.tokens:.0f} sampled tokens of {ledger.steps} steps have {mean:+.3g} nats more "
                f"surprise than the entropy {entropy:.3g} of the learner's distribution, which chance does not "
                f"explain: they are {less if mean < 0 else more}; do not train on"
            )
