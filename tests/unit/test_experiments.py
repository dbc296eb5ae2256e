"""The experiments' arms load, and their reports agree with outcome files. Not covered: the runs themselves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

from rlpost.config.load import flatten
from rlpost.data.load import prompts
from rlpost.errors import UserError
from rlpost.evaluation.lists import Listed
from rlpost.evaluation.outcomes import Outcome, recorder

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "experiments"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import arms
    import rank_grpo
    import rarely_proved
    import repair
    import sharpening
    import unlikeliness

    found = {"arms": arms, "rank_grpo": rank_grpo, "sharpening": sharpening, "unlikeliness": unlikeliness}
    found |= {"rarely_proved": rarely_proved, "repair": repair}
    for name in found:
        monkeypatch.delitem(sys.modules, name)
    return found


def outcome(name: str, right: bool, place: int) -> Outcome:
    marks = "".join("h" if i == place else "m" for i in range(10))
    items = tuple(f"film {i}" for i in range(10))
    return Outcome(
        name, "1000" if right else "0000", int(right), "1", Listed(marks, 2, items, (float(place),) * 10, 20)
    )


def experiment(scripts: dict[str, ModuleType], name: str, out: Path, seeds: tuple[int, ...]):
    module = scripts[name]
    made = scripts["arms"].Experiment(out, seeds, module.ARMS, next(iter(module.ARMS.values())), (), module.FINAL)
    for seed in seeds:
        for number, arm in enumerate(["base", *module.ARMS]):
            file = made.folder(seed) / "base.jsonl" if arm == "base" else made.evaluations(arm, seed) / "after.jsonl"
            with recorder(file) as record:
                for prompt in range(6):
                    record(outcome(str(prompt), (prompt + seed + number) % 2 == 0, (5 - number) % 10))
            if arm != "base":
                rows = [{"pass_rate": 0.1 * number, "entropy": 1.0, "unique_accepted": 2, "kl": 0.0} for _ in range(20)]
                rows = [{**row, "clip_frac/high": 0.0, "skipped_updates": 0} for row in rows]
                (made.folder(seed) / arm / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return made


@pytest.mark.parametrize("name", ["rank_grpo", "unlikeliness"])
def test_every_arm_is_a_recipe_from_the_seeds_warm_start(
    scripts: dict[str, ModuleType], name: str, tmp_path: Path
) -> None:
    module = scripts[name]
    made = scripts["arms"].Experiment(
        tmp_path, (1,), module.ARMS, next(iter(module.ARMS.values())), ("run.steps=7", "sft.lr=1e-3"), module.FINAL
    )
    for arm in module.ARMS:
        config = made.config(arm, 4)
        assert (config.run.seed, config.run.name, config.run.steps, config.sft) == (4, arm, 7, None)
        assert config.model.path == str(tmp_path / "seed_4" / "base")
        recipe = made.config(next(iter(module.ARMS)), 4)
        assert config.data == recipe.data, "all arms see the same prompts"


def test_the_report_by_rank(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    made = experiment(scripts, "rank_grpo", tmp_path, (1, 2))
    text = scripts["rank_grpo"].report(made)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["figures"]["rank_exp_inf"]["recall@3"]["mean"] == 0.5, "the last arm has its hits at rank 2"
    assert found["minus_grpo"]["rank_exp_inf"]["ndcg@5"]["mean"] > 0
    assert found["hits"]["base"][5][0] == 1.0
    assert found["lists"]["rank_exp_inf"]["popularity_shift"] == 4.0
    assert "Minus rank_log" in text
    assert {file.name for file in tmp_path.glob("*.svg")} == {"ndcg.svg", "hits.svg", "reward.svg"}


def simple(out: Path, **places: int) -> None:
    """Baselines with their hit at these places, as the experiment by rank writes them."""
    for name, place in places.items():
        with recorder(out / "baselines" / f"{name.replace('_', ' ')}.jsonl") as record:
            for prompt in range(6):
                record(outcome(str(prompt), True, place))


def test_the_report_by_rank_stands_beside_the_best_simple_method(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    made = experiment(scripts, "rank_grpo", tmp_path, (1, 2))
    simple(tmp_path, popularity=9, item_kNN=3, true_taste=0)
    text = scripts["rank_grpo"].report(made)
    found = json.loads((tmp_path / "results.json").read_text())
    assert {name: one["ndcg@5"]["seeds"] for name, one in found["baselines"].items()} == dict.fromkeys(
        ("popularity", "item kNN", "true taste")
    )
    assert found["best_baseline"]["ndcg@10"] == "item kNN", "true taste is no baseline"
    # hits of two: the start has its at rank 6, the last arm at rank 2, the best baseline at rank 4
    ideal = 1 + 1 / np.log2(3)
    for arm, rank in (("base", 6), ("rank_exp_inf", 2)):
        ahead = found["minus_best_baseline"][arm]["ndcg@10"]
        assert ahead["mean"] == pytest.approx((1 / np.log2(rank + 1) - 1 / np.log2(5)) / ideal)
        assert ahead["seeds"] == pytest.approx([ahead["mean"]] * 2)
    assert found["lists"]["popularity"]["exactly_ten"] == 1.0
    assert found["lists"]["popularity"]["popularity_shift"] == -4.0
    assert "| item kNN | 0.000 | 0.264 |" in text
    assert "item kNN (ndcg@10)" in text
    assert "Minus best_baseline" in text
    assert "item kNN" in (tmp_path / "ndcg.svg").read_text()


def test_every_arm_goes_to_the_other_catalog_with_nothing_else_changed(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    arms, module = scripts["arms"], scripts["rank_grpo"]
    lines = module.own_lines(module.CATALOGS["goods"])
    assert not any(line.startswith(("run.", "extends")) for line in lines)
    films, goods = (
        arms.Experiment(tmp_path, (1,), module.ARMS, module.ARMS["grpo"], settings, module.FINAL)
        for settings in ((), lines)
    )
    for arm in ["base", *module.ARMS]:
        one, other = (flatten(made.config(arm, 1)) for made in (films, goods))
        changed = {".".join(path) for path in one.keys() | other.keys() if one.get(path) != other.get(path)}
        assert changed == {
            "data.train.catalog", "data.eval.catalog", "scoring.verifier_args.catalog", "scoring.verifier_args.popularity"
        }  # fmt: skip
    assert module.own_lines(module.CATALOGS["films"]) == []
    # the warm start's
    assert "sft.train.catalog" in {line.partition("=")[0] for line in lines}


@pytest.mark.parametrize("catalog", ["films", "goods"])
def test_simple_methods_are_judged_once_on_the_held_out_conversations(
    scripts: dict[str, ModuleType], tmp_path: Path, catalog: str
) -> None:
    arms, module = scripts["arms"], scripts["rank_grpo"]
    lines = [*module.own_lines(module.CATALOGS[catalog]), "data.train.count=300"]
    trained = ["data.eval.count=60", "data.eval.seed=1003"]
    made = arms.Experiment(tmp_path, (1,), module.ARMS, module.ARMS["grpo"], lines, trained)
    module.measure_baselines(made)
    found = module.baselines(made)
    assert set(found) == {"popularity", "asked attribute", "item kNN", "naive Bayes", "teacher", "true taste"}
    assert list(found)[-1] == "true taste"
    assert all(len(one.listed.marks) == 10 and set(one.listed.marks) <= {"h", "m"} for f in found.values() for one in f)
    held_out = [one.id for one in prompts(made.config("base", 1).data, "eval")]
    assert [one.id for one in found["popularity"]] == held_out
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "baselines").iterdir()}
    module.measure_baselines(made)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "baselines").iterdir()} == before
    other = arms.Experiment(tmp_path, (1,), module.ARMS, module.ARMS["grpo"], lines, ["data.eval.seed=7"])
    with pytest.raises(UserError, match="other conversations; give another folder"):
        module.measure_baselines(other)


def test_the_report_of_provers(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    made = experiment(scripts, "unlikeliness", tmp_path, (1,))
    text = scripts["unlikeliness"].report(made)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["pass"]["base"]["4"]["mean"] == 0.5
    assert found["flips"]["default"] == {"negative_flips": 0.5, "positive_flips": 0.5, "popularity_shift": 1.0, **{
        key: value for key, value in found["flips"]["default"].items() if key.startswith("popularity_shift_")
    }}  # fmt: skip
    assert "Minus high_kl" in text


def test_a_theorem_is_rare_if_all_starts_prove_it_in_at_most_an_eighth_of_their_samples(
    scripts: dict[str, ModuleType],
) -> None:
    def start(*rights: int) -> list[Outcome]:
        return [Outcome(f"t{i}", "1" * right + "0" * (16 - right), 1) for i, right in enumerate(rights)]

    found = [start(0, 1, 4, 3, 16), start(0, 0, 0, 2, 16)]
    assert scripts["rarely_proved"].rare(found) == {"t1", "t2"}


def test_the_report_on_rarely_proved_theorems(scripts: dict[str, ModuleType]) -> None:
    module = scripts["rarely_proved"]

    def policy(*rights: int) -> list[Outcome]:
        return [Outcome(f"t{i}", "1" * right + "0" * (128 - right), 1) for i, right in enumerate(rights)]

    found = module.summarise({"high_kl": [policy(1, 0), policy(0, 0)], "unlikeliness_1": [policy(1, 1), policy(1, 1)]})
    assert found["pass"]["high_kl"]["128"]["mean"] == 0.25
    assert found["minus_high_kl"]["unlikeliness_1"]["32"]["mean"] == 0.1875
    assert "| unlikeliness_1 | +0.006 [" in module.table({"x": found})


def test_sharpenings_worlds_are_alike_before_training(scripts: dict[str, ModuleType]) -> None:
    module = scripts["sharpening"]
    fresh, function = (module.World(kind, 3) for kind in module.WORLDS)
    assert fresh.right.float().mean().item() == pytest.approx(function.right.float().mean().item(), rel=0.05)
    one, other = fresh.passes(fresh.start), function.passes(function.start)
    assert list(one.values()) == sorted(one.values())
    assert all(one[n] == pytest.approx(other[n], abs=0.05) for n in one)


def test_sharpening_pays_the_likelier_of_two_right_answers_less(scripts: dict[str, ModuleType]) -> None:
    module = scripts["sharpening"]
    right, logprobs = np.array([True, True, False, False]), np.log([0.5, 0.2, 0.2, 0.1])
    plain, shaped = (module.advantages(right, logprobs, beta) for beta in (0.0, 0.5))
    assert plain[0] == plain[1] > 0
    assert 0 < shaped[0] < shaped[1]
    assert module.advantages(np.ones(4, bool), logprobs, 0.5) is None


def test_sharpening_writes_what_it_promises(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = scripts["sharpening"]
    for name, value in {"TRAINED": 60, "HELD_OUT": 30, "STEPS": 2}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(sys, "argv", ["sharpening.py", str(tmp_path), "--seeds", "1", "2"])
    module.main()
    found = json.loads((tmp_path / "results.json").read_text())
    assert all(len(found[kind][arm]["64"]) == 2 for kind in module.WORLDS for arm in ["base", *module.ARMS])
    assert all((tmp_path / f"pass_at_n_{kind}.svg").is_file() for kind in module.WORLDS)
    assert "| KL 0.1, unlikeliness 0.5 |" in (tmp_path / "results.md").read_text()


def test_repair_counts_theorems_at_equal_attempts(scripts: dict[str, ModuleType]) -> None:
    repair = scripts["repair"]
    first, wrong = (True, None, False), (False, False, True)
    mended, nothing = (False, True, False), (None, None, False)
    # proved by a first attempt among the last 16 only; by a second one in both halves; by nothing
    attempts = {
        "late": [*[wrong] * 31, first],
        "mended": [mended, *[wrong] * 15, mended, *[wrong] * 15],
        "never": [*[wrong] * 30, nothing, nothing],
    }
    assert [repair.repaired(one) for one in attempts.values()] == [0.5, 1.0, 0.0]
    assert [repair.plainly(one) for one in attempts.values()] == [1.0, 0.0, 0.0]
    found = repair.figures([attempts, attempts])
    assert (found["repair"]["mean"], found["plain"]["mean"]) == (pytest.approx(0.5), pytest.approx(1 / 3))
    assert found["repair_minus_plain"]["mean"] == pytest.approx(1 / 6)
    assert found["repair_minus_plain"]["over_seeds"] == (pytest.approx(1 / 6), pytest.approx(1 / 6))
    assert found["undecided"] == 4
    assert found["identical_second"] == pytest.approx(91 / 93)  # 31 + 30 + 30 of 31 + 32 + 30
    assert found["second_accepted"] == pytest.approx(2 / 93)
    both = repair.results({"base": [attempts], "turns": [attempts], "plain": [attempts]}, [1])
    assert both["turns_repair_minus_plain_plain"]["mean"] == pytest.approx(1 / 6)


def test_attempts_are_read_from_trajectories(scripts: dict[str, ModuleType]) -> None:
    from rlpost.trajectory import Segment, Trajectory
    from rlpost.types import Verdict

    def played(rewards: list[float | None], texts: list[str], verdict: Verdict | None = None) -> Trajectory:
        segments = [Segment("prompt", 0, 1, -1)]
        for turn, (reward, text) in enumerate(zip(rewards, texts, strict=True)):
            at = segments[-1].stop
            segments.append(Segment("policy", at, at + 1, turn, text, finish="stop", reward=reward))
        size = segments[-1].stop
        return Trajectory(None, 0, np.zeros(size, np.int32), None, (), tuple(segments), "done", verdict)

    open_ = Verdict("undecided", None, "timeout")
    read = scripts["repair"].attempts_of
    assert read(played([1.0], [" a"])) == (True, None, False)
    assert read(played([0.0], [" a"])) == (False, None, False)  # cut, or the only turn
    assert read(played([0.0, 1.0], [" a", " b"])) == (False, True, False)
    assert read(played([0.0, 0.0], [" a", "a "])) == (False, False, True)
    assert read(played([0.0, None], [" a", " b"], open_)) == (None, None, False)


def test_rounds_of_expert_iteration_restart_fine_tuning_from_the_warm_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import expert_iteration as module

    monkeypatch.delitem(sys.modules, "expert_iteration")
    monkeypatch.delitem(sys.modules, "arms")
    seeds = [module.Rounds(tmp_path, seed, 2, 4, ["data.eval.count=6"], module.TUNING) for seed in (1, 2)]
    one = seeds[0]
    assert one.policies() == ["base", "rl_1", "tuned_1", "rows_1", "rl_2", "expert_2", "tuned_2", "rows_2"]
    assert [one.start_of(arm) for arm in ("rl_1", "rl_2", "expert_2")] == ["base", "rl_1", "tuned_1"]
    assert one.harvested(2) == ["rl_1", "expert_2"]
    asked: list[list[str]] = []

    def fine_tune(self: Any, policy: str, settings: list[str]) -> dict[str, Any]:
        asked.append([policy, *settings])
        return {"updates": 12}

    monkeypatch.setattr(module.Rounds, "fine_tune", fine_tune)
    monkeypatch.setattr(module.rlpost, "harvest", lambda *_, **__: Found())
    for seed in seeds:
        seed.folder.mkdir()
        for number in seed.numbers():
            seed.tune(number)
        config = seed.experiment("expert_2").config("expert_2", seed.seed)
        assert (config.model.path, config.run.seed) == (str(seed.folder / "tuned_1"), seed.seed + 1000)
        assert config.sft is None
        for place, policy in enumerate(seed.policies()):
            with recorder(seed.outcome_file(policy)) as record:
                for prompt in range(6):
                    marks = "1" * ((prompt + place) % 4) + "0" * 32
                    record(Outcome(str(prompt), marks[:32], 0))
    assert asked[0] == ["tuned_1", 'sft.source="jsonl"', 'sft.completion_prefix=" "', *module.TUNING]
    assert asked[1] == ["rows_1", *module.TUNING, f"sft.epochs={11.5 * 32 / 3000}"]  # as many updates of as many rows
    found = module.summarise(seeds)
    assert found["rollouts"] == {"1": 4 * 128, "2": 8 * 128}
    lines = module.table(found).split("\n")
    assert lines[4].startswith("| base | 0 | ")
    assert [line.split(" | ")[1] for line in lines[4:12]] == ["0", "512", "512", "0", "1,024", "1,024", "1,024", "0"]
    assert "| 1 | 9 (5) | 9 (5) | 12, 12 |" in lines


class Found:
    """What a harvest says."""

    rows, prompts, accepted, read = 9, 5, 11, 40
    sft: ClassVar = {"source": "jsonl", "completion_prefix": " "}
