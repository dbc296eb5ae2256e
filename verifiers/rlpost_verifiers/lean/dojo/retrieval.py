"""Premises from LeanDojo's corpus that may help to prove a statement, as a column for prompts.

Only what is accessible where the theorem stands is offered, as in Yang et al., "LeanDojo: Theorem Proving with
Retrieval-Augmented Language Models", NeurIPS 2023, section 4: premises of the files that its file imports, directly or
not, and those that end before it in its own file. So neither the theorem itself nor anything that rests on it is.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rlpost.errors import DataError, MissingPackageError, UserError
from rlpost_verifiers.lean.dojo.benchmark import CorpusFile, Premise, read_corpus
from rlpost_verifiers.lean.dojo.words import lean_words
from rlpost_verifiers.lean.shown import imported_modules

_log = logging.getLogger(__name__)

_PACKAGE = re.compile(r"^(?:\.lake/packages|lake-packages)/[^/]+/(?:src/lean/)?")
_DECLARED = re.compile(
    r"\b(?:theorem|lemma|def|abbrev|instance|structure|class|inductive|opaque|axiom)\s+([^\s:({\[⦃]+)"
)
_LOOSE = re.compile(r"[\s()]+")

Scores = Callable[[str], np.ndarray]
"""From the text of a query to a score of each premise ``[n]``, higher for better."""


def module_name(path: str) -> str:
    """The module that a file of a repository or of one of its packages is.

    >>> module_name(".lake/packages/std/Std/Data/List.lean"), module_name("Logic/Basic.lean")
    ('Std.Data.List', 'Logic.Basic')
    """
    return _PACKAGE.sub("", path).removesuffix(".lean").replace("/", ".")


class Corpus:
    """Premises and which of them are accessible where.

    Args:
        files: the files of a corpus; each stands after those that it imports, as LeanDojo writes them, or not.
        where: name of the corpus in messages.

    Raises:
        DataError: for a file that is there twice, an import that is not there, or files that import each other.
    """

    def __init__(self, files: Sequence[CorpusFile], where: str):
        self.where = where
        self.paths = {file.path: number for number, file in enumerate(files)}
        if len(self.paths) < len(files):
            raise DataError(f"{where}: a file stands there twice; give a LeanDojo corpus.jsonl")
        self._imports = [[self._number(name, file.path) for name in file.imports] for file in files]
        self._modules = {module_name(file.path): number for number, file in enumerate(files)}
        self.premises: list[Premise] = [premise for file in files for premise in file.premises]
        if not self.premises:
            raise DataError(f"{where}: holds no named premises; give a LeanDojo corpus.jsonl")
        self._file = np.repeat(np.arange(len(files)), [len(file.premises) for file in files])
        self._ends = np.array([premise.end for premise in self.premises])
        self._by_name: dict[str, list[int]] = {}
        self._by_signature: dict[str, list[int]] = {}
        for number, premise in enumerate(self.premises):
            self._by_name.setdefault(premise.full_name, []).append(number)
            if signature := _signature(premise.code):
                self._by_signature.setdefault(signature, []).append(number)
        self._reached: dict[int, np.ndarray] = {}
        self._most = len(files) + sum(map(len, self._imports))

    def _number(self, name: str, importer: str) -> int:
        if name not in self.paths:
            raise DataError(f"{self.where}: {importer} imports {name}, which is not there; give the whole corpus.jsonl")
        return self.paths[name]

    def _imported(self, number: int) -> np.ndarray:
        """Files that a file imports, directly or not ``[files]`` bool, without itself."""
        stack = [number]
        while stack:
            top = stack[-1]
            missing = [each for each in self._imports[top] if each not in self._reached]
            if top in self._reached or not missing:
                stack.pop()
                found = np.zeros(len(self.paths), bool)
                for each in self._imports[top]:
                    found |= self._reached[each]
                    found[each] = True
                self._reached[top] = found
            elif len(stack) > self._most:
                raise DataError(
                    f"{self.where}: files import each other, such as {self.premises[0].path}; trace it again"
                )
            else:
                stack += missing
        return self._reached[number]

    def accessible(self, row: Mapping[str, Any]) -> np.ndarray:
        """Which premises a row's theorem may use ``[n]`` bool.

        A row with ``file_path`` and ``start`` is a place in the corpus. Any other may use what its file's imports
        reach (column ``code``), or everything if that names none, except premises with its name or its statement.

        Raises:
            DataError: for a file, or for imports, that are not in the corpus.
        """
        path, start = row.get("file_path"), row.get("start")
        if isinstance(path, str) and isinstance(start, Sequence):
            if path not in self.paths:
                raise DataError(f"{self.where} does not hold {path}; give the corpus of the same benchmark")
            number = self.paths[path]
            before = (self._ends[:, 0] < start[0]) | ((self._ends[:, 0] == start[0]) & (self._ends[:, 1] <= start[1]))
            found = self._imported(number)[self._file] | ((self._file == number) & before)
        else:
            found = self._of_modules(imported_modules(str(row.get("code", ""))))
        for name in ("full_name", "theorem", "name"):
            found[self._by_name.get(str(row.get(name)), [])] = False
        stated = _LOOSE.sub("", f"{row.get('binders', '')}:{row.get('statement', '')}")
        found[self._by_signature.get(stated, [])] = False
        return found

    def _of_modules(self, modules: Sequence[str]) -> np.ndarray:
        if not modules:
            return np.ones(len(self.premises), bool)
        files = np.zeros(len(self.paths), bool)
        for module in modules:
            # The umbrella file of a library is not always traced.
            named = [self._modules[module]] if module in self._modules else []
            for number in named or [n for name, n in self._modules.items() if name.startswith(f"{module}.")]:
                files |= self._imported(number)
                files[number] = True
        if not files.any():
            raise DataError(
                f"{self.where} holds none of the modules {', '.join(modules)}; give the corpus of that library"
            )
        return files[self._file]


def add_premises(rows: Sequence[Mapping[str, Any]], corpus: str, k: int = 10, by: str = "bm25") -> list[dict[str, Any]]:
    """The rows with the columns ``premises``, the best ones as text under full names, and ``premise_names``, a list.

    The query is the statement with its binders, and the goal if there is one (``prompt`` of LeanDojo's rows). Only
    premises that share something with it are offered; equal scores keep the corpus's order.

    Args:
        rows: rows of ``lean_statements`` or ``lean_dojo_theorems``.
        corpus: path of a ``corpus.jsonl``.
        k: largest number of premises of a row.
        by: ``bm25`` (Robertson and Zaragoza 2009, as Lucene computes it; words as in
            `rlpost_verifiers.lean.dojo.words`), or a sentence-transformers model: a folder or ``package:NAME``.

    Raises:
        UserError: for a ``k`` below 1.
        DataError: for a corpus that cannot be read or does not hold a row's file, or rows that have such columns.
        MissingPackageError: if bm25s or sentence-transformers is not installed.
    """
    if isinstance(k, bool) or k < 1:
        raise UserError(f"retrieve: k is {k}; give 1 or more premises")
    known = Corpus(read_corpus(corpus), corpus)
    scores = _bm25(known.premises) if by == "bm25" else _embedded(known.premises, by)
    result: list[dict[str, Any]] = []
    for row in rows:
        if "premises" in row:
            raise DataError(f"row {row.get('id')!r} has a column 'premises' already; rename it, or leave retrieve out")
        best = [known.premises[number] for number in _best(scores(_query(row)), known.accessible(row), k)]
        text = "\n\n".join(show_premise(premise) for premise in best)
        result.append({**row, "premises": text, "premise_names": [premise.full_name for premise in best]})
    if without := sum(not row["premises"] for row in result):
        _log.warning("retrieve: no premise of %s fits %d of %d rows", corpus, without, len(result))
    return result


def show_premise(premise: Premise) -> str:
    """The code of a premise under its full name.

    >>> show_premise(Premise("Nat.two", "def two := 2", "A.lean", (1, 1), (1, 13), "commanddeclaration"))
    'def Nat.two := 2'
    """
    found = _DECLARED.search(premise.code)
    name = found[1].removeprefix("_root_.") if found else ""
    if found is None or premise.full_name == found[1] or not premise.full_name.endswith(name):
        return premise.code
    return f"{premise.code[: found.start(1)]}{premise.full_name}{premise.code[found.end(1) :]}"


def _query(row: Mapping[str, Any]) -> str:
    stated = f"{row.get('binders', '')} {row.get('statement', '')}"
    return f"{stated} {row.get('prompt', '')}" if "tactics" in row else stated


def _best(scores: np.ndarray, accessible: np.ndarray, k: int) -> list[int]:
    """Places of the ``k`` best accessible premises with a score above 0, best first, equal ones in order."""
    places = np.flatnonzero(accessible & (scores > 0))
    if len(places) > k:
        least = np.partition(scores[places], len(places) - k)[len(places) - k]
        places = places[scores[places] >= least]
    return [int(place) for place in places[np.argsort(-scores[places], kind="stable")][:k]]


def _bm25(premises: Sequence[Premise]) -> Scores:
    try:
        import bm25s
    except ImportError as error:
        raise MissingPackageError(f"retrieve: needs bm25s ({error}); pip install 'rlpost[retrieval]'") from error
    index = bm25s.BM25(method="lucene")
    index.index([lean_words(f"{premise.full_name} {premise.code}") for premise in premises], show_progress=False)
    known = index.vocab_dict

    def scores(query: str) -> np.ndarray:
        words = [word for word in dict.fromkeys(lean_words(query)) if word in known]
        return index.get_scores(words) if words else np.zeros(len(premises), np.float32)

    return scores


def _embedded(premises: Sequence[Premise], model: str) -> Scores:
    from rlpost_verifiers.catalog.embedding import Embedder

    embed = Embedder(model)
    vectors = embed([show_premise(premise) for premise in premises])
    return lambda query: vectors @ embed([query])[0]


def _signature(code: str) -> str:
    """Binders and statement of a theorem's code, for comparison; empty for other premises."""
    found = _DECLARED.search(code)
    if found is None or not code[found.start() :].startswith(("theorem", "lemma")):
        return ""
    return _LOOSE.sub("", code[found.end(1) :].partition(":=")[0])
