"""Files, overrides, recipes and messages of the configuration. Not covered: rules across sections (test_checks.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from rlpost.config.load import dump, flatten, from_dict, load, origin_of
from rlpost.config.recipes import RECIPES
from rlpost.config.schema import RunConfig, Section
from rlpost.errors import ConfigError

ROOT = Path(__file__).parents[3]
HEAD = "model: {path: m}\nscoring: {verifier: function}\n"
GOOD: dict[str, Any] = {"model": {"path": "m"}, "scoring": {"verifier": "function"}}


def test_dates_are_text_so_that_a_run_may_be_named_by_one(tmp_path: Path) -> None:
    assert load(written(tmp_path, "run: {name: 2024-13-45}\n")).config.run.name == "2024-13-45"


def written(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(HEAD + text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(written(folder, text), overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("run:\n  seeds: 3\n", 4, "unknown key 'run.seeds'; did you mean run.seed?"),
        ("learnr: {}\n", 3, "unknown key 'learnr'; did you mean learner?"),
        ("algorithm:\n  kl:\n    coeff: 0.1\n", 5, "unknown key 'algorithm.kl.coeff'; did you mean algorithm.kl.coef?"),
        ("sft:\n  epoch: 1\n", 4, "unknown key 'sft.epoch'; did you mean sft.epochs?"),
        ("sync:\n  zzz: 1\n", 4, "unknown key 'sync.zzz'; known here: kind, diff_density, timeout_s"),
    ],
)
def test_an_unknown_key_is_refused_with_its_place_and_the_nearest_key(
    tmp_path: Path, text: str, line: int, expected: str
) -> None:
    assert refusal(tmp_path, text) == f"{tmp_path / 'run.yaml'}:{line}: {expected}"


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, "run:\n  seed: 1\n  steps: 2\n  seed: 3\n")
    assert message == f"{tmp_path / 'run.yaml'}:6: key 'run.seed' is given twice; keep one"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("run: {steps: many}", ["run.yaml:3: run.steps", "'many'", "a whole number of at least 0", "rollout batches"]),
        ("run: {steps: -1}", ["run.steps", "-1", "of at least 0"]),
        ("run: {name: a/b}", ["run.name", "'a/b'", "letters, digits"]),
        ("optimizer: {lr: .nan}", ["optimizer.lr", "nan"]),
        ("optimizer: {lr: .inf}", ["optimizer.lr", "inf"]),
        ("optimizer: {betas: [.nan, 0.9]}", ["optimizer.betas: expected a list of 2 values", "NaN"]),
        ("model: {dtype: float16}", ["model", "given twice"]),
        ("tuning: {method: half}", ["tuning.method", "'half'", "'full'"]),
        ("algorithm: {clip: [0.2]}", ["algorithm.clip"]),
        ("algorithm: {recipe: ppo}", ["algorithm.recipe", "'ppo'", "grpo"]),
        ("run: 3", ["run.yaml:3: run:", "keys with values", "3"]),
        ("run: {seed: x, steps: y}", ["(and 1 more)"]),
    ],
)
def test_a_wrong_value_is_named_with_place_and_meaning(tmp_path: Path, text: str, names: list[str]) -> None:
    message = refusal(tmp_path, text + "\n")
    for name in names:
        assert name in message


def test_a_union_is_refused_under_its_own_name(tmp_path: Path) -> None:
    """The branches that pydantic tried (``data.train.str``) are no keys of the schema."""
    message = refusal(tmp_path, "data: {train: 3}\n")
    assert "data.train:" in message
    assert "data.train.str" not in message


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("run: {name: !mine x}\n", id="an unknown tag"),
        pytest.param("algorithm: {recipe: [grpo]}\n", id="a list for a name"),
        pytest.param("data: {train: &a {x: *a}}\n", id="an alias to itself"),
        pytest.param("run: {name: [}\n", id="broken syntax"),
        pytest.param("run: {name: \x01}\n", id="a control character"),
    ],
)
def test_whatever_a_file_holds_is_answered_in_one_line(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path, text).startswith(f"{tmp_path / 'run.yaml'}")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("run.seed", "write it as section.key=value"),
        ("=3", "write it as section.key=value"),
        ("run.seed=[", "not valid YAML"),
        ("model.path.x=1", "'path' is a value, not a section"),
        ("run.sed=3", "did you mean run.seed?"),
        ("run.seed=abc", "override run.seed=abc: run.seed"),
    ],
)
def test_a_bad_override_is_named(tmp_path: Path, override: str, expected: str) -> None:
    assert expected in refusal(tmp_path, "", override)


def test_overrides_win_over_the_file_and_are_read_as_yaml(tmp_path: Path) -> None:
    path = written(tmp_path, "run: {seed: 1}\nrollout: {stop: [a]}\n")
    config = load(path, ["run.seed=2", "rollout.stop=[b, c]", "sft.epochs=2", "model.path=null"]).config
    assert (config.run.seed, config.rollout.stop, config.model.path) == (2, ("b", "c"), None)
    assert config.sft is not None
    assert config.sft.epochs == 2


@pytest.mark.parametrize("number", ["1e-1", "1E-1", "1.0e-1", "0.1"])
def test_a_number_is_a_number_also_where_the_schema_does_not_know_the_type(tmp_path: Path, number: str) -> None:
    """YAML 1.1 reads ``1e-1`` as text; fields of the schema convert it, arguments of plug-ins do not."""
    path = tmp_path / "run.yaml"
    path.write_text(
        f"model: {{path: m}}\nscoring: {{verifier: function, rewards: [{{name: outcome, weight: {number}}}]}}\n"
    )
    assert load(path).config.scoring.rewards[0].arguments == {"weight": 0.1}


def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "latin.yaml").write_bytes(b"run: {name: \xe9}\n")
    for name, expected in [
        ("absent.yaml", "no such file"),
        ("list.yaml", "mapping of sections"),
        ("latin.yaml", "UTF-8"),
        (".", "cannot be read"),
    ]:
        with pytest.raises(ConfigError, match=expected):
            load(tmp_path / name)


def test_an_empty_file_is_the_defaults_and_lacks_a_policy(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"model\.path: missing"):
        load(tmp_path / "empty.yaml")


def test_python_values_are_validated_like_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^run\.seed: .*got 'x'"):
        from_dict({**GOOD, "run": {"seed": "x"}})
    assert from_dict({**GOOD, "rollout": {"stop": ("a", "b")}}).rollout.stop == ("a", "b")
    assert from_dict(GOOD, ["run.seed=5"]).run.seed == 5


def test_a_path_object_is_taken_as_text(tmp_path: Path) -> None:
    assert from_dict({**GOOD, "run": {"output_dir": tmp_path}}).run.output_dir == str(tmp_path)


def test_from_dict_leaves_its_argument_alone() -> None:
    tree = {**GOOD, "algorithm": {"recipe": "grpo"}}
    from_dict(tree, ["algorithm.std=false"])
    assert tree == {**GOOD, "algorithm": {"recipe": "grpo"}}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_fills_in_what_is_not_given(name: str) -> None:
    algorithm = from_dict({**GOOD, "algorithm": {"recipe": name}}).algorithm.model_dump(mode="json")
    for key, value in RECIPES[name].items():
        assert algorithm[key] == ({**algorithm[key], **value} if isinstance(value, dict) else value)


def test_a_given_value_overrides_the_recipe_also_inside_kl() -> None:
    given = {"recipe": "grpo", "aggregate": "token", "kl": {"coef": 0.1}}
    algorithm = from_dict({**GOOD, "algorithm": given}).algorithm
    assert (algorithm.aggregate, algorithm.kl.coef, algorithm.kl.kind) == ("token", 0.1, "k3")
    kind = from_dict({**GOOD, "algorithm": {"recipe": "grpo", "kl": {"kind": "k2"}}}).algorithm.kl
    assert (kind.coef, kind.kind) == (0.04, "k2")


def test_an_override_wins_over_the_recipe_and_may_name_it() -> None:
    algorithm = from_dict({**GOOD, "algorithm": {"std": True}}, ["algorithm.recipe=dr_grpo"]).algorithm
    assert (algorithm.std, algorithm.aggregate) == (True, "constant")


def test_filter_off_in_a_file_is_the_word_and_not_a_boolean(tmp_path: Path) -> None:
    """YAML 1.1 reads a bare ``off`` as false; the schema's own default value must be writable."""
    assert load(written(tmp_path, "algorithm: {filter: off}\n")).config.algorithm.filter == "off"
    assert load(written(tmp_path, "algorithm: {importance: {mode: off}}\n")).config.algorithm.importance.mode == "off"
    assert load(written(tmp_path, ""), ["algorithm.filter=off"]).config.algorithm.filter == "off"


