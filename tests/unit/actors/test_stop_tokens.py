"""Stop strings that are special tokens, from the setting to what is trained. Not covered: vLLM (tests/integration)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlpost.actors.workers import RolloutWorker
from rlpost.algorithms.credit import train_samples
from rlpost.config.schema import RunConfig
from rlpost.data.tokenizer import TextCodec
from rlpost.errors import InfrastructureError
from rlpost.protocols import GenerateRequest, GroupRequest, Reply, SamplingSettings, Turn
from rlpost.rollout.environments import EnvironmentHost
from rlpost.rollout.episode import Budget, stream
from rlpost.selfcheck.endings import check_ends
from rlpost.trajectory import Completion, TokenizedPrompt, Trajectory
from rlpost.types import Message, Prompt, SpanReward
from support import tokenizer_kinds
from support.fakes import LocalEnvironments


class Scripted:
    """An engine that writes the same text for every request, and ends where it is told to, as vLLM does."""

    def __init__(self, codec: TextCodec, text: str):
        self.ids: list[int] = codec.tokenizer(text, add_special_tokens=False)["input_ids"]
        self.codec, self.waiting, self.count = codec, dict[int, tuple[int, SamplingSettings]](), 0
        self.asked: list[SamplingSettings] = []

    def submit(self, requests: Sequence[GenerateRequest], settings: SamplingSettings) -> list[int]:
        numbers = [self.count + i for i in range(len(requests))]
        self.count += len(requests)
        self.asked.append(settings)
        self.waiting |= {n: (one.max_tokens, settings) for n, one in zip(numbers, requests, strict=True)}
        return numbers

    def step(self) -> list[tuple[int, Completion]]:
        done, self.waiting = self.waiting, {}
        return [(number, self._write(*one)) for number, one in done.items()]

    def abort(self, numbers: Collection[int]) -> list[tuple[int, Completion]]:
        return []

    def _write(self, most: int, settings: SamplingSettings) -> Completion:
        ends = {self.codec.tokenizer.eos_token_id, *settings.stop_token_ids}
        for size in range(1, min(len(self.ids), most) + 1):
            ids = self.ids[:size]
            text = self.codec.text(ids)
            if ids[-1] in ends or any(one in text for one in settings.stop):
                return self._completion(ids, "stop")
        return self._completion(self.ids[:most], "length")

    def _completion(self, ids: list[int], finish: Any) -> Completion:
        array = np.asarray(ids, np.int32)
        return Completion(array, np.full(len(ids), -1.0, np.float32), finish, ((0, 0, len(ids)),))


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    folder: Path = tmp_path_factory.mktemp("stop")
    return TextCodec(tokenizer_kinds.write(folder, kind="gemma"))


def request(codec: TextCodec) -> GroupRequest:
    prompt = Prompt("p", messages=(Message("user", "hi"),))
    return GroupRequest(TokenizedPrompt(prompt, np.asarray(codec.encode(prompt), np.int32)), (1, 2))


def rolled_out(codec: TextCodec, text: str, stop: tuple[str, ...]) -> tuple[Scripted, list[Trajectory]]:
    worker = RolloutWorker()
    worker.codec, worker.engine, worker.offsets = codec, Scripted(codec, text), True
    worker.config = RunConfig.model_validate({})
    found = list(worker.stream([request(codec)], SamplingSettings(max_tokens=40, stop=stop), 60.0))
    return worker.engine, list(found[0][0])


def test_a_special_stop_string_ends_an_answer_as_an_end_token_does(codec: TextCodec) -> None:
    end = codec.tokenizer.convert_tokens_to_ids("<|im_end|>")
    engine, members = rolled_out(codec, "the answer<|im_end|>the rest", ("<|im_end|>", "\n\n"))
    assert (engine.asked[0].stop, engine.asked[0].stop_token_ids) == (("\n\n",), (end,))
    check_ends(members)
    for one in members:
        [turn] = one.turns
        assert (one.status, turn.finish, turn.text) == ("done", "stop", "the answer")
        assert one.token_ids[-1] == end
        assert one.mask[-1], "the token that ends the answer was sampled, and is trained on"
        assert turn.offsets is not None
        assert turn.offsets[-1].tolist() == [10, 10]
        [sample] = train_samples(one, (SpanReward(0, one.length, 1.0),), [1.0])
        assert sample.ended
        assert sample.mask[-1]


def test_without_the_stop_the_answer_goes_on(codec: TextCodec) -> None:
    _, members = rolled_out(codec, "the answer<|im_end|>the rest", ())
    assert {(one.status, one.answer) for one in members} == {("length", "the answerthe rest")}


def test_text_that_spells_a_special_token_is_no_such_token(codec: TextCodec) -> None:
    """Only the token itself ends an answer: what other tokens spell is the policy's own text."""
    engine = Scripted(codec, "x")
    engine.ids = codec.tokenizer.convert_tokens_to_ids([*"the", "<0x3C>", "<0x7C>", "i", "<0x3E>", "e"])
    worker = RolloutWorker()
    worker.codec, worker.engine = codec, engine
    worker.config = RunConfig.model_validate({})
    found = list(worker.stream([request(codec)], SamplingSettings(max_tokens=40, stop=("<|im_end|>",)), 60.0))
    assert {one.answer for one in found[0][0]} == {"the<|i>e"}


def test_an_engine_that_does_not_stop_ends_the_run(codec: TextCodec) -> None:
    engine: Any = Scripted(codec, "the answer<|im_end|>the rest")
    end = codec.tokenizer.convert_tokens_to_ids("<|im_end|>")
    engine._write = lambda most, settings: engine._completion(engine.ids, "stop")
    with pytest.raises(InfrastructureError, match="goes on after one of the tokens"):
        list(stream(engine, [request(codec)], SamplingSettings(max_tokens=40, stop_token_ids=(end,)), codec))


class Twice:
    """Answers once, and is done."""

    def begin(self, row: Any, seed: int) -> None:
        return None

    def reply(self, turn: Turn) -> Reply:
        return Reply(None if turn.number else "Are you sure?", bool(turn.number), 1.0, None)

    def close(self) -> None:
        """Nothing is open."""


def test_a_dialogue_does_not_repeat_the_token_that_ended_a_turn(codec: TextCodec) -> None:
    end = codec.tokenizer.convert_tokens_to_ids("<|im_end|>")
    settings = SamplingSettings(max_tokens=20, stop_token_ids=(end,))
    calls = LocalEnvironments(EnvironmentHost(Twice))
    engine: Any = Scripted(codec, "the answer<|im_end|>the rest")
    [[(_, members)]] = list(
        stream(engine, [request(codec)], settings, codec, environments=calls, budget=Budget(3, 400, 200))
    )
    for one in members:
        assert [segment.origin for segment in one.segments] == ["prompt", "policy", "environment", "policy"]
        assert len(one.sequences) == 1
        text = codec.tokenizer.decode(one.token_ids.tolist())
        assert "<|im_start|>assistant\nthe answer<|im_end|>\n<|im_start|>user\nAre you sure?<|im_end|>\n" in text
        assert text.endswith("<|im_start|>assistant\nthe answer<|im_end|>")
        assert "<|im_end|><|im_end|>" not in text
    check_ends(members)
