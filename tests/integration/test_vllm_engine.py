"""The real vLLM engine on tiny models: agreement with the learner, updates in place, and planted failures.

One process per model loads the engine once and runs all checks (`tests/support/engine_checks.py`); the tests read its
findings. Not covered: GPU, bfloat16, other architectures than Llama and Qwen2.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import CORPUS
from support.engine_script import run_engine_script

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

INTERRUPTED = ("aborting", "replaced", "replaced_early", "company")
ALL = ("sampling", "updating", "stale_cache", "stale_kernels", "lost_updates", *INTERRUPTED)


def check(folder: str, kernels: str, *names: str, shards: int = 1) -> dict:
    output = run_engine_script("engine_checks.py", folder, kernels, str(shards), *names)
    return json.loads(output.strip().splitlines()[-1])


def untied(folder: Path) -> str:
    """A Llama whose output matrix is not tied to the embeddings."""
    from rlpost.config.schema import ScratchModel
    from rlpost.data.models import build_scratch
    from rlpost.data.wordlevel import build

    size = build(CORPUS, folder, 256)
    shape = ScratchModel(hidden_size=64, heads=2, layers=2, max_positions=256, tie_embeddings=False)
    build_scratch(shape, size, folder, seed=1)
    return str(folder)


def biased(folder: Path) -> str:
    """A Qwen2 with tied embeddings; its attention biases are randomised here because they start at zero."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from rlpost.data.wordlevel import build

    size = build(CORPUS, folder, 256)
    torch.manual_seed(1)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=size,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=None,
        )
    )
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_(std=0.5)
    model.save_pretrained(str(folder))
    return str(folder)


def padded(folder: Path, tiny_model: str) -> str:
    """The tiny model with 32 more rows than the tokenizer has ids, which together get most of the mass."""
    import torch

    from rlpost.data.models import load, save_folder

    model = load(tiny_model, "float32")
    ids = model.config.vocab_size
    model.resize_token_embeddings(ids + 32, mean_resizing=False)
    with torch.no_grad():
        weight = model.get_input_embeddings().weight
        weight[ids:] = 8 * weight[5:37]
    save_folder(model, dict(model.named_parameters()), tiny_model, folder)
    return str(folder)


@pytest.fixture(scope="module")
def found(tiny_model: str) -> dict:
    return check(tiny_model, "packed", *ALL)


def test_completions_come_in_request_order_with_consecutive_seeds(found: dict) -> None:
    expected = [["a", i, 100 + i] for i in range(4)] + [["b", i, 900 + i] for i in range(2)]
    assert found["sampling"]["order"] == expected


def test_members_of_a_group_differ_and_the_same_seeds_repeat_them(found: dict) -> None:
    assert found["sampling"]["distinct"] == 4
    assert found["sampling"]["repeat"]


def test_log_probabilities_agree_with_the_learner_at_any_temperature(found: dict) -> None:
    assert found["sampling"]["agreement"]["1.0"] < 1e-4
    assert found["sampling"]["agreement"]["0.6"] < 1e-4


def test_what_has_not_begun_at_the_deadline_is_aborted_and_holds_no_tokens(found: dict) -> None:
    assert found["sampling"]["aborted"] == [["aborted", "abort", []], ["aborted", "abort", []]]


def test_stop_strings_are_cut_from_the_text(found: dict) -> None:
    assert found["sampling"]["stopped"] > 0
    assert found["sampling"]["stop_in_text"] == 0


def test_a_stop_token_ends_an_answer_and_stays_its_last_token(found: dict) -> None:
    """Status done, the token sampled last and nowhere before, and the tokens before it as without the setting."""
    assert found["sampling"]["stop_token"]
    assert all(one == ["done", True, False, True] for one in found["sampling"]["stop_token"])


def test_prompts_beyond_the_engines_token_budget_are_served(found: dict) -> None:
    assert len(found["sampling"]["long_batch"]) == 64
    assert set(found["sampling"]["long_batch"]) <= {"stop", "length"}