def test_origins_say_where_each_leaf_came_from(tmp_path: Path) -> None:
    path = written(tmp_path, "run:\n  seed: 3\nalgorithm:\n  recipe: grpo\n  kl: {coef: 0.1}\n")
    origins = load(path, ["run.steps=7"]).origins
    assert origin_of(origins, ("run", "seed")) == f"{path}:4"
    assert origin_of(origins, ("run", "steps")) == "override run.steps=7"
    assert origin_of(origins, ("algorithm", "aggregate")) == "recipe grpo"
    assert origin_of(origins, ("algorithm", "kl", "coef")) == f"{path}:7"
    assert origin_of(origins, ("algorithm", "kl", "kind")) == "recipe grpo"
    assert origin_of(origins, ("optimizer", "lr")) == "default"


def test_a_broken_rule_names_the_line_of_its_value(tmp_path: Path) -> None:
    assert refusal(tmp_path, "rollout:\n  group_size: 1\n").startswith(
        f"{tmp_path / 'run.yaml'}:4: rollout.group_size: 1"
    )


@pytest.mark.parametrize("recipe", [*sorted(RECIPES), "none"])
def test_dump_and_load_give_an_equal_configuration(tmp_path: Path, recipe: str) -> None:
    config = from_dict(
        {
            **GOOD,
            "algorithm": {"recipe": recipe, "std_eps": 1e-16},
            "data": {"train": {"a": [1, {"b": None}]}, "eval": "e", "template": "{x} :=\n  ∀ 'q' \"z\" # no comment"},
            "scoring": {"verifier": "function", "rewards": [{"name": "outcome", "weight": 0.5, "more": [1, 2]}]},
            "rollout": {"stop": ["\n\n", "yes", "1e3", "~"]},
        }
    )
    path = tmp_path / "dump.yaml"
    path.write_text(dump(config), encoding="utf-8")
    assert load(path).config == config


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    stop=st.lists(TEXT, max_size=3),
    template=TEXT.filter(lambda t: not set("{}\0") & set(t)),
    lr=st.floats(1e-300, 1e300),
    key=TEXT,
)
def test_any_text_and_number_survives_dump_and_load(
    tmp_path_factory: pytest.TempPathFactory, stop: list[str], template: str, lr: float, key: str
) -> None:
    tree = {
        "data": {"template": template, "train": {key: template}},
        "rollout": {"stop": stop},
        "optimizer": {"lr": lr},
    }
    config = from_dict({**GOOD, **tree})
    assert config.data.template == template
    path = tmp_path_factory.getbasetemp() / "dump.yaml"
    path.write_text(dump(config), encoding="utf-8")
    assert load(path).config == config


