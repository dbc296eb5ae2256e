"""Which parameters of a model may change, and the optimizer that changes them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from rlpost.config.section import Decay, NonNegative, NonNegativeInt, Positive, PositiveInt, Section, Share

OPTIMIZERS = ("adamw", "muon", "lowrank")
FOREIGN = "pytorch_optimizer:"
"""Before the name of one of that package's."""


def _known_method(name: str) -> str:
    if name not in ("full", "lora", "lora_xs", "subnetwork") and not re.fullmatch(r"peft:\w+", name):
        raise ValueError("use 'full', 'lora', 'lora_xs', 'subnetwork' or 'peft:NAME'")
    return name


class LoraSettings(Section):
    """LoRA (Hu et al. 2022): W + s B A with A ``[r, in]``, B ``[out, r]``; W stays.

    There is no dropout: it would make the trained policy another than the sampled one.
    """

    r: Annotated[int, Field(ge=1, le=512)] = 16
    """Rank."""
    alpha: Positive = 32.0
    """s = alpha / r."""
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    """Names of the linear layers, or all but the head."""
    rslora: bool = False
    """s = alpha / √r (Kalajdzievski 2023)."""
    init: Literal["default", "gaussian", "orthogonal", "pissa", "olora"] = "default"
    """How A and B begin (PEFT's ``init_lora_weights``). ``pissa`` and ``olora`` take a part of W out into B A."""
    freeze_a: bool = False
    """Train B only (FFA-LoRA, Sun et al. 2024)."""
    rank_pattern: dict[str, PositiveInt] = Field(default_factory=dict)
    """Other ranks, by name of the layer (PEFT's ``rank_pattern``)."""
    alpha_pattern: dict[str, Positive] = Field(default_factory=dict)
    """Other alphas, likewise."""

    @property
    def moves_base(self) -> bool:
        """Whether the start takes a part of W out into B A."""
        return self.init in ("pissa", "olora")


class LoraXsSettings(Section):
    """LoRA-XS (Bałazy et al. 2024): W + s B R A with frozen bases A and B, and R ``[r, r]`` trained."""

    r: Annotated[int, Field(ge=1, le=512)] = 16
    """Rank."""
    alpha: Positive = 16.0
    """s = alpha / r."""
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    """As of LoRA."""
    init: Literal["svd", "gradient"] = "svd"
    """``svd``: bases of W's largest singular values and R = 0; ``gradient``: of the first full update's direction, with
    R such that the policy begins after an approximation of that update (LoRA-SB, Ponkshe et al. 2024)."""
    init_lr: Positive = 1e-4
    """With ``gradient``: the size of that update, −init_lr sign(Σ g)."""
    warmup_steps: PositiveInt = 1
    """With ``gradient``: rollout batches over which g is summed, before anything is trained."""


