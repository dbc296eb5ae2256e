"""Checks of the vLLM engine in a process of its own (vLLM changes threads and memory policy); prints JSON findings."""

from __future__ import annotations

import importlib
import json
import sys
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import torch

from rlpost.data.models import load
from rlpost.data.tokenizer import TextCodec
from rlpost.errors import SelfCheckError
from rlpost.learner.build import missing_rows
from rlpost.learner.logprob_model import LogprobModel
from rlpost.protocols import GenerateRequest, GroupRequest, SamplingSettings
from rlpost.rollout.episode import complete, each, stream
from rlpost.rollout.vllm import packed_linear
from rlpost.rollout.vllm.engine import VllmEngine, VllmSettings
from rlpost.selfcheck import canary
from rlpost.selfcheck.parity import Published, Scored, check_parity
from rlpost.sync.codec import checksums, encode
from rlpost.trajectory import Completion, TokenizedPrompt, Trajectory, one_turn
from rlpost.types import Prompt, WeightManifest, WeightUpdate

TOLERANCE = canary.LARGEST["float32"]


class Pair:
    """An engine and a learner's model from the same folder, with a small version of the loop's steps."""

    def __init__(self, folder: str, packed: bool, shards: int):
        self.codec = TextCodec(folder)
        self.prompt = np.array(self.codec.encode(Prompt("a", text="∀ p q : Prop, p → q → p :=")), np.int32)
        settings = VllmSettings(model=folder, dtype="float32", packed_weights=packed, tensor_parallel=shards)
        self.engine = VllmEngine(settings, [self.prompt, self.prompt[:5]], 8)
        self.model = load(folder, "float32")
        self.missing = missing_rows(self.model, folder)
        self.scorer = LogprobModel(self.model, excluded=self.missing)
        self.version = 0
        self.publish()

    def groups(self, requests, settings, deadline_s=None) -> list[tuple[Trajectory, ...]]:
        """The trajectories of each request, in order."""
        found = dict(each(stream(self.engine, requests, settings, self.codec, deadline_s=deadline_s)))
        return [found[place] for place in range(len(requests))]

    def completions(self, requests, settings=None) -> list[Completion]:
        """The completions of single requests, in order."""
        return complete(self.engine, requests, settings or SamplingSettings(max_tokens=0), 300.0)

    def score(self, trajectories, temperature=1.0, scorer=None):
        """The learner's log-probabilities of sampled tokens."""
        values = []
        for one in trajectories:
            full = torch.tensor(one.token_ids.astype(np.int64))[None]
            positions, ids = torch.tensor(np.flatnonzero(one.mask) - 1)[None], full[:, one.mask]
            with torch.no_grad():
                found = (scorer or self.scorer)(full, torch.ones_like(full), positions, ids, temperature)
            values.append(found[0].numpy())
        return values

    def worst(self, trajectories, temperature=1.0):
        """Largest |Δ log p| between engine and learner."""
        pairs = zip(self.score(trajectories, temperature), trajectories, strict=True)
        return max(float(abs(v - one.logprobs[one.mask]).max()) for v, one in pairs)

    def send(self):
        """Send the learner's weights; returns the engine's report and whether every byte arrived."""
        self.version += 1
        payload = {name: encode(p) for name, p in self.model.named_parameters()}
        sums = checksums(payload.items())
        manifest = WeightManifest(
            self.version - 1, self.version, "full", sums, 0, {n: v.shape for n, v in payload.items()}
        )
        report = self.engine.apply(WeightUpdate(manifest, payload))
        return SimpleNamespace(changed=report.changed, tensors=len(sums), arrived=dict(report.checksums) == sums)

    def publish(self):
        """Send the learner's weights, and record what engine and learner then say to the probes."""
        sent = self.send()
        self.recorded = self.engine.probe()
        self.then = self.score(self.recorded)
        return sent

    def move(self, scale=0.05):
        """Change all weights, by more than an optimizer step would."""
        with torch.no_grad():
            for p in self.model.parameters():
                p.add_(torch.randn_like(p) * scale)

    def probe_verdict(self):
        try:
            completions = self.engine.probe()
            canary.check_probe(completions, self.score(completions), TOLERANCE)
        except SelfCheckError as error:
            return str(error)
        return "healthy"

    def parity_verdict(self, prompts=(), synchronous=True):
        as_is, fresh = self.engine.parity(prompts)
        published = Published(self.then, self.score(self.recorded))
        pair = Scored(as_is, self.score(as_is)), Scored(fresh, self.score(fresh))
        try:
            return check_parity(*pair, published, TOLERANCE, synchronous)
        except SelfCheckError as error:
            return str(error)


