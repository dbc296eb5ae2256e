"""An engine that samples under a catalog constraint, in a process of its own; prints JSON findings."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch

from rlpost.algorithms.allowed import Allowed
from rlpost.data.constraint import CodecTokens
from rlpost.data.models import load
from rlpost.data.tokenizer import TextCodec
from rlpost.decoding import along
from rlpost.learner.build import missing_rows
from rlpost.learner.logprob_model import LogprobModel
from rlpost.protocols import GenerateRequest, SamplingSettings
from rlpost.rollout.episode import complete
from rlpost.rollout.vllm.engine import VllmEngine, VllmSettings
from rlpost.sync.codec import checksums, encode
from rlpost.types import Prompt, VerifyItem, WeightManifest, WeightUpdate
from rlpost_verifiers.catalog.constraint import CatalogList
from rlpost_verifiers.catalog.verifier import CatalogVerifier

SIZE, ITEMS = 4, 12


def main(folder: str, dtype: str, shards: int) -> dict[str, Any]:
    codec = TextCodec(folder)
    constraint = CatalogList(CodecTokens(codec), items=ITEMS, size=SIZE)
    prompt = np.array(codec.encode(Prompt("a", text="Some films, please.\n")), np.int32)
    settings = VllmSettings(model=folder, dtype=dtype, tensor_parallel=shards, max_model_len=256, max_num_seqs=24)
    engine = VllmEngine(settings, [prompt], 8, constraint)
    model = load(folder, dtype)
    scorer = LogprobModel(model, excluded=missing_rows(model, folder))

    def apart(answers: Any, temperature: float, under: bool) -> list[float]:
        """|Δ log p| of each token."""
        found: list[float] = []
        for one in answers:
            ids = torch.from_numpy(np.concatenate([prompt, one.token_ids]).astype(np.int64))[None]
            places = torch.arange(len(prompt) - 1, ids.shape[1] - 1)
            record = along(constraint, one.token_ids.tolist()) if under else None
            more = {"allowed": Allowed(*map(torch.from_numpy, (record.offsets, record.ids)))} if record else {}
            with torch.no_grad():
                own = scorer(ids, torch.ones_like(ids), places, ids[0, places + 1], temperature, **more)
            found += np.abs(own.numpy() - one.logprobs).tolist()
        return found

    def judged(answers: Any) -> int:
        """Number of answers that are not a list of four distinct films."""
        judge = CatalogVerifier(items=ITEMS, relevant_required=False)
        verdicts = judge.verify_batch([VerifyItem({}, codec.text(one.token_ids.tolist())) for one in answers])
        valid = [[item.reason for item in verdict.items] == ["in_catalog"] * SIZE for verdict in verdicts]
        return sum(not ok or one.finish != "stop" for ok, one in zip(valid, answers, strict=True))

    def asked(count: int, first: int) -> list[GenerateRequest]:
        return [GenerateRequest(prompt, constraint.max_tokens, first + i) for i in range(count)]

    found: dict[str, Any] = {}
    for temperature in (1.0, 0.7):
        drawn = SamplingSettings(max_tokens=constraint.max_tokens, temperature=temperature, constrained=True)
        answers = complete(engine, asked(60, 100), drawn, 300.0)  # more than run at once
        again = complete(engine, asked(60, 100), drawn, 300.0)
        found[str(temperature)] = {
            "invalid": judged(answers),
            "distinct": len({one.token_ids.tobytes() for one in answers}),
            "again": [a.token_ids.tolist() == b.token_ids.tolist() for a, b in zip(answers, again, strict=True)].count(
                0
            ),
            "apart": [float(np.mean(apart(answers, temperature, True))), max(apart(answers, temperature, True))],
        }
    # requests with and without the constraint run side by side, are aborted, and meet new weights on their way
    under = SamplingSettings(max_tokens=constraint.max_tokens, constrained=True)
    free = SamplingSettings(max_tokens=12)
    bound = engine.submit(asked(9, 500), under)
    loose = engine.submit(asked(9, 700), free)
    ended: dict[int, Any] = {}
    for _ in range(3):
        ended |= dict(engine.step())
    engine.abort([*bound[::4], *loose[::4]])
    bound += engine.submit(asked(6, 900), under)
    payload = {name: encode(parameter) for name, parameter in model.named_parameters()}
    sums = checksums(payload.items())
    manifest = WeightManifest(0, 1, "full", sums, 0, {name: value.shape for name, value in payload.items()})
    engine.apply(WeightUpdate(manifest, payload))
    live = {*bound, *loose} - {*bound[:9:4], *loose[::4]}
    while not live <= ended.keys():
        ended |= dict(engine.step())
    mine, others = [ended[n] for n in bound if n in live], [ended[n] for n in loose if n in live]
    found["mixed"] = {
        "invalid": judged(mine),
        "count": len(mine),
        "apart": float(np.mean(apart(mine, 1.0, True))),
        "free apart": float(np.mean(apart(others, 1.0, False))),
        "free invalid": judged(others),
        "free count": len(others),
    }
    probe = engine.probe()[0]
    own = SamplingSettings(max_tokens=8, temperature=0.0)
    [plain] = complete(engine, [GenerateRequest(prompt, 8, 0)], own, 60.0)
    [greedy] = complete(engine, asked(1, 0), SamplingSettings(constraint.max_tokens, 0.0, constrained=True), 60.0)
    found["probe is free"] = probe.token_ids[len(prompt) :].tolist() == plain.token_ids.tolist()
    found["greedy invalid"] = judged([greedy])
    found["greedy apart"] = float(np.mean(apart([greedy], 1.0, True)))
    nucleus = SamplingSettings(max_tokens=constraint.max_tokens, top_p=0.5, top_k=5, constrained=True)
    found["nucleus invalid"] = judged(complete(engine, asked(20, 40), nucleus, 60.0))
    engine.close()
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]))), flush=True)
