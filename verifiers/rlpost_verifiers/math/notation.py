r"""One spelling for each sign: what people and models write for the same sign of mathematics becomes the same LaTeX.

``\dfrac12``, ``\tfrac{1}{2}`` and ``½`` become ``\frac{1}{2}``; ``≤``, ``<=`` and ``\leqslant`` become ``\le``. Only
spelling changes here; `readings` says what the result means. Text only, no mathematics.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_GREEK_NAMES = """alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi
chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"""
_GREEK = dict(zip("αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ", _GREEK_NAMES.split(), strict=True))
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_CHARACTERS = str.maketrans({letter: f"\\{name} " for letter, name in _GREEK.items()} | {
    chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)
} | dict.fromkeys([*range(32), 0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF], "") | {
    "\n": "\n", "\t": " ", "\r": " ", "⁄": "/", "º": r"\degree ", "˚": r"\degree ", "¬": r"\neg ",
    "−": "-", "–": "-", "﹣": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": r"\div ",
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∞": r"\infty ",
    "∅": r"\emptyset ", "°": r"\degree ", "√": r"\sqrt ",
    "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}",
    "ℝ": r"\mathbb{R}", "\u00a0": "~", "\u2009": "~", "\u202f": "~", "“": '"', "”": '"', "’": "'", "∶": ":", "％": "%",
})  # fmt: skip
_COMMANDS = {
    r"\leq": r"\le", r"\leqslant": r"\le", r"\geq": r"\ge", r"\geqslant": r"\ge", r"\neq": r"\ne", r"\lt": "<",
    r"\gt": ">", r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac", r"\varnothing": r"\emptyset",
    r"\infin": r"\infty", r"\ast": r"\cdot", r"\lbrace": r"\{", r"\rbrace": r"\}", r"\lbrack": "[", r"\rbrack": "]",
    r"\langle": "(", r"\rangle": ")", r"\colon": ":", r"\dots": r"\ldots", r"\degrees": r"\degree", r"\land": ",",
    r"\minus": "-", r"\vee": " or ", r"\lor": " or ", r"\wedge": ",", r"\percent": "%", r"\euro": "€", r"\pounds": "£",
    r"\lparen": "(", r"\rparen": ")", r"\qquad": " ", r"\quad": " ", r"\lvert": "|", r"\rvert": "|", r"\And": ",",
    r"\leftarrow": r"\gets", r"\cents": " cents ", r"\cent": " cents ",
}  # fmt: skip
_INVISIBLE = r"""\left \right \big \Big \bigg \Bigg \bigl \bigr \Bigl \Bigr \biggl \biggr \displaystyle \textstyle
\limits \rm \bf \it \nonumber \phantom \hspace \vspace \large \Large \Huge \centering \middle \mathstrut \strut"""
_NO_INK = frozenset(_INVISIBLE.split())
_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|textnormal|mathrm|mathbf|mathit|mathsf|mathtt|mbox|hbox|emph|bm"
    r"|boldsymbol|operatorname|operatorname\*|underline|boxed|fbox|framebox|text\s*bf)\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_OPERATOR = re.compile(
    r"\\(?:operatorname\*?|mathrm|text)\s*\{\s*(arctan|arcsin|arccos|sin|cos|tan|cot|sec|csc|log|ln|exp|max|min|gcd)\s*\}"
)
_OVER = re.compile(r"\{([^{}]*)\\over(?![a-z])([^{}]*)\}|^([^{}]*)\\over(?![a-z])([^{}]*)$")
_COLOUR = re.compile(r"\\(?:text)?color\s*\{[^{}]*\}")
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3})((?:(?:\{,\}|,\\!\s*|\\,|~|\\ |\\;|\\:|,\\,|'|\\!)\d{3})+)(?!\d)")
_DEGREE = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degree(?![a-zA-Z])|\{\}\^\\degree")
_FRACTION = re.compile(r"\\frac\s*(?:\{(?P<a>[^{}]*)\}|(?P<b>[0-9a-zA-Z]))\s*(?:\{(?P<c>[^{}]*)\}|(?P<d>[0-9a-zA-Z]))")
_ROOT = re.compile(r"\\sqrt\s*([0-9a-zA-Z])")
_DEPTH = 6
"""Commands for text within one another; more are left as they are."""
COMMA = re.compile(r",(?!(?<=\d,)\d{3}(?!\d))|;")
"""Between values; not within a number."""
EQUALS = re.compile(r"(?<![<>!:=])=+")
_OPEN, _CLOSE = "([{", ")]}"


def normal(text: str) -> str:
    r"""The same text in the one spelling of this module.

    >>> normal("$\\dfrac12$"), normal("10{,}000"), normal("\\textbf{(B)}"), normal("x <= 5")
    ('\\frac{1}{2}', '10000', '(B)', 'x \\le 5')
    """
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+", lambda found: f"^{{{found[0].translate(_SUPERSCRIPTS)}}}", text)
    text = text.translate(_CHARACTERS)
    text = text.replace(r"\$", " DOLLAR ")
    if text.count("$") % 2:
        text = re.sub(r"\$(?=\s*[\d.])", " DOLLAR ", text, count=1)
    text = text.replace("$", " ")
    text = re.sub(r"(?<!\\)\\[()\[\]]", " ", text)
    text = text.replace(r"\%", "%").replace(r"\#", "#").replace(r"\_", "_").replace(r"\&", "&")
    text = _COLOUR.sub("", text)
    text = _THOUSANDS.sub(lambda found: re.sub(r"\D", "", found[0]), text)
    text = re.sub(r"\\!", "", re.sub(r"\{([,:;])\}", r"\1", text))
    text = _OPERATOR.sub(r"\\\1 ", text)
    text = _OVER.sub(lambda found: f"\\frac{{{found[1] or found[3]}}}{{{found[2] or found[4]}}}", text)
    for _ in range(_DEPTH):
        text, count = _TEXT.subn(_unwrapped, text)
        if not count:
            break
    text = re.sub(r"(?<!\\)\\[,;: ]|~", " ", text)
    text = _COMMAND.sub(_command, text)
    text = _DEGREE.sub(" DEGREE ", text)
    text = re.sub(r"<=|=<", r"\\le ", text)
    text = re.sub(r">=", r"\\ge ", text)
    text = re.sub(r"!=|=/=|/=", r"\\ne ", text)
    text = re.sub(r"\\(?:pmod|bmod|mod)\s*(\w+)|\(\s*mod\s*(\w+)\s*\)", r" \\pmod{\1\2}", text)
    text = _ROOT.sub(r"\\sqrt{\1}", text)
    text = _FRACTION.sub(_fraction, text)
    text = re.sub(r"(?<![\w)}\]])\+\s*(?=\\infty)", "", text)
    return _outer(re.sub(r"\s+", " ", text).strip(" \t\r\n`*;,").rstrip(". \\_"))


def split(text: str, at: re.Pattern[str]) -> list[str]:
    """The parts between matches of ``at`` outside every bracket; one part if there is none.

    >>> split("(1,2), 3", re.compile(","))
    ['(1,2)', ' 3']
    """
    depths = list(_depths(text))
    parts, start = [], 0
    for found in at.finditer(text):
        if depths[found.start()] == 0:
            parts.append(text[start : found.start()])
            start = found.end()
    return [*parts, text[start:]]


def closed(text: str) -> bool:
    """Whether the first character is a bracket whose partner is the last character.

    >>> closed("(1)(2)"), closed("((1)(2))")
    (False, True)
    """
    depths = list(_depths(text))
    return len(text) > 1 and text[0] in _OPEN and text[-1] in _CLOSE and depths[-1] == 0 and 0 not in depths[1:-1]


def _depths(text: str) -> Iterator[int]:
    """Number of brackets that are open before (of an opening one) or after (of any other) each character."""
    depth = 0
    environments = 0
    at = 0
    while at < len(text):
        if text.startswith(r"\begin{", at):
            environments += 1
        elif text.startswith(r"\end{", at):
            environments -= 1
        character = text[at]
        if character in _OPEN:
            yield depth + environments
            depth += 1
        elif character in _CLOSE:
            depth = max(0, depth - 1)
            yield depth + environments
        else:
            yield depth + environments
        at += 1


def _unwrapped(found: re.Match[str]) -> str:
    # blanks keep "5\text{cm}" apart; a single sign such as \mathbf{7} needs none
    inside = found[1]
    return f" {inside} " if re.search(r"[A-Za-z]", inside) and len(inside.strip()) > 1 else inside


def _command(found: re.Match[str]) -> str:
    name = found[0]
    if name in _NO_INK:
        return " "
    return _COMMANDS.get(name, name)


def _fraction(found: re.Match[str]) -> str:
    top = found["a"] if found["a"] is not None else found["b"]
    bottom = found["c"] if found["c"] is not None else found["d"]
    return f"\\frac{{{top.strip()}}}{{{bottom.strip()}}}"


def _outer(text: str) -> str:
    """Without braces around the whole, which print nothing."""
    while text.startswith("{") and closed(text):
        text = text[1:-1].strip()
    return text