def group(name, ids, seeds) -> GroupRequest:
    return GroupRequest(TokenizedPrompt(Prompt(name, text=name), np.asarray(ids, np.int32)), tuple(seeds))


def sampled(one) -> tuple[int, ...]:
    """The sampled tokens of a trajectory or a completion."""
    return tuple((one.token_ids[one.mask] if isinstance(one, Trajectory) else one.token_ids).tolist())


def sampling(pair: Pair) -> dict:
    """Order, seeds, log-probabilities, deadlines, stop strings, long batches."""
    prompt, found = pair.prompt, {}
    ask = [group("a", prompt, range(100, 104)), group("b", prompt[:6], range(900, 902))]
    settings = SamplingSettings(max_tokens=12)
    first = pair.groups(ask, settings)
    singles = [GenerateRequest(r.prompt.token_ids, 12, seed) for r in ask for seed in r.seeds]
    by_tokens = {
        (r.token_ids.tobytes(), sampled(one)): r.seed
        for r, one in zip(singles, pair.completions(singles, settings), strict=True)
    }
    found["order"] = [
        (r.prompt.prompt.id, one.index, by_tokens.get((one.token_ids[: one.prompt_tokens].tobytes(), sampled(one))))
        for r, members in zip(ask, first, strict=True)
        for one in members
    ]
    found["distinct"] = len({sampled(one) for one in first[0]})
    found["repeat"] = [[*map(sampled, g)] for g in first] == [[*map(sampled, g)] for g in pair.groups(ask, settings)]
    found["agreement"] = {
        t: pair.worst(sum(pair.groups(ask, SamplingSettings(max_tokens=12, temperature=t)), ()), t) for t in (1.0, 0.6)
    }
    [cut] = pair.groups([group("a", prompt, (5, 6))], SamplingSettings(max_tokens=100), deadline_s=0.0)
    found["aborted"] = [(one.status, one.turns[-1].finish, sampled(one)) for one in cut]
    settings = SamplingSettings(max_tokens=60, stop=(" p",))
    [stopped] = pair.groups([group("a", prompt, range(5, 13))], settings)
    found["stop_in_text"] = sum(" p" in one.answer for one in stopped if one.status == "done")
    found["stopped"] = sum(one.turns[-1].finish == "stop" for one in stopped)
    answers = pair.groups([group("a", prompt, range(5, 13))], SamplingSettings(max_tokens=60))[0]
    end = sampled(answers[0])[3]  # any token will do: a special one is an id like others
    [ended] = pair.groups([group("a", prompt, range(5, 13))], SamplingSettings(max_tokens=60, stop_token_ids=(end,)))
    found["stop_token"] = [
        (one.status, sampled(one)[-1] == end, end in sampled(one)[:-1], sampled(one) == sampled(plain)[: one.sampled])
        for one, plain in zip(ended, answers, strict=True)
        if end in sampled(plain)
    ]
    long = [GenerateRequest(np.full(200, 5 + i % 50, np.int32), 4, i) for i in range(64)]
    found["long_batch"] = [c.finish for c in pair.completions(long)]
    return found


def vocabulary(pair: Pair) -> dict:
    """Ids that the tokenizer lacks, whose rows of the head are the largest, are neither sampled nor reported."""
    found: dict = {"missing": len(pair.missing)}
    for t in (1.0, 0.6):
        settings = SamplingSettings(max_tokens=24, temperature=t)
        answers = sum(pair.groups([group("a", pair.prompt, range(30))], settings), ())
        drawn = np.concatenate([one.token_ids[one.mask] for one in answers])
        found[str(t)] = {
            "sampled": int(np.isin(drawn, pair.missing).sum()),
            "tokens": len(drawn),
            "apart": pair.worst(answers, t),
        }
    greedy = pair.engine.probe()
    found["greedy"] = int(np.isin(np.concatenate([one.token_ids[one.mask] for one in greedy]), pair.missing).sum())
    found["greedy apart"] = pair.worst(greedy)
    # a learner whose softmax is over all rows gives other log-probabilities to the same tokens
    whole = LogprobModel(pair.model)
    found["all rows"] = min(
        float(abs(v - one.logprobs[one.mask]).mean())
        for v, one in zip(pair.score(greedy, scorer=whole), greedy, strict=True)
    )
    return found


