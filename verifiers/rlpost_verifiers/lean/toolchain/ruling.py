"""Turns Lean's reply into a ruling and the evidence for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlpost_verifiers.lean.messages import LeanOutput, Reason, Ruling, Run, classify, open_goals
from rlpost_verifiers.lean.toolchain.pin import AXIOMS, Finding, Question, read_answer

_MAX_MESSAGES = 8
_MAX_MESSAGE_LENGTH = 500


@dataclass(frozen=True, slots=True)
class Reply:
    """Lean's answer to one question.

    Attributes:
        run: exit status, times and memory of the check; for a server, as far as it reports them.
        output: Lean's messages.
        header_lines: number of lines before the body, as the messages count. Errors there mean that an import failed.
        replay: result of a replay in the kernel, None if there was none.
    """

    run: Run
    output: LeanOutput
    header_lines: int = 0
    replay: Ruling | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Why there is no reply, and the wall-clock time in seconds that the check took, if that is known."""

    reason: Reason
    detail: str
    seconds: float = 0.0


def rule(question: Question, reply: Reply, cpu_limit: float) -> tuple[Ruling, Finding | None]:
    """The ruling on a reply, and the finding; None where the run ended abnormally or an import failed.

    Accepted means: no error anywhere, no sorry, the pin holds, it depends on nothing but `AXIOMS`, and the kernel
    replay, where there was one, accepted it.
    """
    ruling = classify(reply.run, reply.output, cpu_limit)
    if ruling.outcome == "undecided" or reply.run.signal or reply.run.wall_exceeded or reply.output.noise:
        return ruling, None
    header = next((error for error in reply.output.errors if error.line <= reply.header_lines), None)
    if header is not None:
        return Ruling("undecided", "unavailable", f"an import failed: {header.text.strip()[:200]}"), None
    finding = read_answer(question, reply.output, reply.header_lines)
    if finding.statement_problem:
        detail = f"Lean cannot read the statement: {finding.statement_problem}"
        return Ruling("undecided", "statement_mismatch", detail), finding
    if finding.pin_error:
        return _rule_on_pin(question, reply, finding, cpu_limit), finding
    if ruling.outcome == "accepted":
        ruling = _rule_on_axioms(question, finding)
    if ruling.outcome == "accepted" and reply.replay is not None:
        return reply.replay, finding
    return ruling, finding


def _rule_on_pin(question: Question, reply: Reply, finding: Finding, cpu_limit: float) -> Ruling:
    if finding.errors:
        # The pin of a theorem that failed fails as well; the errors before it tell what is wrong.
        return classify(reply.run, LeanOutput(finding.errors, ()), cpu_limit)
    if "nknown constant" in finding.pin_error or "nknown identifier" in finding.pin_error:
        return Ruling("rejected", "failed", f"there is no theorem {question.theorem}")
    return Ruling("rejected", "statement_mismatch", f"the theorem proves another statement: {finding.pin_error}")


def _rule_on_axioms(question: Question, finding: Finding) -> Ruling:
    if finding.axioms is None:
        # As with #exit: Lean reported no error, but did not read the end of the file.
        return Ruling("rejected", "failed", "Lean did not reach the end of the file")
    strange = sorted(set(finding.axioms) - AXIOMS - {question.assumed})
    if "sorryAx" in strange:
        return Ruling("rejected", "sorry", "the proof uses sorry")
    if strange:
        return Ruling("rejected", "axiom", f"the proof rests on the axiom {strange[0]}")
    return Ruling("accepted", "proved")


def describe(question: Question, reply: Reply, ruling: Ruling, finding: Finding | None) -> dict[str, Any]:
    """The evidence for people to read; positions count from the first line of the model's text."""
    offset = finding.offset if finding else reply.header_lines
    said = any(ruling.detail[:100] in error.text for error in reply.output.errors)
    messages = [_anonymous(ruling.detail, question)] if ruling.detail and not said else []
    # Errors first: a proof full of warnings must not hide what is wrong with it.
    for message in sorted(reply.output.messages, key=lambda each: each.severity != "error"):
        line = message.line - offset - question.proof_line + 1
        inside = 0 < line <= question.end_line - question.proof_line
        if message.severity != "error" and (message.severity == "information" or not inside):
            # What a proof prints could pose as Lean's word, and warnings elsewhere are about the trusted text.
            continue
        if finding and finding.errors and line > question.end_line - question.proof_line + 1:
            # The pin of a theorem that failed fails as well, which says nothing new.
            continue
        place = f"{line}:{message.column}" if inside else "the theorem"
        text = _anonymous(message.text.strip(), question)[:_MAX_MESSAGE_LENGTH]
        messages.append(f"{message.severity} at {place}: {text}")
    evidence: dict[str, Any] = {"messages": messages[:_MAX_MESSAGES]}
    if goals := open_goals(reply.output):
        evidence["goals"] = goals
    if reply.run.peak_rss_mb:
        evidence["peak_rss_mb"] = reply.run.peak_rss_mb
    return evidence


def _anonymous(text: str, question: Question) -> str:
    """``text`` without the random part of names, so that equal questions have equal verdicts."""
    random = question.pin[question.pin.index("_") :]
    # A hint may show the edit from one name to the other letter by letter.
    return text.partition("\n\nHint:")[0].replace(random, "") if random in text else text
