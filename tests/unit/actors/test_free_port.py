from __future__ import annotations

import random
import socket

import pytest

from rlpost.actors.workers import free_port
from rlpost.errors import InfrastructureError


def test_a_free_port_is_outside_the_kernels_ephemeral_range() -> None:
    with socket.socket() as taken:
        port = free_port("127.0.0.1")
        assert 20_000 <= port < 32_000
        taken.bind(("127.0.0.1", port))


def test_a_taken_port_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        port = free_port("127.0.0.1")
        taken.bind(("127.0.0.1", port))
        other = free_port("127.0.0.1")
        monkeypatch.setattr(random.SystemRandom, "sample", lambda *_: [port, other])
        assert free_port("127.0.0.1") == other
        monkeypatch.setattr(random.SystemRandom, "sample", lambda *_: [port])
        with pytest.raises(InfrastructureError, match=r"no port .* at 127\.0\.0\.1: .*in use"):
            free_port("127.0.0.1")


def test_an_address_of_another_machine_is_named() -> None:
    # an address from a block reserved for documentation (RFC 5737)
    with pytest.raises(InfrastructureError, match=r"at 192\.0\.2\.1: "):
        free_port("192.0.2.1")