def updating(pair: Pair) -> dict:
    """An update arrives in every tensor, and the engine computes with it."""
    found: dict = {"at_start": pair.worst(pair.engine.probe()), "nothing_changed": pair.publish().changed}
    pair.move()
    found["update"] = vars(pair.publish())
    found["after_update"] = pair.worst(pair.engine.probe())
    found["probe"], found["parity"] = pair.probe_verdict(), pair.parity_verdict()
    found["kernels"] = pair.engine.llm.apply_model(packed_linear.repack)[0]
    return found


def stale_cache(pair: Pair) -> dict:
    """Planted: a prefix cache that is kept across an update."""
    engine, found = pair.engine, {}
    reset = engine.llm.reset_prefix_cache
    pair.move()
    engine.llm.reset_prefix_cache = lambda: True
    pair.publish()
    found["probe"] = pair.probe_verdict()
    engine.llm.reset_prefix_cache = reset
    found["parity"] = pair.parity_verdict()
    # a cache block that only a rollout uses, and none of the pinned prompts
    rollout = np.array([5 + i % 50 for i in range(200)], np.int32)
    pair.completions([GenerateRequest(rollout, 2, 1)])
    pair.move()
    engine.llm.reset_prefix_cache = lambda: True
    pair.engine._probes = pair.engine._probes[:2]
    pair.publish()
    engine.llm.reset_prefix_cache = reset
    found["pinned_only"] = pair.parity_verdict()
    pair.publish()
    pair.completions([GenerateRequest(rollout, 2, 1)])
    pair.move()
    engine.llm.reset_prefix_cache = lambda: True
    pair.publish()
    engine.llm.reset_prefix_cache = reset
    found["rollouts_prompt"] = pair.parity_verdict([rollout, np.tile(rollout, 2)])
    pair.publish()
    found["dropped"] = pair.parity_verdict([rollout])
    return found


def stale_kernels(pair: Pair) -> dict:
    """Planted: packed kernels that are not rebuilt, which no parameter shows."""
    found, repack = {}, packed_linear.repack
    packed_linear.repack = lambda model: 0
    pair.move()
    found["arrived"] = pair.publish().arrived
    packed_linear.repack = repack
    found["probe"], found["parity"] = pair.probe_verdict(), pair.parity_verdict()
    # the head alone, where vLLM's own loaders would leave it stale: tied embeddings
    repacked = packed_linear.PackedLinear.repack
    packed_linear.PackedLinear.repack = lambda self: (
        None if type(self.layer).__name__ in ("ParallelLMHead", "VocabParallelEmbedding") else repacked(self)
    )
    pair.move()
    found["head_arrived"] = pair.publish().arrived
    found["head"] = pair.probe_verdict()
    packed_linear.PackedLinear.repack = repacked
    pair.publish()
    found["repacked"] = pair.probe_verdict()
    return found


def disturb(model):
    """Change one rank's weights; a module-level function, so that it can be sent to a worker process."""
    from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size

    if get_tensor_model_parallel_rank() == get_tensor_model_parallel_world_size() - 1:
        for p in model.parameters():
            p.data.mul_(1.1)
        packed_linear.repack(model)


def lost_updates(pair: Pair) -> dict:
    """Planted: a learner that moved without publishing, and an engine whose weights changed without an update."""
    pair.publish()
    pair.move()
    found: dict = {"moved": pair.parity_verdict(), "moved_asynchronous": pair.parity_verdict(synchronous=False)}
    pair.publish()
    pair.engine.llm.apply_model(disturb)
    pair.engine.llm.reset_prefix_cache()
    found["disturbed"] = pair.parity_verdict()
    held = pair.engine.weights.checksums({name: tuple(p.shape) for name, p in pair.model.named_parameters()})
    found["read_back"] = [sum(held[name] == value for name, value in pair.engine.held.items()), len(held)]
    found["between_ranks"] = "ranks differ" in held.values()
    return found


