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
from rlpost.data.models import load
from rlpost.data.tokenizer import TextCodec
from rlpost.learner.build import build_learner
from rlpost.learner.model_support import packing_unsupported_reason, varlen_unsupported_reason
from rlpost.learner.packing import plan_pass
from rlpost.learner.samples import Samples
from rlpost.learner.varlen import use_varlen_attention
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


def compared(folder: str, checkpointing: bool = True) -> Findings:
    """The learner that a run would use, in the packed layout with and without shared prompts, padded, and varlen."""
    codec = TextCodec(folder)
    asked = samples(codec)
    want, gradients = expected(folder, asked)
    learner = build_learner(configured(folder, gradient_checkpointing=checkpointing), folder, CPU)
    passes, module = learner.passes, learner.engine.module
    model = module.model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = Findings(packing_unsupported_reason(model), str(model.config.get_text_config()._attn_implementation))

    def apart() -> float:
        got = learner.logprobs(asked)
        return max(float(np.abs(got[i][one.mask] - want[i]).max()) for i, one in enumerate(asked))

    layout = passes.layout
    if layout.packed:
        found.apart["shared"] = apart()
        passes.layout = dataclasses.replace(layout, share_prompts=False)
        found.apart["packed"] = apart()
    passes.layout = dataclasses.replace(layout, packed=False, share_prompts=False)
    found.apart["padded"] = apart()
    passes.layout = layout
    found.recomputed = recomputes(model) if checkpointing else False
    batch = Samples.of(asked)
    for _, logprobs in passes.run(learner.engine.forward, batch, plan_pass(range(len(asked)), batch.sizes, 1, layout)):
        logprobs.sum().backward()
    largest = max(float(g.abs().max()) for g in gradients.values())
    got = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    found.gradient = max(
        float((got[name] - g).abs().max()) / largest if name in got else float(g.abs().max()) / largest
        for name, g in gradients.items()
    )
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters()), "weights changed"
    if layout.packed and varlen_unsupported_reason(model) is None:
        use_varlen_attention(model)
        passes.layout = dataclasses.replace(layout, varlen=True)
        found.apart["varlen"] = apart()
    return found


def recomputes(model: Any) -> bool:
    """Whether a layer of the model runs again in the backward pass."""
    calls = [0]
    inner = next((m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) > 1), None)
    if inner is None:
        return False
    leaf = next(m for m in inner[0].modules() if isinstance(m, torch.nn.Linear) or type(m).__name__ == "Conv1D")
    handle = leaf.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    try:
        ids = torch.arange(5, 9)[None]
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        forward = calls[0]
        logits.sum().backward()
        model.zero_grad(set_to_none=True)
    finally:
        handle.remove()
    return calls[0] > forward


def make(kind: str, tokenizer: str, folder: Path) -> str:
    """Write a small model of a type, with a tokenizer."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from support import architectures

    architectures.build(architectures.shrunk(CONFIG_MAPPING[kind]), folder)
    for file in Path(tokenizer).glob("*token*"):
        shutil.copy(file, folder / file.name)
    load(folder, "float32")
    return str(folder)
