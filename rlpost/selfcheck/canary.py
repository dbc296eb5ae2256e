"""After each sync: did the published weights arrive, and does the engine compute with them?

There are three independent checks. The checksum compares bytes read back from the engine's own parameters; in bfloat16
it is the sensitive one. The probe compares log-probabilities, and so also detects stale copies of the weights that are
no parameters (a packed ``lm_head``), and a prefix cache of an older policy. The third checks that training changed
anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlpost.algorithms.diagnostics import mismatch
from rlpost.errors import SelfCheckError
from rlpost.protocols import ApplyReport
from rlpost.selfcheck.prefix_cache import reported_logprobs
from rlpost.trajectory import Trajectory
from rlpost.types import WeightManifest

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.3}
"""Mean |Δ log p| in nats. Measured between vLLM and transformers on SmolLM2-135M with equal weights: 4e-6 in float32,
0.03 to 0.09 in bfloat16; with a stale lm_head 0.12 to 0.49."""


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


def check_movement(manifest: WeightManifest, previous: WeightManifest, metrics: dict[str, float], dtype: str) -> None:
    """Verify that an update with a gradient changed published bytes.

    This is checked in float32 only: bfloat16 rounds small updates away, which only the masters keep.

    Raises:
        SelfCheckError: if nothing changed although an update was applied.
    """
    applied = metrics.get("updates", 0.0) > 0 and np.isfinite(metrics.get("grad_norm", 0.0))
    if (
        dtype == "float32"
        and applied
        and metrics["grad_norm"] > 0
        and metrics["lr"] > 0
        and not _changed(manifest, previous)
    ):
        raise SelfCheckError(
            f"canary: an update with gradient norm {metrics['grad_norm']:.3g} and learning rate {metrics['lr']:.3g} "
            "changed no published byte; the optimizer does not own the parameters that are published"
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
