"""Generated arithmetic problems with worked solutions, in unlimited number, for training and evaluation.

The split of a problem follows from a hash of its expression with the operands of sums and products in a fixed order,
so that ``3 + 4`` and ``4 + 3`` are always in the same split, whatever the seeds.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from rlpost.errors import UserError

Split = Literal["train", "eval"]

OPERATORS = "+-*"
_STRENGTH = {"+": 1, "-": 1, "*": 2}
_PATIENCE = 20_000
"""Number of consecutive expressions without a new problem after which generation gives up."""


@dataclass(frozen=True, slots=True)
class Operation:
    """``left operator right``; both sides are operations or numbers.

    >>> value(Operation("*", Operation("+", 3, 4), 2))
    14
    """

    operator: str
    left: Expression
    right: Expression


Expression = Operation | int


def rows(
    count: int,
    seed: int,
    split: Split = "train",
    eval_share: float = 0.1,
    min_operands: int = 2,
    max_operands: int = 3,
    operands: tuple[int, int] = (0, 9),
    values: tuple[int, int] = (0, 99),
    operators: str = OPERATORS,
    tricky: bool = False,
    sloppy: float = 0.0,
    spaced: bool = False,
) -> list[dict[str, Any]]:
    """The data source ``arithmetic``: ``count`` different problems; equal arguments give equal lists.

    Args:
        count: number of problems.
        seed: random seed of the expressions.
        split: ``train`` or ``eval``; the two share no problem as long as ``eval_share`` is the same.
        eval_share: share of expressions that belong to ``eval``.
        min_operands: smallest number of operands.
        max_operands: largest number of operands.
        operands: smallest and largest operand.
        values: smallest and largest result, also of every intermediate step.
        operators: the operators that may occur, some of ``+-*``.
        tricky: only problems whose result is wrong if brackets and precedence are ignored.
        sloppy: share of solutions that ignore them and work from left to right: a warm start on these knows both ways,
            and the verifier's reward has to teach which one is right.
        spaced: write a blank between digits and signs in ``prompt`` and ``solution``, so that a word-level tokenizer
            (`rlpost.data.wordlevel`) has one token for each digit.

    Returns:
        Rows with ``id``, ``question`` (``(3 + 4) * 2``), ``prompt`` (``(3 + 4) * 2 =``), ``answer`` (``14``),
        ``solution`` (``7 * 2 = 14``, for a warm start), ``operands``.

    Raises:
        UserError: for arguments that contradict each other, or if 20,000 consecutive expressions give no new problem.
    """
    _check(
        count, split, (eval_share, sloppy), (min_operands, max_operands), (tuple(operands), tuple(values)), operators
    )
    found: dict[str, dict[str, Any]] = {}
    misses = 0
    slips = random.Random(f"slips {seed}")
    for expression in _random_expressions(random.Random(seed), min_operands, max_operands, operands, operators):
        if len(found) == count:
            break
        misses += 1
        if misses > _PATIENCE:
            raise UserError(
                f"only {len(found)} of {count} problems found, and none in the last {_PATIENCE} expressions; "
                "ask for fewer, or widen operands, values or operators"
            )
        if _belongs_to_eval(expression, eval_share) != (split == "eval") or not _within(expression, tuple(values)):
            continue
        if tricky and _sloppy_steps(expression)[-1] == str(value(expression)):
            continue
        question = render(expression)
        if question not in found:
            found[question] = _row(expression, question, slips.random() < sloppy, spaced)
            misses = 0
    return list(found.values())


def value(expression: Expression) -> int:
    """The value of an expression."""
    if isinstance(expression, int):
        return expression
    left, right = value(expression.left), value(expression.right)
    return {"+": left + right, "-": left - right, "*": left * right}[expression.operator]


def render(expression: Expression) -> str:
    """The expression as text, with no more brackets than it needs.

    >>> render(Operation("-", 9, Operation("+", Operation("*", 2, 3), 1)))
    '9 - (2 * 3 + 1)'
    """
    if isinstance(expression, int):
        return str(expression)
    strength = _STRENGTH[expression.operator]
    left = _bracketed(expression.left, strength)
    # a - (b + c) and a - (b - c) are not a - b + c and a - b - c
    right = _bracketed(expression.right, strength + 1)
    return f"{left} {expression.operator} {right}"


def steps(expression: Expression) -> list[str]:
    """The expression after each operation, done leftmost first; the last step is the result.

    >>> steps(Operation("*", Operation("+", 3, 4), 2))
    ['7 * 2', '14']
    """
    found: list[str] = []
    while isinstance(expression, Operation):
        expression = _one_step(expression)
        found.append(render(expression))
    return found


def _row(expression: Expression, question: str, sloppy: bool, spaced: bool) -> dict[str, Any]:
    solution = " = ".join(_sloppy_steps(expression) if sloppy else steps(expression))
    prompt = f"{question} ="
    return {
        "id": question,
        "question": question,
        "prompt": _spaced(prompt) if spaced else prompt,
        "answer": str(value(expression)),
        "solution": _spaced(solution) if spaced else solution,
        "operands": _count(expression),
    }


def _sloppy_steps(expression: Expression) -> list[str]:
    """`steps` from left to right, without brackets and precedence; the correct steps if a result falls below 0."""
    numbers, operators = _flat(expression)
    found: list[str] = []
    while operators:
        first = value(Operation(operators.pop(0), numbers.pop(0), numbers.pop(0)))
        if first < 0:
            return steps(expression)
        numbers.insert(0, first)
        rest = (f" {operator} {number}" for operator, number in zip(operators, numbers[1:], strict=True))
        found.append("".join([str(first), *rest]))
    return found


def _flat(expression: Expression) -> tuple[list[int], list[str]]:
    """Numbers and operators in reading order."""
    if isinstance(expression, int):
        return [expression], []
    left, right = _flat(expression.left), _flat(expression.right)
    return [*left[0], *right[0]], [*left[1], expression.operator, *right[1]]


def _spaced(text: str) -> str:
    return " ".join(text.replace(" ", ""))


def _bracketed(expression: Expression, strength: int) -> str:
    text = render(expression)
    if isinstance(expression, int):
        return text
    return f"({text})" if _STRENGTH[expression.operator] < strength else text


def _one_step(expression: Operation) -> Expression:
    if isinstance(expression.left, Operation):
        return Operation(expression.operator, _one_step(expression.left), expression.right)
    if isinstance(expression.right, Operation):
        return Operation(expression.operator, expression.left, _one_step(expression.right))
    return value(expression)


def _within(expression: Expression, values: tuple[int, ...]) -> bool:
    if isinstance(expression, int):
        return True
    sides = _within(expression.left, values) and _within(expression.right, values)
    return sides and values[0] <= value(expression) <= values[1]


def _count(expression: Expression) -> int:
    return 1 if isinstance(expression, int) else _count(expression.left) + _count(expression.right)


def _random_expressions(
    rng: random.Random, least: int, most: int, operands: tuple[int, int], operators: str
) -> Iterator[Expression]:
    """Random expressions, without end."""

    def make(size: int) -> Expression:
        if size == 1:
            return rng.randint(*operands)
        left = rng.randint(1, size - 1)
        return Operation(rng.choice(operators), make(left), make(size - left))

    while True:
        yield make(rng.randint(least, most))


def _canonical(expression: Expression) -> str:
    if isinstance(expression, int):
        return str(expression)
    sides = [_canonical(expression.left), _canonical(expression.right)]
    if expression.operator != "-":
        sides.sort()
    return f"({sides[0]}{expression.operator}{sides[1]})"


def _belongs_to_eval(expression: Expression, eval_share: float) -> bool:
    digest = hashlib.sha256(_canonical(expression).encode()).digest()
    return int.from_bytes(digest[:8]) < eval_share * 2**64


def _check(
    count: int,
    split: str,
    shares: tuple[float, float],
    sizes: tuple[int, int],
    ranges: tuple[tuple[int, ...], tuple[int, ...]],
    operators: str,
) -> None:
    if count < 0:
        raise UserError(f"count is {count}; give 0 or more")
    if split not in ("train", "eval"):
        raise UserError(f"split is {split!r}; use 'train' or 'eval'")
    for name, share in zip(("eval_share", "sloppy"), shares, strict=True):
        if not 0 <= share <= 1:
            raise UserError(f"{name} is {share!r}; give a share between 0 and 1")
    if not 2 <= sizes[0] <= sizes[1]:
        raise UserError(f"min_operands is {sizes[0]} and max_operands {sizes[1]}; give 2 or more, in order")
    for name, given in zip(("operands", "values"), ranges, strict=True):
        if len(given) != 2 or given[0] > given[1]:
            raise UserError(f"{name} is {list(given)}; give the smallest and the largest")
    if ranges[0][0] < 0:
        raise UserError(f"operands is {list(ranges[0])}; give 0 or more: a sign is written as an operator")
    if not operators or set(operators) - set(OPERATORS):
        raise UserError(f"operators is {operators!r}; give some of {OPERATORS}")
