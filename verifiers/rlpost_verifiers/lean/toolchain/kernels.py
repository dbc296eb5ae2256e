"""Which versions of Lean have a kernel with known faults, by which a text can prove `False` and rest on no axiom.

From the release notes of Lean (https://lean-lang.org/doc/reference/latest/releases/), mended in

* 4.32.1: an opaque constant with a free variable in its value (issue 14484);
* 4.32.2: unchecked arguments of phantom parameters in nested inductive types (issue 14576), "even when using
  comparator";
* 4.33.0: universe levels that normalise to Prop (pull request 14613), names with ``_nested`` (14616), the safety of
  ``partial`` across modules (14609), and free variables in inductive types (14607, "possible");
* 4.33.1 and 4.34.0: the order of definitional equality checks (14806), projections from what is perhaps a Prop (14807
  and 14843), and overflowing reference counts (14838, with 18 GB of memory).

4.34.1 and 4.35.0 mend further overflows of reference counts (15241, 15288, 15289), which need more memory than a check
is given here by default; these do not count. All of them need a declaration that only a program builds and gives to the
kernel: the filter refuses such programs (`rlpost_verifiers.lean.filter.MACHINERY`), but in a whole file much more can
hide than in a proof. ``leanchecker`` does not help, since it is the same kernel.
"""

from __future__ import annotations

import re

from rlpost_verifiers.lean.messages import LeanOutput

SAFE = "4.34.0"
"""The first version without these faults; 4.33.1 is as good."""

_FAULTS: tuple[tuple[tuple[int, int, int], str], ...] = (
    ((4, 32, 1), "#14484"),
    ((4, 32, 2), "#14576"),
    ((4, 33, 0), "#14607, #14609, #14613, #14616"),
    ((4, 33, 1), "#14806, #14807, #14838"),
)
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(-[\w.+-]*)?")


def kernel_faults(version: str) -> str:
    """The known faults of a version's kernel, as numbers of lean4's issues and pull requests; empty if none is known.

    A release candidate or a nightly build counts as what comes before its release.

    Raises:
        ValueError: for a text that is no version.

    >>> kernel_faults("4.32.1"), kernel_faults("4.33.1"), kernel_faults("4.35.0-rc2")
    ('#14576, #14607, #14609, #14613, #14616, #14806, #14807, #14838', '', '')
    """
    found = _VERSION.fullmatch(version.strip())
    if found is None:
        raise ValueError(f"{version!r} is no version of Lean, such as 4.34.0")
    number = tuple(map(int, found.groups()[:3]))
    early = bool(found[4])
    return ", ".join(faults for mended, faults in _FAULTS if number < mended or (number == mended and early))


def kernel_warning(version: str) -> str:
    """One line about a kernel that is known to be faulty, or whose version is unknown; empty if neither is so.

    >>> kernel_warning("4.9.0")[:60]
    'the kernel of Lean 4.9.0 has known faults that prove False ('
    >>> kernel_warning("4.34.0")
    ''
    """
    try:
        faults = kernel_faults(version)
    except ValueError:
        return (
            f"the version of this Lean is {version!r}, and kernels before {SAFE} have known faults that prove False; "
            "say which it is where the backend has 'lean_version'"
        )
    if not faults:
        return ""
    return (
        f"the kernel of Lean {version} has known faults that prove False (lean4 {faults}); "
        f"use Lean {SAFE} or later for what a model writes"
    )


def find_version(output: LeanOutput) -> str | None:
    """The version that ``#eval Lean.versionString`` printed, or None if it printed none."""
    texts = (message.text.strip().strip('"') for message in output.messages if message.severity == "information")
    return next((text for text in texts if _VERSION.fullmatch(text)), None)