def check_aborting(aborting: dict) -> None:
    """Each aborted request of four had sampled one token in each of seven steps."""
    assert aborting.keys() == {"plain", "stop strings", "cold, without log-probabilities", "unbegun"}
    for name in aborting.keys() - {"unbegun"}:
        one = aborting[name]
        assert one["requests"] == 4
        assert (one["finish"], one["tokens"]) == (["abort", "abort"], [7, 7])
        assert one["prefix"] == [True, True]
        assert one["logprobs"] == ([None, None] if "without" in name else [7, 7])
        assert max(one["apart"]) < 1e-4
        assert one["versions"] == [True, True]
    assert aborting["unbegun"] == ["abort", [], 0, []]


def test_an_aborted_request_keeps_what_it_has_sampled_as_undisturbed(found: dict) -> None:
    check_aborting(found["aborting"])


@pytest.mark.parametrize("name", ["plain", "stop strings", "cold, without log-probabilities"])
def test_aborting_changes_no_other_request_and_nothing_is_handed_out_twice(found: dict, name: str) -> None:
    aborting = found["aborting"][name]
    assert aborting["others"]
    assert aborting["afterwards"]
    assert aborting["nothing"]


def check_replaced(replaced: dict) -> None:
    """Of four running requests three run to their end and one is aborted a token after the update."""
    steps = replaced["steps"]
    assert replaced["arrived"]["arrived"]
    assert replaced["finish"][3] == "abort"
    assert replaced["tokens"][3] == steps + 1
    assert set(replaced["finish"][:3]) <= {"stop", "length"}
    assert min(replaced["tokens"][:3]) > steps
    # one step is one token
    for spans, tokens in zip(replaced["versions"], replaced["tokens"], strict=True):
        assert spans == [[-1, 0, steps], [0, steps, tokens]]
    assert all(replaced["as undisturbed"])


def test_versions_of_a_running_request_meet_where_the_weights_were_replaced(found: dict) -> None:
    check_replaced(found["replaced"])
    assert all(found["replaced"]["another answer"])


def test_tokens_before_an_update_are_the_old_policys_and_those_after_it_the_new_ones(found: dict) -> None:
    old, new = found["replaced"]["old"], found["replaced"]["new"]
    # |Δ log p| between engine and learner: largest, and mean of the completion where it is smallest
    assert old["before"][0] < 1e-4
    assert new["after"][0] < 1e-4
    assert old["after"][1] > 0.1
    assert new["before"][1] > 0.1
    assert found["replaced"]["probe"] < 1e-4


def test_a_version_that_sampled_nothing_of_a_request_is_not_among_its_versions(found: dict) -> None:
    early = found["replaced_early"]
    # version 0 before the first token, versions 1 and 2 after the second
    for spans, tokens in zip(early["versions"], early["tokens"], strict=True):
        assert spans == [[0, 0, 2], [2, 2, tokens]]
    assert early["afterwards"] < 1e-4


@pytest.mark.parametrize("where", ["in a crowd", "in the middle", "shorter"])
def test_equal_requests_with_equal_seeds_get_equal_tokens_whatever_else_runs(found: dict, where: str) -> None:
    assert found["company"][where]
    # which is more than that all answers are alike
    assert found["company"]["distinct"] == 4
    assert found["company"]["other seeds"] == 0


@pytest.mark.parametrize("shards", [1, 2])
def test_ids_without_a_token_are_neither_sampled_nor_counted(tiny_model: str, tmp_path: Path, shards: int) -> None:
    names = ("vocabulary", "updating")
    checked = check(padded(tmp_path / "model", tiny_model), "packed", *names, shards=shards)
    vocabulary = checked["vocabulary"]
    assert vocabulary["missing"] == 32
    for temperature in ("1.0", "0.6"):
        assert vocabulary[temperature]["tokens"] > 300
        assert vocabulary[temperature]["sampled"] == 0
        assert vocabulary[temperature]["apart"] < 1e-4
    assert vocabulary["greedy"] == 0
    assert vocabulary["greedy apart"] < 1e-4
    assert vocabulary["all rows"] > 0.3
    check_updating(checked["updating"], 2 * 4 + 1)


