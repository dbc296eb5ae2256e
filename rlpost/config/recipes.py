"""Named algorithms as settings of the general loss. A value given in the file wins over the recipe's."""

from __future__ import annotations

from typing import Any

RECIPES: dict[str, dict[str, Any]] = {
    # Shao et al. 2024, "DeepSeekMath", section 4.1 and Table 1: per-sequence means, k3 penalty of 0.04 in the loss.
    "grpo": {
        "baseline": "mean",
        "std": True,
        "ratio": "token",
        "clip": [0.2, 0.2],
        "aggregate": "sequence",
        "kl": {"coef": 0.04, "kind": "k3"},
    },
    # Liu et al. 2025, "Understanding R1-Zero-like training": no division by std or by length, no penalty.
    "dr_grpo": {
        "baseline": "mean",
        "std": False,
        "ratio": "token",
        "clip": [0.2, 0.2],
        "aggregate": "constant",
        "kl": {"coef": 0.0},
    },
    # Ahmadian et al. 2024, "Back to Basics": the whole completion is one action, the others are its baseline.
    "rloo": {
        "baseline": "leave_one_out",
        "std": False,
        "ratio": "token",
        "clip": [0.2, 0.2],
        "aggregate": "sequence_sum",
        "kl": {"coef": 0.0},
    },
    # Yu et al. 2025, "DAPO": clip-higher, token mean over the batch, groups without contrast left out, no penalty.
    "dapo": {
        "baseline": "mean",
        "std": True,
        "ratio": "token",
        "clip": [0.2, 0.28],
        "aggregate": "token",
        "kl": {"coef": 0.0},
        "filter": "binary",
    },
    # Zheng et al. 2025, "Group sequence policy optimization", section 5.1: one length-normalised ratio per completion.
    "gspo": {
        "baseline": "mean",
        "std": True,
        "ratio": "sequence",
        "clip": [3e-4, 4e-4],
        "aggregate": "sequence",
        "kl": {"coef": 0.0},
    },
    # Zhu et al. 2025, "Rank-GRPO", section 3: advantage, ratio and weight by rank, for the reward `ranking`.
    "rank_grpo": {
        "baseline": "mean",
        "std": True,
        "std_eps": 1e-4,
        "ratio": "span",
        "clip": [0.06, 0.08],
        "aggregate": "span",
        "kl": {"coef": 1e-3, "kind": "k3"},
    },
}