LENGTH = 24
"""Most tokens of a completion in the checks of requests that are interrupted."""


def run_out(engine, numbers) -> list[Completion]:
    """Step until these requests have ended; returns their completions, in order."""
    found: dict = {}
    while not found.keys() >= set(numbers):
        found |= dict(engine.step())
    return [found[number] for number in numbers]


def stepped(engine, requests, settings, steps) -> list[int]:
    """Submit requests and step; returns their numbers. None of them may end meanwhile."""
    numbers = engine.submit(requests, settings)
    for _ in range(steps):
        assert not engine.step()
    return numbers


def long_requests(pair: Pair, settings: SamplingSettings, count: int) -> list[GenerateRequest]:
    """Requests of one prompt that sample to their limit undisturbed."""
    asked = [GenerateRequest(pair.prompt, LENGTH, seed) for seed in range(2000, 2000 + 8 * count)]
    answers = zip(asked, pair.completions(asked, settings), strict=True)
    return [request for request, one in answers if one.finish == "length"][:count]


def aborting(pair: Pair) -> dict:
    """Aborted requests keep what they have sampled, and the others go on as if nothing had happened."""
    engine, found = pair.engine, {}
    for name, settings in {
        "plain": SamplingSettings(max_tokens=LENGTH),
        "stop strings": SamplingSettings(max_tokens=LENGTH, stop=("never written",)),
        "cold, without log-probabilities": SamplingSettings(max_tokens=LENGTH, temperature=0.7, logprobs=False),
    }.items():
        asked = long_requests(pair, settings, 4)
        whole = pair.completions(asked, settings)
        numbers = stepped(engine, asked, settings, 7)
        unknown = engine.abort([10**9])
        cut = dict(engine.abort([numbers[0], numbers[2]]))
        again = engine.abort(numbers[:1])
        rest = run_out(engine, [numbers[1], numbers[3]])
        late = engine.abort(numbers)
        aborted = [(cut[numbers[i]], whole[i]) for i in (0, 2)]
        found[name] = {
            "requests": len(asked),
            "finish": [one.finish for one, _ in aborted],
            "tokens": [len(one.token_ids) for one, _ in aborted],
            "prefix": [sampled(one) == sampled(all_)[: len(one.token_ids)] for one, all_ in aborted],
            "logprobs": [None if one.logprobs is None else len(one.logprobs) for one, _ in aborted],
            "apart": [
                0.0 if one.logprobs is None else float(abs(one.logprobs - all_.logprobs[: len(one.token_ids)]).max())
                for one, all_ in aborted
            ],
            "versions": [one.versions == ((pair.version, 0, len(one.token_ids)),) for one, _ in aborted],
            "nothing": [*unknown, *again, *late] == [],
            "others": [sampled(one) for one in rest] == [sampled(whole[1]), sampled(whole[3])],
            "afterwards": [sampled(one) for one in pair.completions(asked, settings)] == [*map(sampled, whole)],
        }
    before = engine.submit(asked[:1], SamplingSettings(max_tokens=LENGTH))
    [(_, unbegun)] = engine.abort(before)
    found["unbegun"] = [unbegun.finish, sampled(unbegun), len(unbegun.logprobs), unbegun.versions]
    return found


