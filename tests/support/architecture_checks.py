"""A learner on a small model of any architecture against transformers' plain eager forward pass of one sequence."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlpost.config.load import from_dict
from rlpost.data.tokenizer import TextCodec
from rlpost.errors import ModelError
from rlpost.learner.build import build_learner, use_varlen
from rlpost.learner.packing import plan_pass
from rlpost.learner.samples import Samples
from rlpost.types import TrainSample
from support.trajectories import sample

CPU = torch.device("cpu")
MICRO_TOKENS = 160
"""Budget that holds two of the five sequences of `samples` when they are padded."""


@dataclass(slots=True)
class Findings:
    """What a learner computes of an architecture.

    Attributes:
        reason: why it runs padded; None if it runs packed.
        attention: the implementation that the learner chose.
        apart: largest |Δ log p| to plain eager, in nats, by layout.
        gradient: largest difference of a gradient's entry to plain eager's, as a share of the largest entry of all.
        recomputed: whether gradient checkpointing is active.
    """

    reason: str | None
    attention: str
    apart: dict[str, float] = field(default_factory=dict)
    gradient: float = 0.0
    recomputed: bool = False


def samples(codec: TextCodec, seed: int = 3) -> list[TrainSample]:
    """Five samples of two prompts, one with a gap in its mask, of up to 33 tokens."""
    source = np.random.default_rng(seed)
    known = sorted(set(codec.tokenizer.get_vocab().values()) - set(codec.tokenizer.all_special_ids))
    known = [token for token in known if token > 3]

    def drawn(size: int) -> list[int]:
        return source.choice(known, size).tolist()

    prompts, made = [drawn(5), drawn(17)], []
    for number, size in enumerate((9, 16, 4, 12, 7)):
        mask = np.ones(size, bool)
        if number == 1:
            mask[5:8] = False
        made.append(sample(prompts[number % 2], drawn(size), advantages=1.0, mask=mask.tolist()))
    return made


def configured(folder: str, **learner: Any) -> Any:
    return from_dict(
        {
            "model": {"path": folder, "dtype": "float32"},
            "scoring": {"verifier": "function"},
            "learner": {"engine": "torch", "micro_tokens": MICRO_TOKENS, **learner},
        }
    )


def expected(folder: str, asked: list[TrainSample]) -> tuple[list[np.ndarray], dict[str, Tensor]]:
    """Log-probabilities and gradients of their sum by transformers alone: eager, in evaluation mode, one by one."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    codec, found = TextCodec(folder), []
    total: Any = 0.0
    for one in asked:
        ids = torch.tensor(one.token_ids.astype(np.int64))[None]
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
        keep = torch.ones(logits.shape[-1], dtype=torch.bool)
        keep[codec.missing_ids(logits.shape[-1])] = False
        logits = torch.where(keep, logits.float(), -torch.inf)
        logprobs = logits[:-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        chosen = logprobs[torch.tensor(one.mask[1:])]
        found.append(chosen.detach().numpy())
        total = total + chosen.sum()
    total.backward()
    return found, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


class Case:
    """A learner on a model folder, and what transformers alone computes of the same samples.

    Args:
        folder: model folder with a tokenizer.
        checkpointing: recompute activations, for which layers are in training mode.
    """

    def __init__(self, folder: str, checkpointing: bool = True):
        self.asked = samples(TextCodec(folder))
        self.want, self.gradients = expected(folder, self.asked)
        self.learner = build_learner(configured(folder, gradient_checkpointing=checkpointing), folder, CPU)
        self.module, self.layout = self.learner.engine.module, self.learner.passes.layout
        self.model = self.module.model

    def apart(self, **layout: Any) -> float:
        """Largest |Δ log p| in the learner's layout with some changes."""
        self.learner.passes.layout = dataclasses.replace(self.layout, **layout)
        got = self.learner.logprobs(self.asked)
        return max(float(np.abs(got[i][one.mask] - self.want[i]).max()) for i, one in enumerate(self.asked))

    def gradient_apart(self) -> float:
        """Largest difference of a gradient's entry, as a share of the largest entry of all gradients."""
        passes, batch = self.learner.passes, Samples.of(self.asked)
        passes.layout = self.layout
        plans = plan_pass(range(len(self.asked)), batch.sizes, 1, self.layout)
        for _, logprobs in passes.run(self.learner.engine.forward, batch, plans):
            logprobs.sum().backward()
        largest = max(float(g.abs().max()) for g in self.gradients.values())
        got = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        return max(float((got[name] - g).abs().max()) / largest for name, g in self.gradients.items())


def compared(folder: str, checkpointing: bool = True) -> Findings:
    """The learner that a run would use, in the packed layout with and without shared prompts, padded, and varlen."""
    case = Case(folder, checkpointing)
    before = {name: p.detach().clone() for name, p in case.model.named_parameters()}
    reason = case.module.packing_unsupported_reason
    found = Findings(reason, str(case.model.config.get_text_config()._attn_implementation))
    if reason is None:
        found.apart |= {"shared": case.apart(), "packed": case.apart(share_prompts=False)}
    found.apart["padded"] = case.apart(packed=False, share_prompts=False)
    found.gradient = case.gradient_apart()
    found.recomputed = recomputes(case)
    assert all(torch.equal(before[name], p) for name, p in case.model.named_parameters()), "weights changed"
    if reason is None:
        try:
            use_varlen(case.model)
            found.apart["varlen"] = case.apart(varlen=True)
        except ModelError:
            pass  # findings without a figure of varlen
    return found


def recomputes(case: Case) -> bool:
    """Whether a backward pass runs layers of the model again."""
    calls = [0]

    def count(*_: Any) -> None:
        calls[0] += 1

    leaves = [m for m in case.model.modules() if isinstance(m, torch.nn.Linear) or type(m).__name__ == "Conv1D"]
    handles = [leaf.register_forward_hook(count) for leaf in leaves]
    ids = torch.from_numpy(case.asked[0].token_ids.astype(np.int64))[None]
    logits = case.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    forward = calls[0]
    logits.sum().backward()
    for handle in handles:
        handle.remove()
    return calls[0] > forward


def make(kind: str, tokenizer: str, folder: Path, widened: int = 1, embeddings: float = 0.25) -> str:
    """Write a small model of a type, with a tokenizer."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from support import architectures

    architectures.build(architectures.shrunk(CONFIG_MAPPING[kind], widened), folder, embeddings)
    for file in Path(tokenizer).glob("*token*"):
        shutil.copy(file, folder / file.name)
    return str(folder)
