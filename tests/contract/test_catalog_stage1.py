"""Stage 1 with the real embedder and the real OpenAI client: `rlpost demonstrate` from a file, and from a server.

The server is a small one of the test's own. Not covered: the answers of a good teacher.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from rlpost.cli import main
from rlpost.errors import MissingPackageError, ModelError, UserError
from rlpost_verifiers.catalog import demonstrated
from rlpost_verifiers.catalog.conversations import rows
from rlpost_verifiers.catalog.demonstrations import Remapper
from rlpost_verifiers.catalog.embedding import Embedder

pytest.importorskip("sentence_transformers")


class Teacher(BaseHTTPRequestHandler):
    """Answers in OpenAI's protocol; every third request fails once."""

    calls = 0

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["content-length"])))["messages"][0]["content"]
        type(self).calls += 1
        if type(self).calls % 3 == 0:
            self.send_response(503)
            self.end_headers()
            return
        lines = (
            "1: 2\n2: -2" if "How well" in question else "The Matrix (1999)\nBlade Runner (1982)\nNo Such Film (2001)"
        )
        body = json.dumps(
            {
                "id": "1", "object": "chat.completion", "created": 0, "model": "m",
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": lines}}],
            }
        ).encode()  # fmt: skip
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Teacher.calls = 0
    running = ThreadingHTTPServer(("127.0.0.1", 0), Teacher)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}/v1"
    running.shutdown()
    thread.join()
    running.server_close()


def write(file: Path, values: list[dict]) -> str:
    file.write_text("".join(json.dumps(value) + "\n" for value in values))
    return str(file)


def read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_vectors_are_of_length_one_and_like_texts_are_near() -> None:
    embedder = Embedder()
    found = embedder(["a horror film in space", "a scary movie aboard a spaceship", "a cookery book", "a cookery book"])
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert found[0] @ found[1] > found[0] @ found[2] + 0.3
    assert (found[2] == found[3]).all()
    assert embedder([]).shape == (0, found.shape[1])


def test_models_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no folder"):
        Embedder(str(tmp_path / "absent"))
    with pytest.raises(ModelError, match="no sentence-transformers model"):
        Embedder(str(tmp_path))
    with pytest.raises(MissingPackageError, match="package no_such_weights is absent"):
        Embedder("package:no_such_weights")


@pytest.mark.long
def test_lists_of_a_noisy_teacher_are_moved_to_what_users_want(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = rows(count=150, seed=4, items=1000, places=20, teacher_noise=1.5)
    # a teacher that invents titles: every second one is in no catalog
    lists = [
        {"id": row["id"], "items": [f"Unknown {i} (2000)" if i % 2 else name for i, name in enumerate(row["completion"].split("\n"))]}
        for row in made
    ]  # fmt: skip
    conversations, given = write(tmp_path / "c.jsonl", made), write(tmp_path / "l.jsonl", lists)
    out = tmp_path / "demonstrations.jsonl"
    assert main(["demonstrate", conversations, "--lists", given, "--output", str(out), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    found = read(out)
    assert len(found) == 150
    for row, one in zip(made, found, strict=True):
        places = one["completion"].split("\n")
        assert len(set(places)) == 20
        assert not set(places) & set(row["seen_titles"])
    assert figures["remap recall@20"] > 0
    assert figures["nll_after"] < figures["nll_before"]


def test_answers_of_the_server_are_kept_and_failed_requests_repeated(
    tmp_path: Path, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    conversations = write(tmp_path / "c.jsonl", rows(count=6, seed=4, items=100))
    command = ["demonstrate", conversations, "--endpoint", server, "--teacher", "m", "--rate", "--set", "size=5"]
    out = tmp_path / "d.jsonl"
    assert main([*command, "--set", "rated=4", "--output", str(out), "--json"]) == 0
    assert "reflect recall@5" in json.loads(capsys.readouterr().out)
    assert {len(row["completion"].split("\n")) for row in read(out)} == {5}
    answered = Teacher.calls
    assert len(read(Path(f"{out}.answers"))) == 12
    assert answered > 12, "some requests failed and were repeated"
    assert main([*command, "--set", "rated=4", "--output", str(out), "--json"]) == 0
    assert Teacher.calls == answered, "answers are kept"


def test_an_unreachable_server_is_a_one_line_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conversations = write(tmp_path / "c.jsonl", rows(count=2, seed=4, items=100))
    out = tmp_path / "d.jsonl"
    arguments = ["--endpoint", "http://127.0.0.1:9/v1", "--teacher", "m", "--output", str(out)]
    assert main(["demonstrate", conversations, *arguments]) == 1
    assert "teacher: m at http://127.0.0.1:9/v1 does not answer" in capsys.readouterr().err
    assert not out.exists()


GENERATED = {
    "count": 120, "seed": 1, "items": 60, "places": 5, "candour": 1.0, "wanted": (3, 6), "teacher_noise": 0.5,
    "teacher_bias": 1.5,
}  # fmt: skip


def test_a_teacher_asked_for_more_makes_better_demonstrations() -> None:
    short, long = demonstrated.rows(**GENERATED), demonstrated.rows(**GENERATED, asked=30, ending="\n")
    assert [row["prompt"] for row in short] == [row["prompt"] for row in long]
    assert all(len(row["completion"].split("\n")) == 5 for row in short)
    assert all(row["completion"].endswith("\n") and len(row["completion"].splitlines()) == 5 for row in long)

    def recall(made: list[dict]) -> float:
        wanted = [{f"{title} ({year})" for title, year in row["groundtruth_with_release_year"]} for row in made]
        lists = [row["completion"].splitlines() for row in made]
        return float(np.mean([len(set(one) & those) / len(those) for one, those in zip(lists, wanted, strict=True)]))

    teacher = recall(rows(**GENERATED))
    assert teacher < recall(short) < recall(long)
    assert all(not set(row["seen_titles"]) & set(row["completion"].splitlines()) for row in long)


@pytest.mark.parametrize("asked", [0, -1, 4])
def test_a_teacher_asked_for_fewer_than_are_shown_is_refused(asked: int) -> None:
    with pytest.raises(UserError, match=f"asked is {asked}; give places, 5, or more"):
        demonstrated.rows(**GENERATED, asked=asked)


def test_lists_of_names_are_read_as_the_lists_of_models_are(monkeypatch: pytest.MonkeyPatch) -> None:
    named = demonstrated.rows(**GENERATED, asked=30)
    monkeypatch.setattr(demonstrated, "_Named", Remapper)
    assert demonstrated.rows(**GENERATED, asked=30) == named
