"""What ``rlpost prove`` has found: a JSON line per theorem, written as it is settled, and the figures of all."""

from __future__ import annotations

import fcntl
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from rlpost.algorithms.intervals import wilson
from rlpost.errors import DataError, UserError, describe_error

ProofOutcome = Literal["proved", "not_proved", "exhausted", "unreadable", "undecided"]
"""``proved``: the verifier accepted ``proof``. ``not_proved``: the budget is used up. ``exhausted``: nothing was left
to expand. ``unreadable``: the statement cannot be read. ``undecided``: a check failed; the next command tries again."""

_START = b'{"id": '
"""How every line begins: a torn last line that begins so is ours to mend."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What all rows of one file have in common; rows of another kind are refused.

    Attributes:
        method: ``sampling`` or ``best_first``.
        seed: ``run.seed``.
        model: fingerprint of the model folder.
        verifier: fingerprint of the verifier.
        settings: hash of everything else a result depends on: budgets, sampling, templates.
    """

    method: str
    seed: int
    model: str
    verifier: str
    settings: str


@dataclass(frozen=True, slots=True)
class ProofRow:
    """The result for one theorem.

    Attributes:
        id: id of the theorem.
        name: its name.
        statement: its statement.
        outcome: see `ProofOutcome`.
        proof: the answer that the verifier accepted; None without one.
        detail: why it was not, for people; empty for a proof.
        attempts: whole proofs that were given to the verifier.
        model_calls: completions that were sampled.
        tokens: tokens that were sampled.
        states: tactics that Lean ran.
        seconds: wall-clock time until the theorem was settled; others were worked on at the same time.
        method: see `Marks`, as the rest.

    >>> ProofRow("t1", "t1", "True", "proved", "trivial", "", 1, 1, 3, 0, 0.5, "sampling", 17, "m", "v", "s").outcome
    'proved'
    """

    id: str
    name: str
    statement: str
    outcome: ProofOutcome
    proof: str | None
    detail: str
    attempts: int
    model_calls: int
    tokens: int
    states: int
    seconds: float
    method: str
    seed: int
    model: str
    verifier: str
    settings: str

    @property
    def marks(self) -> Marks:
        """What the row has in common with those of its file."""
        return Marks(self.method, self.seed, self.model, self.verifier, self.settings)


@contextmanager
def results(
    path: Path, statements: Mapping[str, str], marks: Marks
) -> Iterator[tuple[dict[str, ProofRow], Callable[[ProofRow], None]]]:
    """Open a file of results, new or begun by an earlier command.

    Args:
        path: the file.
        statements: statement of each theorem by id.
        marks: what its rows must have in common.

    Yields:
        The last row of each theorem that is in the file, and a function that appends one and flushes it.

    Raises:
        UserError: if the file holds anything else, or results of another model, setting or set of theorems, or another
            command is writing it. It is left as it is then.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise UserError(f"--output: {path} cannot be written ({describe_error(error)})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"--output: another command is writing {path}; wait for it, or give another file") from None
        file.seek(0)
        data = file.read()
        whole, torn = _split(data, path)
        known = {row.id: row for row in _rows(whole, path)}
        _check(known.values(), statements, marks, path)
        if torn:
            file.truncate(len(whole))
        elif whole and not whole.endswith(b"\n"):
            file.write(b"\n")

        def record(row: ProofRow) -> None:
            # one write of one line: an interrupt falls before or after it
            file.write(json.dumps(asdict(row), ensure_ascii=True).encode() + b"\n")
            file.flush()

        yield known, record


def read(path: Path) -> list[ProofRow]:
    """The last row of each theorem in a file of results.

    Raises:
        DataError: for a file that cannot be read or holds something else.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({describe_error(error)})") from None
    return list({row.id: row for row in _rows(_split(data, path)[0], path)}.values())


def figures(rows: Sequence[ProofRow], fresh: Sequence[ProofRow], seconds: float) -> dict[str, float]:
    """Figures of all theorems.

    Args:
        rows: a row per theorem.
        fresh: those that this command has settled, which the speeds are of.
        seconds: wall-clock time in which it did.

    Returns:
        ``theorems``; the number of each outcome; ``share`` proved of those that are decided and readable, with its 95 %
        Wilson interval ``share_low``, ``share_high`` (left out without any); ``attempts``, ``model_calls``, ``tokens``,
        ``states`` of all rows; ``seconds``, and ``states_per_second`` and ``proofs_per_second`` (theorems proved) of
        this command.
    """
    counts = Counter(row.outcome for row in rows)
    found: dict[str, float] = {"theorems": len(rows), **{name: counts[name] for name in get_args(ProofOutcome)}}
    decided = len(rows) - counts["unreadable"] - counts["undecided"]
    if decided:
        low, high = wilson(counts["proved"], decided)
        found |= {"share": counts["proved"] / decided, "share_low": low, "share_high": high}
    for name in ("attempts", "model_calls", "tokens", "states"):
        found[name] = sum(getattr(row, name) for row in rows)
    found["seconds"] = seconds
    if seconds > 0:
        found["states_per_second"] = sum(row.states for row in fresh) / seconds
        found["proofs_per_second"] = sum(row.outcome == "proved" for row in fresh) / seconds
    return found


def _split(data: bytes, path: Path) -> tuple[bytes, bytes]:
    """The whole lines, and a last line that a kill has torn. A last line that only lacks its end is whole."""
    head, _, last = data.rpartition(b"\n")
    if not last:
        return data, b""
    try:
        json.loads(last)
        return data, b""
    except ValueError:
        if last.startswith(_START) or _START.startswith(last):
            return data[: len(data) - len(last)], last
    raise _foreign(path, len(head.split(b"\n")) + 1 if head else 1, "not valid JSON")


def _rows(data: bytes, path: Path) -> Iterator[ProofRow]:
    names = {field.name for field in fields(ProofRow)}
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            values: Any = json.loads(line)
        except ValueError:
            raise _foreign(path, number, "not valid JSON") from None
        if not isinstance(values, dict) or not names <= values.keys():
            raise _foreign(path, number, "no result of a theorem")
        if values["outcome"] not in get_args(ProofOutcome):
            raise _foreign(path, number, f"outcome {values['outcome']!r}")
        yield ProofRow(**{name: values[name] for name in names})


def _foreign(path: Path, line: int, what: str) -> DataError:
    return DataError(f"{path}:{line}: {what}, so this is no file of rlpost prove; give another --output")


def _check(rows: Iterable[ProofRow], statements: Mapping[str, str], marks: Marks, path: Path) -> None:
    for row in rows:
        for name, value in asdict(marks).items():
            if (held := getattr(row, name)) != value:
                shown = "other budgets, sampling or templates" if name == "settings" else f"{name} {held!r}"
                now = "" if name == "settings" else f", this is {value!r}"
                raise UserError(f"--output: {path} was written with {shown}{now}; give another file")
        if row.id not in statements:
            raise UserError(f"--output: {path} holds theorem {row.id!r}, which the file does not; give another file")
        if row.statement != statements[row.id]:
            raise UserError(
                f"--output: {path} holds theorem {row.id!r} with another statement than the file; give another file"
            )
