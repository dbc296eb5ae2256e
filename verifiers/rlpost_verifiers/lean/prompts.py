"""Prompt templates for provers, named in ``data.template``; the source ``lean_statements`` provides their columns.

A released prover answers well only to the prompt that it was trained with, token by token, so the functional sentences
of these prompts are the models' own; each says where its wording comes from. What the answer to each looks like is said
by a mapping from settings to the values that fit it (``…_NEEDS``), registered under the template's name as
``template_needs``: other settings are refused when a run starts (`rlpost.data.template_needs`).
"""

from __future__ import annotations

from typing import Any

Needs = dict[str, tuple[Any, ...]]
"""Dotted setting to the values that fit a template; None among them: it may be left out."""

RELEASED_HEADER = """import Mathlib
import Aesop

set_option maxHeartbeats 0

open BigOperators Real Nat Topology Rat

"""

CONTINUED_NEEDS: Needs = {
    "scoring.verifier_args.extract": ("continued", "declarations", None),
    "scoring.verifier_args.form": ("tactic",),
}
"""The answer goes on after ``:= by``."""

WHOLE_NEEDS: Needs = {"scoring.verifier_args.extract": ("declarations", None)}
"""The answer holds the whole theorem in a block, with what it needs before it, after reasoning or none."""

RELEASED = (
    f"Complete the following Lean 4 code:\n\n```lean4\n{RELEASED_HEADER}{{informal}}{{formal}}\n<｜begin▁of▁sentence｜>"
)
"""DeepSeek-Prover-V1.5's prompt as "Rewarding the Unlikely" uses it, with the begin-of-sentence mark as text at its
end, which the checkpoint was trained with. The answer continues inside the block: ``extract: continued``,
``form: tactic``, ``max_heartbeats: 0``, and ``data.special_tokens: false``."""
UNLIMITED_NEEDS: Needs = {**CONTINUED_NEEDS, "scoring.verifier_args.max_heartbeats": (0,)}
"""As `CONTINUED_NEEDS`, after a prompt that shows ``set_option maxHeartbeats 0`` whatever the row says."""
RELEASED_NEEDS: Needs = {**UNLIMITED_NEEDS, "data.special_tokens": (False,)}

STP = (
    "Complete the following Lean 4 code:\n\n```lean4\nimport Mathlib\nimport Aesop\nset_option maxHeartbeats 0\n"
    "open BigOperators Real Nat Topology Rat\n\n{formal}"
)
"""STP's prover (Dong and Ma 2025, arXiv 2502.00212): ``PROVER_PROMPT`` in RL/utils/model_utils.py of kfdong/STP, then
the statement. The tokenizer's BOS goes before it, and the answer continues inside the block: ``extract: continued``,
``form: tactic``, ``max_heartbeats: 0``."""
STP_NEEDS: Needs = {**UNLIMITED_NEEDS, "data.special_tokens": (True,)}

BARE = "{formal}"
"""The declaration alone, for a base model to continue: ``form: tactic``."""
BARE_NEEDS: Needs = {"scoring.verifier_args.form": ("tactic",)}

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

_PLAN = (
    "\n\nBefore producing the Lean 4 code to formally prove the given theorem, provide a detailed proof plan outlining "
    "the main proof steps and strategies.\nThe plan should highlight key ideas, intermediate lemmas, and proof "
    "structures that will guide the construction of the final formal proof."
)
"""What switches DeepSeek-Prover-V2 to its reasoning mode; the checkpoints tell the modes by it alone."""

DEEPSEEK_V2 = (("user", "Complete the following Lean 4 code:\n\n```lean4\n{code}\n  sorry\n```" + _PLAN),)
"""DeepSeek-Prover-V2 (arXiv 2504.21801) with a proof plan: the quick start in deepseek-ai/DeepSeek-Prover-V2's README.
The statement is shown with its file's header and ends with ``sorry``."""

DEEPSEEK_V2_NON_COT = (("user", "Complete the following Lean 4 code:\n\n```lean4\n{code}\n  sorry\n```"),)
"""DeepSeek-Prover-V2 without a plan (the paper's appendix A, non-CoT mode)."""

GOEDEL_V2 = (("user", "Complete the following Lean 4 code:\n\n```lean4\n{code}\n  sorry```" + _PLAN),)
"""Goedel-Prover-V2 (arXiv 2508.03613): the quick start in Goedel-LM/Goedel-Prover-V2's README, whose block, unlike
DeepSeek's, closes on the last line of its code."""

_KIMINA_USER = (
    "Think about and solve the following problem step by step in Lean 4.\n# Problem:{problem}\n# Formal statement:\n"
    "```lean4\n{code}\n```\n"
)

KIMINA_PREVIEW = (("system", "You are an expert in mathematics and Lean 4."), ("user", _KIMINA_USER))
"""Kimina-Prover-Preview and its distilled models (arXiv 2504.11354): the model cards of
AI-MO/Kimina-Prover-Preview-Distill-7B and -1.5B."""

KIMINA = (("system", "You are an expert in mathematics and proving theorems in Lean 4."), ("user", _KIMINA_USER))
"""Kimina-Prover-72B, Kimina-Prover-Distill and Kimina-Prover-RL for use: the model cards."""

KIMINA_RL = (
    ("system", "You are an expert in mathematics and proving theorems in Lean 4."),
    (
        "user",
        "Think about and solve the following problems step by step in Lean 4.\n\n# Problem:\n{problem}\n\n"
        "# Formal Statement:\n```lean4\n{code}\n```\n",
    ),
)
"""The prompt that Kimina-Prover-RL was trained with: the prompts of AI-MO/Kimina-Prover-Promptset as
"Kimina-Prover-RL" (huggingface.co/blog/AI-MO/kimina-prover-rl) shows them."""
