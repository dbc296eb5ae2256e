"""The records: validation and pickling between processes. Not covered: the values that stages put into them."""

from __future__ import annotations

import dataclasses
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rlpost import trajectory, types
from rlpost.protocols import ApplyReport, EngineSpec, GenerateRequest, GroupRequest, Reply, SamplingSettings, Turn
from support.trajectories import receipt, sample

TICKET = trajectory.Ticket(3, "t1", (16, 17), 5)
TRAJECTORY = trajectory.one_turn(
    (1, 2), (7, 2), "ok", offsets=((0, 2), (2, 2)), logprobs=(-0.1, -0.2), ticket=TICKET
)  # fmt: skip
PROMPT = types.Prompt("t1", text="∀", columns={"statement": "∀ p, p", "n": [1, {"a": None}]})
ITEM = types.ItemVerdict(0, 5, "accepted", 1.0, "hit", 2)
VERDICT = types.Verdict("accepted", 1.0, "ok", (ITEM,), "kernel-replayed", {"axioms": ["x"]}, 0.1, 0.05, "lean", True)
SPAN = types.SpanReward(0, 2, 1.0, 3, "advantage")
SAMPLE = sample([1], [5, 2], advantages=1.0, rollout=[-1, -2], proximal=[-1, -2], version=3)
GROUP = trajectory.Group(PROMPT, (TRAJECTORY,), (VERDICT,), ((SPAN,),), (np.float32([-1, -2, -3, -4]),))
HELD = trajectory.SampleReceipt(trajectory.Receipt.of(TRAJECTORY), (TRAJECTORY,), 0, (SPAN,), (0.5,))
MANIFEST = types.WeightManifest(0, 1, "full", {"w": "ab"}, 4, {"w": (1,)})
PAYLOAD = types.TensorPayload("bfloat16", (1, 2), np.arange(4, dtype=np.uint8))
DIFFERENCES = types.Differences(2, 0.5, 0.75, 0.3, 0.6)
ROW = np.array([np.nan, -1.0], np.float32)
TRACED = types.TracedSample(ROW, ROW, None, ROW, ROW)
UPDATE = types.UpdateRecord(0, True, (0, 1), {"end": DIFFERENCES}, 0, types.Surprise(), {0: TRACED})
EXAMPLES: list[Any] = [
    types.Message("user", "∀"),
    PROMPT,
    types.Prompt("c", messages=(types.Message("user", "x"),)),
    types.VerifyItem({"a": 1}, "x", ("w", "x")),
    ITEM,
    VERDICT,
    SPAN,
    types.RewardOutput([(SPAN,), None], {"hits": 1.0}),
    types.GradientSketch(0.5, {"w": np.ones(2, np.float32)}),
    types.GradientFigures(8, types.GradientSketch(0.5, {}), types.GradientSketch(0.5, {}), None),
    types.TensorDelta(4, 1, 1, 0, 1, 1, 0.1, 0.2, 0.01),
    SAMPLE,
    types.Denominators(10, 2, 2, 64),
    types.TrainBatch((SAMPLE,), 4),
    DIFFERENCES,
    types.Surprise(2.0, 1.0, 0.1, 0.5),
    TRACED,
    UPDATE,
    types.StepReport({"updates": 1.0}, (UPDATE,)),
    PAYLOAD,
    MANIFEST,
    types.WeightUpdate(MANIFEST, {"w": PAYLOAD}),
    TICKET,
    trajectory.TokenizedPrompt(PROMPT, np.array([1, 2], np.int32)),
    trajectory.Completion(np.array([7, 2], np.int32), np.float32([-0.1, -0.2]), "stop", ((0, 0, 1), (1, 1, 2))),
    TRAJECTORY.segments[1],
    TRAJECTORY,
    GROUP,
    receipt(GROUP, TICKET),
    HELD.receipt,
    HELD,
    trajectory.BatchReceipt((HELD,), 4),
    GenerateRequest(np.array([1, 2], np.int32), 8, 1000),
    GroupRequest(trajectory.TokenizedPrompt(PROMPT, np.array([1, 2], np.int32)), (16, 17), TICKET),
    Turn(0, "7", False),
    Reply("higher", reward=0.5, verdict=VERDICT),
    SamplingSettings(max_tokens=8, stop=("a",)),
    ApplyReport(1, {"w": "ab"}, 1, 0.1),
    EngineSpec("model", (np.array([1, 2]),), 8, 256),
]


def plain(value: Any) -> Any:
    """A form that can be compared: arrays become (dtype, shape, bytes), in which NaN equals NaN."""
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
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
    modules = (types, trajectory)
    known = {v for m in modules for v in vars(m).values() if isinstance(v, type) and dataclasses.is_dataclass(v)}
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
        (lambda: trajectory.one_turn((1, 2), (7, 2), "ok", offsets=((0, 2),)), "offsets"),
        (lambda: dataclasses.replace(TRAJECTORY, logprobs=np.zeros(1)), "4 tokens and 1 log-probabilities"),
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
    assert (SAMPLE.length, SAMPLE.prompt_tokens) == (3, 1)
    assert PAYLOAD.nbytes == 4