def test_the_dump_spells_out_every_leaf() -> None:
    leaves = flatten(from_dict(GOOD))
    assert leaves["algorithm", "kl", "coef"] == 0.0
    assert leaves["run", "seed"] == 17
    assert leaves["scoring", "rewards"] == [{"name": "outcome"}]


FILES = sorted((ROOT / "configs").glob("**/*.yaml"))


def test_there_are_configurations() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_shipped_configuration_loads(path: Path) -> None:
    assert load(path).config.run.name


def test_derived_quantities_by_hand() -> None:
    config = from_dict({**GOOD, "run": {"name": "n", "output_dir": "o"}, "algorithm": {"epochs": 3, "minibatches": 2}})
    assert (config.folder, config.updates_per_step) == ("o/n", 6)
    assert config.importance_cap == 2.0
    assert from_dict({**GOOD, "model": {"path": "m", "dtype": "float32"}}).importance_cap is None


def sections(model: type[BaseModel]) -> set[type[BaseModel]]:
    found, waiting = set(), [model]
    while waiting:
        here = waiting.pop()
        found.add(here)
        for field in here.model_fields.values():
            for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if isinstance(part, type) and issubclass(part, Section) and part not in found:
                    waiting.append(part)
    return found


@pytest.mark.parametrize("section", sorted(sections(RunConfig), key=lambda s: s.__name__), ids=lambda s: s.__name__)
def test_every_field_says_what_it_means(section: type[BaseModel]) -> None:
    assert section.__doc__
    for name, field in section.model_fields.items():
        own = isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        optional = any(
            isinstance(a, type) and issubclass(a, Section) for a in getattr(field.annotation, "__args__", ())
        )
        # a whole section is described by its own class
        assert field.description or own or optional, f"{section.__name__}.{name}"


def test_a_configuration_cannot_be_changed() -> None:
    config = from_dict(GOOD)
    with pytest.raises(ValueError, match="frozen"):
        config.run.seed = 3


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_a_file_starts_from_the_one_it_extends(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    base = "model: {path: m}\nscoring: {verifier: function}\nalgorithm: {kl: {coef: 0.02, kind: k2}, epochs: 3}\n"
    write(tmp_path, "base.yaml", base + "data: {train: {count: 5, seed: 1}}\n")
    write(tmp_path / "more", "middle.yaml", "extends: ../base.yaml\nalgorithm: {kl: {coef: 0.1}}\n")
    top = write(tmp_path, "top.yaml", "extends: more/middle.yaml\ndata: {train: file.jsonl}\n")
    found = load(top, ["algorithm.epochs=2"])
    assert (found.config.algorithm.kl.coef, found.config.algorithm.kl.kind, found.config.algorithm.epochs) == (
        0.1,
        "k2",
        2,
    )
    assert found.config.data.train == "file.jsonl"
    assert origin_of(found.origins, ("algorithm", "kl", "coef")).endswith("middle.yaml:2")
    assert origin_of(found.origins, ("algorithm", "kl", "kind")).endswith("base.yaml:3")
    assert origin_of(found.origins, ("data", "train")).endswith("top.yaml:2")
    assert ("data", "train", "count") not in found.origins


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: absent.yaml\n", "absent.yaml: no such file"),
        ("extends: [a, b]\n", r"here.yaml:1: extends \['a', 'b'\]; give the path"),
        ("extends: here.yaml\n", "extends itself"),
    ],
)
def test_what_cannot_be_extended_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(write(tmp_path, "here.yaml", text))
