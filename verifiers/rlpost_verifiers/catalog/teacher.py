"""Recommendation lists of a stronger model (teacher): from a file, or from a server that speaks OpenAI's protocol.

Each answer is appended to a file under a hash of teacher and question as it arrives, so that a stopped command resumes
where it was and pays for no answer twice. A question that gets no answer is left out and counted; it never becomes an
empty list.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from rlpost.data.jsonl import read_jsonl
from rlpost.errors import DataError, InfrastructureError, MissingPackageError, describe_error

Ask = Callable[[str], str]
"""Maps a question to its answer; raises InfrastructureError if there is none."""

LIST_QUESTION = """Somebody is looking for films. This is what was said:

{conversation}

Recommend {size} films that suit, best first, none of which was mentioned. One a line, as Title (Year), nothing else."""

RATING_QUESTION = """Somebody is looking for films. This is what was said:

{conversation}

How well does each of these films suit? Give -2 (not at all), -1, 0, 1 or 2 (perfectly). Answer with one line for each,
as number: rating, nothing else.

{items}"""

_RATING = re.compile(r"^\s*(\d+)\s*[:.)-]\s*([+-]?[0-2])\s*$", re.MULTILINE)


def conversation_of(row: Mapping[str, Any]) -> str:
    """The conversation in a row's ``prompt`` (text or chat messages) as one text."""
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{turn.get('role', 'user')}: {turn.get('content', '')}" for turn in prompt or ())


def read_lists(path: str) -> dict[str, str]:
    """Lists by conversation id, from JSON lines with ``id`` and ``text``, ``completion`` or ``items``.

    Raises:
        DataError: for a line without these keys.
    """
    found: dict[str, str] = {}
    for number, row in enumerate(read_jsonl(path)):
        text = next((row[key] for key in ("text", "completion") if row.get(key) is not None), None)
        if text is None and isinstance(row.get("items"), list):
            text = "\n".join(map(str, row["items"]))
        if "id" not in row or not isinstance(text, str):
            raise DataError(f"{path}, row {number}: no list; write {{'id': …, 'text': 'Title (Year)\\n…'}}")
        found[str(row["id"])] = text
    return found


def list_questions(rows: Mapping[str, Mapping[str, Any]], size: int) -> dict[str, str]:
    """The question that asks the teacher for a list of ``size`` items, for each conversation."""
    return {key: LIST_QUESTION.format(conversation=conversation_of(row), size=size) for key, row in rows.items()}


def rating_question(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """The question that asks the teacher to rate candidates for a conversation."""
    items = "\n".join(f"{place}. {name}" for place, name in enumerate(names, 1))
    return RATING_QUESTION.format(conversation=conversation_of(row), items=items)


def parse_ratings(answer: str, count: int) -> dict[int, float]:
    r"""Ratings by the candidate's position (0-based); other lines and positions out of range are ignored.

    >>> parse_ratings("1: 2\n2: -1\n3: 7\n9: 1\nwell", 3)
    {0: 2.0, 1: -1.0}
    """
    found = {int(place) - 1: float(value) for place, value in _RATING.findall(answer)}
    return {place: value for place, value in found.items() if 0 <= place < count}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server that speaks OpenAI's chat protocol (vLLM, llama.cpp, a provider).

    The API key is read from ``OPENAI_API_KEY`` if it is set.

    Attributes:
        url: base URL, such as ``http://localhost:8000/v1``.
        model: name of the model on the server.
        temperature: sampling temperature; 0 is greedy.
        max_tokens: limit on the tokens of one answer.
        timeout_s: deadline of one request, in seconds.
        retries: how often a request is repeated after a transient failure, with growing pauses.
    """

    url: str
    model: str
    temperature: float = 0.0
    max_tokens: int = 1024
    timeout_s: float = 120.0
    retries: int = 3

    def asker(self) -> Ask:
        """A function that sends one question to the server and returns its answer.

        Raises:
            MissingPackageError: without the package openai.
        """
        try:
            import openai
        except ImportError as error:
            raise MissingPackageError(f"teacher: needs openai ({error}); pip install 'rlpost[remap]'") from error
        client = openai.OpenAI(
            base_url=self.url,
            api_key=os.environ.get("OPENAI_API_KEY", "none"),
            timeout=self.timeout_s,
            max_retries=self.retries,
        )

        def ask(question: str) -> str:
            try:
                answer = client.chat.completions.create(
                    model=self.model,
                    messages=[{"role": "user", "content": question}],
                    temperature=self.temperature,
                    max_tokens=self.max_tokens,
                )
            except openai.OpenAIError as error:
                raise InfrastructureError(
                    f"teacher: {self.model} at {self.url} does not answer ({describe_error(error)})"
                ) from error
            text = answer.choices[0].message.content if answer.choices else None
            if not text:
                raise InfrastructureError(f"teacher: {self.model} at {self.url} answered with nothing")
            return text

        return ask


class Answers:
    """Answers to questions, cached in a file.

    Args:
        ask: sends one question and returns its answer.
        teacher: name of the teacher, part of every answer's key.
        path: JSON-lines file of answers, read at the start and appended to.
        workers: number of questions in flight.
    """

    def __init__(self, ask: Ask, teacher: str, path: Path, workers: int = 8):
        self._ask, self._teacher, self._path, self._workers = ask, teacher, path, workers
        self._lock = Lock()
        self._known: dict[str, str] = {}
        if path.is_file():
            self._known = {row["key"]: row["answer"] for row in read_jsonl(str(path))}

    def __call__(self, questions: Mapping[str, str]) -> dict[str, str]:
        """Answers by the questions' names; questions without an answer are missing.

        Raises:
            InfrastructureError: if no question got an answer.
        """
        failures: list[InfrastructureError] = []

        def one(name: str) -> tuple[str, str | None]:
            try:
                return name, self._answer(questions[name])
            except InfrastructureError as error:
                failures.append(error)
                return name, None

        with ThreadPoolExecutor(self._workers) as pool:
            found = {name: answer for name, answer in pool.map(one, questions) if answer is not None}
        if questions and not found:
            raise failures[0]
        return found

    def _answer(self, question: str) -> str:
        key = hashlib.sha256(f"{self._teacher}\n{question}".encode()).hexdigest()[:24]
        if key not in self._known:
            answer = self._ask(question)
            with self._lock, self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "answer": answer}, ensure_ascii=False) + "\n")
                self._known[key] = answer
        return self._known[key]


def by_id(rows: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Rows by their ``id``, or by their row number where they have none.

    Raises:
        DataError: if an id occurs twice.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for number, row in enumerate(rows):
        name = str(row.get("id", number))
        if name in found:
            raise DataError(f"row {number}: id {name!r} is given twice; make ids unique")
        found[name] = row
    return found
