"""Prompt templates for provers, named in ``data.template``; the source ``lean_statements`` provides their columns."""

from __future__ import annotations

RELEASED_HEADER = """import Mathlib
import Aesop

set_option maxHeartbeats 0

open BigOperators Real Nat Topology Rat

"""

RELEASED = (
    f"Complete the following Lean 4 code:\n\n```lean4\n{RELEASED_HEADER}{{informal}}{{formal}}\n<｜begin▁of▁sentence｜>"
)
"""DeepSeek-Prover-V1.5's prompt as "Rewarding the Unlikely" uses it, with the begin-of-sentence mark as text at its
end, which the checkpoint was trained with. The answer continues inside the block: ``extract: continued``,
``form: tactic``, and ``data.special_tokens: false``."""

BARE = "{formal}"
"""The declaration alone, for a base model to continue: ``form: tactic``."""

WHOLE_PROOF = (
    (
        "user",
        "Prove this theorem in Lean 4. Answer with the complete theorem and its proof in one ```lean block and nothing "
        "else.\n\n```lean\n{formal}\n```",
    ),
)
"""A chat that asks for the whole proof: ``extract: declarations``, the default."""

REASONING = (
    (
        "user",
        "Prove this theorem in Lean 4. Think step by step first, in plain words, about what the proof needs. Then give "
        "the complete theorem and its proof in one ```lean block, and end there.\n\n```lean\n{formal}\n```",
    ),
)
"""The chat with reasoning before the block, in ``<think>`` tags or not: ``extract: declarations``, the default."""
