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
        "filter_batches": 10,
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
    # MiniMax 2025, "MiniMax-M1", eq. 4 and 5: no lower limit, token mean over the batch; weights up to 5 as in Khatri
    # et al. 2025, "The art of scaling reinforcement learning compute for LLMs" (arXiv 2510.13786).
    "cispo": {
        "loss": "cispo",
        "baseline": "mean",
        "std": True,
        "ratio": "token",
        "clip": [1.0, 4.0],
        "aggregate": "token",
        "kl": {"coef": 0.0},
    },
    # Zhao et al. 2025, "Geometric-mean policy optimization": tokens' log-ratios clipped to ±0.4, one term per sequence.
    "gmpo": {
        "loss": "gmpo",
        "baseline": "mean",
        "std": True,
        "ratio": "sequence",
        "clip": [0.4, 0.4],
        "aggregate": "sequence",
        "kl": {"coef": 0.0},
    },
    # Qi et al. 2026, "Rethinking the trust region in LLM reinforcement learning": binary total variation from the
    # engine's policy, weights up to 20 as in their code; the limit 0.2 is that of public ports.
    "dppo": {
        "loss": "dppo_tv",
        "baseline": "mean",
        "std": True,
        "ratio": "token",
        "clip": [0.2, 0.2],
        "aggregate": "token",
        "kl": {"coef": 0.0},
        "importance": {"mode": "truncate", "cap": 20.0},
    },
    # Tajwar et al. 2026, "Maximum likelihood reinforcement learning": divided by the group's mean; no more changes.
    "maxrl": {"advantage": "maxrl", "baseline": "mean", "std": False},
}