def check_updating(updating: dict, packed_layers: int) -> None:
    """An update arrives in every tensor, and the engine computes with it."""
    assert updating["nothing_changed"] == 0
    assert updating["update"]["changed"] == updating["update"]["tensors"] > 10
    assert updating["update"]["arrived"]
    assert updating["at_start"] < 1e-4
    assert updating["after_update"] < 1e-4
    assert updating["probe"] == "healthy"
    assert all(value < 1e-4 for value in updating["parity"].values())
    assert updating["kernels"] == packed_layers


def test_an_update_arrives_and_is_computed_with(found: dict) -> None:
    # per layer qkv, o, gate_up, down; and lm_head, but not the embedding that it is tied to
    check_updating(found["updating"], 2 * 4 + 1)


@pytest.mark.parametrize("make", [untied, biased])
def test_an_update_arrives_with_untied_embeddings_and_with_biases(tmp_path: Path, make: Callable[[Path], str]) -> None:
    check_updating(check(make(tmp_path / "model"), "packed", "updating")["updating"], 2 * 4 + 1)


def test_an_update_arrives_without_packed_kernels(tiny_model: str) -> None:
    check_updating(check(tiny_model, "plain", "updating")["updating"], 0)


def test_a_stale_prefix_cache_is_caught_and_blamed(found: dict) -> None:
    stale = found["stale_cache"]
    assert "stale prefix cache" in stale["probe"]
    assert "mostly stale_cache" in stale["parity"]


def test_a_stale_block_of_the_rollouts_is_found_by_asking_their_prompts_again(found: dict) -> None:
    stale = found["stale_cache"]
    assert stale["pinned_only"]["parity/stale_cache"] < 1e-4
    assert "mostly stale_cache" in stale["rollouts_prompt"]
    assert stale["dropped"]["parity/total"] < 1e-4


@pytest.mark.parametrize(("arrived", "probe"), [("arrived", "probe"), ("head_arrived", "head")])
def test_kernels_that_were_not_repacked_pass_checksums_and_are_caught_by_the_probe(
    found: dict, arrived: str, probe: str
) -> None:
    assert found["stale_kernels"][arrived]
    assert "a stale packed copy" in found["stale_kernels"][probe]
    assert found["stale_kernels"]["repacked"] == "healthy"


def test_an_engine_that_computes_with_other_weights_is_blamed_for_it(found: dict) -> None:
    for verdict in (found["stale_kernels"]["parity"], found["lost_updates"]["disturbed"]):
        assert "mostly numerics: the engine computes with other weights" in verdict


def test_an_update_that_was_never_published_is_blamed_on_staleness_and_expected_of_an_asynchronous_loop(
    found: dict,
) -> None:
    assert "mostly staleness" in found["lost_updates"]["moved"]
    assert found["lost_updates"]["moved_asynchronous"]["parity/numerics"] < 1e-4
    assert found["lost_updates"]["moved_asynchronous"]["parity/staleness"] > 0.1


@pytest.fixture(scope="module")
def sharded(tiny_model: str) -> dict:
    return check(tiny_model, "packed", "sampling", "updating", "stale_cache", "lost_updates", *INTERRUPTED, shards=2)


def test_two_processes_share_the_layers_and_are_updated(sharded: dict) -> None:
    assert sharded["sampling"]["agreement"]["1.0"] < 1e-4
    check_updating(sharded["updating"], 2 * 4 + 1)
    assert "mostly stale_cache" in sharded["stale_cache"]["parity"]


def test_one_process_that_lost_its_part_is_caught_by_checksums_and_parity(sharded: dict) -> None:
    assert "mostly numerics" in sharded["lost_updates"]["disturbed"]
    assert sharded["lost_updates"]["read_back"] == [0, sharded["updating"]["update"]["tensors"]]
    assert sharded["lost_updates"]["between_ranks"]


def test_requests_on_two_processes_are_aborted_and_updated_while_they_run(sharded: dict) -> None:
    check_aborting(sharded["aborting"])
    check_replaced(sharded["replaced"])
    assert sharded["replaced"]["old"]["before"][0] < 1e-4
    assert sharded["replaced"]["new"]["after"][0] < 1e-4
    assert sharded["company"]["in a crowd"]
    assert sharded["company"]["in the middle"]
