"""Names to objects. Not covered: entry points of installed third-party distributions."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlpost.errors import UserError
from rlpost.registry import BUILTIN, names, resolve


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in BUILTIN.items() for name in table])
def test_every_builtin_name_is_there(kind: str, name: str) -> None:
    assert callable(resolve(kind, name))
    assert name in names(kind)


def test_a_module_and_a_file_of_ones_own(tmp_path: Path) -> None:
    assert resolve("rewards", "math:sqrt")(4) == 2.0
    file = tmp_path / "mine.py"
    file.write_text("def brevity(completions):\n    return [-len(c) for c in completions]\n")
    assert resolve("rewards", f"{file}:brevity")(["abc"]) == [-3]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("outcom", "reward 'outcom' is not known; did you mean outcome?"),
        ("zzzz", "reward 'zzzz' is not known; known: outcome, trl"),
        ("no_such_module_:f", "cannot import no_such_module_"),
        ("./no_such_file.py:f", "no file no_such_file.py"),
        ("math:sqr", "math has no 'sqr'; did you mean sqrt"),
        (":f", "':f'"),
        (".relative:f", "'.relative:f'"),
    ],
)
def test_a_name_nobody_knows_is_the_users_mistake(name: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve("rewards", name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
