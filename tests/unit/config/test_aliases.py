"""Renamed keys: the old ones are understood, with one warning each. Not covered: metrics (observability)."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from rlpost.config.aliases import RENAMED
from rlpost.config.load import flatten, from_dict, load
from rlpost.errors import ConfigError

SMALL = "model: {path: m}\nscoring: {verifier: function}\n"


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_an_old_key_of_a_file_is_understood_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "old.yaml").write_text(f"{SMALL}data:\n  leaks: drop\n")
    loaded = load(tmp_path / "old.yaml")
    assert loaded.config.data.contamination == "drop"
    assert warned(caplog) == [f"{tmp_path}/old.yaml:4: data.leaks is now called data.contamination; rename it"]
    assert loaded.origins["data", "contamination"] == f"{tmp_path}/old.yaml:4"


def test_a_new_key_wins_over_an_old_one_of_the_file_below(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(f"{SMALL}data:\n  leaks: drop\n")
    (tmp_path / "top.yaml").write_text("extends: base.yaml\ndata:\n  contamination: allow\n")
    assert load(tmp_path / "top.yaml").config.data.contamination == "allow"


def test_old_keys_of_overrides_and_mappings(caplog: pytest.LogCaptureFixture) -> None:
    tree = {"model": {"path": "m"}, "scoring": {"verifier": "function"}}
    assert from_dict(tree, ["data.leaks=allow"]).data.contamination == "allow"
    assert from_dict({**tree, "data": {"leaks": "drop"}}).data.contamination == "drop"
    assert warned(caplog) == [
        "override data.leaks=allow: data.leaks is now called data.contamination; rename it",
        "given: data.leaks is now called data.contamination; rename it",
    ]


def test_an_old_key_within_an_override(caplog: pytest.LogCaptureFixture) -> None:
    tree = {"model": {"path": "m"}, "scoring": {"verifier": "function"}}
    assert from_dict(tree, ["data={leaks: allow}"]).data.contamination == "allow"
    assert len(warned(caplog)) == 1


def test_both_names_as_overrides_are_refused() -> None:
    tree = {"model": {"path": "m"}, "scoring": {"verifier": "function"}}
    for given in (["data.leaks=drop", "data.contamination=allow"], ["data.contamination=allow", "data.leaks=drop"]):
        with pytest.raises(ConfigError, match=r"are the same setting; keep data\.contamination"):
            from_dict(tree, given)


def test_both_names_together_are_refused(tmp_path: Path) -> None:
    (tmp_path / "both.yaml").write_text(f"{SMALL}data:\n  leaks: drop\n  contamination: allow\n")
    with pytest.raises(ConfigError, match=r"both\.yaml:4: data\.leaks is the old name of data\.contamination; both"):
        load(tmp_path / "both.yaml")


def test_a_wrong_value_under_an_old_key_is_named_by_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text(f"{SMALL}data:\n  leaks: perhaps\n")
    with pytest.raises(ConfigError, match=r"old\.yaml:4: data\.contamination: "):
        load(tmp_path / "old.yaml")


def test_every_new_name_is_a_key() -> None:
    known = flatten(from_dict({"model": {"path": "m"}, "scoring": {"verifier": "function"}}))
    assert set(RENAMED.values()) <= known.keys()
    assert not set(RENAMED) & known.keys()
