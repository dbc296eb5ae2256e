"""Are the tokens that are trained on those that the policy sampled?

The mask of a sample follows from the segments of its trajectory. What the engine reported for each token, its version
and its log-probability, comes another way, and has to say the same.
"""

from __future__ import annotations

import numpy as np

from rlpost.errors import SelfCheckError
from rlpost.types import TrainSample


def check_mask(sample: TrainSample) -> None:
    """Compare a sample's mask with the tokens that an engine reported as sampled.

    Raises:
        SelfCheckError: if a trained token was not sampled, or a sampled one is not trained.
    """
    witnesses = {"versions": sample.versions >= 0}
    if sample.rollout_logprobs is not None:
        witnesses["log-probabilities"] = np.isfinite(sample.rollout_logprobs)
    for name, sampled in witnesses.items():
        wrong, lost = sample.mask & ~sampled, sampled & ~sample.mask
        if wrong.any() or lost.any():
            where = int(np.flatnonzero(wrong | lost)[0])
            raise SelfCheckError(
                f"masks: {int(wrong.sum())} tokens of a sample are trained on that the policy did not sample, "
                f"{int(lost.sum())} that it sampled are not (first: token {where} of {sample.length}), by the {name} "
                "that the engine reported; the segments of the trajectory are wrong, do not train on"
            )