def replaced(pair: Pair) -> dict:
    """Weights are replaced while requests run: what was sampled before is the old policy's, the rest the new one's."""
    engine, settings, steps = pair.engine, SamplingSettings(max_tokens=LENGTH), 9
    pair.send()  # whatever an earlier check left behind
    asked = long_requests(pair, settings, 4)
    undisturbed = pair.completions(asked, settings)
    old = LogprobModel(deepcopy(pair.model), excluded=pair.missing)
    numbers = stepped(engine, asked, settings, steps)
    pair.move()
    found: dict = {"arrived": vars(pair.send()), "steps": steps}
    # one is aborted after the update's first token
    ended = dict(engine.step())
    [(_, cut)] = engine.abort(numbers[3:])
    while len(ended) < 3:
        ended |= dict(engine.step())
    changed = [*(ended[number] for number in numbers[:3]), cut]
    found["finish"] = [one.finish for one in changed]
    found["tokens"] = [len(one.token_ids) for one in changed]
    found["versions"] = [
        [(version - pair.version, start, stop) for version, start, stop in one.versions] for one in changed
    ]
    pairs = list(zip(changed, undisturbed, strict=True))
    found["as undisturbed"] = [sampled(one)[:steps] == sampled(whole)[:steps] for one, whole in pairs]
    found["another answer"] = [sampled(one) != sampled(whole)[: len(one.token_ids)] for one, whole in pairs[:3]]
    rolled = [one_turn(r.token_ids, c.token_ids, logprobs=c.logprobs) for r, c in zip(asked, changed, strict=True)]
    for name, scorer in (("old", old), ("new", pair.scorer)):
        apart = [abs(v - one.logprobs) for v, one in zip(pair.score(rolled, scorer=scorer), changed, strict=True)]
        # largest before and after the update, and the smallest mean of a completion that ran to its end
        found[name] = {
            part: [float(max(row[cut].max() for row in apart)), float(min(row[cut].mean() for row in apart[:3]))]
            for part, cut in (("before", slice(steps)), ("after", slice(steps, None)))
        }
    found["probe"] = pair.worst(engine.probe())
    return found


def replaced_early(pair: Pair) -> dict:
    """Updates before the first token, and two with no token between them: a version that sampled nothing is no span."""
    engine, settings = pair.engine, SamplingSettings(max_tokens=LENGTH)
    asked = long_requests(pair, settings, 2)
    numbers = engine.submit(asked, settings)
    pair.move()
    pair.send()
    early = pair.version
    for _ in range(2):
        engine.step()
    pair.send()
    pair.send()
    done = run_out(engine, numbers)
    return {
        "versions": [[(version - early, start, stop) for version, start, stop in one.versions] for one in done],
        "tokens": [len(one.token_ids) for one in done],
        "afterwards": pair.worst(engine.probe()),
    }


def company(pair: Pair) -> dict:
    """Equal requests with equal seeds get equal tokens, alone, in a crowd, twice in it, and begun in its middle."""
    engine, found, settings = pair.engine, {}, SamplingSettings(max_tokens=LENGTH)
    asked = [GenerateRequest(pair.prompt[: 4 + i], LENGTH, 70 + i) for i in range(4)]
    alone = [sampled(pair.completions([request], settings)[0]) for request in asked]
    source = np.random.default_rng(1)
    crowd = [
        GenerateRequest(source.integers(5, 40, int(source.integers(3, 90))).astype(np.int32), 4 + i, 500 + i)
        for i in range(30)
    ]
    found["distinct"] = len(set(alone))
    mixed = [*crowd[:10], *asked, *crowd[10:20], *asked, *crowd[20:]]
    answers = [sampled(one) for one in pair.completions(mixed, settings)]
    found["in a crowd"] = (answers[10:14], answers[24:28]) == (alone, alone)
    numbers = engine.submit(crowd, settings)
    for _ in range(3):
        engine.step()
    late = engine.submit(asked, settings)
    engine.step()
    engine.abort(numbers[::2])
    found["in the middle"] = [sampled(one) for one in run_out(engine, late)] == alone
    engine.abort(numbers)
    other = [GenerateRequest(request.token_ids, LENGTH, request.seed + 1) for request in asked]
    found["other seeds"] = sum(
        sampled(one) == a for one, a in zip(pair.completions(other, settings), alone, strict=True)
    )
    shorter = [GenerateRequest(request.token_ids, 5, request.seed) for request in asked]
    found["shorter"] = [sampled(one) for one in pair.completions(shorter, settings)] == [a[:5] for a in alone]
    return found


CHECKS = {
    f.__name__: f
    for f in (
        sampling,
        vocabulary,
        updating,
        stale_cache,
        stale_kernels,
        lost_updates,
        aborting,
        replaced,
        replaced_early,
        company,
    )
}


def main(folder: str, packed: str, shards: str, names: list[str]) -> dict:
    # an engine must start in a process that has imported numba (`rlpost.rollout.vllm.compat.tolerate_numba`). Not at
    # module level: vLLM's worker processes import this file again
    importlib.import_module("numba")
    torch.manual_seed(3)
    pair = Pair(folder, packed == "packed", int(shards))
    return {name: CHECKS[name](pair) for name in names}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:4], sys.argv[4:])))
