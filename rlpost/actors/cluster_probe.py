"""Whether a running Ray cluster can be joined, asked by a process of its own with a deadline.

Ray retries an address for minutes where something accepts connections and does not answer, writes the reason to
standard error and reports "failed to connect". A process can be given up, and its words can be read.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

from rlpost.errors import InfrastructureError
from rlpost.system.processes import end_with_parent

DEADLINE_S = 60.0
"""Longest wait for an answer; Ray gives up by itself after 20 s where it knows that it is refused."""

_PROGRAM = (
    "import logging, sys, ray\n"
    "try:\n"
    "    ray.init(address=sys.argv[1], logging_level=logging.ERROR, log_to_driver=False, namespace='rlpost')\n"
    "    @ray.remote(num_cpus=0)\n"
    "    class Probe:\n"
    "        def answer(self):\n"
    "            return True\n"
    "    ray.get(Probe.remote().answer.remote())\n"
    "except BaseException as error:\n"
    "    print('REASON', ' '.join(f'{type(error).__name__}: {error}'.split()), file=sys.stderr)\n"
    "    sys.exit(1)\n"
)
_MOST = 400


def prepare_to_join(address: str, deadline_s: float) -> None:
    """Verify that a cluster can be joined, and send the token that is at hand if it asks for one.

    `ray start --head` asks for a token where there is one (Ray 2.60), and drivers do not send it by themselves. One
    that sends a token to a cluster without tokens joins it, and its actors die: it refuses what the cluster asks it. A
    local Ray leaves a token behind, so that one at hand says nothing of the cluster. ``RAY_AUTH_MODE``, if it is set,
    is left as it is.

    Args:
        address: ``auto`` or ``host:port``.
        deadline_s: longest wait in seconds for each attempt.

    Raises:
        InfrastructureError: if it cannot, with the reason and what to do.
    """
    if "RAY_AUTH_MODE" in os.environ or not token_at_hand():
        check_joinable(address, deadline_s)
        return
    try:
        check_joinable(address, deadline_s, mode="token")
    except InfrastructureError:
        if not _joins_without_token(address, deadline_s):
            raise
    else:
        use_token()


def _joins_without_token(address: str, deadline_s: float) -> bool:
    try:
        check_joinable(address, deadline_s)
    except InfrastructureError:
        return False
    return True


def use_token() -> None:
    """Send the token that is at hand from now on."""
    os.environ["RAY_AUTH_MODE"] = "token"
    try:
        from ray._raylet import Config  # pyright: ignore[reportAttributeAccessIssue]
    except ImportError:  # a version that knows no tokens
        return
    Config.initialize("")  # Ray has read the variable when it was imported


def token_at_hand() -> str | None:
    """Where a token is found: the name of a variable, or a file; None if there is none."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        if os.environ.get(name):
            return name
    file = Path.home() / ".ray" / "auth_token"
    return str(file) if file.is_file() and file.stat().st_size else None


def check_joinable(address: str, deadline_s: float, mode: str | None = None) -> None:
    """Join a cluster, start an actor there, and leave it again.

    Args:
        address: ``auto`` or ``host:port``.
        deadline_s: longest wait in seconds.
        mode: ``RAY_AUTH_MODE`` to do so with; None: as it is in this process.

    Raises:
        InfrastructureError: if that fails, with the reason and what to do.
    """
    deadline_s = min(deadline_s, DEADLINE_S)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=deadline_s,
            check=False,
            env=dict(os.environ) if mode is None else {**os.environ, "RAY_AUTH_MODE": mode},
            preexec_fn=partial(end_with_parent),
        )
    except subprocess.TimeoutExpired:
        raise InfrastructureError(
            f"cluster.address: {address!r} accepts connections and does not answer as a Ray cluster within "
            f"{deadline_s:g} s; see `ray status` there, or use address local"
        ) from None
    if done.returncode:
        reason, remedy = explained(done.stderr)
        raise InfrastructureError(f"cluster.address: cannot join {address!r} ({reason}); {remedy}")


def explained(said: str) -> tuple[str, str]:
    """The reason and the remedy in what Ray said.

    >>> explained("REASON ConnectionError: Could not find any running Ray instance.")[0]
    'Could not find any running Ray instance.'
    """
    found = re.search(r"^REASON (?:\w+: )?(.*)$", said, re.M)
    reason = found[1] if found else (said.strip().splitlines() or ["no message"])[-1]
    if "InvalidAuthToken" in said or "AuthenticationError" in said or "authentication token" in said:
        return _about_token()
    if "Version mismatch" in said:
        return reason[:_MOST], "use the same Ray and Python on both sides"
    if "status: 404" in said or "Unimplemented" in said:
        return f"something else answers there: {reason[:_MOST]}", "give the address that `ray start --head` printed"
    return reason[:_MOST], "start one with `ray start --head`, or use address local"


def _about_token() -> tuple[str, str]:
    place, mode = token_at_hand(), os.environ.get("RAY_AUTH_MODE")
    if place is None:
        return (
            "it asks for a token, and there is none here",
            "copy the head's ~/.ray/auth_token to this machine, or set RAY_AUTH_TOKEN to what `ray get-auth-token` "
            "prints there",
        )
    if mode != "token":
        return f"it asks for a token, and RAY_AUTH_MODE is {mode!r}", "unset it, or set it to token"
    return f"it asks for another token than that in {place}", "copy the head's ~/.ray/auth_token to this machine"
