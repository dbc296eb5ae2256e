"""After each sync: did the published weights arrive, and does the engine compute with them?

There are independent checks. The checksum compares bytes read back from the engine's own parameters; in bfloat16
it is the sensitive one. The probe compares log-probabilities, and so also detects stale copies of the weights that are
no parameters (a packed ``lm_head``), and a prefix cache of an older policy. The others check that
training moved the optimizer's masters, and that what is published are the masters, rounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from rlpost.algorithms.diagnostics import mismatch
from rlpost.errors import SelfCheckError
from rlpost.protocols import ApplyReport
from rlpost.selfcheck.prefix_cache import reported_logprobs
from rlpost.trajectory import Trajectory
from rlpost.types import WeightManifest

LARGEST = {"float32": 1e-3, "bfloat16": 0.3}
"""Mean |Δ log p| in nats that no engine may show. Measured between vLLM and transformers on SmolLM2-135M with equal
weights: 4e-6 in float32, 0.03 to 0.09 in bfloat16; with a stale lm_head 0.12 to 0.49."""

LEAST = {"float32": 1e-3, "bfloat16": 0.02}
"""Mean |Δ log p| in nats that every engine may show: the few tokens of a probe do not tell rounding exactly. A model of
1.3M parameters shows 2e-5 to 1.2e-3 in bfloat16."""

OVER_FIRST = 5.0
"""How many times the difference at the first publish a later one may be: at the first the engine computes with the
weights that it loaded itself, so what is seen there is rounding."""


def tolerance(dtype: str, first: float | None) -> float:
    """Largest allowed mean |Δ log p| of a probe, in nats per token.

    Args:
        dtype: ``float32`` or ``bfloat16``.
        first: the probe's mean at the first publish; None before it.
    """
    if first is None:
        return LARGEST[dtype]
    return min(max(OVER_FIRST * first, LEAST[dtype]), LARGEST[dtype])


def check_arrival(
    manifest: WeightManifest, reports: Sequence[ApplyReport], previous: WeightManifest | None
) -> dict[str, float]:
    """Compare what every engine holds with what was published.

    Args:
        manifest: manifest of the published version.
        reports: one report per engine.
        previous: manifest of the previous version; None at the first sync.

    Returns:
        Metrics: number of published tensors, and of those whose bytes differ from the previous version.

    Raises:
        SelfCheckError: if an engine serves another version, lacks a tensor, or holds other bytes than published.
    """
    published = dict(manifest.checksums)
    if not published:
        raise SelfCheckError("canary: the published version holds no tensor; the learner exports nothing")
    for engine, report in enumerate(reports):
        if report.version != manifest.new_version:
            raise SelfCheckError(
                f"canary: engine {engine} serves version {report.version}, version {manifest.new_version} was published"
            )
        missing = [name for name in published if report.checksums.get(name, "missing") == "missing"]
        if missing:
            raise SelfCheckError(
                f"canary: engine {engine} holds nothing of {missing[0]!r} ({len(missing)} of {len(published)} tensors "
                "cannot be read back); this architecture's names are not known to rlpost.rollout.vllm.readback"
            )
        wrong = [name for name, value in published.items() if report.checksums[name] != value]
        if wrong:
            raise SelfCheckError(
                f"canary: engine {engine} holds other bytes than published for {wrong[0]!r} ({len(wrong)} of "
                f"{len(published)} tensors); the engine's loader changed or lost them, do not train on"
            )
    changed = len(published) if previous is None else _changed(manifest, previous)
    return {"canary/tensors": float(len(published)), "canary/changed_tensors": float(changed)}


def check_movement(
    manifest: WeightManifest, previous: WeightManifest, metrics: Mapping[str, float], dtype: str
) -> None:
    """Verify that an update with a gradient moved what the optimizer owns and, in float32, published bytes.

    A bfloat16 weight may rightly keep its bytes through many updates of 1e-6; its float32 master may not.

    Args:
        manifest: manifest of the published version.
        previous: manifest of the previous version.
        metrics: metrics of the step's updates; without ``moved`` no entry that was looked at had to move.
        dtype: number format of what is published.

    Raises:
        SelfCheckError: if nothing moved although an update was applied.
    """
    norm, rate = metrics.get("grad_norm", 0.0), metrics.get("lr", 0.0)
    applied = metrics.get("updates", 0.0) > 0 and np.isfinite(norm) and norm > 0 and rate > 0
    if not applied or "moved" not in metrics:
        return
    said = f"canary: an update with gradient norm {norm:.3g} and learning rate {rate:.3g}"
    if metrics["moved"] == 0:
        raise SelfCheckError(
            f"{said} moved no entry of what the optimizer owns; something undoes its steps, do not train on"
        )
    if dtype == "float32" and not _changed(manifest, previous):
        raise SelfCheckError(
            f"{said} changed no published byte; the optimizer does not own the parameters that are published"
        )


def check_masters(name: str, stored: Tensor, master: Tensor) -> None:
    """Verify that a parameter is its float32 master, rounded to the parameter's number format.

    Args:
        name: name of the parameter, for the message.
        stored: the parameter, or those of its entries that are trained.
        master: its master, with as many entries.

    Raises:
        SelfCheckError: if an entry differs.
    """
    differs = int((master.reshape(stored.shape).to(stored) != stored).sum())
    if differs:
        raise SelfCheckError(
            f"canary: {differs} of {stored.numel()} trained entries of {name!r} are not what the optimizer's float32 "
            "masters round to; its updates do not reach the weights that are published, do not train on"
        )


def check_probe(
    completions: Sequence[Trajectory], learner: Sequence[np.ndarray], tolerance: float, engine: int = 0
) -> dict[str, float]:
    """Compare an engine's log-probabilities of its own greedy tokens with the learner's.

    Args:
        completions: the engine's greedy completions of the pinned prompts.
        learner: the learner's log-probabilities of the same tokens.
        tolerance: largest allowed mean |Δ log p|, in nats per token.
        engine: number of the engine, for the message.

    Returns:
        Metrics: mean and maximum |Δ log p|.

    Raises:
        SelfCheckError: above the tolerance.
    """
    try:
        found = mismatch(reported_logprobs(completions), [list(map(float, values)) for values in learner])
    except ValueError as error:
        raise SelfCheckError(f"canary: engine {engine} and learner cannot be compared on the probes: {error}") from None
    if not found.mean <= tolerance:
        raise SelfCheckError(
            f"canary: engine {engine} and learner differ by {found.mean:.4g} nats per token on {found.tokens} tokens "
            f"(limit {tolerance:g}, maximum {found.max:.4g}): the engine computes with other weights than it reports "
            "(a stale packed copy or a stale prefix cache); do not train on"
        )
    return {"canary/probe_mean": found.mean, "canary/probe_max": found.max}


def _changed(manifest: WeightManifest, previous: WeightManifest) -> int:
    return sum(previous.checksums.get(name) != value for name, value in manifest.checksums.items())
