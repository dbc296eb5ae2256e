"""The records: validation and pickling between processes. Not covered: the values that stages put into them."""

from __future__ import annotations

import dataclasses
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rlpost import types
from rlpost.protocols import ApplyReport, EngineSpec, GenerateRequest, SamplingSettings

COMPLETION = types.Completion("t1", 0, (1, 2), (7, 2), ((0, 2), (2, 2)), (-0.1, -0.2), "ok", "stop", 0, 17)
PROMPT = types.Prompt("t1", text="∀", columns={"statement": "∀ p, p", "n": [1, {"a": None}]})
ITEM = types.ItemVerdict(0, 5, "accepted", 1.0, "hit", 2)
VERDICT = types.Verdict("accepted", 1.0, "ok", (ITEM,), "kernel-replayed", {"axioms": ["x"]}, 0.1, 0.05, "lean", True)
SPAN = types.SpanReward(0, 2, 1.0, 3, "advantage")
SAMPLE = types.TrainSample(
    np.array([1]), np.array([5, 2]), np.ones(2, np.float32), np.zeros(2, np.int64), np.ones(2, bool),
    np.float32([-1, -2]), 3, np.float32([-1, -2]), None,
)  # fmt: skip
MANIFEST = types.WeightManifest(0, 1, "full", {"w": "ab"}, 4, {"w": (1,)})
PAYLOAD = types.TensorPayload("bfloat16", (1, 2), np.arange(4, dtype=np.uint8))
EXAMPLES: list[Any] = [
    types.Message("user", "∀"),
    PROMPT,
    types.Prompt("c", messages=(types.Message("user", "x"),)),
    COMPLETION,
    types.VerifyItem({"a": 1}, "x"),
    ITEM,
    VERDICT,
    SPAN,
    types.TokenizedPrompt(PROMPT, (1, 2)),
    types.RewardOutput([(SPAN,), None], {"hits": 1.0}),
    types.GradientSketch(0.5, {"w": np.ones(2, np.float32)}),
    types.GradientFigures(8, types.GradientSketch(0.5, {}), types.GradientSketch(0.5, {}), None),
    types.TensorDelta(4, 1, 1, 0, 1, 1, 0.1, 0.2, 0.01),
    types.Group(PROMPT, (COMPLETION,), (VERDICT,), ((SPAN,),)),
    SAMPLE,
    types.Denominators(10, 2, 2, 64),
    types.TrainBatch((SAMPLE,), 4),
    PAYLOAD,
    MANIFEST,
    types.WeightUpdate(MANIFEST, {"w": PAYLOAD}),
    GenerateRequest("t1", (1, 2), 8, 1000),
    SamplingSettings(max_tokens=8, stop=("a",)),
    ApplyReport(1, {"w": "ab"}, 1, 0.1),
    EngineSpec("model", ((1, 2),), 8, 256),
]


def plain(value: Any) -> Any:
    """A form that can be compared: arrays become (dtype, list)."""
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value), {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return tuple(plain(v) for v in value)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda r: type(r).__name__)
def test_records_pickle(record: Any) -> None:
    for protocol in (2, 5):
        assert plain(pickle.loads(pickle.dumps(record, protocol))) == plain(record)


def test_every_record_is_among_the_examples() -> None:
    known = {v for v in vars(types).values() if isinstance(v, type) and dataclasses.is_dataclass(v)}
    assert known <= {type(record) for record in EXAMPLES}


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda r: type(r).__name__)
def test_records_cannot_be_changed(record: Any) -> None:
    name = dataclasses.fields(record)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, name, None)
    assert not hasattr(record, "__dict__")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: types.Prompt("p"), "prompt 'p': give either text or messages"),
        (lambda: types.Prompt("p", text="a", messages=()), "not both"),
        (lambda: dataclasses.replace(COMPLETION, offsets=((0, 2),)), "2 tokens, 1 offsets"),
        (lambda: dataclasses.replace(COMPLETION, logprobs=(0.0,)), "2 tokens, 1 logprobs"),
        (lambda: types.Verdict("undecided", 0.0, "crashed"), "outcome undecided cannot go with score 0.0"),
        (lambda: types.Verdict("rejected", None, "no"), "outcome rejected cannot go with score None"),
        (lambda: types.SpanReward(2, 1, 0.0), r"need 0 <= start <= stop"),
        (lambda: types.SpanReward(-1, 1, 0.0), r"need 0 <= start <= stop"),
        (lambda: types.SpanReward(0, 1, math.nan), "nan is not finite"),
        (lambda: types.SpanReward(0, 1, math.inf), "inf is not finite"),
        (lambda: types.Verdict("accepted", math.nan, "x"), "nan"),
    ],
)
def test_what_a_record_cannot_hold_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_derived_figures() -> None:
    assert SAMPLE.length == 3
    assert PAYLOAD.nbytes == 4
