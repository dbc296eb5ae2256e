"""Joining a cluster: reasons in our words, tokens, addresses where nothing useful answers. Not covered: real clusters
(tests/ray/test_ray_heads.py).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlpost.actors import cluster_probe
from rlpost.actors.cluster import check_reachable
from rlpost.actors.cluster_probe import check_joinable, explained, prepare_to_join, token_at_hand
from rlpost.errors import InfrastructureError

WARNING = "[2026-01-01 W 1 1] gcs_client.cc:210: Failed to get cluster ID from GCS server: "


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def silent() -> Iterator[str]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("said", "reason", "remedy"),
    [
        ("REASON ConnectionError: Could not find any running Ray instance.", "Could not find any", "ray start --head"),
        (
            f"{WARNING}InvalidAuthToken: missing\nREASON ConnectionError: Failed to connect",
            "asks for a token",
            "copy the",
        ),
        ("REASON AuthenticationError: Token authentication is enabled but no", "asks for a token", "RAY_AUTH_TOKEN"),
        ("REASON RuntimeError: Version mismatch: The cluster was started with: Ray: 2.41.0", "2.41.0", "the same Ray"),
        (
            f"{WARNING}Received http2 header with status: 404\nREASON ConnectionError: Failed",
            "something else",
            "address",
        ),
        ("REASON ValueError: Invalid address format: x", "Invalid address format: x", "ray start --head"),
        ("Fatal Python error: Aborted\n", "Fatal Python error: Aborted", "ray start --head"),
        ("", "no message", "ray start --head"),
        ("REASON RuntimeError: " + "x" * 900, "x" * 400, "ray start --head"),
    ],
)
def test_what_ray_says_is_told_in_one_line(home: Path, said: str, reason: str, remedy: str) -> None:
    found, what_to_do = explained(said)
    assert reason in found
    assert remedy in what_to_do
    assert "\n" not in found + what_to_do


def test_a_token_is_looked_for_where_ray_does(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert token_at_hand() is None
    (home / ".ray").mkdir()
    (home / ".ray/auth_token").write_text("")
    assert token_at_hand() is None  # Ray refuses an empty one
    (home / ".ray/auth_token").write_text("abc")
    assert token_at_hand() == str(home / ".ray/auth_token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/elsewhere")
    assert token_at_hand() == "RAY_AUTH_TOKEN_PATH"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "abc")
    assert token_at_hand() == "RAY_AUTH_TOKEN"


@pytest.mark.parametrize(
    ("mode", "token", "asks", "tried", "expected"),
    [
        (None, None, False, [None], None),
        ("disabled", "abc", False, [None], "disabled"),
        ("token", "abc", True, [None], "token"),
        (None, "abc", True, ["token"], "token"),
        # a local Ray leaves a token behind: a cluster without tokens is joined without it
        (None, "abc", False, ["token", None], None),
    ],
)
def test_a_token_is_sent_to_clusters_that_ask_for_it(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str | None,
    token: str | None,
    asks: bool,
    tried: list[str | None],
    expected: str | None,
) -> None:
    """The cluster is a stand-in: actors live where a token is sent exactly if it is asked for."""
    for name, value in (("RAY_AUTH_MODE", mode), ("RAY_AUTH_TOKEN", token)):
        if value is not None:
            monkeypatch.setenv(name, value)
    seen: list[str | None] = []

    def join(address: str, deadline_s: float, mode: str | None = None) -> None:
        seen.append(mode)
        if ((mode or os.environ.get("RAY_AUTH_MODE")) == "token") != asks:
            raise InfrastructureError("refused")

    monkeypatch.setattr(cluster_probe, "check_joinable", join)
    before = os.environ.get("RAY_AUTH_MODE")
    try:
        prepare_to_join("here:1", 1.0)
        assert seen == tried
        assert os.environ.get("RAY_AUTH_MODE") == expected
    finally:
        if before is None:
            os.environ.pop("RAY_AUTH_MODE", None)


def test_a_cluster_that_takes_neither_is_refused_for_the_token(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "abc")

    def join(address: str, deadline_s: float, mode: str | None = None) -> None:
        raise InfrastructureError(f"refused with {mode}")

    monkeypatch.setattr(cluster_probe, "check_joinable", join)
    with pytest.raises(InfrastructureError, match="refused with token"):
        prepare_to_join("here:1", 1.0)
    assert "RAY_AUTH_MODE" not in os.environ


def test_a_token_that_is_not_the_clusters_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "abc")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert explained("InvalidAuthToken")[0] == "it asks for another token than that in RAY_AUTH_TOKEN"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert explained("InvalidAuthToken")[1] == "unset it, or set it to token"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "no-such-host.invalid:6379"])
def test_a_dead_address_is_told_at_once(address: str) -> None:
    begun = time.monotonic()
    with pytest.raises(InfrastructureError, match=f"nobody answers at '{address}'"):
        check_reachable(address)
    assert time.monotonic() - begun < 6


def test_a_port_that_does_not_answer_is_given_up_at_the_deadline(silent: str) -> None:
    check_reachable(silent)
    begun = time.monotonic()
    with pytest.raises(InfrastructureError, match=r"does not answer as a Ray cluster within 2 s; see"):
        check_joinable(silent, 2.0)
    assert time.monotonic() - begun < 10
    assert cluster_probe.DEADLINE_S == 60