class SubnetworkSettings(Section):
    """Only some entries of the weights change; all others keep every bit of the starting model."""

    mask: Literal["gradient", "fisher", "random", "magnitude", "small", "difference", "file"] = "gradient"
    """Which entries: those of the largest summed gradient |Σ g| or Fisher information Σ g² over ``warmup_steps``
    batches, random ones, those of the largest or smallest |w|, those in which two checkpoints differ, or of a file."""
    density: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the entries; ``difference`` and ``file`` bring their own."""
    scope: Literal["matrix", "global"] = "matrix"
    """The share of each tensor, or of all together."""
    targets: Literal["all", "all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all"
    """Which tensors have entries that may change: all, the linear layers but the head, or those whose name contains one
    of these words."""
    file: str | None = None
    """With ``file``: a mask file."""
    before: str | None = None
    """With ``difference``: model folder of the first checkpoint."""
    after: str | None = None
    """With ``difference``: of the second."""
    like: str | None = None
    """With ``random``: a mask file whose share of each tensor is taken instead of ``density``."""
    warmup_steps: PositiveInt = 1
    """Rollout batches whose gradients are summed before anything is trained."""
    engine: Literal["compact", "hook"] = "compact"
    """``compact``: float32 masters and optimizer state for the kept entries only (plain torch, unsharded); ``hook``:
    masked gradients, with a full-size optimizer that ZeRO may shard."""


class TuningSection(Section):
    """Which parameters may change."""

    method: Annotated[str, AfterValidator(_known_method)] = "full"
    """``full``: all parameters; ``lora``; ``lora_xs``; ``subnetwork``; ``peft:NAME``: another of PEFT's methods, e.g.
    ``peft:miss``."""
    lora: LoraSettings = LoraSettings()
    """Of ``lora``."""
    lora_xs: LoraXsSettings = LoraXsSettings()
    """Of ``lora_xs``."""
    subnetwork: SubnetworkSettings = SubnetworkSettings()
    """Of ``subnetwork``."""
    peft: dict[str, Any] = Field(default_factory=dict)
    """Of ``peft:NAME``: keyword arguments of its PEFT configuration; ``target_modules`` is all-linear if not given."""

    @property
    def warmup_steps(self) -> int:
        """Rollout batches from which the method first learns what to train."""
        if self.method == "subnetwork" and self.subnetwork.mask in ("gradient", "fisher"):
            return self.subnetwork.warmup_steps
        if self.method == "lora_xs" and self.lora_xs.init == "gradient":
            return self.lora_xs.warmup_steps
        return 0

    @property
    def compact(self) -> bool:
        """Whether the optimizer owns kept entries only."""
        return self.method == "subnetwork" and self.subnetwork.engine == "compact"


class LowRankSettings(Section):
    """AdamW on a projection of each matrix's gradient (`rlpost.optim.lowrank`). A preset fills in what is missing."""

    preset: Literal["galore", "fira", "frugal", "adarankgrad", "apollo"] = "galore"
    """GaLore (Zhao et al. 2024), Fira (Chen et al. 2024), FRUGAL (Zmushko et al. 2024), AdaRankGrad (Refael et al.
    2024), APOLLO (Zhu et al. 2024)."""
    rank: PositiveInt = 128
    """Of the projection; with ``adarankgrad`` the largest."""
    gap: PositiveInt = 200
    """Updates between new projections."""
    scale: Positive | None = None
    """Factor of the projected update; None: the preset's."""
    residual_scale: Positive | None = None
    """``frugal``: step of the gradient's rest, as a share of the learning rate; None: the preset's."""
    energy: Annotated[float, Field(gt=0, le=1)] | None = None
    """``adarankgrad``: share of the gradient's squared norm that the rank must hold; None: the preset's."""
    reset: bool = False
    """Forget the moments with each new projection."""


class OptimizerSection(Section):
    """The optimizer and its schedule."""

    name: str = "adamw"
    """``adamw``: torch's AdamW; ``muon``: torch's Muon for matrices (Jordan et al. 2024) and AdamW for the rest;
    ``lowrank``: AdamW in a subspace of each matrix; ``pytorch_optimizer:NAME``: one of that package."""
    lowrank: LowRankSettings = LowRankSettings()
    """Of ``lowrank``."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Of ``muon`` and ``pytorch_optimizer:NAME``: further keyword arguments."""
    lora_plus_ratio: Positive | None = None
    """LoRA+ (Hayou et al. 2024): learning rate of B over that of A."""
    lr: Positive = 1e-6
    """Peak learning rate."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of the two moments."""
    eps: Positive = 1e-8
    """Added to the root of the second moment."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay."""
    grad_clip: Positive | None = 1.0
    """Largest gradient norm; None: no clipping."""
    skip_grad_norm: Positive | None = None
    """Leave an update out whose gradient norm before clipping is at least this ("Rewarding the Unlikely", released
    code: 20); None: only one that is not finite."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Course of the learning rate after the warmup, over all updates of the run."""
    warmup_steps: NonNegativeInt = 0
    """Updates over which the rate rises linearly from 0."""
    min_lr_ratio: Share = 0.0
    """Where linear and cosine end, as a share of ``lr``."""
